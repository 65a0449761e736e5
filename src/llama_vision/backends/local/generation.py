"""One answer, token by token."""

import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers.decoders import DecodeStream
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from llama_vision.backends.local.constrain import Constraint
from llama_vision.backends.local.grammar import grammar_of
from llama_vision.backends.local.inputs import model_inputs
from llama_vision.backends.local.loading import LoadedModel
from llama_vision.backends.local.prompt import render
from llama_vision.backends.stop_strings import StopStrings
from llama_vision.core.errors import UnsupportedInputError
from llama_vision.core.events import Event, Finished, Started, TextDelta, UsageReport
from llama_vision.core.request import ChatRequest, Sampling
from llama_vision.core.usage import Usage


@dataclass(slots=True)
class _Speaker:
    """Receives each token as it is chosen, in the way `generate` calls its streamers, and tells it when to stop."""

    loaded: LoadedModel
    emit: Callable[[Event], None]
    cancelled: Callable[[], bool]
    stops: StopStrings
    decoder: DecodeStream
    constraint: Constraint | None
    tokens: int = -1  # the first call brings the prompt
    ended: bool = False

    def put(self, value: torch.Tensor) -> None:
        self.tokens += 1
        if self.tokens == 0 or self.stops.hit:
            return
        token = int(value)
        if token in self.loaded.end_ids:
            self.ended = True
            return
        if self.constraint is not None:
            self.constraint.accept(token)
            self.ended = self.constraint.complete
        if (text := self.decoder.step(self.loaded.tokenizer, token)) and (sure := self.stops.feed(text)):
            self.emit(TextDelta(sure))

    def end(self) -> None:
        if not self.stops.hit and (held := self.stops.close()):
            self.emit(TextDelta(held))


class _Stopping(StoppingCriteria):
    """Ends the work when the consumer has left, a stop string has come, or the answer is whole."""

    def __init__(self, speaker: _Speaker) -> None:
        self._speaker = speaker

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:  # noqa: ARG002 - the hook's signature
        stop = self._speaker.cancelled() or self._speaker.stops.hit or self._speaker.ended
        return torch.full((input_ids.shape[0],), stop, dtype=torch.bool, device=input_ids.device)


class _Held(LogitsProcessor):
    """Leaves only the tokens that a constraint allows."""

    def __init__(self, constraint: Constraint) -> None:
        self._constraint = constraint

    def __call__(self, input_ids: Any, scores: Any) -> Any:  # noqa: ARG002 - the hook's signature
        if not self._constraint.active:
            return scores
        allowed = torch.as_tensor(self._constraint.allowed(scores.shape[-1]))
        return scores.masked_fill(~allowed.to(scores.device), float("-inf"))


def generate(
    loaded: LoadedModel, request: ChatRequest, emit: Callable[[Event], None], cancelled: Callable[[], bool]
) -> None:
    """Answer a request.

    Args:
        loaded: The model.
        request: What to answer.
        emit: Called with each event, from `Started` to `Finished`.
        cancelled: Asked after every token; true ends the work without `Finished`.

    Raises:
        UnsupportedInputError: The prompt leaves no room for an answer, or a schema can't be kept to.
        MissingDependencyError: llguidance is needed and not installed.
        ImageError: A picture can't be decoded.

    """
    grammar = grammar_of(request)
    constraint = None if grammar is None else loaded.constrainer.constraint(grammar)
    tensors = model_inputs(loaded, render(request))
    prompt_tokens = tensors["input_ids"].shape[1]
    room = loaded.context_window - prompt_tokens
    if room < 1:
        raise UnsupportedInputError(
            f"The prompt has {prompt_tokens} tokens and the model's context {loaded.context_window}: nothing is left "
            "for an answer. Shorten the conversation."
        )
    emit(Started(model=request.model))
    speaker = _Speaker(
        loaded,
        emit,
        cancelled,
        StopStrings(request.stop),
        DecodeStream(skip_special_tokens=False),
        constraint,
    )
    config = _generation_config(loaded, request.sampling, room)
    with torch.inference_mode(), _seeded(request.sampling.seed, loaded.device):
        loaded.network.generate(
            **tensors,
            generation_config=config,
            streamer=speaker,
            logits_processor=None if constraint is None else LogitsProcessorList([_Held(constraint)]),
            stopping_criteria=StoppingCriteriaList([_Stopping(speaker)]),
        )
    if cancelled():
        return
    emit(UsageReport(Usage(input_tokens=prompt_tokens, output_tokens=speaker.tokens)))
    emit(Finished("stop" if speaker.ended or speaker.stops.hit else "length"))


def _generation_config(loaded: LoadedModel, sampling: Sampling, room: int) -> GenerationConfig:
    """Take the user's wishes, and the model's own settings where there are none."""
    own = loaded.network.generation_config
    wishes: dict[str, Any] = {}
    greedy = sampling.temperature == 0 or (sampling.temperature is None and not own.do_sample)
    if not greedy:
        chosen = {
            "temperature": (sampling.temperature, own.temperature),
            "top_p": (sampling.top_p, own.top_p),
            "top_k": (sampling.top_k, own.top_k),
            "min_p": (sampling.min_p, own.min_p),
        }
        wishes = {name: wish if wish is not None else usual for name, (wish, usual) in chosen.items()}
    if sampling.repetition_penalty is not None:
        wishes["repetition_penalty"] = sampling.repetition_penalty
    return GenerationConfig(
        do_sample=not greedy,
        max_new_tokens=min(sampling.max_tokens, room),
        eos_token_id=sorted(loaded.end_ids),
        pad_token_id=own.pad_token_id,
        bos_token_id=own.bos_token_id,
        **wishes,
    )


@contextlib.contextmanager
def _seeded(seed: int | None, device: torch.device) -> Generator[None]:
    """Use a seed for this answer only, and leave the random numbers of the rest of the program alone."""
    if seed is None:
        yield
        return
    # torch leaves these two untyped.
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):  # pyright: ignore[reportUnknownMemberType]
        torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
        yield
