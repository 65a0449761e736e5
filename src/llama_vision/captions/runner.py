"""`CaptionRunner`: asks about many images concurrently, about each once."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from llama_vision.captions.image_files import ImageContent, ImageFile, LoadedImage
from llama_vision.captions.log import Caption, CaptionLog
from llama_vision.captions.task import CaptionTask
from llama_vision.core.errors import (
    FATAL_ERRORS,
    ConfigurationError,
    ImageError,
    LlamaVisionError,
    MalformedReplyError,
)
from llama_vision.core.messages import Image
from llama_vision.core.reply import Reply
from llama_vision.core.usage import Usage
from llama_vision.images.thumbnail import thumbnail_url

DEFAULT_CONCURRENCY = 8
"""Maximum calls in flight."""


CaptionSource: TypeAlias = ImageFile | LoadedImage
"""An image to caption."""


@dataclass(frozen=True, slots=True)
class CaptionedImage:
    """An image and its caption.

    Attributes:
        source: The file or page, or the image in memory.
        digest: SHA-256 of its bytes; of a page, of its pixels.
        media_type: From the file's first bytes, such as `image/png`.
        caption: The model's caption.
        text: A page's text layer; else empty.
        page_count: Of the page's document; None of an image.
        image: What can't be read from a file of its own, a page or an image in memory, where images are kept.
        thumbnail: A small version as a data URL, where thumbnails are kept; None of one that can't be decoded or has a URL.
    """

    source: CaptionSource
    digest: str
    media_type: str | None
    caption: Caption
    text: str = ""
    page_count: int | None = None
    image: Image | None = None
    thumbnail: str | None = None

    @property
    def path(self) -> Path | None:
        """The file; None of an image in memory."""
        return self.source.path

    @property
    def page(self) -> int | None:
        """The page of a document, from 1; else None."""
        return self.source.page


@dataclass(frozen=True, slots=True)
class CaptionFailure:
    """An image without a caption.

    Attributes:
        source: The file or page, or the image in memory.
        error: What went wrong; its text says what can be done.
    """

    source: CaptionSource
    error: Exception

    @property
    def path(self) -> Path | None:
        """The file; None of an image in memory."""
        return self.source.path

    @property
    def page(self) -> int | None:
        """The page of a document, from 1; else None."""
        return self.source.page

    def __str__(self) -> str:
        text, place = str(self.error), str(self.source)
        return text if place in text else f"{place}: {text}"


CaptionResult: TypeAlias = CaptionedImage | CaptionFailure
"""Result of one image."""


class CaptionRunner:
    """Asks about images, several at once.

    Attributes:
        num_asked: Captions written by the model.
        usage: Their tokens and cost, as far as the provider reports them.
        fatal_error: The error after which no further call was made, or None.
        failures: Errors by the keys of captions that are not asked for again.
    """

    def __init__(
        self,
        task: CaptionTask,
        log: CaptionLog,
        *,
        name_in_log: Callable[[Path], str] = lambda path: path.name,
        log_duplicates: bool = False,
        keep_images: bool = False,
        keep_thumbnails: bool = False,
    ) -> None:
        """Prepare to run.

        Args:
            task: The prompt and the model.
            log: Where captions are looked up and added.
            name_in_log: What a file is called there.
            log_duplicates: Whether every captioned file is logged, also copies and renamed ones, and not only new captions.
            keep_images: Whether results hold the images of pages, and those in memory.
            keep_thumbnails: Whether results hold thumbnails.
        """
        self._task = task
        self._log = log
        self._name_in_log = name_in_log
        self._log_duplicates = log_duplicates
        self._keep_images = keep_images
        self._keep_thumbnails = keep_thumbnails
        self._in_flight: dict[str, asyncio.Task[Caption]] = {}
        self.fatal_error: LlamaVisionError | None = None
        self.failures: dict[str, LlamaVisionError] = {}
        self.num_asked = 0
        self.usage = Usage()

    async def run(
        self, files: Sequence[CaptionSource], *, concurrency: int, on_done: Callable[[CaptionResult], object]
    ) -> list[CaptionResult]:
        """Caption files.

        Args:
            files: The images, and pages of documents.
            concurrency: Maximum calls in flight, at least 1.
            on_done: Called with each result as it comes.

        Returns:
            The results, in the order of the files.
        """
        results: dict[int, CaptionResult] = {}
        queue = enumerate(files)  # one for all workers: each file is taken once

        async def work() -> None:
            for index, file in queue:
                results[index] = result = await self._result(file)
                on_done(result)

        async with asyncio.TaskGroup() as workers:
            for _ in range(min(concurrency, len(files))):
                workers.create_task(work())
        return [results[index] for index in range(len(files))]

    async def _result(self, file: CaptionSource) -> CaptionResult:
        try:
            content, thumbnail = await asyncio.to_thread(self._read, file)
            caption = await self._caption(content.image, self._task.cache_key(content.digest), file)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other images are not to blame
            return CaptionFailure(file, error)
        is_in_file = file.path is not None and file.page is None
        return CaptionedImage(
            source=file,
            digest=content.digest,
            media_type=content.image.media_type,
            caption=caption,
            text=content.text,
            page_count=content.page_count,
            image=content.image if self._keep_images and not is_in_file else None,
            thumbnail=thumbnail,
        )

    def _read(self, file: CaptionSource) -> tuple[ImageContent, str | None]:
        content = file.read(lossless=self._task.lossless)
        if not self._keep_thumbnails:
            return content, None
        try:
            return content, thumbnail_url(content.image)
        except ImageError:  # a provider may decode what is not decoded here, or fetch a URL
            return content, None

    async def _caption(self, image: Image, key: str, file: CaptionSource) -> Caption:
        """Look the caption up, wait for the call about a copy of the image, or make one."""
        if (caption := self._log.get(key)) is None:
            if key not in self._in_flight:
                self._in_flight[key] = asyncio.create_task(self._ask(image, key, file))
            caption = await self._in_flight[key]
        if self._log_duplicates and not self._log.has(key, self._name(file), file.page):
            self._add_to_log(key, caption, file)
        return caption

    async def _ask(self, image: Image, key: str, file: CaptionSource) -> Caption:
        if self.fatal_error is not None:
            raise self.fatal_error.with_traceback(None)
        if (failure := self.failures.get(key)) is not None:
            raise failure
        start = time.monotonic()
        try:
            reply = await self._task.ask(image)
        except FATAL_ERRORS as error:
            self.fatal_error = error
            raise
        return self.add_reply(key, file, reply, time.monotonic() - start)

    def add_reply(self, key: str, file: CaptionSource, reply: Reply, seconds: float | None = None) -> Caption:
        """Count a reply, and log its caption.

        Args:
            key: Of the caption.
            file: The image.
            reply: What the model said about it.
            seconds: How long that took; None where it is not known.

        Returns:
            The caption.

        Raises:
            MalformedReplyError: The model said nothing.
            LlamaVisionError: The caption can't be written.
        """
        usage = reply.usage
        self.num_asked += 1
        self.usage += usage
        caption = self._to_caption(reply)
        self._add_to_log(
            key,
            caption,
            file,
            reply,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cost_usd=usage.cost_usd,
            cost_is_estimate=None if usage.cost_usd is None else usage.cost_is_estimate,
            seconds=None if seconds is None else round(seconds, 3),
        )
        return caption

    def _add_to_log(
        self, key: str, caption: Caption, file: CaptionSource, reply: Reply | None = None, **details: Any
    ) -> None:
        model = f"{self._task.provider}/{self._task.model}"
        if reply is not None and "provider" in reply.metadata:  # one of several
            model = f"{reply.metadata['provider']}/{reply.model or self._task.model}"
        name = self._name(file)
        try:
            self._log.add(key, caption, file=name, page=file.page, model=model, **details)
        except OSError as error:  # further captions would be paid for and lost
            self.fatal_error = LlamaVisionError(
                f"The caption of {file} can't be written to the file: {error.strerror}. Make room on the disk, then "
                "start the same run again: it asks only about what is missing."
            )
            raise self.fatal_error from error

    def _name(self, file: CaptionSource) -> str:
        return self._name_in_log(file.path) if file.path is not None else str(file)

    def _to_caption(self, reply: Reply) -> Caption:
        text = reply.text.strip()
        truncated = reply.finish_reason == "length"
        if not text:
            advice = "raise max_tokens" if truncated else "ask with another prompt"
            raise MalformedReplyError(f"The model said nothing about the image: {advice}.").with_context(
                self._task.provider, self._task.model
            )
        return Caption(text, truncated)


def check_concurrency(concurrency: int) -> None:
    """Raise `ConfigurationError` for a maximum of calls in flight below 1."""
    if concurrency < 1:
        raise ConfigurationError(f"concurrency has to be at least 1, and is {concurrency}.")
