"""Nodes and documents as LlamaIndex's loaders and retrievers give them hold an image by any of their fields."""

import base64
import io

import PIL.Image
import pytest
from llama_index.core import SimpleDirectoryReader
from llama_index.core.llms import ImageBlock
from llama_index.core.schema import Document, ImageDocument, ImageNode, MediaResource, NodeWithScore, TextNode

from llama_vision.core.errors import ImageError
from llama_vision.core.messages import Image
from llama_vision.llamaindex import LlamaVision
from llama_vision.llamaindex.images import to_image
from llama_vision.testing import ScriptedServer


def encoded_png():
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (7, 5), "orange").save(buffer, "PNG")
    return buffer.getvalue()


PNG = encoded_png()
BASE64 = base64.b64encode(PNG).decode()
DATA_URL = f"data:image/png;base64,{BASE64}"
EXPECTED = Image(data=PNG, media_type="image/png")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    return path


NODES = {
    "ImageNode": lambda path: ImageNode(metadata={"file_path": str(path)}),
    "ImageDocument": lambda path: ImageDocument(metadata={"file_path": str(path)}),
    "ImageNode with a score": lambda path: NodeWithScore(node=ImageNode(image=BASE64), score=0.5),
    "by metadata, with a score": lambda path: NodeWithScore(
        node=ImageNode(metadata={"file_path": str(path)})
    ),
    "ImageDocument with a score": lambda path: NodeWithScore(node=ImageDocument(image=BASE64)),
    "Document of a loader": lambda path: Document(
        text="", metadata={"file_path": str(path), "file_type": "image/png"}
    ),
    "TextNode of a loader": lambda path: TextNode(
        text="", metadata={"file_path": str(path), "file_type": "image/png"}
    ),
    "Document with a resource": lambda path: Document(image_resource=MediaResource(path=path)),
    "a data URL for base64": lambda path: ImageNode(image=DATA_URL),
    "a data URL in a document": lambda path: ImageDocument(image=DATA_URL),
    "a data URL in a block": lambda path: ImageBlock(image=DATA_URL.encode()),
}


@pytest.mark.parametrize("make", NODES.values(), ids=NODES)
def test_a_node_is_an_image_by_any_of_its_fields(path, make):
    assert to_image(make(path)) == EXPECTED


def test_what_a_loader_gives_is_sent(path):
    documents = SimpleDirectoryReader(path.parent).load_data()
    with ScriptedServer("Orange.") as server:
        LlamaVision(**server.model_options).complete("What?", image_documents=documents)
        assert server.requests[0].images == [PNG]


@pytest.mark.parametrize(
    "node",
    [
        ImageNode(),
        ImageDocument(),
        NodeWithScore(node=TextNode(text="cat")),
        Document(text="cat", metadata={"file_path": "/etc/passwd", "file_type": "text/plain"}),
    ],
    ids=["ImageNode", "ImageDocument", "NodeWithScore", "Document"],
)
def test_a_node_without_an_image_is_refused_by_name(node):
    with pytest.raises(ImageError, match="holds no image"):
        to_image(node)


def test_a_node_with_a_file_address_is_refused_by_name(path):
    with pytest.raises(ImageError, match=r"http\(s\) or data URL"):
        to_image(ImageNode(image_url=path.as_uri()))
