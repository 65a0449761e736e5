"""`CaptionLoader`: a LangChain document of each image and page, with the model's caption as its text."""

import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import Document
from typing_extensions import override

from llama_vision.captions import (
    DEFAULT_CONCURRENCY,
    DEFAULT_PROMPT,
    CaptionedImage,
    CaptionFailure,
    CaptionLog,
    CaptionRunner,
    CaptionTask,
    Paths,
    find_images,
    list_pages,
)
from llama_vision.captions.event_loop import run_async
from llama_vision.captions.image_files import absolute
from llama_vision.captions.runner import check_concurrency
from llama_vision.core.call_options import SAMPLING_OPTIONS
from llama_vision.core.errors import LlamaVisionError
from llama_vision.core.messages import Image
from llama_vision.core.reply import Reply
from llama_vision.core.usage import Usage
from llama_vision.langchain.chat_model import ChatLlamaVision
from llama_vision.langchain.images import human
from llama_vision.providers.route import first_provider

_NAMESPACE = uuid.UUID("6f1d7f0c-5f0e-4c53-9b8c-3a1c0f6f2d11")  # of our own, for ids


class CaptionLoader(BaseLoader):
    """Loads images and pages of PDFs and TIFFs, each as a document whose text is the caption and a page's text layer.

        loader = CaptionLoader("reports", model, resume="captions.jsonl")
        store = InMemoryVectorStore(embedding)
        store.add_documents(loader.load())
        chain = create_page_chain(store.as_retriever(), model)

    With `langchain_core.indexing.index(loader, ..., cleanup="full")` a store follows its folder: what is new or changed is captioned, and what is
    gone leaves it. The metadata are `source`, of a page `page_label` and `page_count`, `caption`, and `thumbnail`, a data URL.

    Args:
        paths: A folder, searched recursively, an image, a PDF or TIFF, or several of these.
        model: The model.
        prompt: The prompt for each image.
        concurrency: Maximum calls in flight.
        resume: A file of JSON lines that captions are kept in, the same as `llama-vision caption` writes: nothing is asked twice.
        password: That of encrypted PDFs.
        silent_errors: Whether what can't be captioned is left out, and listed in `failures`; else loading raises, once all
            others have been captioned.

    Attributes:
        failures: Of the last run, the images without a caption.
        skipped: Of the last run, files in folders that are no images.
        num_asked: Of the last run, captions written by the model; the others were known, or belong to copies.
        usage: Of the last run, tokens and US dollars.
    """

    def __init__(
        self,
        paths: Paths,
        model: ChatLlamaVision,
        *,
        prompt: str = DEFAULT_PROMPT,
        concurrency: int = DEFAULT_CONCURRENCY,
        resume: str | Path | None = None,
        password: str | None = None,
        silent_errors: bool = False,
    ) -> None:
        check_concurrency(concurrency)
        self._paths = paths
        self._model = model
        self._prompt = prompt
        self._concurrency = concurrency
        self._resume = None if resume is None else absolute(resume)
        self._password = password
        self._silent_errors = silent_errors
        self.failures: Sequence[CaptionFailure] = []
        self.skipped: Sequence[Path] = []
        self.num_asked = 0
        self.usage = Usage()

    @override
    def lazy_load(self) -> Iterator[Document]:
        """Caption what has no caption yet.

        Returns:
            The documents, in the order of the files.

        Raises:
            ImageError: There is nothing at the path.
            LlamaVisionError: An image got no caption; not with `silent_errors`.
        """
        yield from run_async(self._load())

    @override
    async def alazy_load(self) -> AsyncIterator[Document]:
        """Caption what has no caption yet, asynchronously. See `lazy_load`."""
        for document in await self._load():
            yield document

    async def _load(self) -> list[Document]:
        found = find_images(self._paths, exclude=self._resume, documents=True)
        files = list_pages(found.images, password=self._password)
        with CaptionLog(self._resume) as log:
            runner = CaptionRunner(self._task(), log, keep_thumbnails=True)
            results = await runner.run(files, concurrency=self._concurrency, on_done=lambda _: None)
        self.failures = [result for result in results if isinstance(result, CaptionFailure)]
        self.skipped, self.num_asked, self.usage = found.skipped, runner.num_asked, runner.usage
        if self.failures and not self._silent_errors:
            raise LlamaVisionError(
                f"{len(self.failures)} of {len(results)} images have no caption. {self.failures[0]}. With `resume` only they "
                "are asked about again; with silent_errors=True they are left out."
            ) from self.failures[0].error
        return _documents([result for result in results if isinstance(result, CaptionedImage)])

    def _task(self) -> CaptionTask:
        model, provider = self._model, first_provider(self._model.provider)

        async def ask(image: Image) -> Reply:
            message = await model.ainvoke([human(self._prompt, image)])
            finish_reason = message.response_metadata.get("finish_reason")
            return Reply(text=message.text, usage=Usage.from_langchain(message), finish_reason=finish_reason)

        parameters = {
            name: value
            for name in sorted(SAMPLING_OPTIONS - {"temperature", "max_tokens"})
            if (value := getattr(model, name)) is not None
        }
        # The names are those that LlamaIndex's `caption_images` and the command line have, so that captions are shared.
        settings: dict[str, Any] = {
            "system_prompt": None,
            "temperature": model.temperature,
            "max_tokens": model.max_tokens,
            "additional_kwargs": {**parameters, **(model.extra_body or {})},
            "image_max_pixels": model.image_max_pixels,
            "image_format": model.image_format,
            "image_quality": model.image_quality,
        }
        return CaptionTask(
            prompt=self._prompt,
            provider=provider.name,
            model=provider.model_info(model.model_name).id,
            settings=settings,
            options={},
            ask=ask,
            lossless=provider.image_rules.decoded_by_backend,
        )


def _documents(captioned: Sequence[CaptionedImage]) -> list[Document]:
    copies: Counter[str] = Counter()
    documents: list[Document] = []
    for result in captioned:
        # A UUID, because some vector stores accept no other ids; copies of an image are numbered.
        document_id = uuid.uuid5(_NAMESPACE, f"{result.digest} {copies[result.digest]}")
        copies[result.digest] += 1
        metadata = {
            "source": str(result.path),
            "page_label": None if result.page is None else str(result.page),
            "page_count": result.page_count,
            "caption": result.caption.text,
            "thumbnail": result.thumbnail,
        }
        documents.append(
            Document(
                id=str(document_id),
                page_content=f"{result.caption.text}\n\n{result.text}".strip(),
                metadata={key: value for key, value in metadata.items() if value is not None},
            )
        )
    return documents
