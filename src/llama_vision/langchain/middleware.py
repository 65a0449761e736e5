"""Middleware for LangChain's agents. Needs the package `langchain` (extra `agents`)."""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from langchain_core.messages import AnyMessage, HumanMessage
from typing_extensions import override

from llama_vision.core.errors import MissingDependencyError

try:
    from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
except ModuleNotFoundError as _error:
    raise MissingDependencyError(
        f"Middleware needs {_error.name}: pip install 'llama-vision[agents]'"
    ) from _error

_TEXT_TYPES = frozenset({"text", "input_text"})
_MAX_REMEMBERED = 4096


class AskAboutImagesFirst(AgentMiddleware[Any, Any, Any]):
    """Ask about images without tools, then offer the tools with the answer in the images' place.

    Meta says of Llama 3.2 Vision that it can't call tools where there is an image. Each message with images is asked about once.

        agent = create_agent(ChatLlamaVision(provider="deepinfra"), tools, middleware=[AskAboutImagesFirst()])
    """

    def __init__(self, prompt: str = "Describe the image.") -> None:
        """Set the question.

        Args:
            prompt: The question about the images of a message; the message's own text stands before it.
        """
        super().__init__()
        self._prompt = prompt
        self._answers: dict[bytes, str] = {}

    @override
    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Ask about the images, then call the model."""
        for message in self._unanswered(request):
            self._remember(message, request.model.invoke([self._question(message)]).text)
        return handler(self._without_images(request))

    @override
    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        """As `wrap_model_call`."""
        for message in self._unanswered(request):
            self._remember(message, (await request.model.ainvoke([self._question(message)])).text)
        return await handler(self._without_images(request))

    def _unanswered(self, request: ModelRequest[Any]) -> list[AnyMessage]:
        with_images = [message for message in request.messages if _images(message)] if request.tools else []
        return [message for message in with_images if _key(message) not in self._answers]

    def _question(self, message: AnyMessage) -> HumanMessage:
        prompt = "\n".join(filter(None, (message.text, self._prompt)))
        return HumanMessage([*_images(message), {"type": "text", "text": prompt}])

    def _remember(self, message: AnyMessage, answer: str) -> None:
        if len(self._answers) >= _MAX_REMEMBERED:
            del self._answers[next(iter(self._answers))]
        self._answers[_key(message)] = answer

    def _without_images(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        if not request.tools:
            return request
        return request.override(messages=[self._in_words(message) for message in request.messages])

    def _in_words(self, message: AnyMessage) -> AnyMessage:
        if not _images(message):
            return message
        text = f"{message.text}\n\nThe image: {self._answers[_key(message)]}".lstrip()
        return message.model_copy(update={"content": text})


def _key(message: AnyMessage) -> bytes:
    return hashlib.sha256(repr(cast("Any", message.content)).encode(errors="surrogatepass")).digest()


def _images(message: AnyMessage) -> Sequence[dict[str, Any]]:
    """Return the blocks of a message that are no text."""
    content = cast("str | list[Any]", message.content)
    if isinstance(content, str) or message.type not in ("human", "tool"):
        return ()
    blocks = [cast("dict[str, Any]", block) for block in content if isinstance(block, dict)]
    return [block for block in blocks if block.get("type") not in _TEXT_TYPES]
