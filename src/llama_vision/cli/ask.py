"""`llama-vision ask`: a question about images and documents, with the reply streamed to stdout."""

import argparse
import json
import sys
import time
from dataclasses import replace

from llama_vision.cli.model_options import add_model_arguments, build_request, print_loading, select_model
from llama_vision.cli.piped import STDIN, read_stdin, split_inputs
from llama_vision.core.errors import ConfigurationError
from llama_vision.core.events import TextDelta
from llama_vision.core.formatting import format_cost
from llama_vision.core.messages import Document, Image
from llama_vision.core.reply import Reply, ReplyBuilder
from llama_vision.core.request import ChatRequest
from llama_vision.images.documents import document_from_any, image_or_document
from llama_vision.images.settings import DOCUMENT_MAX_PAGES, ImageSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `ask`."""
    parser.description = (
        "Ask a question about images and PDFs. The last argument is the question; - reads it from stdin."
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="IMAGE ... QUESTION",
        help="paths or URLs of images, PDFs and TIFFs (- reads one from stdin), then the question, which may be piped in",
    )
    parser.add_argument("--pages", help="which pages of a PDF or TIFF, such as 2-4 or 1,3 (default: all)")
    parser.add_argument("--password", help="that of an encrypted PDF")
    parser.add_argument(
        "--max-pages", type=int, default=DOCUMENT_MAX_PAGES, help="refuse more pages, default: %(default)s"
    )
    parser.add_argument(
        "--image-policy",
        choices=("error", "first", "grid"),
        default="error",
        help="for more images than the provider takes: refuse, send the first, or all on one sheet",
    )
    add_model_arguments(parser)
    parser.add_argument("--no-stream", action="store_true", help="show the answer when it is complete")
    parser.add_argument("--json", action="store_true", help="print one JSON object with text, usage and cost")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Ask; print the reply to stdout and a summary to stderr."""
    settings = ImageSettings(on_too_many=options.image_policy, document_max_pages=options.max_pages)
    provider, backend, model = select_model(options, settings)
    sources, question = split_inputs(options.inputs)
    request = build_request(options, model, question, _read_images(sources, options))
    start = time.monotonic()
    if not options.json:
        print_loading(provider, model)
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
        print(json.dumps(_as_json(provider.name, reply, seconds), ensure_ascii=False))
        return
    print(reply.text if options.no_stream else "")
    print(_summary(provider.name, request, reply, seconds), file=sys.stderr)


def _read_images(sources: list[str], options: argparse.Namespace) -> list[Image | Document]:
    """Read images and documents; the options for documents are refused where there is none."""
    images = [_read_image(source, options.pages) for source in sources]
    if (options.pages or options.password) and not any(isinstance(image, Document) for image in images):
        raise ConfigurationError("--pages and --password are for PDFs and TIFFs, and none is given.")
    return [
        replace(image, pages=options.pages, password=options.password)
        if isinstance(image, Document)
        else image
        for image in images
    ]


def _read_image(source: str, pages: str | None) -> Image | Document:
    if source == STDIN:
        return image_or_document(read_stdin())
    # The address of a document need not look like one.
    is_url = source.lower().startswith(("http://", "https://"))
    return document_from_any(source) if pages and is_url else image_or_document(source)


def _summary(provider: str, request: ChatRequest, reply: Reply, seconds: float) -> str:
    """Format provider, model, tokens, seconds and cost on one line."""
    usage = reply.usage
    tried = "".join(
        f", after {entry['provider']} ({entry['error']})" for entry in reply.metadata.get("tried", ())
    )
    facts = [f"{reply.metadata.get('provider', provider)}{tried}", reply.model or request.model]
    if usage.input_tokens is not None and usage.output_tokens is not None:
        facts.append(f"{usage.input_tokens} + {usage.output_tokens} tokens")
    facts.append(f"{seconds:.1f} s")
    if usage.cost_usd is not None:
        facts.append(format_cost(usage, dollar_sign=True, decimals=7))
    if reply.finish_reason == "length":
        facts.append(f"cut at --max-tokens {request.sampling.max_tokens}")
    return " | ".join(facts)


def _as_json(provider: str, reply: Reply, seconds: float) -> dict[str, object]:
    usage = reply.usage
    return {
        "text": reply.text,
        "provider": reply.metadata.get("provider", provider),
        "model": reply.model,
        "finish_reason": reply.finish_reason,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "seconds": round(seconds, 3),
        "cost_usd": usage.cost_usd,
        "cost_is_estimate": usage.cost_is_estimate if usage.cost_usd is not None else None,
        "id": reply.id,
        "request_id": reply.request_id,
        **({"tried": reply.metadata["tried"]} if "tried" in reply.metadata else {}),
    }
