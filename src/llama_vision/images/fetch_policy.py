"""Which URLs images may be downloaded from, and how a URL is written where others read it."""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""A resolver: the IP addresses of a host name and port."""

_MAX_URL_CHARS = 200
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_HOST = re.compile(r"[^@:\[]*(:[0-9]*)?|\[[^@]*\](:[0-9]*)?")  # without credentials


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """Which hosts images are downloaded from, and the limits of a download.

    Attributes:
        allowed_hosts: Where not empty, the only hosts allowed, and they may be private: names in lower case and IDNA
            form (`xn--...`), or IP addresses. Redirects have to stay among them.
        private_networks: Whether addresses that are not public are allowed, such as this machine's.
        max_bytes: The maximum size of an image in bytes, after decompression.
        timeout_s: Seconds for the whole download, from the first DNS query to the last byte.
        max_redirects: The maximum number of redirects.
    """

    allowed_hosts: frozenset[str] = frozenset()
    private_networks: bool = False
    max_bytes: int = 20_000_000
    timeout_s: float = 15.0
    max_redirects: int = 3


def redact_url(url: str) -> str:
    """Quote a URL, or any text, without credentials, query and fragment, in at most 200 characters."""
    scheme = match[0] if (match := _SCHEME.match(url)) else ""
    rest = url[len(scheme) :]
    bare = re.split(r"[?#]", rest, maxsplit=1)[0]
    if "@" in rest and not _HOST.fullmatch(bare.partition("/")[0]):
        # A password may hold any of these characters.
        bare = bare.rpartition("@")[2] if "@" in bare else "..."
    bare = scheme + bare
    return repr(bare if len(bare) <= _MAX_URL_CHARS else bare[:_MAX_URL_CHARS] + "...")
