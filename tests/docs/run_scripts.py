"""Runs scripts one after the other, each in a fork of a process that has loaded the frameworks, so that they load once.

Started by `Scripts` as a process of its own. Only what others wrote is loaded beforehand: each script imports the package anew.
"""

import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path

FRAMEWORKS = (
    "torch",
    "transformers.models.mllama.modeling_mllama",
    "transformers.models.mllama.image_processing_pil_mllama",
    "langchain.agents",
    "langchain_core.language_models.chat_models",
    "langchain_core.output_parsers.openai_tools",
    "langchain_core.runnables",
    "langsmith.client",
    "llama_index.core",
    "llguidance.hf",
    "PIL.Image",
    "httpx",
)
LIMIT_S = 900  # where many others want the processor


class Scripts:
    """The process that forks, started with the interpreter's options and an environment."""

    def __init__(self, options, environment):
        self._process = subprocess.Popen(
            [sys.executable, *options, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env=environment,
        )

    def run(self, file):
        """Run a script in its own folder; give its exit status, what it printed, and its standard error."""
        outputs = [file.with_suffix(".stdout"), file.with_suffix(".stderr")]
        print(json.dumps([str(file), *map(str, outputs)]), file=self._process.stdin, flush=True)
        status = self._process.stdout.readline()
        assert status, "the process that runs scripts has ended"
        return int(status), *(output.read_text(encoding="utf-8") for output in outputs)

    def close(self):
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait() == 0


def _become(file, stdout, stderr):
    """Turn this process into one that runs a script, as `python file` does."""
    for descriptor, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.alarm(LIMIT_S)
    os.chdir(Path(file).parent)
    sys.argv[:], sys.path[0] = [file], str(Path(file).parent)
    runpy.run_path(file, run_name="__main__")


def main():
    sys.modules["triton"] = (
        None  # torch loads it; its bindings would write to stderr about what `gc.freeze` keeps
    )
    for name in FRAMEWORKS:
        import_module(name)
    assert threading.active_count() == 1, "a fork has no thread but its own"
    gc.freeze()  # so that a fork neither copies nor frees what it shares: half of its time otherwise
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _become(*json.loads(line))
            return  # and end as any interpreter does, with what is registered for it
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
