"""One answer in the making: what it was asked, what it has said, and when it is over."""

from collections.abc import Callable
from dataclasses import dataclass, field

from tokenizers.decoders import DecodeStream

from llama_vision.backends.local.choosing import Chooser
from llama_vision.backends.local.constrain import Constraint
from llama_vision.backends.local.grammar import grammar_of
from llama_vision.backends.local.inputs import Prompt, prompt_of
from llama_vision.backends.local.loading import LoadedModel
from llama_vision.backends.local.prompt import render
from llama_vision.backends.local.vision import Vision
from llama_vision.backends.stop_strings import StopStrings
from llama_vision.core.errors import LlamaVisionError, UnsupportedInputError
from llama_vision.core.events import Event, Finished, Started, TextDelta, UsageReport
from llama_vision.core.request import ChatRequest, Sampling
from llama_vision.core.usage import Usage


@dataclass(slots=True, eq=False)
class Answer:
    """Receives each token as it is chosen, and tells the one who asked.

    Attributes:
        request: What is answered.
        prompt: The same in tokens.
        chooser: Chooses the tokens.
        room: The most tokens there may be.
        emit: Called with each event, and with an error in place of the last.
        cancelled: Whether nobody waits any more.
        tokens: How many there are.
        known: How many tokens of the prompt need not be read, since another answer's began alike.
        over: Whether it has come to an end.

    """

    request: ChatRequest
    prompt: Prompt
    chooser: Chooser
    room: int
    emit: Callable[[Event | LlamaVisionError], None]
    cancelled: Callable[[], bool]
    loaded: LoadedModel
    constraint: Constraint | None
    stops: StopStrings
    decoder: DecodeStream = field(default_factory=lambda: DecodeStream(skip_special_tokens=False))
    tokens: int = 0
    known: int = 0
    over: bool = False

    def start(self) -> None:
        """Say that work has begun."""
        self.emit(Started(model=self.request.model))

    def take(self, token: int) -> None:
        """Receive a token."""
        self.tokens += 1
        ended = token in self.loaded.end_ids
        if not ended:
            self.chooser.write(token)
            if self.constraint is not None:
                self.constraint.accept(token)
                ended = self.constraint.complete
            text = self.decoder.step(self.loaded.tokenizer, token)
            if text and (sure := self.stops.feed(text)):
                self.emit(TextDelta(sure))
        if ended or self.stops.hit:
            self._finish("stop")
        elif self.tokens >= self.room:
            self._finish("length")

    def fail(self, error: LlamaVisionError) -> None:
        """Say that it can't go on."""
        if not self.over:
            self.over = True
            self.emit(error)

    def _finish(self, reason: str) -> None:
        self.over = True
        if not self.stops.hit and (held := self.stops.close()):
            self.emit(TextDelta(held))
        used = Usage(len(self.prompt.ids), self.tokens, cached_input_tokens=self.known)
        self.emit(UsageReport(used))
        self.emit(Finished(reason))


def answer_to(
    request: ChatRequest,
    loaded: LoadedModel,
    vision: Vision,
    *,
    max_len: int,
    emit: Callable[[Event | LlamaVisionError], None],
    cancelled: Callable[[], bool],
) -> Answer:
    """Get ready to answer a request.

    Args:
        request: What to answer.
        loaded: The model.
        vision: Makes its pictures ready.
        max_len: The most tokens of prompt and reply together.
        emit: Called with each event, from `Started` to `Finished`.
        cancelled: Asked at every step; true ends the work without `Finished`.

    Returns:
        The answer, of which nothing is written yet.

    Raises:
        UnsupportedInputError: The prompt leaves no room for an answer, or a schema can't be kept to.
        MissingDependencyError: llguidance is needed and not installed.
        ImageError: A picture can't be decoded.

    """
    grammar = grammar_of(request)
    constraint = None if grammar is None else loaded.constrainer.constraint(grammar)
    prompt = prompt_of(loaded, vision, render(request))
    room = max_len - len(prompt.ids)
    if room < 1:
        raise UnsupportedInputError(
            f"The prompt has {len(prompt.ids)} tokens and the model's context {max_len}: nothing is left "
            f"for an answer. Shorten the conversation{_or_widen(loaded, max_len)}."
        )
    return Answer(
        request=request,
        prompt=prompt,
        chooser=Chooser(request.sampling, _own(loaded), constraint, prompt.ids, loaded.device),
        room=min(request.sampling.max_tokens, room),
        emit=emit,
        cancelled=cancelled,
        loaded=loaded,
        constraint=constraint,
        stops=StopStrings(request.stop),
    )


def _or_widen(loaded: LoadedModel, max_len: int) -> str:
    wide = loaded.context_window
    return f", or set LocalSettings(max_model_len=...) to up to {wide}" if max_len < wide else ""


def _own(loaded: LoadedModel) -> Sampling | None:
    """Read the model's own settings."""
    own = loaded.network.generation_config
    if not own.do_sample:
        return None
    return Sampling(temperature=own.temperature, top_p=own.top_p, top_k=own.top_k, min_p=own.min_p)
