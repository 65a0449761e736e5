"""The refusals of the pipeline, for images that need no preparation."""

from llama_vision.adaptation.images import limit_images
from llama_vision.adaptation.validate import validate_images, validate_request
from llama_vision.core.backend import AttachErrorContext
from llama_vision.images.settings import ImageSettings


def validate(provider, request):
    """Refuse in the pipeline's order what the provider does not accept."""
    validate_request(provider, request)
    with AttachErrorContext(provider.name, request.model):
        limit_images(provider, request, ImageSettings())
        validate_images(provider, request.images())
