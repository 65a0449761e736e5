"""Captioning under way: which images were asked about, what it took, and what went wrong."""

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from llama_vision.captions.log import Caption, CaptionLog
from llama_vision.captions.task import CaptionTask
from llama_vision.core.errors import (
    FATAL_ERRORS,
    ConfigurationError,
    LlamaVisionError,
    MalformedReplyError,
)
from llama_vision.core.messages import Image
from llama_vision.core.reply import Reply
from llama_vision.core.usage import Usage
from llama_vision.images import image_from_any

DEFAULT_CONCURRENCY = 8
"""Calls on their way at once."""


@dataclass(frozen=True, slots=True)
class CaptionedImage:
    """An image and its caption.

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
    """An image without a caption.

    Attributes:
        path: The file.
        error: Why; its text says what can be done.

    """

    path: Path
    error: Exception

    def __str__(self) -> str:
        text = str(self.error)
        return text if str(self.path) in text else f"{self.path}: {text}"


CaptionResult: TypeAlias = CaptionedImage | CaptionFailure
"""What came of one image."""


def _own_name(path: Path) -> str:
    return path.name


class CaptionRunner:
    """Asks about images, several at once.

    Attributes:
        num_asked: How many captions a model wrote.
        usage: What that took, as far as it was told.
        fatal_error: The error after which nothing more was asked; None where there was none.

    """

    def __init__(
        self,
        question: CaptionTask,
        log: CaptionLog,
        *,
        name_in_log: Callable[[Path], str] = _own_name,
        log_duplicates: bool = False,
    ) -> None:
        """Prepare to ask.

        Args:
            question: What to ask about each image.
            log: Knows captions from earlier, and is told the new ones.
            name_in_log: What the log calls a file.
            log_duplicates: Whether the log is told of each file that has a caption, and not only of each that was asked
                about: of copies, and of images that were renamed.

        """
        self._question = question
        self._log = log
        self._name_of = name_in_log
        self._note_copies = log_duplicates
        self._in_flight: dict[str, asyncio.Task[Caption]] = {}
        self.fatal_error: LlamaVisionError | None = None
        self.num_asked = 0
        self.usage = Usage()

    async def run(
        self, files: Sequence[Path], *, concurrency: int, on_done: Callable[[CaptionResult], object]
    ) -> list[CaptionResult]:
        """Caption files.

        Args:
            files: The images.
            concurrency: How many calls may be on their way at once, at least 1.
            on_done: Told of each image when it is done with.

        Returns:
            What became of each, in their order.

        """
        outcomes: dict[Path, CaptionResult] = {}
        waiting = iter(files)

        async def work(files: Iterator[Path]) -> None:
            for path in files:
                outcomes[path] = outcome = await self._outcome(path)
                on_done(outcome)

        async with asyncio.TaskGroup() as workers:
            for _ in range(min(concurrency, len(files))):
                workers.create_task(work(waiting))  # one iterator for all: each file is taken once
        return [outcomes[path] for path in files]

    async def _outcome(self, path: Path) -> CaptionResult:
        try:
            image, digest = await asyncio.to_thread(_read, path)
            caption = await self._caption(image, self._question.cache_key(digest), path)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other images can do nothing for it
            return CaptionFailure(path, error)
        return CaptionedImage(path, digest, image.media_type, caption)

    async def _caption(self, image: Image, key: str, path: Path) -> Caption:
        """Know it, wait for it where a copy of the image is being asked about, or ask."""
        if (caption := self._log.get(key)) is None:
            if key not in self._in_flight:
                self._in_flight[key] = asyncio.create_task(self._ask(image, key, path))
            caption = await self._in_flight[key]
        if self._note_copies and not self._log.has(key, self._name_of(path)):
            self._note(key, caption, path)
        return caption

    async def _ask(self, image: Image, key: str, path: Path) -> Caption:
        if self.fatal_error is not None:
            raise self.fatal_error.with_traceback(None)
        began = time.monotonic()
        try:
            reply = await self._question.ask(image)
        except FATAL_ERRORS as error:
            self.fatal_error = error
            raise
        seconds = time.monotonic() - began
        self.num_asked += 1
        self.usage = self.usage + reply.usage
        caption = self._read_caption(reply)
        told = reply.usage
        self._note(
            key,
            caption,
            path,
            input_tokens=told.input_tokens,
            output_tokens=told.output_tokens,
            cost_usd=told.cost_usd,
            cost_is_estimate=None if told.cost_usd is None else told.cost_is_estimate,
            seconds=round(seconds, 3),
        )
        return caption

    def _note(self, key: str, caption: Caption, path: Path, **took: Any) -> None:
        model = f"{self._question.provider}/{self._question.model}"
        self._log.add(key, caption, file=self._name_of(path), model=model, **took)

    def _read_caption(self, reply: Reply) -> Caption:
        text = reply.text.strip()
        cut = reply.finish_reason == "length"
        if not text:
            what = "raise max_tokens" if cut else "ask with another prompt"
            raise MalformedReplyError(f"The model said nothing about the image: {what}.").with_context(
                self._question.provider, self._question.model
            )
        return Caption(text, cut)


def check_concurrency(concurrency: int) -> None:
    """Refuse a number of calls at once with which nothing would be done.

    Args:
        concurrency: The number.

    Raises:
        ConfigurationError: It is less than 1.

    """
    if concurrency < 1:
        raise ConfigurationError(f"concurrency has to be at least 1, and is {concurrency}.")


def _read(path: Path) -> tuple[Image, str]:
    image = image_from_any(path)
    return image, hashlib.sha256(image.data or b"").hexdigest()
