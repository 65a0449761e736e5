"""`caption_images`: captions of images as nodes for any LlamaIndex index."""

import asyncio
import contextvars
import uuid
import warnings
from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from llama_index.core.schema import ImageNode

from llama_vision.captions import (
    DEFAULT_CONCURRENCY,
    DEFAULT_PROMPT,
    CaptionedImage,
    CaptionFailure,
    CaptionLog,
    CaptionRunner,
    CaptionTask,
    ImageFile,
    Paths,
    find_images,
)
from llama_vision.captions.image_files import absolute
from llama_vision.captions.runner import check_concurrency
from llama_vision.core.formatting import format_cost
from llama_vision.core.messages import Image
from llama_vision.core.reply import Reply
from llama_vision.core.usage import Usage
from llama_vision.llamaindex.convert import to_reply, to_request
from llama_vision.llamaindex.images import user_message
from llama_vision.llamaindex.llm import LlamaVision
from llama_vision.providers.route import Route, resolve_provider

_MAX_FAILURES = 10  # in a result's text
_NAMESPACE = uuid.UUID("6f1d7f0c-5f0e-4c53-9b8c-3a1c0f6f2d11")  # of our own, for node ids
_CACHE_KEY_FIELDS = (
    *("system_prompt", "temperature", "max_tokens", "additional_kwargs"),
    *("image_max_pixels", "image_format", "image_quality"),
)
"""Fields of the model that a caption depends on, besides provider and model."""

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Captions:
    """Result of `caption_images`.

    Attributes:
        nodes: One for each captioned image, in the order of the images. Only the caption, the node's text, is embedded;
            a model that is given the node gets the image, the caption and the file's name.
        failures: The images without a caption, each with its error.
        skipped: Files in the folder that are not images.
        truncated: Images whose caption was cut off at max_tokens.
        num_asked: Captions written by the model in this run; the others were known, or belong to copies.
        usage: Tokens and US dollars of this run; None where the provider didn't tell.
    """

    nodes: list[ImageNode]
    failures: list[CaptionFailure]
    skipped: list[Path]
    truncated: list[Path]
    num_asked: int
    usage: Usage

    def __str__(self) -> str:
        """Summarize in a few lines, with the failures."""
        lines = [f"{len(self.nodes)} captions, {self.num_asked} of them new"]
        if self.usage.cost_usd is not None:
            lines[0] += f", for {format_cost(self.usage)}"
        if self.truncated:
            lines.append(f"{len(self.truncated)} captions were cut off: raise max_tokens.")
        if self.failures:
            lines.append(
                f"{len(self.failures)} images have none; with the same `resume` only they are asked again:"
            )
            lines += [f"  {failure}" for failure in self.failures[:_MAX_FAILURES]]
            lines += ["  ..."] if len(self.failures) > _MAX_FAILURES else []
        return "\n".join(lines)


def caption_images(
    paths: Paths,
    llm: LlamaVision,
    *,
    prompt: str = DEFAULT_PROMPT,
    concurrency: int = DEFAULT_CONCURRENCY,
    resume: str | Path | None = None,
    progress: bool = True,
    **options: Any,
) -> Captions:
    """Caption images, and return them as nodes for any index.

        captions = caption_images("photos", LlamaVision(), resume="captions.jsonl")
        index = VectorStoreIndex(captions.nodes, embed_model=...)
        engine = RetrieverQueryEngine.from_args(
            index.as_retriever(similarity_top_k=1), llm=LlamaVision(), multimodal=True
        )
        print(captions)  # what failed, and what to do about it

    Failures are listed in the result, and the other images are captioned all the same. After an error that every
    image would meet (a wrong key, no credit left) no further call is made, and the rest is listed with that error.

    A node holds the image's path, not the image: keep the files in place as long as an index is in use. Its id is
    derived from the image's bytes: an image that was renamed or moved keeps its id, and inserting the nodes again
    replaces the old ones.

    Args:
        paths: A folder, searched recursively, an image, or several of both. In a folder every file counts whose bytes
            are an image's.
        llm: The model.
        prompt: The prompt for each image.
        concurrency: Maximum calls in flight.
        resume: A file of JSON lines that captions are appended to as they come, and looked up in by a later call: after
            an interruption only the images that were in flight are asked about again. The key is the image's bytes, the
            prompt, the model and its settings, not the file's name. By default nothing is kept.
        progress: Whether to draw a progress bar.
        **options: Options for each call, such as `max_tokens`.

    Returns:
        The nodes, failures and usage.

    Raises:
        ImageError: There is nothing at the path.
        UnsupportedInputError: There is no such option.
        ConfigurationError: `concurrency` is less than 1, or `resume` can't be read or written.
    """
    work = acaption_images(
        paths, llm, prompt=prompt, concurrency=concurrency, resume=resume, progress=progress, **options
    )
    return _run_in_thread(work) if _is_loop_running() else asyncio.run(work)


async def acaption_images(
    paths: Paths,
    llm: LlamaVision,
    *,
    prompt: str = DEFAULT_PROMPT,
    concurrency: int = DEFAULT_CONCURRENCY,
    resume: str | Path | None = None,
    progress: bool = True,
    **options: Any,
) -> Captions:
    """Caption images, asynchronously. See `caption_images`."""
    check_concurrency(concurrency)
    log_path = None if resume is None else absolute(resume)
    files = await asyncio.to_thread(find_images, paths, exclude=log_path)
    images = [ImageFile(path) for path in files.images]
    with CaptionLog(log_path) as log, _progress_bar(len(images), enabled=progress) as bar:
        runner = CaptionRunner(_caption_task(llm, prompt, options), log)
        results = await runner.run(images, concurrency=concurrency, on_done=lambda _: bar.update())
    captioned = [result for result in results if isinstance(result, CaptionedImage)]
    return Captions(
        nodes=list(_nodes(captioned)),
        failures=[result for result in results if isinstance(result, CaptionFailure)],
        skipped=files.skipped,
        truncated=[result.path for result in captioned if result.caption.truncated],
        num_asked=runner.num_asked,
        usage=runner.usage,
    )


def _caption_task(llm: LlamaVision, prompt: str, options: Mapping[str, Any]) -> CaptionTask:
    """Ask through `achat`, so that LlamaIndex's callbacks see each call."""
    provider = resolve_provider(llm.provider)
    first = provider.first if isinstance(provider, Route) else provider
    # Refuses a wrong option once.
    to_request(first, [], {"model": llm.model, **options}, llm.additional_kwargs)

    async def ask(image: Image) -> Reply:
        return to_reply(await llm.achat([user_message(prompt, [image])], **options))

    return CaptionTask(
        prompt=prompt,
        provider=provider.name,
        model=first.model_info(options.get("model") or llm.model).id,
        settings={name: getattr(llm, name) for name in _CACHE_KEY_FIELDS},
        options=options,
        ask=ask,
    )


def _progress_bar(total: int, *, enabled: bool) -> Any:
    """Make a tqdm bar: a widget in notebooks that have ipywidgets, else text on stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm warns if there are no ipywidgets
        from tqdm.auto import tqdm  # noqa: PLC0415 - asks the notebook what it has
    bar: Any = tqdm
    hidden = {} if enabled else {"disable": True}  # else $TQDM_DISABLE decides
    return bar(total=total, desc="Captions", unit="image", **hidden)


def _nodes(captioned: Iterable[CaptionedImage]) -> Iterable[ImageNode]:
    copies: Counter[str] = Counter()
    for one in captioned:
        # A UUID, because some vector stores accept no other ids; copies of an image are numbered.
        node_id = uuid.uuid5(_NAMESPACE, f"{one.digest} {copies[one.digest]}")
        copies[one.digest] += 1
        yield ImageNode(
            id_=str(node_id),
            text=one.caption.text,
            image_path=str(one.path),
            # Without it LlamaIndex goes by the file's suffix, and fails if there is none.
            image_mimetype=one.media_type,
            # A model is given a node's metadata and image, and not its text.
            metadata={"file_name": one.path.name, "caption": one.caption.text},
            excluded_embed_metadata_keys=["file_name", "caption"],
        )


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _run_in_thread(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run in an event loop of another thread: this one's is running already, as in a notebook."""
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = Future()

    async def main() -> _Result:
        started.set_result((asyncio.get_running_loop(), asyncio.current_task()))
        return await work

    with ThreadPoolExecutor(1, "captions") as executor:
        done = executor.submit(contextvars.copy_context().run, asyncio.run, main())
        try:
            return done.result()
        except KeyboardInterrupt:  # delivered only to the main thread: cancel the work
            loop, task = started.result()
            if task is not None:
                loop.call_soon_threadsafe(task.cancel)
            raise
