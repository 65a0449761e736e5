"""What a provider's record says it can't do, with the reason: the only ground for leaving a test out."""

from collections.abc import Callable

from llama_vision import Provider


def _no_image(provider: Provider) -> str | None:
    rules = provider.image_rules
    return f"takes no images: {rules.alternative}" if rules.max_count == 0 else None


def _no_image_url(provider: Provider) -> str | None:
    return _no_image(provider) or (None if provider.image_rules.accepts_urls else "does not fetch addresses")


def _one_image(provider: Provider) -> str | None:
    most = provider.image_rules.max_count
    return _no_image(provider) or (f"takes {most} image" if most is not None and most < 2 else None)


def _no_tools(provider: Provider) -> str | None:
    able = provider.supports("tools") and provider.models[0].tools
    return None if able else "takes no tools with this model: they go into the prompt"


def _no_forced_tool(provider: Provider) -> str | None:
    return _no_tools(provider) or (
        None if provider.supports("tool_choice") else "can't force a tool call: the prompt asks for it"
    )


CANNOT: dict[str, Callable[[Provider], str | None]] = {
    "image": _no_image,
    "image by URL": _no_image_url,
    "several images": _one_image,
    "system beside image": _no_image,
    "tools": _no_tools,
    "tool history": _no_tools,
    "forced tool": _no_forced_tool,
}
"""By ability; those that are not here every provider has."""

PROMPTED = frozenset({"tools", "tool history", "forced tool"})
"""What is put into the prompt where a provider can't, and is tested there too."""


def reason_against(provider: Provider, ability: str) -> str | None:
    """Tell why a provider can't; None where it can."""
    check = CANNOT.get(ability)
    return check(provider) if check else None
