"""What a call and a streamed piece cost in processor time: raw httpx, the smallest chat model one can write, and ours.

`make bench` runs it. All figures come from this one run against a server on this machine, in interleaved rounds; each
ratio is the median of the rounds' ratios. `python benchmarks/overhead.py --json` prints the figures for a program.
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from llama_vision.langchain import ChatLlamaVision

ROUNDS, CALLS, SHORT, LONG, STREAMS = 9, 150, 20, 520, 4
GOALS = {"call": 1.25, "stream": 1.2, "piece": 1.3, "import_ms": 100.0, "constructor_us": 150.0}
BODY = {"model": "m", "max_tokens": 1024, "messages": [{"role": "user", "content": "Hello!"}]}


class Smallest(BaseChatModel):
    """The least code that is a LangChain chat model over httpx: no errors, no retries, no images, no tools."""

    url: str
    client: object

    @property
    def _llm_type(self):
        return "smallest"

    def _body(self, messages, **more):
        return {
            **BODY,
            "messages": [{"role": "user", "content": message.content} for message in messages],
            **more,
        }

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        data = self.client.post(f"{self.url}/whole/chat/completions", json=self._body(messages)).json()
        message = AIMessage(
            content=data["choices"][0]["message"]["content"], usage_metadata=counts(data["usage"])
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(self, messages, stop=None, run_manager=None, *, pieces, **kwargs):
        address = f"{self.url}/{pieces}/chat/completions"
        with self.client.stream("POST", address, json=self._body(messages, stream=True)) as response:
            for line in response.iter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    data = json.loads(line[6:])
                    text = data["choices"][0]["delta"].get("content", "")
                    usage = counts(data["usage"]) if "usage" in data else None
                    yield ChatGenerationChunk(message=AIMessageChunk(content=text, usage_metadata=usage))


def counts(usage):
    return {
        "input_tokens": usage["prompt_tokens"],
        "output_tokens": usage["completion_tokens"],
        "total_tokens": usage["total_tokens"],
    }


class RawHttpx:
    """What nobody can be faster than with httpx."""

    def __init__(self, url, client):
        self.url, self.client = url, client

    def call(self):
        data = self.client.post(f"{self.url}/whole/chat/completions", json=BODY).json()
        return data["choices"][0]["message"]["content"]

    def stream(self, pieces):
        words = []
        with self.client.stream("POST", f"{self.url}/{pieces}/chat/completions", json=BODY) as response:
            for line in response.iter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    delta = json.loads(line[6:])["choices"][0]["delta"]
                    words.append(delta.get("content", ""))
        return "".join(words)


class ThroughLangChain:
    """A chat model, called as its users call it."""

    def __init__(self, make_whole, make_stream):
        self.whole = make_whole()
        self.make_stream = make_stream
        self.streams = {}

    def call(self):
        return self.whole.invoke("Hello!").content

    def stream(self, pieces):
        if pieces not in self.streams:
            self.streams[pieces] = self.make_stream(pieces)
        return "".join(chunk.content for chunk in self.streams[pieces]("Hello!"))


def subjects(url):
    client = httpx.Client()
    smallest = Smallest(url=url, client=client)

    def ours(path):
        return ChatLlamaVision(provider="openai-compatible", model="m", base_url=f"{url}/{path}")

    return {
        "raw httpx": RawHttpx(url, client),
        "smallest BaseChatModel": ThroughLangChain(
            lambda: smallest, lambda pieces: lambda prompt: smallest.stream(prompt, pieces=pieces)
        ),
        "ChatLlamaVision": ThroughLangChain(lambda: ours("whole"), lambda pieces: ours(pieces).stream),
    }


def processor_time(work, times):
    """Measure with the heap collected and frozen: a full collection takes 70 ms, and would fall into one figure by chance."""
    gc.collect()
    gc.freeze()
    began = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - began) / times


def measure(url):
    """Return {name: {"call": [us, ...], "stream": [...], "piece": [...]}}, an entry for each round."""
    measured = {}
    everything = subjects(url)
    for name, subject in everything.items():  # the first of each pays for imports, connections and caches
        subject.call()
        expected = "".join(f" word{n}" for n in range(SHORT))
        if subject.stream(SHORT) != expected or not subject.stream(LONG).startswith(expected):
            sys.exit(f"{name} does not deliver what the server sent")
        measured[name] = {"call": [], "stream": [], "piece": []}
    for _ in range(ROUNDS):
        for name, subject in everything.items():
            call = processor_time(subject.call, CALLS)
            short = processor_time(lambda s=subject: s.stream(SHORT), STREAMS * 5)
            long = processor_time(lambda s=subject: s.stream(LONG), STREAMS)
            measured[name]["call"].append(call * 1e6)
            measured[name]["stream"].append(short * 1e6)
            measured[name]["piece"].append((long - short) / (LONG - SHORT) * 1e6)
    return measured


def import_cost_ms():
    """Measure `import llama_vision.langchain` in fresh processes that have imported what it stands on."""
    code = (
        "import langchain_core.language_models.chat_models, langchain_core.tools, httpx, pydantic\n"
        "import gc, time; gc.collect(); gc.freeze()\n"
        "began = time.perf_counter(); import llama_vision.langchain\n"
        "print((time.perf_counter() - began) * 1000)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, check=True) for _ in range(5)]
    return statistics.median(float(run.stdout) for run in runs)


def constructor_us():
    def make():
        ChatLlamaVision(provider="deepinfra", api_key="k", temperature=0)

    make()
    return statistics.median(processor_time(make, 200) for _ in range(5)) * 1e6


def ratio(measured, figure, over):
    """Compare ours with another, round by round."""
    pairs = zip(measured["ChatLlamaVision"][figure], measured[over][figure], strict=True)
    return statistics.median(ours / theirs for ours, theirs in pairs)


def results(measured):
    figures = {
        name: {figure: statistics.median(values) for figure, values in rows.items()}
        for name, rows in measured.items()
    }
    return {
        "us": figures,
        **{
            figure: ratio(measured, figure, "smallest BaseChatModel")
            for figure in ("call", "stream", "piece")
        },
        "import_ms": import_cost_ms(),
        "constructor_us": constructor_us(),
    }


def show(found):
    columns = {"call": "us per call", "stream": f"us per stream of {SHORT}", "piece": "us per further piece"}
    print(f"{'processor time':<26}" + "".join(f"{title:>22}" for title in columns.values()))
    for name, figures in found["us"].items():
        print(f"{name:<26}" + "".join(f"{figures[column]:>22.1f}" for column in columns))
    print()
    labels = {
        "call": "a call, times the smallest class",
        "stream": f"a stream of {SHORT} pieces, times the smallest class",
        "piece": "a piece, times the smallest class",
        "import_ms": "import llama_vision.langchain, ms beyond langchain_core + httpx + pydantic",
        "constructor_us": "ChatLlamaVision(...), us",
    }
    for name, label in labels.items():
        verdict = "" if found[name] <= GOALS[name] else "   MISSED"
        print(f"{label:<78}{found[name]:>8.2f}   goal {GOALS[name]:g}{verdict}")


@contextmanager
def serving():
    """Run the server in a process of its own, and give its address."""
    command = [sys.executable, str(Path(__file__).with_name("server.py"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.terminate()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print figures for a program")
    options = parser.parse_args()
    with serving() as url:
        found = results(measure(url))
    if options.json:
        print(json.dumps(found))
    else:
        show(found)


if __name__ == "__main__":
    main()
