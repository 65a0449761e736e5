"""`PageQueryEngine`: shows a model the pages and images that a retriever found, and answers with citations."""

from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Any, cast

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole
from llama_index.core.base.response.schema import (
    RESPONSE_TYPE,
    AsyncStreamingResponse,
    Response,
    StreamingResponse,
)
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate
from llama_index.core.prompts.mixin import PromptDictType, PromptMixinType
from llama_index.core.schema import NodeWithScore, QueryBundle
from typing_extensions import override

from llama_vision.captions import ANSWER_PROMPT, FoundSources, cited_in
from llama_vision.llamaindex.caption_inputs import holds_image, node_citation, text_layer
from llama_vision.llamaindex.images import image_block, to_image
from llama_vision.llamaindex.llm import LlamaVision

_NOTHING_FOUND = "Empty Response"  # what LlamaIndex's own engines say
_TEXT_QA_TEMPLATE = PromptTemplate(
    ANSWER_PROMPT, template_var_mappings={"context_str": "context", "query_str": "question"}
)


class PageQueryEngine(BaseQueryEngine):
    """A query engine over nodes of `caption_images` or `PageReader`: the model sees the found pages themselves.

        engine = PageQueryEngine(index.as_retriever(similarity_top_k=2), llm)
        response = engine.query("What were the sales in March?")
        print(response, response.metadata["citations"])   # ..., ["report.pdf, p. 7"]

    All images go into one request, with their citations and text layers; of equal images one is shown, and nodes of text are quoted. Where a provider takes a
    single image, use `similarity_top_k=1`, or `LlamaVision(image_policy="grid")`.

    The response's `source_nodes` are the nodes found. Its `metadata` hold `citations`: those that the answer contains or, where it contains none,
    of all that was shown; and `usage`: the tokens and the cost as `chat` has them in `additional_kwargs`. Of a streamed response they are there
    once the stream has ended. Where nothing was found the model is not asked, and the response is `Empty Response`.

    Args:
        retriever: Finds the nodes.
        llm: The model.
        text_qa_template: The prompt beside the images, with `{query_str}` and, if it is wanted, `{context_str}`: the citations and text layers.
        node_postprocessors: Applied to the nodes found, such as a `SimilarityPostprocessor`.
        streaming: Whether responses are streamed.
    """

    def __init__(
        self,
        retriever: BaseRetriever,
        llm: LlamaVision,
        *,
        text_qa_template: BasePromptTemplate = _TEXT_QA_TEMPLATE,
        node_postprocessors: Sequence[BaseNodePostprocessor] = (),
        streaming: bool = False,
    ) -> None:
        super().__init__(llm.callback_manager)
        self._retriever = retriever
        self._llm = llm
        self._template = text_qa_template
        self._postprocessors = list(node_postprocessors)
        self._streaming = streaming

    @override
    def _get_prompt_modules(self) -> PromptMixinType:
        return {}

    @override
    def _get_prompts(self) -> PromptDictType:
        return {"text_qa_template": self._template}

    @override
    def _update_prompts(self, prompts: PromptDictType) -> None:
        self._template = prompts.get("text_qa_template", self._template)

    @override
    def retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """Find the nodes for a question."""
        nodes = self._retriever.retrieve(query_bundle)
        for postprocessor in self._postprocessors:
            nodes = postprocessor.postprocess_nodes(nodes, query_bundle)
        return nodes

    async def aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """Find the nodes for a question, asynchronously.

        Args:
            query_bundle: The question.

        Returns:
            The nodes, after the postprocessors.
        """
        nodes = await self._retriever.aretrieve(query_bundle)
        for postprocessor in self._postprocessors:
            nodes = await postprocessor.apostprocess_nodes(nodes, query_bundle)
        return nodes

    @override
    def synthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> RESPONSE_TYPE:
        """Answer from given nodes; `additional_source_nodes` are listed as sources, and not shown."""
        sources = [*nodes, *(additional_source_nodes or ())]
        if not nodes:
            return Response(_NOTHING_FOUND, source_nodes=sources, metadata={"citations": []})
        messages, citations = self._messages(query_bundle, nodes)
        if not self._streaming:
            return _response(self._llm.chat(messages), sources, citations)
        metadata: dict[str, Any] = {}

        def tokens() -> Generator[str, None, None]:
            last = None
            for last in self._llm.stream_chat(messages):
                yield last.delta or ""
            metadata.update(_metadata(last, citations))

        return StreamingResponse(tokens(), sources, metadata)

    @override
    async def asynthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> RESPONSE_TYPE:
        """Answer from given nodes, asynchronously."""
        sources = [*nodes, *(additional_source_nodes or ())]
        if not nodes:
            return Response(_NOTHING_FOUND, source_nodes=sources, metadata={"citations": []})
        messages, citations = self._messages(query_bundle, nodes)
        if not self._streaming:
            return _response(await self._llm.achat(messages), sources, citations)
        metadata: dict[str, Any] = {}

        async def tokens() -> AsyncGenerator[str, None]:
            last = None
            async for last in await self._llm.astream_chat(messages):
                yield last.delta or ""
            metadata.update(_metadata(last, citations))

        return AsyncStreamingResponse(tokens(), sources, metadata)  # pyright: ignore[reportArgumentType] - an iterator is all it needs

    @override
    def _query(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        return self.synthesize(query_bundle, self.retrieve(query_bundle))

    @override
    async def _aquery(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        return await self.asynthesize(query_bundle, await self.aretrieve(query_bundle))

    def _messages(
        self, query: QueryBundle, nodes: Sequence[NodeWithScore]
    ) -> tuple[list[ChatMessage], list[str]]:
        """Return the prompt, with each image once before the text of its last user message, and all citations."""
        sources = FoundSources()
        for found in nodes:
            image = to_image(cast("Any", found.node)) if holds_image(found.node) else None
            sources.add(node_citation(found.node), text_layer(found.node), image)
        messages = self._template.format_messages(context_str=sources.context, query_str=query.query_str)
        asked = next(message for message in reversed(messages) if message.role == MessageRole.USER)
        asked.blocks = [*map(image_block, sources.images), *asked.blocks]
        return messages, sources.citations


def _response(response: ChatResponse, sources: list[NodeWithScore], citations: list[str]) -> Response:
    return Response(response.message.content, sources, _metadata(response, citations))


def _metadata(response: ChatResponse | None, citations: list[str]) -> dict[str, Any]:
    """Return what beside the answer's text is known of it."""
    if response is None:
        return {"citations": list(dict.fromkeys(citations))}
    answer = response.message.content or ""
    return {"citations": cited_in(answer, citations), "usage": dict(cast("Any", response).additional_kwargs)}
