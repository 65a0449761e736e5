"""The errors of Cloudflare Workers AI: https://developers.cloudflare.com/workers-ai/platform/errors/, and some that users saw."""

from tests.emulator.answers import Answer, json_answer

LICENSE = (
    "AiError: AiError: Prior to using this model, you must submit the prompt 'agree'. By submitting 'agree', you hereby "
    "agree to the llama-3.2-11b-vision-instruct Community License"
)
TEXTS = {
    3036: "AiError: You have used up your daily free allocation of 10,000 neurons",
    3040: "AiError: Capacity temporarily exceeded, please try again.",
    3007: "AiError: Request timeout",
    5007: "AiError: No such model",
    5016: LICENSE,
    5024: "AiError: JSON Mode couldn't be met",
    10000: "Authentication error",
}
_USUAL_CODES = {
    400: 5004,
    401: 10000,
    403: 5018,
    404: 3042,
    405: 5019,
    408: 3007,
    413: 3006,
    429: 3040,
}


class CloudflareError(Exception):
    """An error with Cloudflare's code, on its way to the wire."""

    def __init__(self, code: int, message: str = "", status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


def envelope(error: CloudflareError) -> Answer:
    """Write an error as both routes do."""
    told = {"code": error.code, "message": error.message or TEXTS.get(error.code, f"AiError: {error.code}")}
    return json_answer({"result": None, "success": False, "errors": [told], "messages": []}, error.status)


def usual_code(status: int) -> int:
    """Say with which code a status comes."""
    return _USUAL_CODES.get(status, 3043)
