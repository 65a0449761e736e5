"""`llama-vision caption`: all images of a folder described, in a file of JSON lines that a later run goes on with."""

import argparse
import asyncio
import sys
from pathlib import Path

from llama_vision.adaptation.validate import validate_request
from llama_vision.backends import create_backend
from llama_vision.captions import (
    DEFAULT_CONCURRENCY,
    DEFAULT_PROMPT,
    CaptionedImage,
    CaptionFailure,
    CaptionLog,
    CaptionResult,
    CaptionRunner,
    CaptionTask,
    absolute,
    check_concurrency,
    find_images,
)
from llama_vision.cli.progress import ProgressLine
from llama_vision.core.backend import Backend
from llama_vision.core.errors import ImageError, LlamaVisionError, UnsupportedInputError
from llama_vision.core.formatting import format_cost
from llama_vision.core.messages import Image, single_turn_messages
from llama_vision.core.reply import Reply
from llama_vision.core.request import DEFAULT_MAX_TOKENS, ChatRequest, SamplingParams
from llama_vision.providers import PROVIDERS, Provider, find_provider
from llama_vision.providers.defaults import default_model, default_provider


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what `caption` takes."""
    parser.description = (
        "Describe all images of a folder, with those further down. Each is one line of the file: file, caption, model, "
        "tokens, cost and seconds. The same command goes on after a stop, and asks only about what is missing; with "
        "another prompt or model it asks about all, and adds lines."
    )
    parser.add_argument("folder", metavar="DIR", help="a folder, or an image")
    parser.add_argument("--out", required=True, metavar="FILE", help="JSON lines, such as captions.jsonl")
    parser.add_argument("--prompt", default=DEFAULT_PROMPT, help="default: %(default)s")
    parser.add_argument(
        "--provider", help=f"{', '.join(PROVIDERS)} (default: $LLAMA_VISION_PROVIDER, else local)"
    )
    parser.add_argument(
        "--model", help="a model's name (default: $LLAMA_VISION_MODEL, else the provider's first)"
    )
    parser.add_argument("--base-url", help="where an OpenAI-compatible endpoint is, up to /chat/completions")
    parser.add_argument("--system", help="instructions that come before the prompt")
    parser.add_argument("--max-tokens", type=int, default=DEFAULT_MAX_TOKENS, help="default: %(default)s")
    parser.add_argument("--temperature", type=float, help="0 takes the likeliest words")
    parser.add_argument(
        "--concurrency", type=int, default=DEFAULT_CONCURRENCY, help="calls at once, default: %(default)s"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Caption, and say on stderr how it goes, what failed and what it took."""
    asyncio.run(_caption(options))


async def _caption(options: argparse.Namespace) -> None:
    check_concurrency(options.concurrency)
    provider = find_provider(options.provider or default_provider())
    backend = create_backend(provider, base_url=options.base_url)
    task = _caption_task(provider, backend, options)
    folder, log_path = absolute(options.folder), absolute(options.out)
    images = find_images(options.folder, exclude=log_path).images
    if not images:
        raise ImageError(f"There are no images in {options.folder!r}.")

    def name_in_log(path: Path) -> str:
        return path.name if path == folder else path.relative_to(folder).as_posix()

    with CaptionLog(log_path) as log, ProgressLine(len(images)) as progress:
        runner = CaptionRunner(task, log, name_in_log=name_in_log, log_duplicates=True)

        def step(result: CaptionResult) -> None:
            failed = isinstance(result, CaptionFailure)
            progress.step(failed=failed, asked=runner.num_asked, usage=runner.usage)

        try:
            results = await runner.run(images, concurrency=options.concurrency, on_done=step)
        finally:
            await backend.aclose()
    _report(results, runner, progress.seconds)


def _caption_task(provider: Provider, backend: Backend, options: argparse.Namespace) -> CaptionTask:
    def request(*images: Image) -> ChatRequest:
        return ChatRequest(
            model=model,
            messages=single_turn_messages(options.prompt, images, options.system),
            sampling=SamplingParams(max_tokens=options.max_tokens, temperature=options.temperature),
        )

    async def ask(image: Image) -> Reply:
        return await backend.acomplete(request(image))

    model = provider.model_info(options.model or default_model(provider)).id
    # An error that every image would meet is raised once, before the first call.
    validate_request(provider, request())
    if provider.image_rules.max_count == 0:
        raise UnsupportedInputError(f"{provider.title} takes no images. {provider.image_rules.alternative}")
    settings: dict[str, object] = {
        "system_prompt": options.system,
        "temperature": options.temperature,
        "max_tokens": options.max_tokens,
        # As `LlamaVision` has them by default, so that `caption_images(resume=...)` knows these captions, too.
        "additional_kwargs": {},
        "image_max_pixels": None,
        "image_format": "auto",
        "image_quality": 85,
    }
    return CaptionTask(options.prompt, provider.name, model, settings, {}, ask)


def _report(results: list[CaptionResult], runner: CaptionRunner, seconds: float) -> None:
    """Print a summary.

    Raises:
        LlamaVisionError: Images are left without a caption.

    """
    captioned = [result for result in results if isinstance(result, CaptionedImage)]
    failures = [result for result in results if isinstance(result, CaptionFailure)]
    facts = [f"{len(captioned)} captions, {runner.num_asked} new", f"{seconds:.1f} s"]
    if runner.usage.cost_usd is not None:
        facts.append(format_cost(runner.usage, dollar_sign=True))
    if cut := sum(result.caption.truncated for result in captioned):
        facts.append(f"{cut} cut at --max-tokens")
    for failure in failures:
        # The fatal error is raised once, at the end; several calls in flight may have met it.
        if type(failure.error) is not type(runner.fatal_error):
            print(" ".join(f"failed: {failure}".split()), file=sys.stderr)
    print(" | ".join(facts), file=sys.stderr)
    if runner.fatal_error is not None:
        raise runner.fatal_error
    if failures:
        raise LlamaVisionError(
            f"{len(failures)} of {len(results)} images have no caption. The same command asks about them again."
        )
