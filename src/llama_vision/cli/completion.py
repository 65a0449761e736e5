"""`llama-vision completion`: a script that completes commands, options, names and files in a shell. shtab writes it."""

import argparse
import shlex
from collections.abc import Iterable, Iterator
from typing import Any

from llama_vision.core.errors import MissingDependencyError
from llama_vision.providers import PROVIDERS

_SHELLS = ("bash", "zsh", "fish", "tcsh", "powershell")
_FILES = {"inputs", "folder", "out"}
"""Arguments that are files; `model` is one where there is no provider to choose."""


def add_arguments(parser: argparse.ArgumentParser, root: argparse.ArgumentParser) -> None:
    """Add the arguments of `completion`, which completes what `root` parses."""
    parser.description = (
        "Print a script with which a shell completes commands, options, names and files. docs/command-line.md says where it goes. "
        "It needs the extra `completion`."
    )
    parser.add_argument("shell", choices=_SHELLS)

    def run(options: argparse.Namespace) -> None:
        print(_script(root, options.shell))

    parser.set_defaults(run=run)


def _script(root: argparse.ArgumentParser, shell: str) -> str:
    try:
        import shtab  # noqa: PLC0415 - optional
    except ImportError as missing:
        raise MissingDependencyError(
            "Completion needs shtab: pip install 'llama-vision[completion]'"
        ) from missing
    providers = shtab.cmd(_print_names(PROVIDERS))
    models = shtab.cmd(
        _print_names(dict.fromkeys(model.name for one in PROVIDERS.values() for model in one.models))
    )
    for parser in _parsers(root):
        by_name = {action.dest: action for action in _actions(parser)}
        for name, action in by_name.items():
            if name == "provider":
                action.complete = providers
            elif name == "model" and "provider" in by_name:
                action.complete = models
            elif name == "model" or name in _FILES:
                action.complete = shtab.FILE
    return shtab.complete(root, shell)


def _print_names(names: Iterable[str]) -> str:
    return f"printf '%s\\n' {shlex.join(names)}"


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield a parser and those of its commands."""
    yield parser
    for action in _actions(parser):
        if action.nargs == argparse.PARSER:
            for command in action.choices.values():
                yield from _parsers(command)


def _actions(parser: Any) -> list[Any]:
    """Return the parser's arguments, for which argparse has no public name."""
    return parser._actions  # noqa: SLF001 - as said
