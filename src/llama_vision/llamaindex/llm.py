"""`LlamaVision`: Llama 3.2 Vision as a LlamaIndex LLM, wherever it runs."""

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
)
from typing_extensions import override

from llama_vision.llamaindex.callbacks import chat_callback, completion_callback
from llama_vision.llamaindex.images import ImageLike
from llama_vision.llamaindex.programs import LlamaVisionPrograms


class LlamaVision(LlamaVisionPrograms):
    """An LLM for Llama 3.2 Vision: hosted, behind any OpenAI-compatible endpoint, or on this machine.

    Without arguments it is the tiny model that comes with the package, which knows drawn shapes, colours and short
    signs and needs no key:

        >>> from llama_vision.llamaindex import LlamaVision
        >>> LlamaVision().complete("Say hi").text
        'Hi'

    An image is an `ImageBlock` in a chat message, or one of `image_documents` of a completion:

        llm.complete("What colour is the circle?", image_documents=[ImageDocument(image_path="circle.png")])

    Args:
        provider: `"local"`, `"deepinfra"`, `"cloudflare"`, or any other that `llama-vision providers` lists, or a
            `Provider` record of your own. Default: `$LLAMA_VISION_PROVIDER`, else `"local"`.
        model: `llama-3.2-11b-vision` and `llama-3.2-90b-vision` become the provider's own ids; anything else is sent
            as it is. Default: `$LLAMA_VISION_MODEL`, else `tiny` for local and the 11B elsewhere.
        api_key: The provider's key. Default: the provider's own environment variables, when a call is made. It is
            left out of dumps and pickles.
        api_base: In place of the documented address: everything before `/chat/completions`, or before `/accounts/` for
            Cloudflare.
        account_id: The account, at providers whose addresses contain one. Default: the provider's own variables.
        accept_license: Whether to accept Meta's license on behalf of the account, where the provider asks for it
            (Cloudflare) and it was not yet. Read it first; without this such a call raises `LicenseNotAcceptedError`.
        temperature: 0 takes the likeliest token; None leaves it to the provider.
        max_tokens: The most tokens of a reply. It is always sent: some providers cut at 256 otherwise.
        additional_kwargs: Further options (`top_p`, `seed`, `stop`, ...) and fields of the provider's own.
        max_retries: How often a call that failed for a passing reason (no connection, 408, 409, 429, 5xx) is made
            again, if nothing of the reply has arrived.
        timeout: Seconds without a byte before a call is given up; None waits for ever.
        structured_output: How an object is asked for (`structured_predict`, `as_structured_llm`, ...). `"json_schema"`,
            `"function_calling"` and `"json_mode"` use what the provider has, in one request; `"prompt"` puts the schema
            into the prompt, and asks again, at most twice, where the answer doesn't fit. `"auto"` takes the surest of
            them that the provider has, and asks again too. With an explicit `pydantic_program_mode` LlamaIndex decides.
        text_tool_calls: False leaves tool calls that the model writes as text in the text, and tools are offered only where
            the provider takes them natively; otherwise they are put into words.
        image_max_pixels: The most pixels an image is sent with, besides what the model can use: at most four tiles of
            560 x 560. Larger ones are scaled down, none is ever scaled up.
        image_format: `"jpeg"` or `"png"` for images that have to be encoded anew; `"auto"` takes JPEG for photographs
            and PNG for drawings and text. A small image of an accepted kind is sent byte for byte.
        image_quality: Of JPEG, 1 to 95.
        image_policy: What to do with more images than the provider takes: `"error"`, send the `"first"` ones, or put
            all on one numbered sheet (`"grid"`).
        image_allowed_hosts: The only hosts that images are fetched from, where the provider needs their bytes; they may
            be private. Default: any public host.
        image_private_networks: Whether images may be fetched from addresses that are not public.
        local_settings: How a model runs on this machine: `max_batch_size` answers at the same time, `max_model_len` tokens
            of prompt and reply, `image_cache_bytes` for what it saw in images, `max_waiting` requests, `device`, `dtype`,
            `quantization` (`int8`, `fp8`); see `llama_vision.backends.local.LocalSettings`.
        default_headers: Sent with every call; left out of dumps and pickles, because they may hold keys.
        system_prompt: Put before conversations that have no system message of their own.

    Raises:
        UnknownProviderError: There is no provider of this name.

    """

    # The eight endpoints. Each reports one start and one end to the callbacks.

    @chat_callback
    @override
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a conversation.

        Args:
            messages: The conversation, with images as `ImageBlock`s.
            **kwargs: Options that override the fields: `temperature`, `max_tokens`, `model`, `top_p`, `stop`, ...

        Returns:
            The answer; token counts and cost in `additional_kwargs`.

        Raises:
            LlamaVisionError: What went wrong; the kinds are listed in `llama_vision.core.errors`.

        """
        return self._chat(messages, kwargs)

    @chat_callback
    @override
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer piece by piece: each response holds all so far, and what is new in `delta`. See `chat`."""
        return self._stream_chat(messages, kwargs)

    @chat_callback
    @override
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer without blocking the event loop. See `chat`."""
        return await self._achat(messages, kwargs)

    @chat_callback
    @override
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Answer piece by piece, without blocking the event loop. See `chat`."""
        return self._astream_chat(messages, kwargs)

    @completion_callback
    @override
    def complete(
        self,
        prompt: str,
        formatted: bool = False,
        image_documents: Sequence[ImageLike] | None = None,
        **kwargs: Any,
    ) -> CompletionResponse:
        """Answer a prompt.

        Args:
            prompt: What to ask.
            formatted: Whether the prompt has gone through `completion_to_prompt`.
            image_documents: Images: `ImageDocument`, `ImageNode`, `ImageBlock`, a path, bytes, a URL, a PIL image.
            **kwargs: Options that override the fields.

        Returns:
            The answer; token counts and cost in `additional_kwargs`.

        Raises:
            LlamaVisionError: What went wrong; the kinds are listed in `llama_vision.core.errors`.

        """
        return self._complete(prompt, formatted, image_documents, kwargs)

    @completion_callback
    @override
    def stream_complete(
        self,
        prompt: str,
        formatted: bool = False,
        image_documents: Sequence[ImageLike] | None = None,
        **kwargs: Any,
    ) -> CompletionResponseGen:
        """Answer a prompt piece by piece. See `complete`."""
        return self._stream_complete(prompt, formatted, image_documents, kwargs)

    @completion_callback
    @override
    async def acomplete(
        self,
        prompt: str,
        formatted: bool = False,
        image_documents: Sequence[ImageLike] | None = None,
        **kwargs: Any,
    ) -> CompletionResponse:
        """Answer a prompt without blocking the event loop. See `complete`."""
        return await self._acomplete(prompt, formatted, image_documents, kwargs)

    @completion_callback
    @override
    async def astream_complete(
        self,
        prompt: str,
        formatted: bool = False,
        image_documents: Sequence[ImageLike] | None = None,
        **kwargs: Any,
    ) -> CompletionResponseAsyncGen:
        """Answer a prompt piece by piece, without blocking the event loop. See `complete`."""
        return self._astream_complete(prompt, formatted, image_documents, kwargs)
