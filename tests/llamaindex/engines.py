"""Query engines over the gallery, the multi-modal index, and talking with its chat engines."""

import asyncio

from llama_index.core import MockEmbedding
from llama_index.core.chat_engine.types import ChatMode
from llama_index.core.embeddings import MockMultiModalEmbedding
from llama_index.core.indices import MultiModalVectorStoreIndex
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import ResponseMode
from llama_index.core.schema import TextNode

from llama_vision.llamaindex import LlamaVision
from tests.llamaindex.cats import model_at
from tests.llamaindex.gallery import Shelf, nodes_of

MODES = (ChatMode.CONTEXT, ChatMode.CONDENSE_PLUS_CONTEXT)
FINDS = {"similarity_top_k": 9, "image_similarity_top_k": 9}


def engine_over(nodes, llm, mode=ResponseMode.COMPACT, **options):
    return RetrieverQueryEngine.from_args(
        Shelf(nodes), llm=llm, multimodal=True, response_mode=mode, **options
    )


def index_over(nodes, **options):
    return MultiModalVectorStoreIndex(
        [*nodes, TextNode(text="Some words.")],
        embed_model=MockEmbedding(embed_dim=4),
        image_embed_model=MockMultiModalEmbedding(embed_dim=4),
        **options,
    )


def chat_engine(emulator, paths, mode, model_class=LlamaVision, llm=None, **options):
    return index_over(nodes_of(paths)).as_chat_engine(
        chat_mode=mode,
        llm=llm or model_at(emulator, model_class=model_class),
        memory=ChatMemoryBuffer.from_defaults(token_limit=100_000),
        **FINDS,
        **options,
    )


def chat(engine, way, *questions):
    """Talk with a chat engine in one of the `WAYS`; streamed answers are read to their ends."""

    async def achat():
        if way == "awhole":
            return [str(await engine.achat(question)) for question in questions]
        answers = []
        for question in questions:
            response = await engine.astream_chat(question)
            answers.append("".join([piece async for piece in response.async_response_gen()]))
        return answers

    match way:
        case "whole":
            return [str(engine.chat(question)) for question in questions]
        case "stream":
            return ["".join(engine.stream_chat(question).response_gen) for question in questions]
        case _:
            return asyncio.run(achat())
