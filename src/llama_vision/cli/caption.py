"""`llama-vision caption`: captions for all images of a folder and pages of its documents, in a JSON lines file that a later run resumes from."""

import argparse
import asyncio
import sys
from functools import partial
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from llama_vision.adaptation.validate import validate_request
from llama_vision.captions import (
    DEFAULT_CONCURRENCY,
    DEFAULT_PROMPT,
    CaptionedImage,
    CaptionFailure,
    CaptionLog,
    CaptionResult,
    CaptionRunner,
    CaptionTask,
    find_images,
    list_pages,
)
from llama_vision.captions.image_files import absolute
from llama_vision.captions.runner import check_concurrency
from llama_vision.cli.interrupt import raising_interrupt
from llama_vision.cli.model_options import add_model_arguments, build_request, print_loading, select_model
from llama_vision.cli.progress import ProgressLine
from llama_vision.core.backend import Backend
from llama_vision.core.errors import ImageError, LlamaVisionError, UnsupportedInputError
from llama_vision.core.formatting import format_cost
from llama_vision.core.messages import Image
from llama_vision.core.reply import Reply
from llama_vision.core.request import ChatRequest
from llama_vision.providers import Provider
from llama_vision.providers.route import Route, first_provider

if TYPE_CHECKING:
    from llama_vision.captions.batches import CaptionBatches

_MAX_NAMED = 10
_STDOUT = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `caption`."""
    parser.description = (
        "Caption all images of a folder and its subfolders, and each page of PDFs and TIFFs. Each is one line of the "
        "file: file, page, caption, model, tokens, cost and seconds. The same command resumes after a stop, and asks only for missing captions; with another "
        "prompt or model it asks about all, and appends lines."
    )
    parser.add_argument("folder", metavar="DIR", help="a folder, or an image or PDF")
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="JSON lines, such as captions.jsonl; - is stdout, which no run can resume from",
    )
    parser.add_argument("--prompt", default=DEFAULT_PROMPT, help="default: %(default)s")
    parser.add_argument("--password", help="that of encrypted PDFs")
    add_model_arguments(parser)
    parser.add_argument(
        "--concurrency", type=int, default=DEFAULT_CONCURRENCY, help="calls at once, default: %(default)s"
    )
    parser.add_argument(
        "--batch",
        action="store_true",
        help="ask through the provider's batch API: within a day, at a lower price; a run that is stopped goes on later",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Caption all images; print progress, failures and a summary to stderr."""
    try:
        with raising_interrupt():
            asyncio.run(_caption(options))
    except KeyboardInterrupt:
        if options.out != _STDOUT:
            print(
                f"Interrupted. What is done is in {options.out}; the same command goes on from there.",
                file=sys.stderr,
            )
        raise


async def _caption(options: argparse.Namespace) -> None:
    check_concurrency(options.concurrency)
    provider, backend, model = select_model(options)
    task = _caption_task(provider, backend, model, options)
    folder = absolute(options.folder)
    log_path = None if options.out == _STDOUT else absolute(options.out)
    files = find_images(options.folder, exclude=log_path, documents=True)
    if files.skipped:
        print(_skipped(files.skipped, folder), file=sys.stderr)
    images = list_pages(files.images, password=options.password)
    if not images:
        raise ImageError(f"There are no images in {options.folder!r}.")

    def name_in_log(path: Path) -> str:
        # An image of a batch may be of another folder than this run's.
        if path == folder or not path.is_relative_to(folder):
            return path.name
        return path.relative_to(folder).as_posix()

    print_loading(provider, model)
    output = FileIO(sys.stdout.fileno(), "w", closefd=False) if log_path is None else None
    with CaptionLog(log_path, output=output) as log, ProgressLine(len(images)) as progress:
        batches = _open_batches(task, log, log_path, backend, model, options) if options.batch else None
        runner = CaptionRunner(
            batches.task if batches else task, log, name_in_log=name_in_log, log_duplicates=True
        )

        def on_done(result: CaptionResult) -> None:
            failed = isinstance(result, CaptionFailure)
            progress.step(failed=failed, num_replies=runner.num_asked, usage=runner.usage)

        try:
            run_all = runner.run if batches is None else partial(batches.run, runner)
            results = await run_all(images, concurrency=options.concurrency, on_done=on_done)
        finally:
            await backend.aclose()
    _report(results, runner, progress.seconds)


def _open_batches(
    task: CaptionTask,
    log: CaptionLog,
    log_path: Path | None,
    backend: Backend,
    model: str,
    options: argparse.Namespace,
) -> "CaptionBatches":
    from llama_vision.backends.batches import BatchClient  # noqa: PLC0415 - loads httpx
    from llama_vision.captions.batches import CaptionBatches  # noqa: PLC0415 - as above

    def request(image: Image) -> ChatRequest:
        return build_request(options, model, options.prompt, [image])

    client = BatchClient(backend, build_request(options, model, options.prompt))
    tell = partial(print, file=sys.stderr, flush=True)
    return CaptionBatches(task, log, log_path, client, request, on_status=tell)


def _skipped(files: list[Path], folder: Path) -> str:
    """Name the files that are no images."""
    names = [file.relative_to(folder).as_posix() for file in files[:_MAX_NAMED]]
    more = f" and {len(files) - _MAX_NAMED} more" if len(files) > _MAX_NAMED else ""
    count = "1 file" if len(files) == 1 else f"{len(files)} files"
    return f"{count} passed over: {', '.join(names)}{more}"


def _caption_task(
    provider: Provider | Route, backend: Backend, model: str, options: argparse.Namespace
) -> CaptionTask:
    async def ask(image: Image) -> Reply:
        return await backend.acomplete(build_request(options, model, options.prompt, [image]))

    # An error that every image would meet is raised once, before the first.
    first = first_provider(provider)
    validate_request(first, build_request(options, model, options.prompt))
    if first.image_rules.max_count == 0:
        raise UnsupportedInputError(f"{first.title} takes no images. {first.image_rules.alternative}")
    settings: dict[str, object] = {
        "system_prompt": options.system,
        "temperature": options.temperature,
        "max_tokens": options.max_tokens,
        # As `LlamaVision` has them by default, so that `caption_images(resume=...)` finds these captions, too.
        "additional_kwargs": {},
        "image_max_pixels": None,
        "image_format": "auto",
        "image_quality": 85,
    }
    return CaptionTask(
        options.prompt, provider.name, model, settings, {}, ask, first.image_rules.decoded_by_backend
    )


def _report(results: list[CaptionResult], runner: CaptionRunner, seconds: float) -> None:
    """Print failures and a summary to stderr; raise LlamaVisionError where images are left without a caption."""
    captioned = [result for result in results if isinstance(result, CaptionedImage)]
    failures = [result for result in results if isinstance(result, CaptionFailure)]
    facts = [f"{len(captioned)} captions, {runner.num_asked} new", f"{seconds:.1f} s"]
    if runner.usage.cost_usd is not None:
        facts.append(format_cost(runner.usage, dollar_sign=True))
    if cut := sum(result.caption.truncated for result in captioned):
        facts.append(f"{cut} cut at --max-tokens")
    for failure in failures:
        # The fatal error is printed once, at the end; several concurrent calls may have met it.
        if type(failure.error) is not type(runner.fatal_error):
            print(" ".join(f"failed: {failure}".split()), file=sys.stderr)
    print(" | ".join(facts), file=sys.stderr)
    if runner.fatal_error is not None:
        raise runner.fatal_error
    if failures:
        raise LlamaVisionError(
            f"{len(failures)} of {len(results)} images have no caption. The same command asks about them again."
        )
