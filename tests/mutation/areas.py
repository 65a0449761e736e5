"""What is mutated, and which tests are to notice."""

from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "src/llama_vision"
TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Area:
    """Modules, and the test files and folders that are run against their mutants."""

    modules: tuple[Path, ...]
    tests: tuple[Path, ...]


def _area(modules: str, tests: str) -> Area:
    return Area(
        tuple(
            module
            for pattern in modules.split()
            for module in sorted(PACKAGE.glob(pattern))
            if module.stem != "__init__"
        ),
        tuple(TESTS / path for path in tests.split()),
    )


AREAS = {
    "dialects": _area("dialects/**/*.py", "dialects"),
    "toolcalls": _area("toolcalls/*.py", "toolcalls"),
    "adaptation": _area("adaptation/*.py", "adaptation"),
    "structured": _area(
        "structured/*.py",
        " ".join(
            f"structured/test_{name}.py"
            for name in ("extract", "method", "session", "validation", "three_users_alike")
        ),
    ),
    "retry": _area(
        "backends/http/retry.py", "backends/http/test_retry.py backends/http/test_http_retries.py"
    ),
    "public_addresses": _area("images/public_addresses.py", "images/test_public_addresses.py"),
    "kv_cache": _area(
        " ".join(
            f"backends/local/{name}.py"
            for name in (
                "scheduler",
                "block_allocator",
                "block_pool",
                "block_tables",
                "kv_cache",
                "prefix_cache",
            )
        ),
        " ".join(
            f"backends/local/test_{name}.py"
            for name in ("scheduler", "block_pool", "kv_cache", "prefix_cache")
        ),
    ),
}
