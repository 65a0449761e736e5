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
        "structured/test_extract.py structured/test_method.py structured/test_session.py structured/test_validation.py "
        "structured/test_three_users_alike.py",
    ),
    "retry": _area(
        "backends/http/retry.py", "backends/http/test_retry.py backends/http/test_http_retries.py"
    ),
    "public_addresses": _area("images/public_addresses.py", "images/test_public_addresses.py"),
    "kv_cache": _area(
        "backends/local/scheduler.py backends/local/block_*.py backends/local/kv_cache.py backends/local/prefix_cache.py",
        "backends/local/test_scheduler.py backends/local/test_block_pool.py backends/local/test_kv_cache.py "
        "backends/local/test_prefix_cache.py",
    ),
}
