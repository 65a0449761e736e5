"""Cloudflare's own error codes, which say more than the status.

https://developers.cloudflare.com/workers-ai/platform/errors/; those marked * were seen in replies and are not on that page.
"""

from collections.abc import Mapping

from llama_vision.core.errors import (
    AuthenticationError,
    InvalidRequestError,
    LicenseNotAcceptedError,
    ModelNotFoundError,
    PermissionDeniedError,
    QuotaExhaustedError,
    RateLimitError,
    ServerError,
)
from llama_vision.dialects.error_bodies import ErrorCode

_CHECK_ACCOUNT = "Check the account id."

ERROR_CODES: Mapping[int, ErrorCode] = {
    3003: ErrorCode(400, InvalidRequestError),
    3006: ErrorCode(413, InvalidRequestError, "The request is too large; scale the image down."),
    3007: ErrorCode(408, ServerError),
    3008: ErrorCode(408, ServerError),
    3023: ErrorCode(403, PermissionDeniedError, "The account is blocked."),
    3036: ErrorCode(429, QuotaExhaustedError, "The account's free neurons of today are used up."),
    3039: ErrorCode(400, InvalidRequestError),
    3040: ErrorCode(429, RateLimitError),
    3041: ErrorCode(403, PermissionDeniedError),
    3042: ErrorCode(404, ModelNotFoundError),
    5004: ErrorCode(400, InvalidRequestError),
    5005: ErrorCode(405, InvalidRequestError),
    5006: ErrorCode(400, InvalidRequestError),
    5007: ErrorCode(400, ModelNotFoundError),
    5016: ErrorCode(
        403,
        LicenseNotAcceptedError,
        "Meta's license for this model has not been accepted on this account. Read it "
        "(https://github.com/meta-llama/llama-models/blob/main/models/llama3_2/LICENSE), then run "
        "`llama-vision accept-license cloudflare` once, or pass accept_license=True.",
    ),
    5018: ErrorCode(403, PermissionDeniedError),
    5019: ErrorCode(405, InvalidRequestError),
    # Its changelog of 2026-07-28; this model is not among those that it names.
    5035: ErrorCode(403, PermissionDeniedError, "The model needs the Workers Paid plan."),
    7000: ErrorCode(404, ModelNotFoundError, _CHECK_ACCOUNT),  # *
    7003: ErrorCode(404, ModelNotFoundError, _CHECK_ACCOUNT),  # *
    8001: ErrorCode(400, InvalidRequestError),  # *
    8005: ErrorCode(400, InvalidRequestError, "The image can't be read."),  # *
    # *
    8006: ErrorCode(
        400, InvalidRequestError, "A text that holds 'data:image/...;base64,' is taken for an image."
    ),
    10000: ErrorCode(401, AuthenticationError),  # *
}
