"""Hides the headers of a call, which may hold keys, from LlamaIndex's callbacks and spans: they report all arguments."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from typing_extensions import override

from llama_vision.backends.model_fields import hide_headers

_ENDPOINTS = (
    *("chat", "achat", "stream_chat", "astream_chat"),
    *("complete", "acomplete", "stream_complete", "astream_complete"),
)


class HiddenHeaders:
    """Base of the LLM classes: the values of `extra_headers` become `SecretStr`s before LlamaIndex sees them."""

    @classmethod
    @override
    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)  # adds the callbacks and the spans
        for name in _ENDPOINTS:
            if (method := cls.__dict__.get(name)) is not None:
                setattr(cls, name, _hide(method))


def _hide(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def hiding(*args: Any, **kwargs: Any) -> Any:
        return method(*args, **hide_headers(kwargs))

    @functools.wraps(method)
    async def ahiding(*args: Any, **kwargs: Any) -> Any:
        return await method(*args, **hide_headers(kwargs))

    return ahiding if inspect.iscoroutinefunction(method) else hiding
