"""What `caption_images` takes: folders, files, URLs, images in memory, and what LlamaIndex's loaders give."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias, cast

from llama_index.core.base.llms.types import DocumentBlock, ImageBlock
from llama_index.core.schema import BaseNode, ImageNode, MediaResource, Node
from pydantic import BaseModel

from llama_vision.captions import CaptionSource, LoadedImage, citation, find_images, list_pages
from llama_vision.captions.image_files import absolute, image_content, is_image_file, page_content
from llama_vision.core.errors import DocumentError, LlamaVisionError
from llama_vision.core.messages import Document, Image
from llama_vision.images import Page
from llama_vision.images.documents import display_name, image_or_document, iter_pages
from llama_vision.images.sources import path_of_file_url
from llama_vision.llamaindex.documents import to_document
from llama_vision.llamaindex.images import ImageLike, to_image

Captionable: TypeAlias = "BaseNode | ImageLike | DocumentBlock | Document"
"""A folder, a file, a URL, bytes, an open file, a PIL image, a page, or what a loader of LlamaIndex gives."""

_PAGE = "page_label"


@dataclass(frozen=True, slots=True)
class CaptionInput:
    """An image to caption, and what its node is given.

    Attributes:
        source: The image.
        metadata: The loader's metadata.
        ref_doc_id: The id of the loader's document, also of a node that was split off it; or None.
        excluded_embed_metadata_keys: The loader's.
        excluded_llm_metadata_keys: The loader's.
    """

    source: CaptionSource
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    ref_doc_id: str | None = None
    excluded_embed_metadata_keys: tuple[str, ...] = ()
    excluded_llm_metadata_keys: tuple[str, ...] = ()


class CaptionInputs:
    """Everything given, listed page by page.

    Attributes:
        inputs: The images; one that can't be read is among them, and reading it tells why.
        skipped: Files that are no images: those of folders, and those of loaded documents.
    """

    def __init__(
        self,
        given: "Captionable | Iterable[Captionable]",
        *,
        exclude: Path | None = None,
        password: str | None = None,
        metadata: Callable[[str], Mapping[str, Any]] | None = None,
    ) -> None:
        """List what is given. Arguments are those of `caption_images`; `exclude` is a file to leave out.

        Raises:
            ImageError: A single path was given, and there is nothing.
        """
        self.inputs: list[CaptionInput] = []
        self.skipped: list[Path] = []
        self._exclude = exclude
        self._password = password
        self._metadata = metadata
        self._seen: set[Path] = set()
        items = _items(given)
        if (path := _path_of(given)) is not None:
            find_images(path, documents=True)  # raises where there is nothing
        self._pages_of = Counter(path for item in items if (path := _text_document_path(item)) is not None)
        self._page_of: Counter[Path] = Counter()
        for number, item in enumerate(items, start=1):
            self._add(item, number)
        self.skipped = [path for path in dict.fromkeys(self.skipped) if path not in self._seen]

    def _add(self, item: Captionable, number: int) -> None:
        if (path := _path_of(item)) is not None:
            self._add_path(Path(path))
        elif isinstance(item, BaseNode):
            self._add_node(item)
        else:
            self.inputs += [
                CaptionInput(source) for source in _loaded(item, f"image {number}", self._password)
            ]

    def _add_path(self, path: Path) -> None:
        found = find_images([path], exclude=self._exclude, documents=True)
        self.skipped += found.skipped
        new = [image for image in found.images if image not in self._seen]
        self._seen.update(new)
        for source in list_pages(new, password=self._password):
            metadata: Mapping[str, Any] = self._metadata(str(source.path)) if self._metadata else {}
            self.inputs.append(CaptionInput(source, metadata))

    def _add_node(self, node: BaseNode) -> None:
        if (path := _text_document_path(node)) is not None and not is_image_file(path):
            self.skipped.append(path)
            return
        sources = _node_image(node, self._password) if path is None else self._file_of(node, path)
        self.inputs += [
            CaptionInput(
                source,
                node.metadata,
                node.ref_doc_id or node.node_id,
                tuple(node.excluded_embed_metadata_keys),
                tuple(node.excluded_llm_metadata_keys),
            )
            for source in sources
        ]

    def _file_of(self, node: BaseNode, path: Path) -> list[CaptionSource]:
        """Read the file that a text was loaded from: a reader of PDFs makes a document of each page's text."""
        listed = list_pages([path], password=self._password)
        count = self._pages_of[path]
        if count == 1 and (_PAGE not in node.metadata or len(listed) == 1):
            return list(listed)
        position = self._page_of[path]
        self._page_of[path] += 1
        if count == len(listed):
            return [listed[position]]
        error = DocumentError(
            f"{path} has {len(listed)} pages, and {count} documents were loaded from it: which is of which page "
            "can't be told. Load it with llama_vision.llamaindex.PageReader."
        )
        return [LoadedImage(f"The document {node.node_id}", error)]


def is_captionable(node: BaseNode) -> bool:
    """Tell whether a node holds an image, or was loaded from a file that is one."""
    path = _text_document_path(node)
    return holds_image(node) if path is None else is_image_file(path)


def node_citation(node: BaseNode) -> str:
    """Name a node as an answer cites it, such as `report.pdf, p. 7`: its `file_name` and `page_label`, else its id."""
    return citation(str(node.metadata.get("file_name") or node.node_id), node.metadata.get("page_label"))


def text_layer(node: BaseNode) -> str:
    """Return the text of a page, which is below the caption in a node of `caption_images`; of a node of text, all."""
    return node.get_content().removeprefix(str(node.metadata.get("caption", ""))).strip()


def _items(given: "Captionable | Iterable[Captionable]") -> list[Captionable]:
    single = (str, bytes, bytearray, memoryview, os.PathLike, BaseModel, Image, Page, Document)
    if isinstance(given, single) or not isinstance(given, Iterable):
        return [cast("Captionable", given)]
    if hasattr(given, "read") or hasattr(type(given), "__array__"):  # an open file, an array
        return [cast("Captionable", given)]
    return list(cast("Iterable[Captionable]", given))


def _path_of(item: object) -> str | Path | None:
    """Return the path that an item is, or the one of a `file` URL; None of anything else."""
    if isinstance(item, os.PathLike):
        return Path(os.fsdecode(cast("os.PathLike[str]", item)))
    if not isinstance(item, str):
        return None
    url = item.strip()
    if url[:7].lower() == "file://":
        return path_of_file_url(url)
    return None if url.lower().startswith(("http://", "https://", "data:")) else item


def holds_image(node: object) -> bool:
    """Tell whether a node holds an image, its path or its URL."""
    if isinstance(node, ImageNode):
        return bool(node.image or node.image_path or node.image_url)
    if isinstance(node, Node) and (resource := node.image_resource) is not None:
        return bool(resource.data or resource.path or resource.url)
    return False


def _text_document_path(item: object) -> Path | None:
    """Return the file that a node was loaded from, where it holds no image itself."""
    if not isinstance(item, BaseNode) or holds_image(item):
        return None
    path = item.metadata.get("file_path")
    return absolute(path) if isinstance(path, (str, Path)) and str(path) else None


def _node_image(node: BaseNode, password: str | None) -> list[CaptionSource]:
    metadata = node.metadata
    name = str(metadata.get("file_name") or f"The {type(node).__name__} {node.node_id}")
    path, label = _image_path(node), str(metadata.get(_PAGE, ""))
    page = int(label) if label.isdecimal() else None
    if path is not None:
        return list(list_pages([absolute(path)], password=password))
    try:
        image = to_image(cast("ImageLike", node))
    except LlamaVisionError as error:
        return [LoadedImage(name, error, page)]
    content = image_content(image)
    if page is not None:
        content = replace(content, text=text_layer(node), page_count=metadata.get("page_count"))
    return [LoadedImage(name, content, page)]


def _image_path(node: BaseNode) -> str | Path | None:
    """Return the path of a node's image, where the image itself is not in the node."""
    if isinstance(node, ImageNode):
        return None if node.image else node.image_path
    resource = node.image_resource if isinstance(node, Node) else None
    return None if resource is None or resource.data else resource.path


def _loaded(item: object, name: str, password: str | None) -> Iterator[CaptionSource]:
    """Read an image in memory, or the pages of a document."""
    try:
        found = _image_or_document(item)
        if isinstance(found, Document):
            found = replace(found, password=found.password or password)
            name = display_name(found.name or found.url)
            for page in iter_pages(found, max_pages=None):
                yield LoadedImage(name, page_content(page), page.number)
        elif isinstance(found, Page):
            yield LoadedImage(display_name(found.source), page_content(found), found.number)
        else:
            yield LoadedImage(display_name(found.url) if found.url else name, image_content(found))
    except (LlamaVisionError, OSError) as error:
        yield LoadedImage(name, error)


def _image_or_document(item: object) -> Image | Document | Page:
    match item:
        case Page():
            return item
        case DocumentBlock():
            return to_document(item)
        case ImageBlock() | MediaResource():
            return to_image(item)
        case _:
            return image_or_document(cast("Any", item))
