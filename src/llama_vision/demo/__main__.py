"""`python -m llama_vision.demo`."""

import os
import sys

from llama_vision.cli.interrupt import exit_on_interrupt

if __name__ == "__main__":
    exit_on_interrupt()
    from llama_vision.demo.demonstration import main

    try:
        sys.exit(main())
    except BrokenPipeError:  # the reader of the pipe is gone (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
