"""The commands of the command line: argument parser and exit codes."""

import argparse
import os
import re
import sys
from collections.abc import Sequence

from llama_vision.cli.accept_license import add_arguments as add_accept_license
from llama_vision.cli.ask import add_arguments as add_ask
from llama_vision.cli.caption import add_arguments as add_caption
from llama_vision.cli.completion import add_arguments as add_completion
from llama_vision.cli.doctor import add_arguments as add_doctor
from llama_vision.cli.interrupt import INTERRUPTED
from llama_vision.cli.local import add_arguments as add_local
from llama_vision.cli.providers import add_arguments as add_providers
from llama_vision.cli.serve import add_arguments as add_serve
from llama_vision.core.errors import ConfigurationError, ImageError, LlamaVisionError, UnsupportedInputError
from llama_vision.version import __version__

_ARGUMENT = re.compile(r"\b(api_key|base_url|max_tokens|timeout|deadline|image_policy)=\.\.\.")
"""What an error says to pass, which is an option here."""

_OK, _FAILED, _USAGE_ERROR = 0, 1, 2


def run_command(arguments: Sequence[str] | None) -> int:
    """See `main`."""
    try:
        parser = _parser()
        options = parser.parse_args(arguments)
        if options.run is None:
            parser.print_help()
            return _OK
        options.run(options)
        sys.stdout.flush()
    except (ConfigurationError, UnsupportedInputError, ImageError) as error:
        return _print_error(error, _USAGE_ERROR)
    except LlamaVisionError as error:
        return _print_error(error, _FAILED)
    except KeyboardInterrupt:
        if arguments is None:
            # At once: the thread of a local model may be importing torch, which takes seconds and can't be interrupted.
            sys.stderr.flush()
            os._exit(INTERRUPTED)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the pipe is gone (`| head`). Python would fail once more while it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILED
    return _OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llama-vision", description="Ask Llama 3.2 Vision about images, hosted or on this machine."
    )
    parser.add_argument("--version", action="version", version=f"llama-vision {__version__}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    add_ask(commands.add_parser("ask", help="ask a question about images"))
    add_caption(commands.add_parser("caption", help="describe all images of a folder"))
    add_providers(
        commands.add_parser("providers", help="list providers, their models, and which keys are set")
    )
    add_doctor(commands.add_parser("doctor", help="report what is installed, set and reachable here"))
    add_serve(commands.add_parser("serve", help="serve the local model as OpenAI and Ollama do"))
    add_local(commands.add_parser("local", help="say what a model takes on this machine"))
    add_accept_license(
        commands.add_parser("accept-license", help="accept the model's license where a provider asks for it")
    )
    add_completion(
        commands.add_parser("completion", help="print a script with which a shell completes commands"), parser
    )
    return parser


def _print_error(error: LlamaVisionError, code: int) -> int:
    line = _ARGUMENT.sub(lambda found: f"--{found[1].replace('_', '-')}", " ".join(str(error).split()))
    print(f"llama-vision: {line}", file=sys.stderr)
    return code
