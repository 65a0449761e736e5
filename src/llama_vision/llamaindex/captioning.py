"""Captioning under way: which pictures were asked about, what it took, and what went wrong."""

import asyncio
import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole, TextBlock

from llama_vision.core.errors import (
    AuthenticationError,
    ConfigurationError,
    InsufficientCreditsError,
    LicenceNotAcceptedError,
    LlamaVisionError,
    MalformedReplyError,
    ModelNotFoundError,
    QuotaExhaustedError,
)
from llama_vision.core.messages import Image
from llama_vision.core.untyped import as_object
from llama_vision.core.usage import Usage
from llama_vision.images import image_from_any
from llama_vision.llamaindex.caption_log import Caption, CaptionLog
from llama_vision.llamaindex.images import image_block
from llama_vision.llamaindex.llm import LlamaVision
from llama_vision.providers import find_provider

_HOPELESS = (
    AuthenticationError,
    ConfigurationError,
    InsufficientCreditsError,
    LicenceNotAcceptedError,
    ModelNotFoundError,
    QuotaExhaustedError,
)
"""What went wrong with one picture and would with every other: nothing more is asked then."""

_CHANGE_ANSWERS = (
    "system_prompt",
    "temperature",
    "max_tokens",
    "additional_kwargs",
    "image_max_pixels",
    "image_format",
    "image_quality",
)
"""Fields of the model that a caption depends on, beside provider and model."""


@dataclass(frozen=True, slots=True)
class Captioned:
    """A picture and its caption.

    Attributes:
        path: The file.
        digest: SHA-256 of its bytes.
        media_type: What it is, by its own first bytes.
        caption: What the model said.

    """

    path: Path
    digest: str
    media_type: str | None
    caption: Caption


@dataclass(frozen=True, slots=True)
class CaptionFailure:
    """A picture without a caption.

    Attributes:
        path: The file.
        error: Why; its text says what can be done.

    """

    path: Path
    error: Exception

    def __str__(self) -> str:
        text = str(self.error)
        return text if str(self.path) in text else f"{self.path}: {text}"


class Captioning:
    """Asks about pictures, several at once.

    Attributes:
        asked: How many captions a model wrote.
        usage: What that took, as far as it was told.

    """

    def __init__(self, llm: LlamaVision, prompt: str, options: Mapping[str, Any], log: CaptionLog) -> None:
        """Prepare to ask.

        Args:
            llm: The model.
            prompt: What to ask about each picture.
            options: Further arguments of `achat`.
            log: Knows captions from earlier, and is told the new ones.

        """
        self._llm = llm
        self._prompt = prompt
        self._options = options
        self._log = log
        self._provider = find_provider(llm.provider)
        self._model = self._provider.model_info(options.get("model") or llm.model).id
        self._on_their_way: dict[str, asyncio.Task[Caption]] = {}
        self._hopeless: LlamaVisionError | None = None
        self.asked = 0
        self.usage = Usage()

    async def run(
        self, files: Sequence[Path], *, concurrency: int, progress: bool
    ) -> list[Captioned | CaptionFailure]:
        """Caption files.

        Args:
            files: The pictures.
            concurrency: How many calls may be on their way at once.
            progress: Whether to draw a bar.

        Returns:
            What became of each, in their order.

        """
        outcomes: dict[Path, Captioned | CaptionFailure] = {}
        waiting = iter(files)
        with _bar(len(files), shown=progress) as bar:

            async def work(files: Iterator[Path]) -> None:
                for path in files:
                    outcomes[path] = await self._outcome(path)
                    bar.update()

            async with asyncio.TaskGroup() as workers:
                for _ in range(min(concurrency, len(files))):
                    workers.create_task(work(waiting))  # one iterator for all: each file is taken once
        return [outcomes[path] for path in files]

    async def _outcome(self, path: Path) -> Captioned | CaptionFailure:
        try:
            image, digest = await asyncio.to_thread(_read, path)
            caption = await self._caption(image, digest, path)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other pictures can do nothing for it
            return CaptionFailure(path, error)
        return Captioned(path, digest, image.media_type, caption)

    async def _caption(self, image: Image, digest: str, path: Path) -> Caption:
        """Know it, wait for it where a copy of the picture is being asked about, or ask."""
        key = self._key(digest)
        if (known := self._log.get(key)) is not None:
            return known
        if key not in self._on_their_way:
            self._on_their_way[key] = asyncio.create_task(self._ask(image, key, path))
        return await self._on_their_way[key]

    def _key(self, digest: str) -> str:
        """Name a caption by all it depends on, and not by the file's name."""
        fields = {name: getattr(self._llm, name) for name in _CHANGE_ANSWERS}
        asked = [digest, self._prompt, self._provider.name, self._model, fields, self._options]
        return hashlib.sha256(json.dumps(asked, sort_keys=True, default=repr).encode()).hexdigest()

    async def _ask(self, image: Image, key: str, path: Path) -> Caption:
        if self._hopeless is not None:
            raise self._hopeless.with_traceback(None)
        # The picture comes first: words before it can't see it.
        blocks = [image_block(image), TextBlock(text=self._prompt)]
        try:
            response = await self._llm.achat(
                [ChatMessage(role=MessageRole.USER, blocks=blocks)], **self._options
            )
        except _HOPELESS as error:
            self._hopeless = error
            raise
        self.asked += 1
        usage = _usage(response)
        self.usage = _sum(self.usage, usage)
        caption = self._read_caption(response)
        self._log.add(key, caption, file=path.name, model=f"{self._provider.name}/{self._model}")
        return caption

    def _read_caption(self, response: ChatResponse) -> Caption:
        text = (response.message.content or "").strip()
        cut = as_object(response.raw).get("finish_reason") == "length"
        if not text:
            what = "raise max_tokens" if cut else "ask with another prompt"
            raise MalformedReplyError(f"The model said nothing about the picture: {what}.").at(
                self._provider.name, self._model
            )
        return Caption(text, cut)


def _read(path: Path) -> tuple[Image, str]:
    image = image_from_any(path)
    return image, hashlib.sha256(image.data or b"").hexdigest()


def _usage(response: ChatResponse) -> Usage:
    told: dict[str, Any] = cast("Any", response).additional_kwargs
    return Usage(
        input_tokens=told.get("prompt_tokens"),
        output_tokens=told.get("completion_tokens"),
        cached_input_tokens=told.get("cached_tokens"),
        cost_usd=told.get("cost_usd"),
        cost_is_estimate=bool(told.get("cost_is_estimate")),
    )


def _sum(first: Usage, second: Usage) -> Usage:
    def plus(name: str) -> Any:
        told = [value for value in (getattr(first, name), getattr(second, name)) if value is not None]
        return sum(told) if told else None

    return Usage(
        input_tokens=plus("input_tokens"),
        output_tokens=plus("output_tokens"),
        cached_input_tokens=plus("cached_input_tokens"),
        cost_usd=plus("cost_usd"),
        cost_is_estimate=first.cost_is_estimate or second.cost_is_estimate,
    )


def _bar(total: int, *, shown: bool) -> Any:
    """Draw a bar: as a widget in notebooks that have ipywidgets, else with characters on stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm warns where there are no ipywidgets
        from tqdm.auto import tqdm  # noqa: PLC0415 - asks the notebook what it has
    bar: Any = tqdm
    hidden = {} if shown else {"disable": True}  # else $TQDM_DISABLE decides
    return bar(total=total, desc="Captions", unit="picture", **hidden)
