"""A fork waits for the threads that are in native code, and they wait for it."""

import threading
import time

import pytest

from llama_vision.backends.local import fork_gate
from llama_vision.backends.local.fork_gate import ForkGate
from tests.backends.local.test_watchdog import run


def inside(gate, until):
    """Start a thread that is inside until an event is set; returns it once it is there."""
    entered = threading.Event()

    def work():
        with gate:
            entered.set()
            until.wait(20)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, entered


def test_a_fork_waits_for_all_threads_inside_and_the_next_one_waits_for_the_fork():
    gate, leave = ForkGate(), threading.Event()
    threads = [inside(gate, leave) for _ in range(3)]
    assert all(entered.wait(10) for _, entered in threads)
    closed = threading.Event()

    def fork():
        gate.close()
        closed.set()
        time.sleep(0.2)
        assert not late.is_set()
        gate.open()

    forking = threading.Thread(target=fork)
    forking.start()
    assert not closed.wait(0.2)
    latecomer, late = inside(gate, leave)
    assert not late.wait(0.1)
    leave.set()
    assert closed.wait(10)
    assert not gate.was_forced
    assert late.wait(10)
    for thread in (*(thread for thread, _ in threads), forking, latecomer):
        thread.join(10)
        assert not thread.is_alive()


def test_a_fork_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(fork_gate, "_TIMEOUT_S", 0.1)
    gate, leave = ForkGate(), threading.Event()
    thread, entered = inside(gate, leave)
    assert entered.wait(10)
    gate.close()
    assert gate.was_forced
    gate.open()
    leave.set()
    thread.join(10)
    gate.close()
    assert not gate.was_forced
    gate.open()


def test_a_thread_that_ended_inside_keeps_no_fork_waiting():
    gate = ForkGate()
    thread = threading.Thread(target=gate.__enter__)
    thread.start()
    thread.join(10)
    began = time.monotonic()
    gate.close()
    assert time.monotonic() - began < 1
    assert not gate.was_forced
    gate.open()


def test_a_fork_that_was_interrupted_before_it_waited_shuts_nobody_out():
    gate, leave = ForkGate(), threading.Event()
    gate.open()
    leave.set()
    thread, entered = inside(gate, leave)
    assert entered.wait(10)
    thread.join(10)


SLOW_STEPS = """
from llama_vision.backends.local import engine, fork_gate
backend.complete(ask("Say hi"))
step, entered = engine.Engine.step, threading.Event()
def slow_step(self):
    entered.set()
    time.sleep(SECONDS)
    step(self)
engine.Engine.step = slow_step
thread = threading.Thread(target=lambda: print("parent", backend.complete(ask("Say hi")).text, flush=True))
thread.start()
entered.wait()
began = time.monotonic()
in_child(lambda: (time.monotonic() - began > 0.5 * SECONDS, setattr(engine.Engine, "step", step), backend.complete(ask("Say hi")).text))
thread.join()
"""


@pytest.mark.slow
def test_a_process_forks_between_two_steps():
    done = run("SECONDS = 1" + SLOW_STEPS)
    assert (sorted(done.stdout.splitlines()), done.stderr) == (["(True, None, 'Hi')", "parent Hi"], "")


@pytest.mark.slow
def test_the_child_of_a_fork_in_a_long_step_says_so():
    done = run("SECONDS = 8" + SLOW_STEPS.replace("began =", "fork_gate._TIMEOUT_S = 0.5; began ="))
    child, parent = sorted(done.stdout.splitlines())
    assert child.startswith(
        "LocalModelError This process was forked while its parent was loading a local model, or in a long step"
    )
    assert (parent, done.stderr) == ("parent Hi", "")
