"""`caption_images`: images become nodes that any LlamaIndex index takes."""

import asyncio
import contextvars
import uuid
from collections import Counter
from collections.abc import Coroutine, Iterable
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
    Paths,
    absolute,
    check_concurrency,
    find_images,
)
from llama_vision.core.usage import Usage
from llama_vision.llamaindex.captioning import caption_task, progress_bar
from llama_vision.llamaindex.llm import LlamaVision

_SHOWN = 10  # failures in a result's text
_NAMESPACE = uuid.UUID("6f1d7f0c-5f0e-4c53-9b8c-3a1c0f6f2d11")  # of our own, for the ids of nodes

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Captions:
    """What came of `caption_images`.

    Attributes:
        nodes: One for each image with a caption, in the order of the images. The caption is a node's text, and all
            of it that is embedded; a model that is shown the node sees the image, the caption and the file's name.
        failures: The images without one, and why.
        passed_over: Files in the folder that are no images.
        cut: Images whose caption ends at max_tokens, in the middle.
        asked: How many captions the model wrote in this run; the others were known, or are of copies.
        usage: What this run took: tokens, and US dollars where they are known. None where nobody told.

    """

    nodes: list[ImageNode]
    failures: list[CaptionFailure]
    passed_over: list[Path]
    cut: list[Path]
    asked: int
    usage: Usage

    def __str__(self) -> str:
        """Say it in a few lines, failures in full."""
        lines = [f"{len(self.nodes)} captions, {self.asked} of them new"]
        if self.usage.cost_usd is not None:
            about = "about " if self.usage.cost_is_estimate else ""
            lines[0] += f", for {about}{self.usage.cost_usd:.6f} USD"
        if self.cut:
            lines.append(f"{len(self.cut)} captions were cut off: raise max_tokens.")
        if self.failures:
            lines.append(
                f"{len(self.failures)} images have none; with the same `resume` only they are asked again:"
            )
            lines += [f"  {failure}" for failure in self.failures[:_SHOWN]]
            lines += ["  ..."] if len(self.failures) > _SHOWN else []
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
    """Describe images, and make nodes of them for any index.

        captions = caption_images("photos", LlamaVision(), resume="captions.jsonl")
        index = VectorStoreIndex(captions.nodes, embed_model=...)
        engine = RetrieverQueryEngine.from_args(
            index.as_retriever(similarity_top_k=1), llm=LlamaVision(), multimodal=True
        )
        print(captions)  # what failed, and what to do about it

    What fails is listed in the result, and the other images are captioned all the same. After an error that every
    image would meet (a wrong key, no credit left) nothing more is asked, and the rest is listed with that error.

    A node holds the image's path and not the image: keep the files where they are as long as an index is in use. Its
    id comes from the image's bytes, so that an image that was renamed or moved keeps its id, and inserting the nodes
    again replaces what is there.

    Args:
        paths: A folder, with all below it, or images, or several of both. In a folder all files are taken whose bytes
            are an image's.
        llm: The model.
        prompt: What to ask about each image.
        concurrency: How many calls may be on their way at once.
        resume: A file that captions are added to as they come, as JSON lines, and found in by a later call: after an
            interruption only those are asked again that were on their way. They are found by the image's bytes, the
            prompt, the model and its settings; names and places of files don't matter. By default nothing is kept.
        progress: Whether to draw a bar.
        **options: Options for each call, such as `max_tokens`.

    Returns:
        The nodes, and what there is to know beside them.

    Raises:
        ImageError: There is nothing at the path.
        ConfigurationError: `concurrency` is less than 1, or `resume` can't be used.

    """
    return _wait_for(
        acaption_images(
            paths,
            llm,
            prompt=prompt,
            concurrency=concurrency,
            resume=resume,
            progress=progress,
            **options,
        )
    )


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
    """Describe images without blocking the event loop. See `caption_images`."""
    check_concurrency(concurrency)
    kept_in = None if resume is None else absolute(resume)
    files = await asyncio.to_thread(find_images, paths, exclude=kept_in)
    with CaptionLog(kept_in) as log, progress_bar(len(files.images), shown=progress) as bar:
        captioning = CaptionRunner(caption_task(llm, prompt, options), log)
        outcomes = await captioning.run(files.images, concurrency=concurrency, on_done=lambda _: bar.update())
    captioned = [outcome for outcome in outcomes if isinstance(outcome, CaptionedImage)]
    return Captions(
        nodes=list(_nodes(captioned)),
        failures=[outcome for outcome in outcomes if isinstance(outcome, CaptionFailure)],
        passed_over=files.skipped,
        cut=[outcome.path for outcome in captioned if outcome.caption.truncated],
        asked=captioning.num_asked,
        usage=captioning.usage,
    )


def _nodes(captioned: Iterable[CaptionedImage]) -> Iterable[ImageNode]:
    copies: Counter[str] = Counter()
    for one in captioned:
        # A UUID, because some vector stores take no other ids; copies of an image are numbered.
        node_id = uuid.uuid5(_NAMESPACE, f"{one.digest} {copies[one.digest]}")
        copies[one.digest] += 1
        yield ImageNode(
            id_=str(node_id),
            text=one.caption.text,
            image_path=str(one.path),
            # Without it LlamaIndex goes by the name's ending, and fails where there is none.
            image_mimetype=one.media_type,
            # A model is shown a node's metadata and image, and not its text.
            metadata={"file_name": one.path.name, "caption": one.caption.text},
            excluded_embed_metadata_keys=["file_name", "caption"],
        )


def _wait_for(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run to the end in an event loop of its own: where one runs already, as in a notebook, in a thread."""
    return _wait_beside(work) if _in_a_loop() else asyncio.run(work)


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _wait_beside(work: Coroutine[Any, Any, _Result]) -> _Result:
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = Future()

    async def noted() -> _Result:
        begun.set_result((asyncio.get_running_loop(), asyncio.current_task()))
        return await work

    with ThreadPoolExecutor(1, "captions") as beside:
        done = beside.submit(contextvars.copy_context().run, asyncio.run, noted())
        try:
            return done.result()
        except KeyboardInterrupt:  # it reaches only the main thread: the work has to be told
            loop, task = begun.result()
            if task is not None:
                loop.call_soon_threadsafe(task.cancel)
            raise
