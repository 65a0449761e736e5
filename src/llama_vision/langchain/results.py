"""Whole replies as LangChain's results, and what several of them add up to."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.outputs import ChatGeneration, ChatResult

from llama_vision.core.reply import Reply
from llama_vision.langchain.convert import to_message


def to_result(reply: Reply, provider: str) -> ChatResult:
    """Translate a whole reply.

    Args:
        reply: Ours.
        provider: The name of the provider that gave it.

    Returns:
        LangChain's result, with one generation. Its `llm_output` has the counts in OpenAI's words, as it is in all of
        LangChain's chat models, for the callbacks that read them there.

    """
    message = to_message(reply, provider)
    output: dict[str, Any] = {} if reply.model is None else {"model_name": reply.model}
    if usage := message.usage_metadata:
        output["token_usage"] = {
            "prompt_tokens": usage["input_tokens"],
            "completion_tokens": usage["output_tokens"],
            "total_tokens": usage["total_tokens"],
        }
    return ChatResult(generations=[ChatGeneration(message=message)], llm_output=output)


def combine_llm_outputs(outputs: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    """Add up what the results of several prompts say of themselves.

    Args:
        outputs: Of each, its `llm_output`; None of one that was streamed or came from a cache.

    Returns:
        The sums of tokens, only where all are counted, and the model's name.

    """
    known = [output or {} for output in outputs]
    total: dict[str, Any] = {}
    for one in known:
        total |= {name: one[name] for name in ("model_name",) if name in one}
    if known and all("token_usage" in one for one in known):
        tokens: Counter[str] = Counter()
        for one in known:
            tokens.update(one["token_usage"])
        total["token_usage"] = dict(tokens)
    return total
