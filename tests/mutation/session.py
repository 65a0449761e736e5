"""One pytest session whose tests run in forks, against one mutant each."""

import gc
import json
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Container, Iterable
from pathlib import Path
from types import CodeType, FunctionType

import coverage
import pytest

from tests.mutation.areas import Area
from tests.mutation.operators import Mutant, mutants

MAX_MEMORY = 6 << 30
"""Bytes that a mutant may allocate."""
MAX_TEST_SECONDS = 10.0
"""CPU seconds of tests run against a mutant, the quickest first."""


def run_session(area: Area, number: int, seed: int, explained: Container[str], results: Path) -> int:
    """Run a sample of an area's mutants.

    Args:
        area: The modules and tests.
        number: Mutants in the sample; 0 for all of them.
        seed: Which sample.
        explained: Mutants that no test can kill, in words.
        results: The file for a JSON list of the outcomes: killed, timeout, survived or explained.

    Returns:
        pytest's exit status.
    """
    os.environ["COVERAGE_CORE"] = "ctrace"  # the only one that knows contexts in all versions of Python
    # Most of the start would be the import of plugins that no area needs.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    plugin = _MutationPlugin(area, number, seed, explained, results)
    options = ["-q", "-q", "-m", "not slow", "-p", "pytest_asyncio.plugin", "-p", "pytest_recording.plugin"]
    return pytest.main([*map(str, area.tests), *options], plugins=[plugin])


class _MutationPlugin:
    def __init__(self, area: Area, number: int, seed: int, explained: Container[str], results: Path) -> None:
        self.area, self.number, self.seed = area, number, seed
        self.explained, self.results = explained, results

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out property-based tests: whether they find a mistake is chance, and they take longer than all others."""
        items[:] = [
            item for item in items if not getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
        ]

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the mutants in place of the tests."""
        count = sum(1 for _ in _all_mutants(self.area))
        chosen = set(random.Random(self.seed).sample(range(count), min(self.number or count, count)))
        seconds, tests_of = self._baseline(session)
        functions = _functions_of(self.area.modules)
        terminal, found = session.config.pluginmanager.get_plugin("terminalreporter"), []
        if failed := len(session.items) - len(seconds):
            terminal.write_line(f"{failed} tests fail without a mutant, and are left out")
        for number, (path, mutant) in enumerate(_all_mutants(self.area)):
            if number not in chosen:
                continue
            tests = {test for line in mutant.lines for test in tests_of[str(path)].get(str(line), ())}
            outcome = self._outcome(session, _affordable(tests, seconds), functions[path], path, mutant)
            change = f"{path.parent.name}/{path.name} {mutant.function}: {mutant.change}"
            if outcome == "survived":
                outcome = "explained" if change in self.explained else "survived"
                terminal.write_line(f"{outcome}  line {mutant.lines[0]} of {change}")
            found.append(outcome)
        self.results.write_text(json.dumps(found))
        return True

    def _baseline(self, session: pytest.Session) -> tuple[dict[int, float], dict[str, dict[str, list[int]]]]:
        """Run all tests once; give the CPU seconds of those that pass, and by file and line the tests that execute it."""

        def measure() -> int:
            lines = coverage.Coverage(
                data_file=None, config_file=False, include=[str(path) for path in self.area.modules]
            )
            seconds = {}
            lines.start()
            for number, (item, following) in enumerate(
                zip(session.items, [*session.items[1:], None], strict=True)
            ):
                lines.switch_context(str(number))
                before, failed = time.process_time(), session.testsfailed
                session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if session.testsfailed == failed:
                    seconds[number] = time.process_time() - before
            lines.stop()
            data = lines.get_data()
            by_line = {str(path): data.contexts_by_lineno(str(path)) for path in self.area.modules}
            self.results.write_text(json.dumps([seconds, by_line]))
            return 0

        if _in_fork(session, measure, cpu_seconds=3600, wall_seconds=3600) != 0:
            raise pytest.UsageError("the tests end the process")
        seconds, tests_of = json.loads(self.results.read_text())
        return {int(number): spent for number, spent in seconds.items()}, tests_of

    def _outcome(
        self, session, tests: dict[int, float], functions: list[FunctionType], path: Path, mutant: Mutant
    ) -> str:
        items = [session.items[number] for number in tests]

        def attempt() -> int:
            _replace(functions, compile(mutant.tree, str(path), "exec"), mutant.function)
            for item, following in zip(items, [*items[1:], None], strict=True):
                session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if session.testsfailed:
                    return 1
            return 0

        spent = sum(tests.values())
        status = _in_fork(session, attempt, cpu_seconds=2 + 5 * spent, wall_seconds=60 + 20 * spent)
        return {0: "survived", None: "timeout"}.get(status, "killed")


def _all_mutants(area: Area) -> Iterable[tuple[Path, Mutant]]:
    return ((path, mutant) for path in area.modules for mutant in mutants(path.read_text("utf-8")))


def _affordable(tests: Iterable[str], seconds: dict[int, float]) -> dict[int, float]:
    """Give the seconds of the quickest tests that passed, in their order."""
    left, chosen = MAX_TEST_SECONDS, {}
    for number in sorted(
        (int(test) for test in tests if test and int(test) in seconds), key=seconds.__getitem__
    ):
        left -= seconds[number]
        if left < 0 and chosen:
            break
        chosen[number] = seconds[number]
    return chosen


def _functions_of(modules: Iterable[Path]) -> dict[Path, list[FunctionType]]:
    found = {path: [] for path in modules}
    for function in gc.get_objects():
        # Not isinstance, which asks objects of any kind for their class: some warn.
        if type(function) is FunctionType and Path(function.__code__.co_filename) in found:
            found[Path(function.__code__.co_filename)].append(function)
    return found


def _replace(functions: list[FunctionType], module: CodeType, name: str) -> None:
    """Give the functions of a name, and those made in them, their code in a module compiled anew."""
    codes = {
        (code.co_qualname, code.co_firstlineno): code
        for code in _codes(module)
        if f"{code.co_qualname}.".startswith(f"{name}.")
    }
    for function in functions:
        code = codes.get((function.__code__.co_qualname, function.__code__.co_firstlineno))
        if code and code.co_freevars == function.__code__.co_freevars:
            function.__code__ = code


def _codes(code: CodeType) -> Iterable[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _in_fork(
    session: pytest.Session, run: Callable[[], int], cpu_seconds: float, wall_seconds: float
) -> int | None:
    """Give what a function returns in a fork; None where the time ended first, or a signal."""
    if not (process := os.fork()):
        status = 1
        try:
            os.setsid()
            session.config.pluginmanager.unregister(name="terminalreporter")
            resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_seconds) + 1,) * 2)
            resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY,) * 2)
            status = run()
        finally:
            os._exit(status)
    until = time.monotonic() + wall_seconds
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        if time.monotonic() > until:
            os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return None
        time.sleep(0.01)
