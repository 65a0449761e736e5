"""The command line: `llama-vision ask`, `caption`, `providers`, `doctor`, `serve`, `local`, `completion` and `accept-license`."""

from collections.abc import Sequence

from llama_vision.cli.interrupt import exit_on_interrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Replace `sys.argv[1:]`. Without them ctrl-C ends the process at once, at any moment.

    Returns:
        0; 1 where a call or a caption failed; 2 where the usage, the configuration or an image is wrong; 130 on Ctrl-C.
    """
    if arguments is None:
        exit_on_interrupt()
    from llama_vision.cli.commands import run_command  # noqa: PLC0415 - ctrl-C comes first

    return run_command(arguments)


__all__ = ["main"]
