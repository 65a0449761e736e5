"""`caption_images`: captions of images as nodes for any LlamaIndex index."""

import asyncio
import base64
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from llama_index.core.schema import ImageNode, NodeRelationship, RelatedNodeInfo

from llama_vision.captions import (
    DEFAULT_CONCURRENCY,
    DEFAULT_PROMPT,
    CaptionedImage,
    CaptionFailure,
    CaptionLog,
    CaptionResult,
    CaptionRunner,
    CaptionTask,
)
from llama_vision.captions.batches import CaptionBatches
from llama_vision.captions.event_loop import run_async
from llama_vision.captions.image_files import absolute
from llama_vision.captions.runner import check_concurrency
from llama_vision.core.formatting import format_cost, html_figures, html_text
from llama_vision.core.messages import Image
from llama_vision.core.reply import Reply
from llama_vision.core.request import ChatRequest
from llama_vision.core.usage import Usage
from llama_vision.llamaindex.caption_inputs import Captionable, CaptionInput, CaptionInputs, node_citation
from llama_vision.llamaindex.convert import to_reply, to_request
from llama_vision.llamaindex.images import user_message
from llama_vision.llamaindex.llm import LlamaVision
from llama_vision.providers.route import Route, resolve_provider

_MAX_FAILURES = 10  # in a result's text
_MAX_FIGURES, _FIGURE_WIDTH = 100, 160  # the width in CSS pixels
_NAMESPACE = uuid.UUID("6f1d7f0c-5f0e-4c53-9b8c-3a1c0f6f2d11")  # of our own, for node ids
_CACHE_KEY_FIELDS = (
    *("system_prompt", "temperature", "max_tokens", "additional_kwargs"),
    *("image_max_pixels", "image_format", "image_quality"),
)
"""Fields of the model that a caption depends on, besides provider and model."""

_NOT_FOR_MODELS = ("file_path", "page_count", "thumbnail")
_OWN_METADATA = (*_NOT_FOR_MODELS, "file_name", "page_label", "caption")


@dataclass(frozen=True, slots=True, repr=False)
class Captions:
    """Result of `caption_images`.

    Attributes:
        nodes: One for each captioned image or page, in their order. The node's text is the caption, of a page with its text
            layer below; it is embedded. A model that is given the node gets the image, the caption, the file's name and
            the page.
        failures: The images without a caption, each with its error.
        skipped: Files that are no images: those in folders, and those of loaded documents.
        truncated: Images whose caption was cut off at max_tokens; of those in memory the names.
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
            count = "1 image has" if len(self.failures) == 1 else f"{len(self.failures)} images have"
            lines.append(f"{count} none; with the same `resume` only they are asked again:")
            lines += [f"  {failure}" for failure in self.failures[:_MAX_FAILURES]]
            lines += ["  ..."] if len(self.failures) > _MAX_FAILURES else []
        return "\n".join(lines)

    def __repr__(self) -> str:
        """Summarize on one line; the nodes hold images."""
        return f"<Captions: {str(self).splitlines()[0]}, {len(self.failures)} failures>"

    def _repr_html_(self) -> str:
        """Display thumbnails with captions in a notebook, at most 100, below the summary."""
        figures = [
            (node.metadata.get("thumbnail"), f"{node_citation(node)}\n{node.metadata['caption']}")
            for node in self.nodes
        ]
        more = max(0, len(figures) - _MAX_FIGURES)
        return html_text(str(self)) + html_figures(figures[:_MAX_FIGURES], width=_FIGURE_WIDTH, more=more)


def caption_images(
    paths: "Captionable | Iterable[Captionable]",
    llm: LlamaVision,
    *,
    prompt: str = DEFAULT_PROMPT,
    concurrency: int = DEFAULT_CONCURRENCY,
    resume: str | Path | None = None,
    batch: bool = False,
    progress: bool = True,
    metadata: Callable[[str], Mapping[str, Any]] | None = None,
    password: str | None = None,
    **options: Any,
) -> Captions:
    """Caption images and pages of documents, and return them as nodes for any index.

        captions = caption_images("reports", LlamaVision(), resume="captions.jsonl")
        index = VectorStoreIndex(captions.nodes, embed_model=...)
        engine = PageQueryEngine(index.as_retriever(similarity_top_k=2), LlamaVision())
        print(captions)  # what failed, and what to do about it

    Failures are listed in the result, and the other images are captioned all the same. After an error that every
    image would meet (a wrong key, no credit left) no further call is made, and the rest is listed with that error.

    The node of an image file holds its path, not the image: keep the files in place as long as an index is in use. That
    of a page, or of an image in memory, holds the image. A node's id is derived from the image's bytes or the page's pixels: an image
    that was renamed or moved keeps its id, and inserting the nodes again replaces the old ones. Each node is its own
    `ref_doc_id`, so that `index.delete_ref_doc(node.node_id)` removes it. For an index that follows its folder see `ImageCaptioner`.

    The metadata are `file_path` and `file_name` of a file, `page_label` and `page_count` of a page, `caption`, and `thumbnail`,
    a data URL for people, which is neither embedded nor shown to a model.

    Args:
        paths: A folder, searched recursively, an image, a PDF or TIFF, a URL, bytes, an open file, a PIL image, a `Page`, an
            `ImageDocument`, `ImageNode`, `ImageBlock` or `DocumentBlock`; or several of these. In a folder every file counts whose bytes are
            an image's or a document's. A `Document` of text whose `file_path` is an image or PDF, as `SimpleDirectoryReader` makes
            without `llama-index-readers-file`, means that file. A loader's metadata are kept.
        llm: The model.
        prompt: The prompt for each image.
        concurrency: Maximum calls in flight.
        resume: A file of JSON lines that captions are appended to as they come, and looked up in by a later call: after
            an interruption only the images that were in flight are asked about again. The key is the image's bytes, the
            prompt, the model and its settings, not the file's name. By default nothing is kept.
        batch: Whether to ask through the provider's batch API, which answers within a day at a lower price. It takes a
            `resume` file: a later call goes on wherever this one is stopped, and asks about no image twice. LlamaIndex's callbacks see nothing of it.
        progress: Whether to draw a progress bar.
        metadata: Further metadata of a file, by its path; they are embedded and shown to models.
        password: That of encrypted PDFs.
        **options: Options for each call, such as `max_tokens`.

    Returns:
        The nodes, failures and usage.

    Raises:
        ImageError: There is nothing at the path.
        UnsupportedInputError: There is no such option.
        ConfigurationError: `concurrency` is less than 1, `resume` can't be read or written, or a `batch` has none.
    """
    work = acaption_images(
        paths,
        llm,
        prompt=prompt,
        concurrency=concurrency,
        resume=resume,
        batch=batch,
        progress=progress,
        metadata=metadata,
        password=password,
        **options,
    )
    return run_async(work)


async def acaption_images(
    paths: "Captionable | Iterable[Captionable]",
    llm: LlamaVision,
    *,
    prompt: str = DEFAULT_PROMPT,
    concurrency: int = DEFAULT_CONCURRENCY,
    resume: str | Path | None = None,
    batch: bool = False,
    progress: bool = True,
    metadata: Callable[[str], Mapping[str, Any]] | None = None,
    password: str | None = None,
    **options: Any,
) -> Captions:
    """Caption images, asynchronously. See `caption_images`."""
    check_concurrency(concurrency)
    log_path = None if resume is None else absolute(resume)
    found = await asyncio.to_thread(
        CaptionInputs, paths, exclude=log_path, password=password, metadata=metadata
    )
    sources = [given.source for given in found.inputs]
    with CaptionLog(log_path) as log, _progress_bar(len(sources), enabled=progress) as bar:
        task = _caption_task(llm, prompt, options)
        batches = _open_batches(task, log, log_path, llm, options) if batch else None
        runner = CaptionRunner(batches.task if batches else task, log, keep_images=True, keep_thumbnails=True)
        run = runner.run if batches is None else partial(batches.run, runner)
        results = await run(sources, concurrency=concurrency, on_done=lambda _: bar.update())
    captioned = [result for result in results if isinstance(result, CaptionedImage)]
    return Captions(
        nodes=list(_nodes(zip(found.inputs, results, strict=True))),
        failures=[result for result in results if isinstance(result, CaptionFailure)],
        skipped=found.skipped,
        truncated=[
            result.path or Path(str(result.source)) for result in captioned if result.caption.truncated
        ],
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
        lossless=first.image_rules.decoded_by_backend,
    )


def _open_batches(
    task: CaptionTask, log: CaptionLog, log_path: Path | None, llm: LlamaVision, options: Mapping[str, Any]
) -> CaptionBatches:
    def request(image: Image) -> ChatRequest:
        return llm._request([user_message(task.prompt, [image])], options)  # pyright: ignore[reportPrivateUsage] # noqa: SLF001 - of this package

    client, _ = llm._batches([task.prompt], options)  # pyright: ignore[reportPrivateUsage] # noqa: SLF001 - of this package
    return CaptionBatches(task, log, log_path, client, request)


def _progress_bar(total: int, *, enabled: bool) -> Any:
    """Make a tqdm bar: a widget in notebooks that have ipywidgets, else text on stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm warns if there are no ipywidgets
        from tqdm.auto import tqdm  # noqa: PLC0415 - asks the notebook what it has
    bar: Any = tqdm
    hidden = {} if enabled else {"disable": True}  # else $TQDM_DISABLE decides
    return bar(total=total, desc="Captions", unit="image", **hidden)


def _nodes(results: Iterable[tuple[CaptionInput, CaptionResult]]) -> Iterable[ImageNode]:
    copies: Counter[str] = Counter()
    for given, result in results:
        if isinstance(result, CaptionedImage):
            # A UUID, because some vector stores accept no other ids; copies of an image are numbered.
            node_id = str(uuid.uuid5(_NAMESPACE, f"{result.digest} {copies[result.digest]}"))
            copies[result.digest] += 1
            yield _node(given, result, node_id)


def _node(given: CaptionInput, result: CaptionedImage, node_id: str) -> ImageNode:
    metadata = {**given.metadata, **_metadata(result)}
    ours = [key for key in metadata if key not in given.metadata or key in _OWN_METADATA]
    image = result.image
    path = result.path if image is None else None
    return ImageNode(
        id_=node_id,
        text=f"{result.caption.text}\n\n{result.text}".strip(),
        image=base64.b64encode(image.data).decode() if image and image.data else None,
        image_path=None if path is None else str(path),
        image_url=image.url if image and image.url else _page_uri(result),
        # Without it LlamaIndex goes by the file's suffix, and fails if there is none.
        image_mimetype=result.media_type,
        # A model is given a node's metadata and image, and not its text.
        metadata=metadata,
        excluded_embed_metadata_keys=[*given.excluded_embed_metadata_keys, *ours],
        excluded_llm_metadata_keys=[*given.excluded_llm_metadata_keys, *_NOT_FOR_MODELS],
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=given.ref_doc_id or node_id)},
    )


def _metadata(result: CaptionedImage) -> dict[str, Any]:
    found = {
        "file_path": result.path and str(result.path),
        "file_name": result.path and result.path.name,
        "page_label": result.page and str(result.page),
        "page_count": result.page_count,
        "caption": result.caption.text,
        "thumbnail": result.thumbnail,
    }
    return {key: value for key, value in found.items() if value is not None}


def _page_uri(result: CaptionedImage) -> str | None:
    """Address a page of a file as PDF viewers do; two equal pages differ by it for LlamaIndex, which goes by a node's hash."""
    if result.path is None or result.page is None:
        return None
    return f"{result.path.as_uri()}#page={result.page}"
