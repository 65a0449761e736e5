"""The ASGI application: routes of OpenAI's and of Ollama's interface, health, metrics, and a page to try it."""

import time
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from llama_vision.backends.local import LocalBackend, LocalSettings
from llama_vision.core.backend import Backend
from llama_vision.core.errors import LlamaVisionError
from llama_vision.images.settings import ImageSettings
from llama_vision.providers.local import LOCAL
from llama_vision.serve import chat_completions, ollama
from llama_vision.serve.admission import Admission
from llama_vision.serve.chat_completions import ChatCompletionRequest
from llama_vision.serve.endpoint import Interface, ReplyEndpoint, Service, Writer
from llama_vision.serve.failures import Failure, to_failure
from llama_vision.serve.guard import check_access
from llama_vision.serve.metrics import CONTENT_TYPE, Metrics
from llama_vision.serve.names import SIZES, ServedNames
from llama_vision.serve.ollama import OllamaChatRequest, OllamaGenerateRequest, OllamaWriter
from llama_vision.serve.requests import ServedRequest, parse_body
from llama_vision.serve.settings import ServeSettings
from llama_vision.version import __version__

# Everything of the page is in the page, and its script is the only one.
_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src blob: data:; connect-src 'self'"


def create_app(
    model: str = "tiny",
    settings: ServeSettings | None = None,
    *,
    local: LocalSettings | None = None,
    backend: Backend | None = None,
) -> Starlette:
    """Create the application, for `serve` or any other ASGI server. The model is loaded with the first request.

    Args:
        model: `tiny`, `11b`, `90b`, a folder, or another name that `provider="local"` takes.
        settings: Access and limits.
        local: How the model runs.
        backend: What answers in place of the model on this machine.

    Returns:
        The application; `state.service` holds what its requests share.
    """
    settings = settings or ServeSettings()
    admission = Admission(settings.max_requests)
    service = Service(
        backend=backend or LocalBackend(LOCAL, ImageSettings(document_max_pages=settings.max_images), local),
        names=ServedNames(model, settings.served_names),
        settings=settings,
        admission=admission,
        metrics=Metrics(lambda: admission.num_active),
    )
    app = Starlette(routes=_routes(service), middleware=_middleware(settings))
    app.state.service = service
    return app


def _middleware(settings: ServeSettings) -> list[Middleware]:
    if not settings.allowed_origins:
        return []
    origins = list(settings.allowed_origins)
    return [Middleware(CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"])]


def _routes(service: Service) -> list[Route]:
    names, created = service.names, time.time()
    show = _ollama_show(names)
    tags = {"models": [ollama.tag(name, created, show["details"]) for name in names.listed]}

    def reply(path: str, interface: Interface) -> Route:
        return Route(path, ReplyEndpoint(service, path, interface), methods=["POST"])

    def fixed(
        path: str, answer: Callable[[Request], dict[str, Any] | Response], method: str = "GET"
    ) -> Route:
        return Route(path, _fixed(service, path, answer), methods=[method])

    return [
        reply("/v1/chat/completions", Interface(_parse_chat_completion, _openai_error)),
        reply("/api/chat", Interface(_parse_ollama_chat, _ollama_error)),
        reply("/api/generate", Interface(_parse_ollama_generate, _ollama_error)),
        fixed("/v1/models", lambda _: chat_completions.models_body(names.listed, int(created))),
        fixed("/v1/models/{name:path}", lambda request: _openai_model(names, request, int(created))),
        fixed("/api/tags", lambda _: tags),
        fixed("/api/ps", lambda _: tags),
        fixed("/api/version", lambda _: {"version": __version__}),
        fixed("/api/show", lambda _: show, "POST"),
        fixed("/metrics", lambda _: Response(service.metrics.render(), media_type=CONTENT_TYPE)),
        Route("/health", _health(service)),
        Route("/", _page),
    ]


def _fixed(
    service: Service, path: str, answer: Callable[[Request], dict[str, Any] | Response]
) -> Callable[[Request], Awaitable[Response]]:
    """Make the endpoint of a path that is answered without the model."""
    write_error = _ollama_error if path.startswith("/api/") else _openai_error

    async def endpoint(request: Request) -> Response:
        try:
            check_access(request, service.settings)
            answered = answer(request)
        except LlamaVisionError as error:
            failure = to_failure(error)
            return Response(write_error(failure), failure.status, media_type="application/json")
        return answered if isinstance(answered, Response) else JSONResponse(answered)

    return endpoint


def _parse_chat_completion(body: bytes) -> tuple[ServedRequest, Writer]:
    parsed = parse_body(ChatCompletionRequest, body)
    return parsed.to_request(), parsed.writer()


def _parse_ollama_chat(body: bytes) -> tuple[ServedRequest | None, Writer]:
    parsed = parse_body(OllamaChatRequest, body)
    return parsed.to_request(), OllamaWriter(parsed.model, ollama.chat_content)


def _parse_ollama_generate(body: bytes) -> tuple[ServedRequest | None, Writer]:
    parsed = parse_body(OllamaGenerateRequest, body)
    return parsed.to_request(), OllamaWriter(parsed.model, ollama.generate_content)


def _openai_error(failure: Failure) -> bytes:
    return chat_completions.error_body(failure.message, failure.kind, failure.code)


def _ollama_error(failure: Failure) -> bytes:
    return ollama.error_body(failure.message)


def _openai_model(names: ServedNames, request: Request, created: int) -> dict[str, Any]:
    name = request.path_params["name"]
    names.resolve(name)
    return chat_completions.model_body(name, created)


def _ollama_show(names: ServedNames) -> dict[str, Any]:
    """Describe the model as `/api/show` does."""
    size = next((size.upper() for size, name in SIZES.items() if name in names.listed), "")
    details = {
        "parent_model": "",
        "format": "safetensors",
        "family": "mllama",
        "families": ["mllama"],
        "parameter_size": size,
        "quantization_level": "",
    }
    return {
        "modelfile": "",
        "parameters": "",
        "template": "",
        "details": details,
        "model_info": {"general.architecture": "mllama", "general.basename": names.listed[0]},
        "capabilities": ["completion", "vision", "tools"],
    }


def _health(service: Service) -> Callable[[Request], Response]:
    """Make the endpoint that load balancers ask: it needs no key."""

    def health(request: Request) -> Response:
        del request
        draining = service.admission.draining
        return JSONResponse({"status": "draining" if draining else "ok"}, 503 if draining else 200)

    return health


def _page(request: Request) -> Response:
    del request
    page = files("llama_vision.serve").joinpath("page.html").read_text(encoding="utf-8")
    return HTMLResponse(page, headers={"content-security-policy": _PAGE_POLICY})
