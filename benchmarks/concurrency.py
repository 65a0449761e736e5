"""Processor time of 200 concurrent calls: raw httpx, ours over httpx, and ours over aiohttp.

`make bench` runs it. All figures come from this one run against a server on this machine, in interleaved rounds; each
ratio is the median of the rounds' ratios.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from contextlib import contextmanager

import httpx
from overhead import BODY, serving

import llama_vision
from llama_vision.langchain import ChatLlamaVision

ROUNDS, CONCURRENCY = 9, 200
GOALS = {"httpx": 1.3, "aiohttp": 0.5}


@contextmanager
def transport(name):
    llama_vision.use_aiohttp(enabled=name == "aiohttp")
    try:
        yield
    finally:
        llama_vision.use_aiohttp(enabled=False)


async def raw(url):
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    async with httpx.AsyncClient(limits=limits, verify=CONTEXT, timeout=60) as client:
        address = f"{url}/whole/chat/completions"

        async def call():
            return (await client.post(address, json=BODY)).json()["choices"][0]["message"]["content"]

        return await measured(call)


async def ours(url):
    model = ChatLlamaVision(provider="openai-compatible", model="m", base_url=f"{url}/whole")

    async def call():
        return (await model.ainvoke("Hello!")).content

    return await measured(call)


async def measured(call):
    """Return seconds of processor time of all calls together, after one warm-up."""
    await call()
    began = time.process_time()
    answers = await asyncio.gather(*(call() for _ in range(CONCURRENCY)))
    spent = time.process_time() - began
    if set(answers) != {"Hello! How can I help you today?"}:
        sys.exit("a reply is not what the server sent")
    return spent


CONTEXT = httpx.create_ssl_context()


def measure(url):
    rounds = {"raw": [], "httpx": [], "aiohttp": []}
    for _ in range(ROUNDS):
        rounds["raw"].append(asyncio.run(raw(url)))
        for name in ("httpx", "aiohttp"):
            with transport(name):
                rounds[name].append(asyncio.run(ours(url)))
    return rounds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print figures for a program")
    options = parser.parse_args()
    with serving() as url:
        rounds = measure(url)
    ratios = {
        name: statistics.median(a / b for a, b in zip(rounds[name], rounds["raw"], strict=True))
        for name in GOALS
    }
    spent = {name: statistics.median(values) * 1000 for name, values in rounds.items()}
    if options.json:
        print(json.dumps({"ms": spent, "ratios": ratios}))
        return
    print(f"\n{CONCURRENCY} calls at once, processor time in ms: raw httpx {spent['raw']:.0f}", end="")
    print(f", ours over httpx {spent['httpx']:.0f}, ours over aiohttp {spent['aiohttp']:.0f}")
    for name, ratio in ratios.items():
        verdict = "" if ratio <= GOALS[name] else "   MISSED"
        print(f"{f'over {name}, times raw httpx':<78}{ratio:>8.2f}   goal {GOALS[name]:g}{verdict}")


if __name__ == "__main__":
    main()
