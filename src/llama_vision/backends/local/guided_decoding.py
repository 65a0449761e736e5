"""Guided decoding: after every token, a grammar says which tokens may come next."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llama_vision.backends.local.grammar import TOOL_CALL_PREFIX, Grammar
from llama_vision.core.errors import LocalModelError, MissingDependencyError, UnsupportedInputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from llguidance import LLMatcher, LLTokenizer
    from tokenizers import Tokenizer

# A token is at least one character, and `<|python_tag|>` may come first.
_MAX_PREFIX_TOKENS = len(TOOL_CALL_PREFIX) + 1
_MAX_ERROR_LENGTH = 300

_MAX_CACHED_GRAMMARS = 64
"""To compile one takes a millisecond or more, to copy it some microseconds."""


class GrammarMatcher:
    """State of one sequence in its grammar."""

    def __init__(self, matcher: "LLMatcher", *, allows_free_text: bool) -> None:
        self._matcher: LLMatcher | None = matcher
        self._allows_free_text = allows_free_text
        self._num_tokens = 0

    @property
    def is_active(self) -> bool:
        """Whether any token may be forbidden from here on; output that is known to be free text is not restricted."""
        return self._matcher is not None

    @property
    def is_terminated(self) -> bool:
        """Whether the output is complete, and nothing can follow."""
        return self._matcher is not None and self._matcher.is_stopped()

    def token_bitmask(self) -> bytes:
        """Compute which tokens may come next, a bit for each.

        Raises:
            LocalModelError: The grammar exceeds llguidance's limits, which it notices only now, or it is not active.
        """
        if self._matcher is None:
            raise LocalModelError("There is no token bitmask where the output is not restricted.")
        bitmask = self._matcher.compute_bitmask()
        self._check(self._matcher)
        return bitmask

    def accept_token(self, token_id: int) -> None:
        """Advance by a sampled token, other than one that ends the reply.

        Raises:
            LocalModelError: The token was not allowed.
        """
        if self._matcher is None:
            return
        self._matcher.consume_token(token_id)
        self._check(self._matcher)
        self._num_tokens += 1
        is_free_text = self._num_tokens >= _MAX_PREFIX_TOKENS and self._matcher.is_accepting()
        if self._allows_free_text and is_free_text and not self._matcher.is_stopped():
            self._matcher = None

    @staticmethod
    def _check(matcher: "LLMatcher") -> None:
        if matcher.is_error():
            raise LocalModelError(f"llguidance can't follow the output: {matcher.get_error()}")


def unpack_bitmask(bitmasks: Sequence[bytes], vocab_size: int) -> "npt.NDArray[np.bool_]":
    """Unpack bitmasks to (bitmasks, vocab_size), true for allowed tokens; `<|image|>`, which has no logit, is cut off."""
    import numpy as np  # noqa: PLC0415 - comes with transformers, so only where the extra is installed

    packed = np.frombuffer(b"".join(bitmasks), dtype=np.uint8).reshape(len(bitmasks), -1)
    known = min(vocab_size, packed.shape[1] * 8)
    bits = np.zeros((len(bitmasks), vocab_size), dtype=np.bool_)  # logits beyond the vocabulary have no token
    bits[:, :known] = np.unpackbits(packed, axis=1, count=known, bitorder="little")
    return bits


class GrammarCompiler:
    """Compiles grammars for one tokenizer, which is prepared with the first: a second for 128,000 tokens."""

    def __init__(self, tokenizer: "Tokenizer", eos_token_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._eos_token_ids = eos_token_ids
        self._ll_tokenizer: LLTokenizer | None = None
        self._compiled: dict[str, LLMatcher] = {}  # in order of last use

    def compile(self, grammar: Grammar) -> GrammarMatcher | None:
        """Compile a grammar.

        Returns:
            A matcher for one sequence. None where free text is allowed and a tool call's schema can't be enforced: the
            request does not demand it, and most hosted models don't enforce one either.

        Raises:
            MissingDependencyError: llguidance is not installed.
            UnsupportedInputError: llguidance can't express a schema.
        """
        try:
            from llguidance import LLMatcher  # noqa: PLC0415 - optional, and unused without a grammar
        except ImportError as missing:
            if grammar.allows_free_text:
                return None
            raise MissingDependencyError(
                "To keep the local model to a tool or to JSON takes llguidance: pip install 'llama-vision[local]'"
            ) from missing
        matcher = self._compiled.pop(grammar.lark, None) or LLMatcher(
            self._get_ll_tokenizer(), LLMatcher.grammar_from_lark(grammar.lark), log_level=0
        )
        if not matcher.is_error():
            self._compiled[grammar.lark] = matcher
            if len(self._compiled) > _MAX_CACHED_GRAMMARS:
                del self._compiled[next(iter(self._compiled))]
            return GrammarMatcher(matcher.deep_copy(), allows_free_text=grammar.allows_free_text)
        if grammar.allows_free_text:
            return None
        raise UnsupportedInputError(_unsupported_schema_message(grammar, matcher.get_error()))

    def _get_ll_tokenizer(self) -> "LLTokenizer":
        """Prepare the tokenizer, with `<|image|>`, which has an id and no logit."""
        if self._ll_tokenizer is None:
            from llguidance import LLTokenizer  # noqa: PLC0415 - see `compile`

            vocab_size = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1
            self._ll_tokenizer = LLTokenizer(
                self._tokenizer.to_str(), n_vocab=vocab_size, eos_token=sorted(self._eos_token_ids)
            )
        return self._ll_tokenizer


def _unsupported_schema_message(grammar: Grammar, error: str) -> str:
    """Name the schema that is refused, and what to do."""
    from llguidance import LLMatcher  # noqa: PLC0415 - see `GrammarCompiler.compile`

    for part in grammar.parts:
        reason = LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(part.schema))
        if reason and not reason.startswith("WARNING"):
            return (
                f"The local model can't enforce the schema of {part.label}: llguidance says {_one_line(reason)}. "
                "Leave that out of the schema, and check it in the reply."
            )
    return (
        f"The local model can't enforce these schemas: llguidance says {_one_line(error)}. Make them simpler."
    )


def _one_line(error: str) -> str:
    """Shorten an error, whose last lines quote the whole grammar, to one line."""
    line = " ".join(error.split())
    return f"`{line[:_MAX_ERROR_LENGTH]}{'...' if len(line) > _MAX_ERROR_LENGTH else ''}`"
