"""State of one request in the engine, from the queue to its last token."""

import enum
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from llama_vision.backends.local.speculative_decoding import PromptLookup
from llama_vision.core.errors import LlamaVisionError, LocalModelError
from llama_vision.core.events import Event, Finished, Started, TextDelta, UsageReport
from llama_vision.core.request import ChatRequest
from llama_vision.core.usage import Usage

if TYPE_CHECKING:  # requests are queued before torch is imported
    from tokenizers.decoders import DecodeStream

    from llama_vision.backends.local.block_allocator import BlockTable
    from llama_vision.backends.local.image_input import ImageInput
    from llama_vision.backends.local.model_loader import LoadedModel
    from llama_vision.backends.local.sampler import Sampler
    from llama_vision.backends.stop_strings import StopStringFilter

EngineOutput: TypeAlias = Event | LlamaVisionError
"""What a consumer receives: events, the last of them `Finished`, or an error in its place."""


class SequenceStatus(enum.Enum):
    """State of a sequence."""

    QUEUED = enum.auto()  # its prompt is not tokenized yet
    PREPARED = enum.auto()  # it waits for blocks of the KV cache
    RUNNING = enum.auto()  # in prefill or decode
    FINISHED = enum.auto()  # its last output was sent, or it was cancelled


@dataclass(frozen=True, slots=True)
class ImageSpan:
    """The tokens that attend to an image: from its `<|image|>` token at `start` up to `end`, exclusive.

    Where that is the end of the prompt, output tokens attend to it as well.
    """

    image: "ImageInput"
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class TokenizedPrompt:
    """A prompt as token ids and images, both in order."""

    token_ids: list[int]
    image_spans: tuple[ImageSpan, ...]

    def visible_spans(self, start: int, stop: int) -> list[ImageSpan]:
        """The images that any of the sequence's tokens `start` to `stop`, exclusive, attends to."""
        return [
            span
            for span in self.image_spans
            if span.start < stop and (span.end > start or span.end == len(self.token_ids))
        ]

    @property
    def cache_key(self) -> list[int | bytes]:
        """The token ids, with each image's hash in place of its `<|image|>`: equal for equal prompts."""
        key: list[int | bytes] = [*self.token_ids]
        for span in self.image_spans:
            key[span.start] = span.image.key
        return key


@dataclass(slots=True, eq=False, repr=False)
class Sequence:
    """One request and what has been computed of it.

    Attributes:
        on_output: Receives each output, in the engine's threads; it must not block.
        cancelled: Set by the consumer to stop the work at the next step, without `Finished`.
        model: This and the next five are set by `InputProcessor.process`.
        max_new_tokens: Upper bound of `num_output_tokens`.
        output_token_ids: Generated tokens. Keys and values of the last one are not computed yet.
        num_computed_tokens: Tokens whose keys and values are in the KV cache, so the position of the next one.
        num_cached_tokens: How many tokens of the prompt came from the prefix cache.
        block_table: Its blocks of the KV cache while it runs.
        prompt_lookup: Proposes its draft tokens, where that is tried.
    """

    request: ChatRequest
    on_output: Callable[[EngineOutput], None]
    cancelled: threading.Event = field(default_factory=threading.Event)
    status: SequenceStatus = SequenceStatus.QUEUED
    model: "LoadedModel" = field(init=False)
    prompt: TokenizedPrompt = field(init=False)
    sampler: "Sampler" = field(init=False)
    max_new_tokens: int = field(init=False)
    detokenizer: "DecodeStream" = field(init=False)
    stop_filter: "StopStringFilter" = field(init=False)
    output_token_ids: list[int] = field(default_factory=list[int])
    num_computed_tokens: int = 0
    num_cached_tokens: int = 0
    block_table: "BlockTable | None" = None
    prompt_lookup: PromptLookup | None = None

    @property
    def running_block_table(self) -> "BlockTable":
        """The block table of a sequence that runs."""
        if self.block_table is None:
            raise AssertionError("only a running sequence has blocks")
        return self.block_table

    @property
    def is_finished(self) -> bool:
        """Whether the last output was sent."""
        return self.status is SequenceStatus.FINISHED

    @property
    def num_output_tokens(self) -> int:
        """Generated tokens, with the one that ends the reply."""
        return len(self.output_token_ids)

    @property
    def prefill_token_ids(self) -> list[int]:
        """Tokens that are computed without sampling: the prompt's, and after a preemption the output's but the last."""
        return [*self.prompt.token_ids, *self.output_token_ids[:-1]]

    @property
    def num_prefill_tokens(self) -> int:
        """Length of `prefill_token_ids`."""
        return len(self.prompt.token_ids) + max(len(self.output_token_ids) - 1, 0)

    @property
    def num_remaining_prefill_tokens(self) -> int:
        """Tokens that prefill has still to compute."""
        return max(self.num_prefill_tokens - self.num_computed_tokens, 0)

    @property
    def prefill_cache_key(self) -> list[int | bytes]:
        """`prefill_token_ids` as a key of the prefix cache."""
        return [*self.prompt.cache_key, *self.output_token_ids[:-1]]

    @property
    def computed_cache_key(self) -> list[int | bytes]:
        """The computed tokens as a key of the prefix cache."""
        return [*self.prompt.cache_key, *self.output_token_ids][: self.num_computed_tokens]

    def draft_token_ids(self, *, looks_up: bool) -> list[int]:
        """Propose the tokens after the last one, to be verified in one forward pass; mostly none.

        Args:
            looks_up: Whether a greedy sequence takes part in prompt lookup.
        """
        limit = self.max_new_tokens - self.num_output_tokens - 1
        draft: list[int] = []
        if self.sampler.grammar_matcher is not None and self.sampler.is_guided:
            draft = self.sampler.grammar_matcher.forced_token_ids()
        elif looks_up and self.sampler.is_pure_greedy:
            self.prompt_lookup = self.prompt_lookup or PromptLookup()
            draft = self.prompt_lookup.propose(self.prompt.token_ids, self.output_token_ids)
        return draft[:limit]

    def emit_started(self) -> None:
        """Send `Started`."""
        self.on_output(Started(model=self.request.model))

    def append_token(self, token_id: int) -> None:
        """Append a sampled token, send its text, and finish where it is the last."""
        self.output_token_ids.append(token_id)
        ended = token_id in self.model.eos_token_ids
        if not ended:
            ended = self.sampler.accept_token(token_id)
            text = self.detokenizer.step(self.model.tokenizer, token_id)
            if text and (safe := self.stop_filter.feed(text)):
                self.on_output(TextDelta(safe))
        if ended or self.stop_filter.hit:
            self._finish("stop")
        elif self.num_output_tokens >= self.max_new_tokens:
            self._finish("length")

    def fail(self, error: BaseException, during: str = "Generating") -> None:
        """Finish with an error in place of `Finished`; without effect once finished."""
        if not self.is_finished:
            self.on_output(_to_local_model_error(error, during))
            self.status = SequenceStatus.FINISHED  # last, as in `_finish`

    def _finish(self, reason: str) -> None:
        if not self.stop_filter.hit and (held := self.stop_filter.flush()):
            self.on_output(TextDelta(held))
        usage = Usage(
            len(self.prompt.token_ids), self.num_output_tokens, cached_input_tokens=self.num_cached_tokens
        )
        self.on_output(UsageReport(usage))
        self.on_output(Finished(reason))
        self.status = SequenceStatus.FINISHED  # last: who waits gets an error where one is raised before


def _to_local_model_error(error: BaseException, during: str) -> LlamaVisionError:
    if isinstance(error, LlamaVisionError):
        return error
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which can't be imported here
        failure = LocalModelError(
            f"The memory of the device is full. Give LocalSettings a lower kv_cache_bytes or max_batch_size. {error}"
        )
    elif "CUDA error" in str(error):
        failure = LocalModelError(
            f"{during} failed, and the GPU can't be used by this process any more: restart Python to load the model again. "
            f"{error}"
        )
    else:
        failure = LocalModelError(f"{during} failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
