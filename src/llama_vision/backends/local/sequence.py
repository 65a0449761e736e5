"""One answer in the making: what it was asked, what it has said, and when it is over."""

from collections.abc import Callable
from dataclasses import dataclass, field

from tokenizers.decoders import DecodeStream

from llama_vision.backends.local.chat_template import apply_chat_template
from llama_vision.backends.local.grammar import build_grammar
from llama_vision.backends.local.guided_decoding import GrammarMatcher
from llama_vision.backends.local.input_processor import TokenizedPrompt, tokenize_prompt
from llama_vision.backends.local.model_loader import LoadedModel
from llama_vision.backends.local.sampler import Sampler
from llama_vision.backends.local.vision_encoder import VisionEncoder
from llama_vision.backends.stop_strings import StopStringFilter
from llama_vision.core.errors import LlamaVisionError, UnsupportedInputError
from llama_vision.core.events import Event, Finished, Started, TextDelta, UsageReport
from llama_vision.core.request import ChatRequest, SamplingParams
from llama_vision.core.usage import Usage


@dataclass(slots=True, eq=False)
class Answer:
    """Receives each token as it is chosen, and tells the one who asked.

    Attributes:
        request: What is answered.
        prompt: The same in tokens.
        sampler: Chooses the tokens.
        max_new_tokens: The most tokens there may be.
        on_output: Called with each event, and with an error in place of the last.
        is_cancelled: Whether nobody waits any more.
        num_output_tokens: How many there are.
        num_cached_tokens: How many tokens of the prompt need not be read, since another answer's began alike.
        is_finished: Whether it has come to an end.

    """

    request: ChatRequest
    prompt: TokenizedPrompt
    sampler: Sampler
    max_new_tokens: int
    on_output: Callable[[Event | LlamaVisionError], None]
    is_cancelled: Callable[[], bool]
    model: LoadedModel
    constraint: GrammarMatcher | None
    stops: StopStringFilter
    detokenizer: DecodeStream = field(default_factory=lambda: DecodeStream(skip_special_tokens=False))
    num_output_tokens: int = 0
    num_cached_tokens: int = 0
    is_finished: bool = False

    def emit_started(self) -> None:
        """Say that work has begun."""
        self.on_output(Started(model=self.request.model))

    def take(self, token: int) -> None:
        """Receive a token."""
        self.num_output_tokens += 1
        ended = token in self.model.eos_token_ids
        if not ended:
            self.sampler.record_token(token)
            if self.constraint is not None:
                self.constraint.accept_token(token)
                ended = self.constraint.is_terminated
            text = self.detokenizer.step(self.model.tokenizer, token)
            if text and (sure := self.stops.feed(text)):
                self.on_output(TextDelta(sure))
        if ended or self.stops.hit:
            self._finish("stop")
        elif self.num_output_tokens >= self.max_new_tokens:
            self._finish("length")

    def fail(self, error: LlamaVisionError) -> None:
        """Say that it can't go on."""
        if not self.is_finished:
            self.is_finished = True
            self.on_output(error)

    def _finish(self, reason: str) -> None:
        self.is_finished = True
        if not self.stops.hit and (held := self.stops.flush()):
            self.on_output(TextDelta(held))
        used = Usage(
            len(self.prompt.token_ids), self.num_output_tokens, cached_input_tokens=self.num_cached_tokens
        )
        self.on_output(UsageReport(used))
        self.on_output(Finished(reason))


def create_sequence(
    request: ChatRequest,
    model: LoadedModel,
    vision: VisionEncoder,
    *,
    max_len: int,
    on_output: Callable[[Event | LlamaVisionError], None],
    is_cancelled: Callable[[], bool],
) -> Answer:
    """Get ready to answer a request.

    Args:
        request: What to answer.
        model: The model.
        vision: Makes its images ready.
        max_len: The most tokens of prompt and reply together.
        on_output: Called with each event, from `Started` to `Finished`.
        is_cancelled: Asked at every step; true ends the work without `Finished`.

    Returns:
        The answer, of which nothing is written yet.

    Raises:
        UnsupportedInputError: The prompt leaves no room for an answer, or a schema can't be kept to.
        MissingDependencyError: llguidance is needed and not installed.
        ImageError: An image can't be decoded.

    """
    grammar = build_grammar(request)
    constraint = None if grammar is None else model.grammar_compiler.compile(grammar)
    prompt = tokenize_prompt(model, vision, apply_chat_template(request))
    room = max_len - len(prompt.token_ids)
    if room < 1:
        raise UnsupportedInputError(
            f"The prompt has {len(prompt.token_ids)} tokens and the model's context {max_len}: nothing is left "
            f"for an answer. Shorten the conversation{_max_model_len_hint(model, max_len)}."
        )
    return Answer(
        request=request,
        prompt=prompt,
        sampler=Sampler(
            request.sampling, default_sampling_params(model), constraint, prompt.token_ids, model.device
        ),
        max_new_tokens=min(request.sampling.max_tokens, room),
        on_output=on_output,
        is_cancelled=is_cancelled,
        model=model,
        constraint=constraint,
        stops=StopStringFilter(request.stop),
    )


def _max_model_len_hint(loaded: LoadedModel, max_len: int) -> str:
    wide = loaded.context_window
    return f", or set LocalSettings(max_model_len=...) to up to {wide}" if max_len < wide else ""


def default_sampling_params(loaded: LoadedModel) -> SamplingParams | None:
    """Read the model's own settings."""
    own = loaded.model.generation_config
    if not own.do_sample:
        return None
    return SamplingParams(temperature=own.temperature, top_p=own.top_p, top_k=own.top_k, min_p=own.min_p)
