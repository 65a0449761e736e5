"""Runs an emulator alone: python -m tests.emulator [--provider NAME] [--port N]."""

import argparse
import contextlib
import time

from tests.emulator.cloudflare import ACCOUNT_ID, Cloudflare
from tests.emulator.dialects import DIALECTS
from tests.emulator.server import Emulator


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.emulator", description="A provider's API on this machine."
    )
    parser.add_argument("--provider", choices=sorted(DIALECTS), default="deepinfra")
    parser.add_argument("--port", type=int, default=0, help="any free one by default")
    arguments = parser.parse_args()
    dialect = DIALECTS[arguments.provider]
    with Emulator(dialect, port=arguments.port) as emulator, contextlib.suppress(KeyboardInterrupt):
        print(f"base_url={emulator.base_url}", flush=True)
        print(f"api_key={emulator.api_key}", flush=True)
        if dialect is Cloudflare:
            print(f"account_id={ACCOUNT_ID}", flush=True)
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
