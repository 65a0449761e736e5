"""`create_page_chain`: shows a model the pages and images that a retriever found, and answers with citations."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough

from llama_vision.captions import ANSWER_PROMPT, FoundSources, ImageFile, citation, cited_in
from llama_vision.core.messages import Image
from llama_vision.langchain.chat_model import ChatLlamaVision
from llama_vision.langchain.images import image_block

PageChain: TypeAlias = "Runnable[str | dict[str, Any], dict[str, Any]]"
"""A question, or a dict with it as `input`, to a dict with `input`, `context`, `answer` and `citations`."""

_NOTHING_FOUND = "Nothing was found."


def create_page_chain(
    retriever: BaseRetriever,
    model: ChatLlamaVision,
    prompt: ChatPromptTemplate | None = None,
    *,
    password: str | None = None,
) -> PageChain:
    """Make a chain over documents of `CaptionLoader`: the model sees the found pages themselves.

        chain = create_page_chain(store.as_retriever(search_kwargs={"k": 2}), model)
        found = chain.invoke("What were the sales in March?")
        print(found["answer"].text, found["citations"])   # ..., ["report.pdf, p. 7"]

    The pages are read from their files again, which have to be where they were. All go into one request, with their citations
    and text layers; of equal images one is shown, and documents of text are quoted. Where a provider takes a single image, retrieve one
    (`search_kwargs={"k": 1}`), or use `ChatLlamaVision(image_policy="grid")`. Where nothing was found the model is not asked.

    Args:
        retriever: Finds the documents.
        model: The model.
        prompt: The prompt beside the images, with `{question}` and, if it is wanted, `{context}`: the citations and text layers. None for one
            that asks for citations.
        password: That of encrypted PDFs.

    Returns:
        A chain from the question, or a dict with it as `input`, to a dict: `input`; `context`, the documents found; `answer`, the model's message
        with its usage; and `citations`, those that the answer contains or, where it contains none, of all that was shown. Its streams
        have the answer's chunks.
    """
    template = prompt or ChatPromptTemplate.from_template(ANSWER_PROMPT)

    def to_prompt(found: dict[str, Any]) -> list[BaseMessage]:
        return _messages(template, found, password)

    prompted: Runnable[dict[str, Any], AIMessage] = RunnableLambda(to_prompt) | model

    def answer(found: dict[str, Any]) -> Any:  # a runnable is run by LangChain, and streams
        return prompted if found["context"] else AIMessage(_NOTHING_FOUND)

    question: Runnable[dict[str, Any], str] = RunnableLambda(_question)
    found: Runnable[dict[str, Any], list[Document]] = question | retriever
    return (
        RunnableLambda(_as_input)
        | RunnablePassthrough.assign(context=found)
        | RunnablePassthrough.assign(answer=RunnableLambda(answer))
        | RunnablePassthrough.assign(citations=RunnableLambda(_citations))
    ).with_config(run_name="page_chain")


def document_citation(document: Document) -> str:
    """Name a document as an answer cites it, such as `report.pdf, p. 7`: by its `source` and `page_label`, else its id."""
    source = document.metadata.get("source")
    name = Path(str(source)).name if source else str(document.id or "document")
    return citation(name, document.metadata.get("page_label"))


def _as_input(given: str | dict[str, Any]) -> dict[str, Any]:
    return {"input": given} if isinstance(given, str) else given


def _question(found: dict[str, Any]) -> str:
    return found["input"]


def _citations(found: dict[str, Any]) -> list[str]:
    citations = [document_citation(document) for document in found["context"]]
    return cited_in(found["answer"].text, citations)


def _messages(template: ChatPromptTemplate, found: dict[str, Any], password: str | None) -> list[BaseMessage]:
    """Return the prompt, with the images before the text of its last user message."""
    sources = FoundSources()
    for document in cast("Sequence[Document]", found["context"]):
        image = _image(document, password)
        text = document.page_content
        if image is not None:
            text = text.removeprefix(str(document.metadata["caption"])).strip()
        sources.add(document_citation(document), text, image)
    messages = template.format_messages(context=sources.context, question=found["input"])
    last = max(index for index, message in enumerate(messages) if isinstance(message, HumanMessage))
    blocks = [image_block(image) for image in sources.images]
    asked = messages[last]
    messages[last] = HumanMessage([*blocks, {"type": "text", "text": asked.text}])
    return messages


def _image(document: Document, password: str | None) -> Image | None:
    """Read the page or image of a document; None of one that `CaptionLoader` did not make."""
    metadata = document.metadata
    if "caption" not in metadata or "source" not in metadata:
        return None
    label = metadata.get("page_label")
    return (
        ImageFile(Path(metadata["source"]), None if label is None else int(label), password)
        .read(lossless=True)
        .image
    )
