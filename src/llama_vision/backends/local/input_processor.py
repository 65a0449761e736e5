"""Input processing: from a queued request to token ids, tiled images, a sampler and a grammar."""

from collections import abc
from collections.abc import Callable

from tokenizers.decoders import DecodeStream

from llama_vision.backends.local.chat_template import (
    IMAGE_TOKEN,
    PromptPart,
    SpecialToken,
    apply_chat_template,
)
from llama_vision.backends.local.device_map import LM_HEAD
from llama_vision.backends.local.image_input import ImagePreprocessor
from llama_vision.backends.local.model_loader import LoadedModel
from llama_vision.backends.local.sampler import Sampler
from llama_vision.backends.local.sequence import ImageSpan, Sequence, SequenceStatus, TokenizedPrompt
from llama_vision.backends.stop_strings import StopStringFilter
from llama_vision.core.errors import ContextTooLongError, LocalModelError, UnsupportedInputError
from llama_vision.core.messages import Image
from llama_vision.core.request import SamplingParams


class InputProcessor:
    """Prepares sequences for an engine. It shares no state with a step, so it may run in a thread of its own."""

    def __init__(
        self,
        model: LoadedModel,
        preprocessor: ImagePreprocessor,
        max_model_len: int,
        num_kv_cache_tokens: Callable[[TokenizedPrompt], int],
    ) -> None:
        """`num_kv_cache_tokens` says how many tokens the KV cache has room for beside the images of a prompt."""
        self._model = model
        self._preprocessor = preprocessor
        self._max_model_len = max_model_len
        self._num_kv_cache_tokens = num_kv_cache_tokens

    def process(self, seq: Sequence) -> Sequence:
        """Fill in what prefill and decode need, and return the same sequence.

        Raises:
            ContextTooLongError: The prompt fills the context window.
            UnsupportedInputError: A schema can't be enforced.
            MissingDependencyError: llguidance is needed and not installed.
            ImageError: An image can't be decoded.
        """
        request, model = seq.request, self._model
        matcher = model.grammar_compiler.compile_request(request)
        prompt = tokenize_prompt(model, self._preprocessor, apply_chat_template(request))
        seq.model, seq.prompt = model, prompt
        seq.max_new_tokens = min(request.sampling.max_tokens, self._max_new_tokens(prompt))
        seq.sampler = Sampler(
            request.sampling,
            _default_sampling_params(model),
            matcher,
            prompt.token_ids,
            model.device_map[LM_HEAD],
        )
        seq.detokenizer = DecodeStream(skip_special_tokens=False)
        seq.stop_filter = StopStringFilter(request.stop)
        seq.status = SequenceStatus.PREPARED
        return seq

    def _max_new_tokens(self, prompt: TokenizedPrompt) -> int:
        num_tokens, context_window = len(prompt.token_ids), self._model.context_window
        capacity = self._num_kv_cache_tokens(prompt)
        limit = min(self._max_model_len, capacity)
        if num_tokens < limit:
            return limit - num_tokens
        if capacity < self._max_model_len:
            error = ContextTooLongError(
                f"The prompt has {num_tokens} tokens, and beside its {len(prompt.image_spans)} images the KV cache has room "
                f"for {capacity}, with the reply. Set LocalSettings(kv_cache_bytes=...) higher, or shorten the conversation."
            )
        else:
            hint = f", or set LocalSettings(max_model_len=...) to up to {context_window}"
            error = ContextTooLongError(
                f"The prompt has {num_tokens} tokens and the model's context {limit}: nothing is left "
                f"for a reply. Shorten the conversation{hint if limit < context_window else ''}."
            )
        error.context_window, error.requested_tokens = limit, num_tokens
        raise error


def tokenize_prompt(
    model: LoadedModel, preprocessor: ImagePreprocessor, parts: abc.Sequence[PromptPart]
) -> TokenizedPrompt:
    """Tokenize a prompt from `apply_chat_template`, and preprocess its images.

    Raises:
        ImageError: An image can't be decoded.
        UnsupportedInputError: A text holds half a surrogate pair.
        LocalModelError: The tokenizer is not that of Llama 3.2 Vision.
    """
    token_ids: list[int] = []
    images: list[Image] = []
    starts: list[int] = []
    for part in parts:
        if isinstance(part, Image):
            images.append(part)
            starts.append(len(token_ids))
        token_ids += _encode(model, part)
    inputs = [preprocessor.preprocess(image, number) for number, image in enumerate(images, start=1)]
    spans = zip(inputs, starts, _image_span_ends(starts, len(token_ids)), strict=True)
    return TokenizedPrompt(token_ids, tuple(ImageSpan(*span) for span in spans))


def _image_span_ends(starts: abc.Sequence[int], prompt_len: int) -> list[int]:
    """End each span at the next image; adjacent images share theirs, as in transformers' Mllama processor."""
    ends: list[int] = []
    next_start, end = prompt_len, prompt_len
    for start in reversed(starts):
        end = end if start == next_start - 1 else next_start
        ends.insert(0, end)
        next_start = start
    return ends


def _encode(model: LoadedModel, part: PromptPart) -> list[int]:
    if isinstance(part, str):
        try:
            return model.tokenizer.encode(part, add_special_tokens=False).ids
        except TypeError as error:  # the tokenizers library's word for text that has no UTF-8
            raise UnsupportedInputError(
                "A text of the request holds half a surrogate pair, which is no text."
            ) from error
    special = part if isinstance(part, SpecialToken) else IMAGE_TOKEN
    token_id = model.tokenizer.token_to_id(special.token)
    if token_id is None:
        raise LocalModelError(f"The model's tokenizer has no {special.token}: it is no Llama 3.2 Vision.")
    return [token_id]


def _default_sampling_params(model: LoadedModel) -> SamplingParams | None:
    """Read the checkpoint's generation_config.json; None where it is greedy."""
    config = model.model.generation_config
    if not config.do_sample:
        return None
    return SamplingParams(
        temperature=config.temperature, top_p=config.top_p, top_k=config.top_k, min_p=config.min_p
    )
