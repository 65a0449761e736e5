"""`CaptionBatches`: captions through a provider's batch API, which a later run goes on with whenever one is stopped."""

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from llama_vision.backends.batches import BatchClient, EncodedRequest
from llama_vision.captions.image_files import ImageFile, LoadedImage
from llama_vision.captions.log import CaptionLog
from llama_vision.captions.runner import CaptionResult, CaptionRunner, CaptionSource
from llama_vision.captions.task import CaptionTask
from llama_vision.core.errors import FATAL_ERRORS, BatchError, ConfigurationError, LlamaVisionError
from llama_vision.core.messages import Image
from llama_vision.core.reply import Reply
from llama_vision.core.request import ChatRequest
from llama_vision.dialects.chat_completions.batches import WireBatch


@dataclass
class _Job:
    """A batch, as the file keeps it.

    Attributes:
        provider: Where it is.
        model: Which is asked.
        file_id: Its requests, uploaded.
        batch_id: Empty until it is known to be started.
        images: Of each request the key of its caption, the image's file or name, and the page.
    """

    provider: str
    model: str
    file_id: str
    batch_id: str
    images: list[tuple[str, str, int | None]]


class CaptionBatches:
    """Asks about images through a batch API.

    Beside the log of captions stands a hidden file with the batches that are not in the log yet. It is written after an upload, which
    asks nothing, and once a batch is started, so that no image is asked about twice wherever a run is stopped: of a file of requests
    whose batch is not known the provider's list tells whether it was started.

    Attributes:
        task: That of the runner, which asks nothing by itself.
    """

    def __init__(
        self,
        task: CaptionTask,
        log: CaptionLog,
        log_path: Path | None,
        client: BatchClient,
        request: Callable[[Image], ChatRequest],
        *,
        on_status: Callable[[str], object] | None = None,
    ) -> None:
        """Read which batches an earlier run left.

        Args:
            task: The prompt and the model.
            log: Where captions are looked up.
            log_path: Its file.
            client: The batch API.
            request: Makes the request about an image.
            on_status: Called with a line of text whenever the status of a batch is another one.

        Raises:
            ConfigurationError: There is no file to resume from, or the one with the batches can't be read.
        """
        if log_path is None:
            raise ConfigurationError(
                "A batch takes up to a day, and may be billed once only: give a file of captions that a later run resumes "
                "from (resume=..., or --out FILE)."
            )
        self.task = replace(task, ask=_ask_nothing)
        self._task = task
        self._log = log
        self._client = client
        self._request = request
        self._on_status = on_status
        self._path = log_path.with_name(f".{log_path.name}.batches")
        try:
            kept: object = json.loads(self._path.read_bytes()) if self._path.exists() else []
            self._jobs = TypeAdapter(list[_Job]).validate_python(kept)
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"{str(self._path)!r}, which holds the batches under way, can't be read: {error}."
            ) from error

    async def run(
        self,
        runner: CaptionRunner,
        files: Sequence[CaptionSource],
        *,
        concurrency: int,
        on_done: Callable[[CaptionResult], object],
    ) -> list[CaptionResult]:
        """Caption files.

        Args:
            runner: Logs the captions; its task is `task`.
            files: The images, and pages of documents.
            concurrency: How many images are read at once.
            on_done: Called with each result, once all batches are done.

        Returns:
            The results, in the order of the files.

        Raises:
            LlamaVisionError: The provider can't be asked. The next run goes on.
        """
        await self._submit(files)
        for job in self._own_jobs():
            await self._collect(job, runner)
        return await runner.run(files, concurrency=concurrency, on_done=on_done)

    async def _submit(self, files: Sequence[CaptionSource]) -> None:
        """Start the batches that are not, then make new ones of all images without a caption."""
        for job in self._own_jobs():
            if not job.batch_id:
                found = await self._client.arun(self._client.find(job.file_id))
                await self._start(job, found)
        asked = {key for job in self._jobs for key, *_ in job.images}
        encoded: list[EncodedRequest] = []
        images: list[tuple[str, str, int | None]] = []
        for file in files:
            try:
                content = await asyncio.to_thread(file.read, lossless=self._task.lossless)
                key = self._task.cache_key(content.digest)
                if key in asked or self._log.get(key) is not None:
                    continue
                further = await self._client.aencode(self._request(content.image))
            except FATAL_ERRORS:
                raise
            except Exception:  # noqa: BLE001, S112 - the run that follows tells it as the image's failure
                continue
            asked.add(key)
            if encoded and not self._client.fits(encoded, further):
                await self._send(encoded, images)
                encoded, images = [], []
            encoded.append(further)
            name = file.name if isinstance(file, LoadedImage) else str(file.path)
            images.append((key, name, file.page))
        if encoded:
            await self._send(encoded, images)

    async def _send(
        self, encoded: Sequence[EncodedRequest], images: list[tuple[str, str, int | None]]
    ) -> None:
        with self._client.budget(encoded):
            file_id = await self._client.arun(self._client.upload(encoded))
            job = _Job(self._task.provider, self._task.model, file_id, "", images)
            self._jobs.append(job)
            self._save()
            await self._start(job, None)

    async def _start(self, job: _Job, found: WireBatch | None) -> None:
        batch = found or await self._client.arun(self._client.create(job.file_id))
        job.batch_id = batch.id
        self._save()

    async def _collect(self, job: _Job, runner: CaptionRunner) -> None:
        """Wait for a batch, and log its captions."""
        told = ""

        def tell(batch: WireBatch) -> None:
            nonlocal told
            if self._on_status is not None and batch.status != told:
                told = batch.status
                self._on_status(f"{batch.id}: {told}, {len(job.images)} images")

        batch = await self._client.arun(self._client.wait(job.batch_id, None, tell))
        rows = await self._client.arun(self._client.results(batch, len(job.images)))
        for (key, name, page), row in zip(job.images, rows, strict=False):
            if self._log.get(key) is not None:
                continue
            try:
                self._add(runner, key, ImageFile(Path(name), page), row)
            except LlamaVisionError as error:
                if runner.fatal_error is not None:
                    raise
                runner.failures[key] = error
        self._jobs.remove(job)
        self._save()

    def _add(self, runner: CaptionRunner, key: str, file: ImageFile, row: Reply | LlamaVisionError) -> None:
        if isinstance(row, LlamaVisionError):
            raise row
        runner.add_reply(key, file, row)

    def _own_jobs(self) -> list[_Job]:
        """Return the batches of this provider and model; others stay for a run with theirs."""
        here = (self._task.provider, self._task.model)
        return [job for job in self._jobs if (job.provider, job.model) == here]

    def _save(self) -> None:
        """Write the file, whole or not at all."""
        if not self._jobs:
            self._path.unlink(missing_ok=True)
            return
        unfinished = self._path.with_name(f"{self._path.name}.part")
        with unfinished.open("w", encoding="utf-8", errors="backslashreplace") as file:
            json.dump([asdict(job) for job in self._jobs], file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self._path)


async def _ask_nothing(image: Image) -> Reply:  # noqa: ARG001 - of any image
    raise BatchError("The image was changed while its batch was under way: the same run again asks about it.")
