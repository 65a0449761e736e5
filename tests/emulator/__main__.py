"""Runs the emulator alone: python -m tests.emulator [--port N]."""

import argparse
import contextlib
import time

from tests.emulator.server import Emulator


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.emulator", description="DeepInfra's API on this machine."
    )
    parser.add_argument("--port", type=int, default=0, help="any free one by default")
    arguments = parser.parse_args()
    with Emulator(port=arguments.port) as emulator, contextlib.suppress(KeyboardInterrupt):
        print(f"base_url={emulator.base_url}", flush=True)
        print(f"api_key={emulator.api_key}", flush=True)
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
