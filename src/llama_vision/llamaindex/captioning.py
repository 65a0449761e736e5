"""`LlamaVision` asked about images, and the bar that is drawn meanwhile."""

import warnings
from collections.abc import Mapping
from typing import Any, cast

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole, TextBlock

from llama_vision.captions import CaptionTask
from llama_vision.core.json_types import as_mapping
from llama_vision.core.messages import Image
from llama_vision.core.reply import Reply
from llama_vision.core.usage import Usage
from llama_vision.llamaindex.images import image_block
from llama_vision.llamaindex.llm import LlamaVision
from llama_vision.providers import find_provider

_CACHE_KEY_FIELDS = (
    "system_prompt",
    "temperature",
    "max_tokens",
    "additional_kwargs",
    "image_max_pixels",
    "image_format",
    "image_quality",
)
"""Fields of the model that a caption depends on, beside provider and model."""


def caption_task(llm: LlamaVision, prompt: str, options: Mapping[str, Any]) -> CaptionTask:
    """Make a question that a model answers with all that LlamaIndex does about it, such as callbacks.

    Args:
        llm: The model.
        prompt: What to ask about each image.
        options: Further arguments of `achat`.

    Returns:
        The question.

    """
    provider = find_provider(llm.provider)

    async def ask(image: Image) -> Reply:
        # The image comes first: words before it can't see it.
        message = ChatMessage(role=MessageRole.USER, blocks=[image_block(image), TextBlock(text=prompt)])
        return _to_reply(await llm.achat([message], **options))

    return CaptionTask(
        prompt=prompt,
        provider=provider.name,
        model=provider.model_info(options.get("model") or llm.model).id,
        settings={name: getattr(llm, name) for name in _CACHE_KEY_FIELDS},
        options=options,
        ask=ask,
    )


def _to_reply(response: ChatResponse) -> Reply:
    told: dict[str, Any] = cast("Any", response).additional_kwargs
    return Reply(
        text=response.message.content or "",
        finish_reason=as_mapping(response.raw).get("finish_reason"),
        usage=Usage(
            input_tokens=told.get("prompt_tokens"),
            output_tokens=told.get("completion_tokens"),
            cached_input_tokens=told.get("cached_tokens"),
            cost_usd=told.get("cost_usd"),
            cost_is_estimate=bool(told.get("cost_is_estimate")),
        ),
    )


def progress_bar(total: int, *, shown: bool) -> Any:
    """Draw a bar: as a widget in notebooks that have ipywidgets, else with characters on stderr.

    Args:
        total: How many images there are.
        shown: Whether it is wanted.

    Returns:
        A bar of tqdm, which is to be closed.

    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm warns where there are no ipywidgets
        from tqdm.auto import tqdm  # noqa: PLC0415 - asks the notebook what it has
    bar: Any = tqdm
    hidden = {} if shown else {"disable": True}  # else $TQDM_DISABLE decides
    return bar(total=total, desc="Captions", unit="image", **hidden)
