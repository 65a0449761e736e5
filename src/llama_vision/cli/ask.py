"""`llama-vision ask`: a question about images, answered token by token."""

import argparse
import json
import sys
import time

from llama_vision.backends import create_backend
from llama_vision.core.events import TextDelta
from llama_vision.core.formatting import format_cost
from llama_vision.core.messages import Image, single_turn_messages
from llama_vision.core.reply import Reply, ReplyBuilder
from llama_vision.core.request import DEFAULT_MAX_TOKENS, ChatRequest, SamplingParams
from llama_vision.images import image_from_any, image_from_bytes
from llama_vision.providers import PROVIDERS, Provider, find_provider
from llama_vision.providers.defaults import default_model, default_provider


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what `ask` takes."""
    parser.description = "Ask a question about images. The last argument is the question."
    parser.add_argument(
        "words",
        nargs="+",
        metavar="IMAGE ... QUESTION",
        help="paths or URLs of images (- reads one from the input), then the question",
    )
    parser.add_argument(
        "--provider", help=f"{', '.join(PROVIDERS)} (default: $LLAMA_VISION_PROVIDER, else local)"
    )
    parser.add_argument(
        "--model", help="a model's name (default: $LLAMA_VISION_MODEL, else the provider's first)"
    )
    parser.add_argument("--base-url", help="where an OpenAI-compatible endpoint is, up to /chat/completions")
    parser.add_argument("--system", help="instructions that come before the question")
    parser.add_argument("--max-tokens", type=int, default=DEFAULT_MAX_TOKENS, help="default: %(default)s")
    parser.add_argument("--temperature", type=float, help="0 takes the likeliest words")
    parser.add_argument("--no-stream", action="store_true", help="show the answer when it is complete")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object with answer, usage and cost"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Ask, and print the answer to stdout and what it took to stderr."""
    provider = find_provider(options.provider or default_provider())
    backend = create_backend(provider, base_url=options.base_url)
    request = _request(provider, options)
    began = time.monotonic()
    if options.no_stream or options.json:
        reply = backend.complete(request)
    else:
        builder = ReplyBuilder()
        for event in backend.stream(request):
            builder.add(event)
            if isinstance(event, TextDelta):
                print(event.text, end="", flush=True)
        reply = builder.reply()
    seconds = time.monotonic() - began
    if options.json:
        print(json.dumps(_as_json(provider, reply, seconds), ensure_ascii=False))
        return
    print(reply.text if options.no_stream else "")
    print(_summary(provider, request, reply, seconds), file=sys.stderr)


def _request(provider: Provider, options: argparse.Namespace) -> ChatRequest:
    *sources, question = options.words
    return ChatRequest(
        model=provider.model_info(options.model or default_model(provider)).id,
        messages=single_turn_messages(question, map(_image, sources), options.system),
        sampling=SamplingParams(max_tokens=options.max_tokens, temperature=options.temperature),
    )


def _image(source: str) -> Image:
    return image_from_bytes(sys.stdin.buffer.read()) if source == "-" else image_from_any(source)


def _summary(provider: Provider, request: ChatRequest, reply: Reply, seconds: float) -> str:
    """Say on one line who answered, and what it took."""
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
