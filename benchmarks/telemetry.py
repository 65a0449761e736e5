"""What OpenTelemetry costs a call in processor time: not installed, installed without an SDK, and with one.

`make bench` runs it. All figures come from one run against a server on this machine, in interleaved rounds: each ratio is the median of
the rounds' ratios to the same call without any of the code for it. `python -m benchmarks.telemetry --json` prints them for a program.
"""

import argparse
import contextlib
import json
import statistics
from unittest import mock

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from benchmarks.overhead import processor_time, serving
from llama_vision import backends
from llama_vision.langchain import ChatLlamaVision

ROUNDS, CALLS = 15, 100
GOAL = 1.03
WITHOUT = "without the code"
NOT_INSTALLED, NOT_SET_UP, WITH_SDK = (
    "API not installed",
    "API without an SDK",
    "SDK that keeps all in memory",
)


class Sdk:
    """An SDK, set up for a while: the API sets one up once in a process."""

    def __init__(self):
        self.exporter = InMemorySpanExporter()
        self.tracers, self.meters = TracerProvider(), MeterProvider([InMemoryMetricReader()])
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))

    def set_up(self):
        stack = contextlib.ExitStack()
        for module, name, value in (
            (trace, "get_tracer_provider", lambda: self.tracers),
            (trace, "get_tracer", self.tracers.get_tracer),
            (metrics, "get_meter_provider", lambda: self.meters),
            (metrics, "get_meter", self.meters.get_meter),
        ):
            stack.enter_context(mock.patch.object(module, name, value))
        return stack


def ways(sdk):
    """Return what is in place during the calls, by name."""
    return {
        WITHOUT: lambda: mock.patch.object(backends, "_trace", lambda backend, *_: backend),
        NOT_INSTALLED: lambda: mock.patch.object(backends, "_find_telemetry", return_value=None),
        NOT_SET_UP: contextlib.nullcontext,
        WITH_SDK: sdk.set_up,
    }


def measure(url):
    """Return {name: [us per call, ...]}, an entry for each round."""
    sdk = Sdk()
    model = ChatLlamaVision(provider="openai-compatible", model="m", base_url=f"{url}/whole")
    measured = {name: [] for name in ways(sdk)}

    def call():
        model.invoke("Hello!")

    for way in ways(sdk).values():  # the first of each pays for imports, connections and caches
        with way():
            processor_time(call, 20)
    assert sdk.exporter.get_finished_spans()
    for number in range(ROUNDS):
        order = list(ways(sdk).items())
        for name, way in order[number % 4 :] + order[: number % 4]:
            sdk.exporter.clear()
            with way():
                measured[name].append(processor_time(call, CALLS) * 1e6)
    return measured


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print figures for a program")
    options = parser.parse_args()
    with serving() as url:
        measured = measure(url)
    ratios = {
        name: statistics.median(a / b for a, b in zip(values, measured[WITHOUT], strict=True))
        for name, values in measured.items()
    }
    if options.json:
        print(
            json.dumps(
                {"us": {name: statistics.median(measured[name]) for name in measured}, "times": ratios}
            )
        )
        return
    print(f"{'OpenTelemetry: processor time of a call':<42}{'us':>10}{'times':>8}")
    for name, values in measured.items():
        goal = f"   goal {GOAL:g}" if name in (NOT_INSTALLED, NOT_SET_UP) else ""
        missed = "   MISSED" if goal and ratios[name] > GOAL else ""
        print(f"{name:<42}{statistics.median(values):>10.1f}{ratios[name]:>8.3f}{goal}{missed}")


if __name__ == "__main__":
    main()
