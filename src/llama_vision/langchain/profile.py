"""LangChain's `ModelProfile` from a provider's record; what the record lacks is left out."""

from langchain_core.language_models import ModelProfile

from llama_vision.images.pdf import has_pdf_renderer
from llama_vision.providers.provider import Provider
from llama_vision.structured.method import best_method

_OPEN_WEIGHTS = frozenset({"tiny", "llama-3.2-11b-vision", "llama-3.2-90b-vision"})
"""Our names for models whose weights are open; a record of the user's own may have others."""


class DerivedProfile(dict[str, object]):
    """A profile derived from the record, not given by the user."""


def model_profile(provider: Provider, name: str, *, text_tool_calls: bool) -> ModelProfile:
    """Derive a model's profile, for agents and their middleware.

    Image URLs count as supported where images are: those that the provider doesn't fetch are fetched here. `text_tool_calls`
    says whether tools are emulated as text where the provider has no field for them.
    """
    emulated = text_tool_calls and provider.dialect is not None
    info = provider.model_info(name)
    tools = emulated or (provider.supports("tools") and info.tools)
    profile = ModelProfile(
        text_inputs=True,
        audio_inputs=False,
        video_inputs=False,
        text_outputs=True,
        image_outputs=False,
        audio_outputs=False,
        video_outputs=False,
        reasoning_output=False,
        tool_calling=tools,
        tool_choice=emulated or (tools and provider.supports("tool_choice")),
        tool_call_streaming=tools,
        structured_output=best_method(provider, name) == "json_schema",
        temperature=provider.supports("temperature"),
    )
    if info in provider.models:
        images = provider.image_rules.max_count != 0
        profile["name"] = info.name
        profile["max_input_tokens"] = info.context_window
        profile["image_inputs"] = profile["image_url_inputs"] = profile["image_tool_message"] = images
        # Pages of a PDF are rendered here, if pypdfium2 is installed.
        profile["pdf_inputs"] = profile["pdf_tool_message"] = images and has_pdf_renderer()
        if info.max_output_tokens is not None:
            profile["max_output_tokens"] = info.max_output_tokens
        if info.name in _OPEN_WEIGHTS:
            profile["open_weights"] = True
        if info.deprecation:
            profile["status"] = "deprecated"
    return profile
