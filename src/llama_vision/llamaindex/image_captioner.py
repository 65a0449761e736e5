"""`ImageCaptioner`: captions images and pages in an `IngestionPipeline`."""

import uuid
from collections.abc import Sequence
from typing import Any

from llama_index.core.schema import BaseNode, ImageNode, TransformComponent
from pydantic import Field
from typing_extensions import override

from llama_vision.captions import DEFAULT_CONCURRENCY, DEFAULT_PROMPT
from llama_vision.core.errors import LlamaVisionError
from llama_vision.llamaindex.caption_inputs import is_captionable
from llama_vision.llamaindex.captions import Captions, acaption_images, caption_images
from llama_vision.llamaindex.llm import LlamaVision

_NAMESPACE = uuid.UUID("3f0a8c53-7f0b-4a38-8d2e-52c7d1f9a6b4")  # of our own, for node ids
_REF_DOC_ID = "ref_doc_id"


class ImageCaptioner(TransformComponent):
    """A transformation that makes nodes of images, as `caption_images` does; nodes of text pass unchanged.

        pipeline = IngestionPipeline(
            transformations=[ImageCaptioner(llm=llm, resume="captions.jsonl"), embedding],
            docstore=SimpleDocumentStore(),
            vector_store=vector_store,
            docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
        )
        reader = SimpleDirectoryReader("reports", file_extractor={".pdf": PageReader()})
        pipeline.run(documents=reader.load_data())

    Run again, such a pipeline captions only what is new or changed, and removes from the vector store what is gone. A run in which a caption fails
    raises the error, so that the pipeline does not take the image for done; with `resume` the next run asks only for what is missing.

    A node's id is derived from the id of its document and the image, so that two documents may have a page in common, and `ref_doc_id` is
    in its metadata, neither embedded nor shown to a model.

    Args:
        llm: The model.
        prompt: The prompt for each image.
        concurrency: Maximum calls in flight.
        resume: A file that captions are kept in, see `caption_images`.
        password: That of encrypted PDFs.
        options: Options for each call, such as `max_tokens`.
    """

    llm: LlamaVision
    prompt: str = DEFAULT_PROMPT
    concurrency: int = DEFAULT_CONCURRENCY
    resume: str | None = None
    password: str | None = Field(default=None, repr=False, exclude=True)
    options: dict[str, Any] = Field(default_factory=dict)

    @override
    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Return the fields, and a value that is another one each time, so that a pipeline's cache has no nodes of this step.

        The cache goes by text alone, not by images and ids (llama_index#23002): of scans, which have no text, it would
        return the nodes of earlier ones, and of an image that was loaded anew those of its former id, which never leave the store.
        """
        return {**super().to_dict(**kwargs), "call": uuid.uuid4().hex}

    @override
    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Caption the images among nodes.

        Args:
            nodes: What a loader gives.
            **kwargs: Passed by the pipeline to every transformation, and not used.

        Returns:
            The nodes of text, then those of images.

        Raises:
            LlamaVisionError: An image got no caption.
        """
        images = [node for node in nodes if is_captionable(node)]
        return _joined(nodes, images, caption_images(images, **self._arguments()))

    @override
    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Caption the images among nodes, asynchronously."""
        images = [node for node in nodes if is_captionable(node)]
        return _joined(nodes, images, await acaption_images(images, **self._arguments()))

    def _arguments(self) -> dict[str, Any]:
        return {
            "llm": self.llm,
            "prompt": self.prompt,
            "concurrency": self.concurrency,
            "resume": self.resume,
            "password": self.password,
            "progress": False,
            **self.options,
        }


def _joined(nodes: Sequence[BaseNode], images: Sequence[BaseNode], captions: Captions) -> list[BaseNode]:
    if captions.failures:
        first = captions.failures[0]
        count = len(captions.failures)
        error = LlamaVisionError(
            f"{count} of {len(images)} images have no caption. {first}. With `resume` only they are asked about again."
        )
        raise error from first.error
    captioned = {id(image) for image in images}
    for node in captions.nodes:
        _bind_to_document(node)
    return [*(node for node in nodes if id(node) not in captioned), *captions.nodes]


def _bind_to_document(node: ImageNode) -> None:
    """Make a node differ from those of other documents, by its id for stores and by its metadata for a pipeline's cache."""
    node.id_ = str(uuid.uuid5(_NAMESPACE, f"{node.ref_doc_id} {node.id_}"))
    node.metadata[_REF_DOC_ID] = node.ref_doc_id
    node.excluded_embed_metadata_keys.append(_REF_DOC_ID)
    node.excluded_llm_metadata_keys.append(_REF_DOC_ID)
