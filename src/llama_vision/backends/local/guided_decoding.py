"""Guided decoding: after every token, a grammar says which tokens may come next."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llama_vision.backends.local.grammar import TOOL_CALL_PREFIX, Grammar, build_grammar, relax_request
from llama_vision.backends.local.schema_relaxation import schema_error
from llama_vision.core.errors import LocalModelError, MissingDependencyError, UnsupportedInputError
from llama_vision.core.request import ChatRequest

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from llguidance import LLMatcher, LLTokenizer
    from tokenizers import Tokenizer

# A token is at least one character, and `<|python_tag|>` may come first.
_MAX_PREFIX_TOKENS = len(TOOL_CALL_PREFIX) + 1
_MAX_ERROR_LENGTH = 300

_MAX_LITERAL_LENGTH = 100_000
"""Characters of a constant or a name: llguidance keeps a state for each, and a reply is not longer."""

_LITERAL = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')

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

    def forced_token_ids(self) -> list[int]:
        """Get the next tokens where the grammar allows only these, one after another; mostly none."""
        return [] if self._matcher is None else self._matcher.compute_ff_tokens()

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

    def compile_request(self, request: ChatRequest) -> GrammarMatcher | None:
        """Compile the grammar of a request; schemas with `strict=False` are relaxed if they can't be enforced in full.

        Returns:
            A matcher for one sequence; None where the output is not restricted.

        Raises:
            MissingDependencyError: llguidance is not installed.
            UnsupportedInputError: A schema can't be enforced.
        """
        try:
            grammar = build_grammar(request)
            try:
                return None if grammar is None else self.compile(grammar)
            except UnsupportedInputError:
                relaxed = relax_request(request)
                grammar = None if relaxed == request else build_grammar(relaxed)
                if grammar is None:
                    raise
                return self.compile(grammar)
        except RecursionError:
            raise UnsupportedInputError(
                "A schema of the request is nested too deeply. Make it flatter."
            ) from None
        except (TypeError, ValueError) as error:  # infinity, a set, a number of 5,000 digits
            raise UnsupportedInputError(
                f"A schema of the request can't be written as JSON: {error}."
            ) from error

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
            matcher = self._compiled.pop(grammar.lark, None) or self._new_matcher(grammar)
        except (ImportError, UnsupportedInputError) as error:
            if grammar.allows_free_text:
                return None
            if isinstance(error, UnsupportedInputError):
                raise
            raise MissingDependencyError(
                "To keep the local model to a tool or to JSON takes llguidance: pip install 'llama-vision[local]'"
            ) from error
        self._compiled[grammar.lark] = matcher
        if len(self._compiled) > _MAX_CACHED_GRAMMARS:
            del self._compiled[next(iter(self._compiled))]
        return GrammarMatcher(matcher.deep_copy(), allows_free_text=grammar.allows_free_text)

    def _new_matcher(self, grammar: Grammar) -> "LLMatcher":
        from llguidance import LLMatcher, LLParserLimits  # noqa: PLC0415 - optional, and unused without a grammar

        if any(len(literal) > _MAX_LITERAL_LENGTH for literal in _LITERAL.findall(grammar.lark)):
            raise UnsupportedInputError(
                f"The local model can't enforce a constant or a name of more than {_MAX_LITERAL_LENGTH} characters. "
                "Leave it out of the schema."
            )
        try:
            lark = LLMatcher.grammar_from_lark(grammar.lark)
            # With llguidance's own limits, 2,000 alternatives of objects at one place fail in the middle of a reply.
            limits = LLParserLimits(
                max_items_in_row=200_000,
                step_max_items=2_000_000,
                initial_lexer_fuel=20_000_000,
                step_lexer_fuel=20_000_000,
            )
            matcher = LLMatcher(self._get_ll_tokenizer(), lark, log_level=0, limits=limits)
        except UnicodeEncodeError as error:
            raise UnsupportedInputError(
                "A constant or a name in a schema holds half a surrogate pair, which is no text. Leave it out."
            ) from error
        first = matcher.deep_copy()
        first.compute_bitmask()  # of a schema that refers to itself alone, it finds out only now that nothing fits
        if first.is_error():
            raise UnsupportedInputError(_unsupported_schema_message(grammar, first.get_error()))
        return matcher

    def _get_ll_tokenizer(self) -> "LLTokenizer":
        """Prepare the tokenizer, with `<|image|>`, which has an id and no logit."""
        if self._ll_tokenizer is None:
            from llguidance import LLTokenizer  # noqa: PLC0415 - see `_new_matcher`

            vocab_size = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1
            self._ll_tokenizer = LLTokenizer(
                self._tokenizer.to_str(), n_vocab=vocab_size, eos_token=sorted(self._eos_token_ids)
            )
        return self._ll_tokenizer


def _unsupported_schema_message(grammar: Grammar, error: str) -> str:
    """Name the schema that is refused, and what to do."""
    for part in grammar.parts:
        if reason := schema_error(part.schema):
            return _refusal(f"the schema of {part.label}: llguidance says {_one_line(reason)}")
    return _refusal(f"these schemas: llguidance says {_one_line(error)}")


def _refusal(what: str) -> str:
    return (
        f"The local model can't enforce {what}. Leave that out of the schema, or send the schema with strict=False and "
        "validate the reply."
    )


def _one_line(error: str) -> str:
    """Shorten an error, whose last lines quote the whole grammar, to one line."""
    line = " ".join(error.split())
    return f"`{line[:_MAX_ERROR_LENGTH]}{'...' if len(line) > _MAX_ERROR_LENGTH else ''}`"
