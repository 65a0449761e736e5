"""Settings of the server: its address, who may use it, and the limits of a request."""

import ipaddress
from dataclasses import dataclass, field

from llama_vision.core.errors import ConfigurationError

DEFAULT_PORT = 8484


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Settings of the server.

    Attributes:
        host: The address to listen on, by default this machine's own. Any other needs `api_key` or `no_auth`.
        port: The port; 0 takes a free one.
        api_key: What clients send as `Authorization: Bearer ...` (or `x-api-key`); None asks for none.
        no_auth: Whether an address that other machines reach may be served without a key.
        allowed_origins: Origins of web pages that may use the server beside its own, such as `http://localhost:3000`; `*`
            allows all. By default none may: any page open in a browser could send requests.
        served_names: Further names under which clients ask for the model.
        max_body_bytes: Size of a request's body at most.
        max_images: Images of one request at most, PDF pages included.
        max_tokens: Output tokens of one request at most; None for what the context window leaves.
        max_requests: Requests in work or waiting at once; one more gets status 429.
        timeout_s: Seconds for a whole request, its wait in the queue included.
        body_timeout_s: Seconds in which a request's body has to arrive.
        shutdown_timeout_s: Seconds that replies have to end after SIGTERM; new requests get status 503 meanwhile.
        log_content: Whether prompts and replies are logged; images never are.

    Raises:
        ConfigurationError: A value is out of range, or the address is public without a key.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    api_key: str | None = field(default=None, repr=False)
    no_auth: bool = False
    allowed_origins: tuple[str, ...] = ()
    served_names: tuple[str, ...] = ()
    max_body_bytes: int = 64 * 2**20
    max_images: int = 32
    max_tokens: int | None = None
    max_requests: int = 256
    timeout_s: float = 600.0
    body_timeout_s: float = 30.0
    shutdown_timeout_s: float = 30.0
    log_content: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:  # noqa: PLR2004 - a port has 16 bits
            raise ConfigurationError(f"port has to be from 0 to 65535, and is {self.port!r}.")
        for name in ("max_body_bytes", "max_images", "max_tokens", "max_requests"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigurationError(f"{name} has to be 1 or more, and is {value!r}.")
        for name in ("timeout_s", "body_timeout_s", "shutdown_timeout_s"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ConfigurationError(f"{name} has to be above 0, and is {value!r}.")
        if self.api_key is not None and not self.api_key.strip():
            raise ConfigurationError("api_key is empty: give a key, or leave it out.")
        if not (self.api_key or self.no_auth or self.is_loopback):
            raise ConfigurationError(
                f"Other machines can reach {self.host}: give an api_key (--api-key), or no_auth=True (--no-auth) "
                "if everyone there may use the model."
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the server."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"
