"""The model on this machine behind the HTTP interfaces of OpenAI and Ollama. Needs the extra `serve`."""

from llama_vision.core.errors import MissingDependencyError
from llama_vision.serve.settings import ServeSettings

try:
    from llama_vision.serve.app import create_app
    from llama_vision.serve.server import serve, serving
except ModuleNotFoundError as _error:
    raise MissingDependencyError(
        f"The server needs {_error.name}: pip install 'llama-vision[serve]'"
    ) from _error

__all__ = ["ServeSettings", "create_app", "serve", "serving"]
