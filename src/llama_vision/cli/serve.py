"""`llama-vision serve`: the local model behind the HTTP interfaces of OpenAI and Ollama."""

import argparse
import logging
import os
import sys

from llama_vision.providers.servers import LLAMA_VISION_SERVER

_KEY_ENV = LLAMA_VISION_SERVER.key_env[0]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `serve`."""
    parser.description = (
        "Serve the model on this machine: OpenAI's /v1/chat/completions and Ollama's /api/chat and /api/generate, "
        "and a page to try it. Ctrl-C or SIGTERM lets replies end."
    )
    parser.add_argument(
        "--model", default="tiny", help="tiny, 11b, 90b, a folder or a name on the hub (default: tiny)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s, for this machine only")
    parser.add_argument("--port", type=int, default=8484, help="default: %(default)s; Ollama's is 11434")
    parser.add_argument("--api-key", help=f"ask clients for it (default: ${_KEY_ENV}, else none)")
    parser.add_argument("--no-auth", action="store_true", help="let other machines in without a key")
    parser.add_argument(
        "--allow-origin", action="append", default=[], help="let web pages of this origin in (* for all)"
    )
    parser.add_argument("--served-name", action="append", default=[], help="one more name of the model")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the fastest there is)")
    parser.add_argument(
        "--device-map", choices=["auto"], help="fill all GPUs, and the CPU as the last resort"
    )
    parser.add_argument("--quantization", help="int8, int4, fp8 or auto: smaller weights")
    parser.add_argument(
        "--max-batch-size", type=int, default=16, help="sequences at once (default: %(default)s)"
    )
    parser.add_argument("--max-model-len", type=int, help="tokens of prompt and reply (default: the model's)")
    parser.add_argument(
        "--max-requests", type=int, default=256, help="in work or waiting (default: %(default)s)"
    )
    parser.add_argument(
        "--timeout", type=float, default=600.0, help="seconds of a request (default: %(default)g)"
    )
    parser.add_argument("--log-content", action="store_true", help="log prompts and replies")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Load the model and serve it until a signal."""
    from llama_vision.backends.local import LocalSettings  # noqa: PLC0415 - only `serve` needs it
    from llama_vision.serve import ServeSettings, serve  # noqa: PLC0415 - needs the extra

    settings = ServeSettings(
        host=options.host,
        port=options.port,
        api_key=options.api_key or os.environ.get(_KEY_ENV) or None,
        no_auth=options.no_auth,
        allowed_origins=tuple(options.allow_origin),
        served_names=tuple(options.served_name),
        max_requests=options.max_requests,
        timeout_s=options.timeout,
        log_content=options.log_content,
    )
    local = LocalSettings(
        max_batch_size=options.max_batch_size,
        max_model_len=options.max_model_len,
        device=options.device,
        device_map=options.device_map,
        quantization=options.quantization,
    )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # addresses of images may hold secrets
    serve(options.model, settings, local=local)
