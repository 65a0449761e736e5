"""Closing, alike in both adapters."""

from typing import Self

from llama_vision.core.backend import Backend


class CloseMixin:
    """Gives a model `close`, `aclose`, `with` and `async with`."""

    def _backend(self) -> Backend:
        raise NotImplementedError

    def close(self) -> None:
        """Close the shared connections to the provider's address; those in use as soon as they are not.

        It need not be called: connections are closed with their event loop and with the process. A later call makes
        new ones.
        """
        self._backend().close()

    async def aclose(self) -> None:
        """As `close`, and for the running event loop too."""
        await self._backend().aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
