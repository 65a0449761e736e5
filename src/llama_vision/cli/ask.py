"""`llama-vision ask`: a question about images, with the reply streamed to stdout."""

import argparse
import json
import sys
import time

from llama_vision.cli.model_options import add_model_arguments, build_request, select_model
from llama_vision.core.events import TextDelta
from llama_vision.core.formatting import format_cost
from llama_vision.core.messages import Image
from llama_vision.core.reply import Reply, ReplyBuilder
from llama_vision.core.request import ChatRequest
from llama_vision.images import image_from_any, image_from_bytes
from llama_vision.providers import Provider


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `ask`."""
    parser.description = "Ask a question about images. The last argument is the question."
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="IMAGE ... QUESTION",
        help="paths or URLs of images (- reads one from stdin), then the question",
    )
    add_model_arguments(parser)
    parser.add_argument("--no-stream", action="store_true", help="show the answer when it is complete")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object with answer, usage and cost"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Ask; print the reply to stdout and a summary to stderr."""
    provider, backend, model = select_model(options)
    *sources, question = options.inputs
    request = build_request(options, model, question, map(_read_image, sources))
    start = time.monotonic()
    if options.no_stream or options.json:
        reply = backend.complete(request)
    else:
        builder = ReplyBuilder()
        for event in backend.stream(request):
            builder.add(event)
            if isinstance(event, TextDelta):
                print(event.text, end="", flush=True)
        reply = builder.reply()
    seconds = time.monotonic() - start
    if options.json:
        print(json.dumps(_as_json(provider, reply, seconds), ensure_ascii=False))
        return
    print(reply.text if options.no_stream else "")
    print(_summary(provider, request, reply, seconds), file=sys.stderr)


def _read_image(source: str) -> Image:
    return image_from_bytes(sys.stdin.buffer.read()) if source == "-" else image_from_any(source)


def _summary(provider: Provider, request: ChatRequest, reply: Reply, seconds: float) -> str:
    """Format provider, model, tokens, seconds and cost on one line."""
    usage = reply.usage
    facts = [provider.name, reply.model or request.model]
    if usage.input_tokens is not None and usage.output_tokens is not None:
        facts.append(f"{usage.input_tokens} + {usage.output_tokens} tokens")
    facts.append(f"{seconds:.1f} s")
    if usage.cost_usd is not None:
        facts.append(format_cost(usage, dollar_sign=True, decimals=7))
    if reply.finish_reason == "length":
        facts.append(f"cut at --max-tokens {request.sampling.max_tokens}")
    return " | ".join(facts)


def _as_json(provider: Provider, reply: Reply, seconds: float) -> dict[str, object]:
    usage = reply.usage
    return {
        "text": reply.text,
        "provider": provider.name,
        "model": reply.model,
        "finish_reason": reply.finish_reason,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "seconds": round(seconds, 3),
        "cost_usd": usage.cost_usd,
        "cost_is_estimate": usage.cost_is_estimate if usage.cost_usd is not None else None,
        "id": reply.id,
        "request_id": reply.request_id,
    }
