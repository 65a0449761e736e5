"""Keeps an answer to a grammar: after every token it says which tokens may come next."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llama_vision.backends.local.grammar import TOOL_CALL_PREFIX, Grammar
from llama_vision.core.errors import LocalModelError, MissingDependencyError, UnsupportedInputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from llguidance import LLMatcher, LLTokenizer
    from tokenizers import Tokenizer

# A token brings a character at least, and `<|python_tag|>` may stand in front.
_MAX_PREFIX_TOKENS = len(TOOL_CALL_PREFIX) + 1
_ERROR_LENGTH = 300

_MAX_CACHED_GRAMMARS = 64
"""To compile one takes a millisecond or more, to copy it some microseconds."""


class GrammarMatcher:
    """Watches over one answer. It knows nothing of how tokens are chosen, nor of other answers."""

    __slots__ = ("_allows_free_text", "_matcher", "_num_tokens")

    def __init__(self, matcher: "LLMatcher", *, allows_prose: bool) -> None:
        self._matcher: LLMatcher | None = matcher
        self._allows_free_text = allows_prose
        self._num_tokens = 0

    @property
    def active(self) -> bool:
        """Whether any token is forbidden from here on; prose, once it is known to be that, is free."""
        return self._matcher is not None

    @property
    def is_terminated(self) -> bool:
        """Whether the answer is whole, and nothing can follow."""
        return self._matcher is not None and self._matcher.is_stopped()

    def allowed_tokens(self, width: int) -> "npt.NDArray[np.bool_]":
        """Work out which tokens may come next.

        Args:
            width: How many logits there are; the vocabulary has one more word (`<|image|>`), which is cut off.

        Returns:
            For each logit whether its token may come (width,).

        Raises:
            LocalModelError: The grammar is too much for llguidance, which it notices only now.

        """
        import numpy as np  # noqa: PLC0415 - comes with transformers, so only where this room's extra is installed

        return (
            np.ones(width, dtype=np.bool_)
            if self._matcher is None
            else unpack_bitmask([self.token_bitmask()], width)[0]
        )

    def token_bitmask(self) -> bytes:
        """Work out the same with a bit for each token, where any is forbidden.

        Raises:
            LocalModelError: As above.

        """
        if self._matcher is None:
            raise LocalModelError("There is no mask for an answer that is free.")
        packed = self._matcher.compute_bitmask()
        self._check(self._matcher)
        return packed

    def accept_token(self, token: int) -> None:
        """Take note of the token that was chosen; the one that ends a reply need not be told.

        Raises:
            LocalModelError: It was not one of those allowed.

        """
        if self._matcher is None:
            return
        self._matcher.consume_token(token)
        self._check(self._matcher)
        self._num_tokens += 1
        is_prose = self._num_tokens >= _MAX_PREFIX_TOKENS and self._matcher.is_accepting()
        if self._allows_free_text and is_prose and not self._matcher.is_stopped():
            self._matcher = None

    @staticmethod
    def _check(matcher: "LLMatcher") -> None:
        if matcher.is_error():
            raise LocalModelError(f"llguidance can't follow the answer: {matcher.get_error()}")


def unpack_bitmask(masks: Sequence[bytes], width: int) -> "npt.NDArray[np.bool_]":
    """Turn masks of one vocabulary into (masks, width), true where a token may come."""
    import numpy as np  # noqa: PLC0415 - see `Constraint.allowed`

    packed = np.frombuffer(b"".join(masks), dtype=np.uint8).reshape(len(masks), -1)
    known = min(width, packed.shape[1] * 8)
    bits = np.zeros((len(masks), width), dtype=np.bool_)  # scores beyond the vocabulary are of no token
    bits[:, :known] = np.unpackbits(packed, axis=1, count=known, bitorder="little")
    return bits


class GrammarCompiler:
    """Makes constraints for one model. Its vocabulary is taken in with the first: a second for 128,000 words."""

    __slots__ = ("_compiled", "_end_ids", "_tokenizer", "_vocabulary")

    def __init__(self, tokenizer: "Tokenizer", end_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._end_ids = end_ids
        self._vocabulary: LLTokenizer | None = None
        self._compiled: dict[str, LLMatcher] = {}  # the latest used last

    def compile(self, grammar: Grammar) -> GrammarMatcher | None:
        """Get ready to watch over an answer.

        Args:
            grammar: What it has to look like.

        Returns:
            For one answer. None where it may be prose and a call can't be watched over: nobody asked for that, and the
            answer is then as free as with most hosted models.

        Raises:
            MissingDependencyError: llguidance is not installed.
            UnsupportedInputError: llguidance can't express a schema.

        """
        try:
            from llguidance import LLMatcher  # noqa: PLC0415 - optional, and of no use to free answers
        except ImportError as missing:
            if grammar.allows_free_text:
                return None
            raise MissingDependencyError(
                "To keep the local model to a tool or to JSON takes llguidance: pip install 'llama-vision[local]'"
            ) from missing
        matcher = self._compiled.pop(grammar.lark, None) or LLMatcher(
            self._ll_tokenizer(), LLMatcher.grammar_from_lark(grammar.lark), log_level=0
        )
        if not matcher.is_error():
            self._compiled[grammar.lark] = matcher
            if len(self._compiled) > _MAX_CACHED_GRAMMARS:
                del self._compiled[next(iter(self._compiled))]
            return GrammarMatcher(matcher.deep_copy(), allows_prose=grammar.allows_free_text)
        if grammar.allows_free_text:
            return None
        raise UnsupportedInputError(_unsupported_schema_message(grammar, matcher.get_error()))

    def _ll_tokenizer(self) -> "LLTokenizer":
        """Take in the vocabulary, with `<|image|>`, which has an id and no logit."""
        if self._vocabulary is None:
            from llguidance import LLTokenizer  # noqa: PLC0415 - see `compile`

            size = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1
            self._vocabulary = LLTokenizer(
                self._tokenizer.to_str(), n_vocab=size, eos_token=sorted(self._end_ids)
            )
        return self._vocabulary


def _unsupported_schema_message(grammar: Grammar, error: str) -> str:
    """Find the schema that is refused, and say what to do."""
    from llguidance import LLMatcher  # noqa: PLC0415 - see `Constrainer.constraint`

    for part in grammar.parts:
        reason = LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(part.schema))
        if reason and not reason.startswith("WARNING"):
            return (
                f"The local model can't be kept to the schema of {part.label}: llguidance says {_one_line(reason)}. "
                "Leave that out of the schema, and check it in the answer."
            )
    return f"The local model can't be kept to these schemas: llguidance says {_one_line(error)}. Make them simpler."


def _one_line(error: str) -> str:
    """Put what may be many lines, the last of which show the whole grammar, onto a short one."""
    line = " ".join(error.split())
    return f"`{line[:_ERROR_LENGTH]}{'...' if len(line) > _ERROR_LENGTH else ''}`"
