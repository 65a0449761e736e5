"""Cloudflare's own error codes, which say more than the status.

https://developers.cloudflare.com/workers-ai/platform/errors/; those marked * are seen in replies and not on that page.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from llama_vision.core.errors import (
    AuthenticationError,
    InvalidRequestError,
    LicenceNotAcceptedError,
    ModelNotFoundError,
    PermissionDeniedError,
    QuotaExhaustedError,
    RateLimitError,
    ServerError,
    StatusError,
)
from llama_vision.core.untyped import as_object

_CHECK_ACCOUNT = "Check the account id."


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a code means.

    Attributes:
        status: The HTTP status that goes with it.
        kind: The error it stands for.
        advice: What to do, where the words of the reply don't say.

    """

    status: int
    kind: type[StatusError]
    advice: str = ""


CODES: Mapping[int, Meaning] = {
    3003: Meaning(400, InvalidRequestError),
    3006: Meaning(413, InvalidRequestError, "The request is too large; scale the picture down."),
    3007: Meaning(408, ServerError),
    3008: Meaning(408, ServerError),
    3023: Meaning(403, PermissionDeniedError, "The account is blocked."),
    3036: Meaning(429, QuotaExhaustedError, "The account's free neurons of today are used up."),
    3039: Meaning(400, InvalidRequestError),
    3040: Meaning(429, RateLimitError),
    3041: Meaning(403, PermissionDeniedError),
    3042: Meaning(404, ModelNotFoundError),
    5004: Meaning(400, InvalidRequestError),
    5005: Meaning(405, InvalidRequestError),
    5006: Meaning(400, InvalidRequestError),
    5007: Meaning(400, ModelNotFoundError),
    5016: Meaning(
        403,
        LicenceNotAcceptedError,
        "Meta's licence for this model has not been accepted on this account. Read it "
        "(https://github.com/meta-llama/llama-models/blob/main/models/llama3_2/LICENSE), then run "
        "`llama-vision accept-license cloudflare` once, or pass accept_license=True.",
    ),
    5018: Meaning(403, PermissionDeniedError),
    5019: Meaning(405, InvalidRequestError),
    7000: Meaning(404, ModelNotFoundError, _CHECK_ACCOUNT),  # *
    7003: Meaning(404, ModelNotFoundError, _CHECK_ACCOUNT),  # *
    8001: Meaning(400, InvalidRequestError),  # *
    8005: Meaning(400, InvalidRequestError, "The picture can't be read."),  # *
    8006: Meaning(
        400, InvalidRequestError, "A text that holds 'data:image/...;base64,' is taken for a picture."
    ),  # *
    10000: Meaning(401, AuthenticationError),  # *
}

_IN_WORDS = re.compile(r"\b(\d{4,5})\s*:")


def find_meaning(fields: Mapping[str, Any]) -> Meaning | None:
    """Look for one of Cloudflare's codes in a body.

    Args:
        fields: The body, parsed.

    Returns:
        What the first known code means. Without a code of its own, the first in an error's words counts
        (`AiError: 5007: ...`), but only in the shape that Cloudflare's errors have.

    """
    errors: Any = fields.get("errors")
    if not isinstance(errors, list):
        return None
    for entry in map(as_object, cast("list[Any]", errors)):
        code: Any = entry.get("code")
        if not isinstance(code, int):
            found = _IN_WORDS.search(str(entry.get("message") or ""))
            code = int(found[1]) if found else None
        if code in CODES:
            return CODES[code]
    return None
