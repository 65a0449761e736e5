"""What servers send where a request does not fit the model's context, as seen in public reports."""

from tests.emulator import Answer, json_answer

TGI = "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: {} `inputs` tokens and {} `max_new_tokens`"
VLLM = "This model's maximum context length is 4096 tokens. However, you requested {}. Please reduce the length of the messages."
OLLAMA = "prompt too long; exceeded max context length by 4021 tokens"


def _told(status: int, message: str, **more: object) -> Answer:
    return json_answer({"error": {"message": message, **more}}, status)


OVERFLOWS: dict[str, tuple[Answer, int | None, int | None]] = {
    "OpenAI": (
        _told(400, VLLM.format("").split(" However")[0] + " However, your messages resulted in 5000 tokens."),
        5000,
        4096,
    ),
    "OpenRouter": (
        _told(
            400,
            "This endpoint's maximum context length is 4096 tokens. However, you requested about 5000 tokens (4500 of text).",
        ),
        5000,
        4096,
    ),
    "a host behind OpenRouter": (
        _told(
            400,
            "Provider returned error",
            metadata={"raw": "Requested input length 5000 exceeds maximum input length 4095"},
        ),
        5000,
        4095,
    ),
    "vLLM": (
        json_answer(
            {
                "object": "error",
                "message": VLLM.format("5000 tokens (4500 in the messages, 500 in the completion)"),
                "code": 400,
            },
            400,
        ),
        5000,
        4096,
    ),
    "vLLM, total last": (
        _told(
            400,
            VLLM.format(
                "100 output tokens and your prompt contains at least 3997 input tokens, for a total of at least 4097 tokens"
            ),
        ),
        4097,
        4096,
    ),
    "vLLM, max_tokens": (
        _told(
            400,
            "'max_tokens' or 'max_completion_tokens' is too large: 4090. This model's maximum context length is 4096 "
            "tokens and your request has 10 input tokens (4090 > 4096 - 10).",
        ),
        4100,
        4096,
    ),
    "vLLM's engine": (
        _told(400, "The decoder prompt (length 5000) is longer than the maximum model length of 4096."),
        5000,
        4096,
    ),
    "vLLM's engine with images": (
        _told(
            400,
            "The prompt (total length 5000) is too long to fit into the model (context length 4096). Make sure that "
            "`max_model_len` is no smaller than the number of text tokens plus multimodal tokens.",
        ),
        5000,
        4096,
    ),
    "SGLang": (
        json_answer(
            {
                "object": "error",
                "message": "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
                "code": 400,
            },
            400,
        ),
        5000,
        4096,
    ),
    "SGLang with max_tokens": (
        _told(
            400,
            "Requested token count exceeds the model's maximum context length of 4096 tokens. You requested a total of "
            "5000 tokens: 4900 tokens from the input messages and 100 tokens for the completion.",
        ),
        5000,
        4096,
    ),
    "llama.cpp": (
        _told(400, "request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it"),
        5000,
        4096,
    ),
    "llama.cpp, in fields": (
        _told(
            400,
            "the request exceeds the available context size, try increasing it",
            type="exceed_context_size_error",
            n_prompt_tokens=5000,
            n_ctx=4096,
        ),
        5000,
        4096,
    ),
    "LM Studio": (
        json_answer(
            {
                "error": "Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with "
                "context length of only 4096 tokens, which is not enough."
            },
            400,
        ),
        5000,
        4096,
    ),
    "LM Studio, n_keep": (
        _told(
            400,
            "The number of tokens to keep from the initial prompt is greater than the context length (n_keep: 5000>= n_ctx: 4096).",
        ),
        5000,
        4096,
    ),
    "LM Studio on a Mac": (_told(500, "Context size has been exceeded."), None, None),
    "LM Studio in the middle": (
        _told(
            500,
            "Reached context length of 4096 tokens with model (arch: mllama) that does not currently support it.",
        ),
        None,
        4096,
    ),
    "TGI": (
        json_answer({"error": TGI.format(4000, 200), "error_type": "validation"}, 422),
        4200,
        4096,
    ),
    "TGI, the prompt alone": (
        json_answer({"error": "Input validation error: `inputs` must have less than 4095 tokens. Given: 5000"}, 422),
        5000,
        4095,
    ),
    "Together": (_told(422, TGI.format(5000, 1), type="invalid_request_error"), 5001, 4096),
    "DeepInfra": (_told(500, "Requested input length 5000 exceeds maximum input length 4095"), 5000, 4095),
    "Groq": (
        _told(
            400,
            "Please reduce the length of the messages or completion.",
            type="invalid_request_error",
            code="context_length_exceeded",
        ),
        None,
        None,
    ),
    "Ollama": (_told(400, OLLAMA), None, None),
    "Ollama, with a 500": (json_answer({"error": "the input length exceeds the context length"}, 500), None, None),
    "Fireworks": (
        _told(400, "The prompt is too long: 5000, model maximum context length: 4096"),
        5000,
        4096,
    ),
    "Cloudflare": (
        _told(
            400,
            "5021: The estimated number of input and maximum output tokens (5000) exceeded this model context window "
            "limit (4096)",
        ),
        5000,
        4096,
    ),
}  # fmt: skip
"""By server: the answer, the tokens that were requested and the limit, where the text has them."""
