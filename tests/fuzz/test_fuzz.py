"""Any bytes, cut anywhere: only our own errors come out, and the same whatever the cuts.

A generator of our own makes the many inputs, at a hundredth of what hypothesis takes for one; hypothesis finds small ones.
"""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from llama_vision.core.errors import StatusError
from tests.dialects.replies import encoded
from tests.fuzz.checks import check_it_can_be_sent_back, read
from tests.fuzz.inputs import DIALECTS, EXTRA_EVENTS, FuzzInput, InputGenerator

NUM_INPUTS = 10_000
NUM_SLOW_RUNS = 100
STATUSES = (301, 400, 401, 403, 404, 408, 413, 429, 500, 503, 599)


def check_error_body(dialect: str, status: int, body: bytes) -> None:
    errors = DIALECTS[dialect].errors
    error = errors.parse(status, body, {})
    assert error.status_code == status
    for found in filter(None, (error, errors.find(body))):
        assert isinstance(found, StatusError)
        assert len(str(found)) < 10_000
        f"{found}{found.body}{found.request_id}".encode()


def check_next(generator: InputGenerator, number: int) -> None:
    """Make and check one input: one in eight is an error's body."""
    if number % 8 == 0:
        dialect, status = list(DIALECTS)[number % 3], STATUSES[number % len(STATUSES)]
        check_error_body(dialect, status, generator.error_body())
        return
    given = generator.next()
    if given.streamed:
        assert read(given, generator.cuts(given.body)) == read(given, [given.body])
        return
    outcome = read(given)
    if given.body.lstrip()[:1] == b"{":
        streamed = FuzzInput(given.dialect, True, given.body, given.tools, given.stops)
        assert read(streamed, generator.cuts(given.body)) == outcome
        check_it_can_be_sent_back(given)


def run(seed: int, count: int = NUM_INPUTS) -> None:
    generator = InputGenerator(seed)
    for number in range(count):
        state = generator.state
        try:
            check_next(generator, number)
        except Exception as error:
            generator.state = state
            given = generator.next() if number % 8 else generator.error_body()
            error.add_note(f"input {number} of seed {seed}: {given}")
            raise


def test_ten_thousand_broken_replies():
    run(16)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(NUM_SLOW_RUNS))
def test_a_million_broken_replies(seed):
    run(seed)


TEXTS = st.text(st.sampled_from("aé🦙</s>|\\\"'{}[]: \n\r\u2028\x00"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)


class BrokenStream(RuleBasedStateMachine):
    """A server that sends anything; at the end it is compared with the same bytes at once."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []

    @rule(text=TEXTS)
    def text(self, text: str) -> None:
        self.delta({"content": text})

    @rule(
        index=st.none() | st.integers(0, 2), name=st.none() | TEXTS, arguments=JSON, call_id=st.none() | TEXTS
    )
    def call(self, index, name, arguments, call_id) -> None:
        self.delta(
            {
                "tool_calls": [
                    {"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}
                ]
            }
        )

    @rule(message=JSON)
    def message(self, message) -> None:
        self.delta(message)

    def delta(self, delta) -> None:
        self.pieces.append(b"data: " + encoded({"choices": [{"delta": delta}]}) + b"\n\n")

    @rule(event=st.sampled_from(EXTRA_EVENTS))
    def event(self, event: str) -> None:
        self.pieces.append(event.encode())

    @rule(received=st.binary(max_size=4))
    def noise(self, received: bytes) -> None:
        self.pieces.append(received)

    @rule(reason=st.sampled_from(["stop", "length", "tool_calls", "error"]))
    def finish(self, reason: str) -> None:
        self.pieces.append(
            b"data: " + encoded({"choices": [{"delta": {}, "finish_reason": reason}]}) + b"\n\n"
        )

    @rule(data=st.data())
    def cut(self, data) -> None:
        """Cut the last piece in two."""
        if self.pieces:
            last = self.pieces.pop()
            place = data.draw(st.integers(0, len(last)))
            self.pieces += [last[:place], last[place:]]

    def teardown(self) -> None:
        for dialect in DIALECTS:
            given = FuzzInput(dialect, True, b"".join(self.pieces))
            assert read(given, self.pieces) == read(given, [given.body])


TestBrokenStream = BrokenStream.TestCase
TestBrokenStream.settings = settings(
    max_examples=40, stateful_step_count=12, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
