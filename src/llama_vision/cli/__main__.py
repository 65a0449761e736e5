"""`python -m llama_vision.cli`, where the command is not on the PATH."""

import sys

from llama_vision.cli import main

sys.exit(main())
