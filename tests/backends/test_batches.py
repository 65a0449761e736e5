"""The batch API of hosted models, from both frameworks, with and without an event loop."""

import asyncio
import base64
import json
import pickle
import time
from dataclasses import replace

import httpx
import pytest
from langchain_core.exceptions import ModelError
from langchain_core.messages import AIMessage, HumanMessage
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ImageBlock, TextBlock

from llama_vision.core import errors
from llama_vision.core.errors import (
    AuthenticationError,
    BatchError,
    BudgetExceededError,
    ConfigurationError,
    ConnectionFailedError,
    InvalidRequestError,
    LlamaVisionError,
    MalformedReplyError,
    MissingKeyError,
    ModelNotFoundError,
    RateLimitError,
    RequestTimeoutError,
    ServerError,
    UnsupportedInputError,
)
from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision
from llama_vision.providers import PROVIDERS
from tests.cassette_cases import WEATHER
from tests.emulator import HANG_UP, NO_ANSWER, Answer, completion, json_answer

BATCH_PROVIDERS = ("deepinfra", "aigateway")
IMAGE = SAMPLE_IMAGES["circle"].read_bytes()
CREATE, LIST, UPLOAD = "POST /batches", "GET /batches", "POST /files"


class LangChain:
    """Sends prompts from LangChain."""

    def __init__(self, emulator, provider, **options):
        options = {"base_url": emulator.base_url, "api_key": emulator.api_key, **options}
        self.model = ChatLlamaVision(provider=provider, **options)

    def text(self, result):
        assert isinstance(result, AIMessage)
        return result.text

    def calls(self, result):
        return [(call["name"], call["args"]) for call in result.tool_calls]

    def cost(self, result):
        return result.response_metadata["cost_usd"], result.response_metadata["cost_is_estimate"]

    def picture(self, words):
        return [
            HumanMessage(
                [
                    {"type": "text", "text": words},
                    {"type": "image", "base64": _base64(), "mime_type": "image/png"},
                ]
            )
        ]


class LlamaIndex:
    """The same from LlamaIndex."""

    def __init__(self, emulator, provider, **options):
        options = {"api_base": emulator.base_url, "api_key": emulator.api_key, **options}
        self.model = LlamaVision(provider=provider, **options)

    def text(self, result):
        assert isinstance(result, ChatResponse)
        return result.message.content

    def calls(self, result):
        blocks = [block for block in result.message.blocks if block.block_type == "tool_call"]
        return [(block.tool_name, block.tool_kwargs) for block in blocks]

    def cost(self, result):
        return result.additional_kwargs["cost_usd"], result.additional_kwargs["cost_is_estimate"]

    def picture(self, words):
        return [ChatMessage(role="user", blocks=[TextBlock(text=words), ImageBlock(image=IMAGE)])]


def _base64():
    return base64.b64encode(IMAGE).decode()


FRAMEWORKS = pytest.mark.parametrize("framework", [LangChain, LlamaIndex])


@pytest.fixture(params=BATCH_PROVIDERS)
def provider(request):
    return request.param


def submit(model, inputs, *, way="sync", **options):
    if way == "sync":
        return model.submit_batch(inputs, **options)
    return asyncio.run(model.asubmit_batch(inputs, **options))


def results(job, *, way="sync", **options):
    return job.results(**options) if way == "sync" else asyncio.run(job.aresults(**options))


def calls(emulator):
    """Which calls were made, in order."""
    base = emulator.dialect.base_path
    return [f"{received.method} {received.path.removeprefix(base)}" for received in emulator.requests]


def asked(emulator):
    """The last words of each request that was run."""
    return [line.body["messages"][-1]["content"] for line in emulator.dialect.batches.asked]


def once(call, answer=NO_ANSWER):
    """Let one call fail, the first of its kind."""
    left = [call]

    def hook(made):
        if made in left:
            left.remove(made)
            return answer
        return None

    return hook


@FRAMEWORKS
@pytest.mark.parametrize("way", ["sync", "async"])
def test_results_come_in_the_order_of_the_inputs(emulator_of, provider, framework, way):
    emulator = emulator_of(provider)
    frame = framework(emulator, provider)
    job = submit(frame.model, [f"Count to {number}" for number in (3, 1, 2)], way=way)
    assert calls(emulator) == [UPLOAD, CREATE]
    assert not job.done
    assert [frame.text(result) for result in results(job, way=way)] == ["1 2 3", "1", "1 2"]
    assert (job.status, job.done) == ("completed", True)
    assert len(asked(emulator)) == 3
    count = len(emulator.requests)
    results(job, way=way)
    assert len(emulator.requests) == count, "downloaded twice"


@FRAMEWORKS
def test_a_request_is_adapted_as_for_a_single_call(emulator_of, provider, framework):
    emulator = emulator_of(provider)
    frame = framework(emulator, provider)
    options = {"tools": [WEATHER], "temperature": 0.5, "stop": ["END"], "max_tokens": 77}
    job = frame.model.submit_batch([frame.picture("What is it?"), frame.picture("Look!")], **options)
    job.results()
    if framework is LangChain:
        frame.model.invoke(frame.picture("What is it?"), **options)
    else:
        frame.model.chat(frame.picture("What is it?"), **options)
    single = emulator.requests[-1]
    (batched,) = [line for line in emulator.dialect.batches.asked if "What is it?" in line.content.decode()]
    assert batched.body == single.body
    assert batched.images


@FRAMEWORKS
def test_tool_calls_are_read_from_results_also_those_written_as_text(emulator_of, provider, framework):
    emulator = emulator_of(provider)
    frame = framework(emulator, provider)
    written = '{"name": "get_weather", "parameters": {"city": "Rome"}}'
    emulator.script(completion(written), completion(calls=[("get_weather", {"city": "Paris"})]))
    job = frame.model.submit_batch(["In Paris?", "In Rome?"], tools=[WEATHER])
    expected = [[("get_weather", {"city": "Paris"})], [("get_weather", {"city": "Rome"})]]
    assert [frame.calls(result) for result in job.results()] == expected
    again = frame.model.batch_job(job.id, tools=[WEATHER])
    assert [frame.calls(result) for result in again.results()] == expected


def test_what_is_bound_to_a_langchain_model_goes_with_the_batch(emulator):
    model = LangChain(emulator, "deepinfra").model.bind_tools([WEATHER]).bind(max_tokens=9)
    job = model.submit_batch(["Hello!"])
    job.results()
    assert asyncio.run(_submit_and_read(model))
    for line in emulator.dialect.batches.asked:
        assert line.body["tools"][0]["function"]["name"] == "get_weather"
        assert line.body["max_tokens"] == 9
    assert model.batch_job(job.id).results()
    assert isinstance(pickle.loads(pickle.dumps(model)), type(model))  # noqa: S301 - our own


async def _submit_and_read(model):
    return await (await model.asubmit_batch(["Hello!"])).aresults()


@FRAMEWORKS
def test_a_job_is_made_again_by_its_id_in_another_process(emulator_of, provider, framework):
    emulator = emulator_of(provider)
    job_id = framework(emulator, provider).model.submit_batch(["Count to 2", "Count to 1"]).id
    frame = framework(emulator, provider)
    job = frame.model.batch_job(job_id)
    assert calls(emulator) == [UPLOAD, CREATE], "nothing is sent yet"
    assert (job.status, job.done, repr(job)) == ("", False, f"<BatchJob {job_id}>")
    assert [frame.text(result) for result in job.results()] == ["1 2", "1"]
    assert repr(job) == f"<BatchJob {job_id}: completed, 2 of 2>"
    with pytest.raises(ModelNotFoundError, match="batch_99"):
        frame.model.batch_job("batch_99").refresh()


@pytest.mark.parametrize("batch_id", ["../files", "", "a/b", "a?b=c", "..", "é"])
def test_what_can_be_no_id_is_refused_before_it_is_part_of_an_address(emulator, batch_id):
    with pytest.raises(ConfigurationError, match="no id"):
        LangChain(emulator, "deepinfra").model.batch_job(batch_id)


@FRAMEWORKS
def test_failures_are_rows_of_their_types(emulator_of, provider, framework):
    emulator = emulator_of(provider)
    frame = framework(emulator, provider, max_retries=0)
    emulator.script(emulator.refusal(400, "Too odd"), completion("Fine"), json_answer({"choices": []}))
    odd, fine, malformed = reversed(frame.model.submit_batch(["C", "B", "A"]).results())
    assert isinstance(odd, InvalidRequestError)
    assert "Too odd" in str(odd)
    assert frame.text(fine) == "Fine"
    assert isinstance(malformed, MalformedReplyError)
    if framework is LangChain:
        assert isinstance(odd, ModelError)
        assert isinstance(malformed, ModelError)


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_cancelled_batch_keeps_what_was_answered(emulator_of, provider, way):
    emulator = emulator_of(provider)
    emulator.dialect.batches.answered = 1
    frame = LlamaIndex(emulator, provider)
    job = submit(frame.model, ["Count to 2", "Hello!", "Hello!"], way=way)
    _ = job.cancel() if way == "sync" else asyncio.run(job.acancel())
    assert job.status == "cancelling"
    first, *others = results(job, way=way)
    assert job.status == "cancelled"
    assert frame.text(first) == "1 2"
    assert [(type(error), error.status) for error in others] == [(BatchError, "cancelled")] * 2
    assert len(asked(emulator)) == 1


def test_what_an_expired_batch_did_not_answer_says_so(emulator_of, provider):
    emulator = emulator_of(provider)
    emulator.dialect.batches.ends, emulator.dialect.batches.answered = "expired", 1
    frame = LangChain(emulator, provider)
    first, second = frame.model.submit_batch(["Count to 2", "Hello!"]).results()
    assert frame.text(first) == "1 2"
    assert (type(second).__mro__[2], second.status) == (BatchError, "expired")


def test_a_file_that_fails_its_validation_is_an_error_of_each_request(emulator):
    emulator.dialect.batches.most_requests = 1
    model = LangChain(emulator, "deepinfra").model
    job = model.submit_batch(["Hello!", "Hi!"])
    errors_ = job.results()
    assert [error.status for error in errors_] == ["failed", "failed"]
    assert "More than 1 requests" in str(errors_[0])
    with pytest.raises(BatchError, match="More than 1 requests"):
        model.batch_job(job.id).results()
    assert not asked(emulator)


@FRAMEWORKS
@pytest.mark.parametrize("way", ["sync", "async"])
def test_bad_input_is_refused_with_its_place_before_a_byte_goes_out(emulator, framework, way):
    frame = framework(emulator, "deepinfra")
    broken = frame.picture("What is it?")
    if framework is LangChain:
        broken[0].content[1]["base64"] = "bm90IGFuIGltYWdl"
    else:
        broken[0].blocks[1] = ImageBlock(image=b"not an image")
    with pytest.raises(errors.ImageError, match=r"^inputs\[2\]: "):
        submit(frame.model, ["Hello!", "Hi!", broken], way=way)
    with pytest.raises(UnsupportedInputError, match=r"^inputs\[0\]: temperature=9"):
        submit(frame.model, ["Hello!"], way=way, temperature=9)
    with pytest.raises(ConfigurationError, match="no inputs"):
        submit(frame.model, [], way=way)
    assert not emulator.requests


@pytest.mark.parametrize("way", ["sync", "async"])
def test_more_than_a_batch_takes_is_refused_before_a_byte_goes_out(emulator_of, way):
    emulator = emulator_of("aigateway")
    model = LangChain(emulator, "aigateway").model
    with pytest.raises(UnsupportedInputError, match="AIGateway takes 100 in a batch"):
        submit(model, ["Hello!"] * 101, way=way)
    small = replace(PROVIDERS["deepinfra"], batch=replace(PROVIDERS["deepinfra"].batch, max_file_bytes=1000))
    with pytest.raises(UnsupportedInputError, match=r"inputs\[[1-9]\]: .* Make several of them"):
        submit(LangChain(emulator, small).model, ["Hello!" * 20] * 9, way=way)
    assert not emulator.requests


@pytest.mark.parametrize(
    "options", [{"provider": "local"}, {"provider": ["deepinfra", "aigateway"], "api_key": "k"}]
)
def test_a_batch_goes_to_one_hosted_provider(options):
    with pytest.raises(UnsupportedInputError, match="deepinfra, aigateway"):
        ChatLlamaVision(**options).submit_batch(["Hello!"])


def test_who_has_no_batch_api_is_named_with_those_that_have():
    with pytest.raises(UnsupportedInputError, match=r"OpenRouter has no batch API.*deepinfra, aigateway"):
        LlamaVision(provider="openrouter", api_key="k").submit_batch(["Hello!"])


def test_a_missing_or_a_wrong_key_is_told(emulator, monkeypatch):
    for name in PROVIDERS["deepinfra"].key_env:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(MissingKeyError):
        LangChain(emulator, "deepinfra", api_key=None).model.submit_batch(["Hello!"])
    assert not emulator.requests
    with pytest.raises(AuthenticationError):
        LangChain(emulator, "deepinfra", api_key="wrong").model.submit_batch(["Hello!"])
    assert not emulator.dialect.batches.files


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize(
    "answer", [NO_ANSWER, "500", Answer((b'{"id": ', HANG_UP))], ids=["none", "500", "half"]
)
def test_a_batch_that_may_have_been_created_is_looked_for_and_not_created_twice(
    emulator_of, provider, way, answer
):
    emulator = emulator_of(provider)
    emulator.dialect.batches.page = 1
    frame = LangChain(emulator, provider, max_retries=2)
    frame.model.submit_batch(["Another one"])
    answer = emulator.refusal(500, "Oops") if answer == "500" else answer
    emulator.dialect.batches.after = once(CREATE, answer)
    job = submit(frame.model, ["Count to 2"], way=way)
    assert len(emulator.dialect.batches.batches) == 2
    assert frame.text(results(job, way=way)[0]) == "1 2"
    assert calls(emulator).count(CREATE) == 2


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_refused_creation_is_retried_and_an_unclear_one_is_not(emulator, way):
    frame = LangChain(emulator, "deepinfra", max_retries=1)
    emulator.dialect.batches.before = once(CREATE, emulator.refusal(429, "Busy", retry_after=0.01))
    submit(frame.model, ["Hello!"], way=way)
    assert calls(emulator) == [UPLOAD, CREATE, CREATE]
    emulator.dialect.batches.before = once(CREATE, emulator.refusal(503, "Down", retry_after=0.01))
    submit(frame.model, ["Hello!"], way=way)
    assert calls(emulator)[3:] == [UPLOAD, CREATE, LIST, CREATE]
    emulator.dialect.batches.before = once(CREATE)
    with pytest.raises(ConnectionFailedError, match="batch of the file file_3 was started is not known"):
        submit(frame.model, ["Hello!"], way=way)
    assert calls(emulator)[7:] == [UPLOAD, CREATE, LIST]
    emulator.dialect.batches.before = lambda call: emulator.refusal(429, "Busy") if call == CREATE else None
    with pytest.raises(RateLimitError):
        submit(LangChain(emulator, "deepinfra", max_retries=0).model, ["Hello!"], way=way)


@pytest.mark.parametrize("way", ["sync", "async"])
def test_waiting_outlasts_a_provider_that_is_down_for_a_while(emulator, way):
    frame = LangChain(emulator, "deepinfra", max_retries=0)
    job = submit(frame.model, ["Count to 2"], way=way)
    emulator.dialect.batches.before = once(f"GET /batches/{job.id}", emulator.refusal(503, "Down"))
    assert frame.text(results(job, way=way)[0]) == "1 2"
    gone = frame.model.batch_job("batch_77")
    with pytest.raises(ModelNotFoundError):
        results(gone, way=way)


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_wait_ends_in_time_and_the_batch_goes_on(emulator, way):
    emulator.dialect.batches.looks = 3
    frame = LangChain(emulator, "deepinfra")
    job = submit(frame.model, ["Count to 2"], way=way)
    began = time.monotonic()
    with pytest.raises(RequestTimeoutError, match=f"{job.id} is not done yet"):
        results(job, way=way, timeout=0.1)
    assert time.monotonic() - began < 5
    assert frame.text(results(job, way=way)[0]) == "1 2"


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_download_that_breaks_off_is_told_and_can_be_repeated(emulator, way):
    frame = LangChain(emulator, "deepinfra", max_retries=0)
    job = submit(frame.model, ["Count to 2"], way=way)
    half = Answer(
        (b'{"custom_id": "0", ', HANG_UP),
        headers={"content-type": "application/jsonl", "content-length": "999"},
    )
    emulator.dialect.batches.before = lambda call: half if call.endswith("/content") else None
    with pytest.raises(ConnectionFailedError, match="broke off"):
        results(job, way=way)
    emulator.dialect.batches.before = lambda call: None
    assert frame.text(results(job, way=way)[0]) == "1 2"
    assert len(asked(emulator)) == 1


@pytest.mark.parametrize(
    ("call", "body"),
    [
        (UPLOAD, b"<html>"),
        (UPLOAD, b'{"id": "../x"}'),
        (CREATE, b'{"id": 7}'),
        ("GET /batches/batch_1", b"[]"),
        ("GET /files/file_2/content", b'{"custom_id": "x"}'),
        ("GET /files/file_2/content", b'{"custom_id": "0"'),
    ],
)
def test_an_answer_that_cannot_be_read_is_told(emulator, call, body):
    answer = Answer((body,), headers={"content-type": "application/json", "content-length": str(len(body))})
    emulator.dialect.batches.after = once(call, answer)
    model = LangChain(emulator, "deepinfra", max_retries=0).model
    if call == CREATE:  # it was created, and is found
        assert model.submit_batch(["Hello!"]).id == "batch_1"
        return
    with pytest.raises(MalformedReplyError):
        model.submit_batch(["Hello!"]).results()


def test_a_list_that_cannot_be_read_is_told(emulator):
    batches = emulator.dialect.batches
    batches.after = {CREATE: NO_ANSWER, LIST: json_answer({"data": None})}.get
    with pytest.raises(MalformedReplyError, match="was started is not known"):
        LangChain(emulator, "deepinfra", max_retries=0).model.submit_batch(["Hello!"])


def test_an_estimate_is_lower_by_the_discount(emulator_of, provider):
    emulator = emulator_of(provider)
    reply = completion("A cat.")
    reply["usage"] = {"prompt_tokens": 1_000_000, "completion_tokens": 1_000_000, "total_tokens": 2_000_000}
    emulator.script(reply, reply)
    frame = LangChain(emulator, provider)
    single, _ = frame.cost(frame.model.invoke("Hello!"))
    batched, estimated = frame.cost(frame.model.submit_batch(["Hello!"]).results()[0])
    discount = {"deepinfra": 0.2, "aigateway": 0.5}[provider]
    assert batched == pytest.approx(single * (1 - discount))
    assert estimated


def test_a_batch_counts_for_the_budget_before_anything_is_sent(emulator):
    model = LangChain(emulator, "deepinfra", max_tokens=1_000_000 // 100, max_cost_usd=0.001).model
    # Two of 10,000 tokens at $0.055 a million, less 20%: $0.00088.
    model.submit_batch(["Hello!"] * 2)
    assert model.spent_usd == pytest.approx(0.00088, rel=0.01)
    sent = len(emulator.requests)
    with pytest.raises(BudgetExceededError):
        model.submit_batch(["Hello!"])
    assert len(emulator.requests) == sent
    failing = LangChain(emulator, "deepinfra", max_cost_usd=1, max_retries=0).model
    emulator.dialect.batches.before = once(UPLOAD, emulator.refusal(500, "Down"))
    with pytest.raises(ServerError):
        failing.submit_batch(["Hello!"])
    assert failing.spent_usd == 0
    unlimited = LangChain(emulator, "deepinfra", requests_per_minute=1).model
    assert unlimited.submit_batch(["Hello!"]).id


def test_no_key_is_in_anything_that_is_kept(emulator):
    frame = LangChain(emulator, "deepinfra", max_retries=0)
    key = emulator.api_key
    job = frame.model.submit_batch(["Hello!"])
    assert key not in repr(job) + repr(vars(job)) + repr(job._client) + repr(vars(job._client))
    with pytest.raises(TypeError, match="Keep its id"):
        pickle.dumps(job)
    emulator.script(emulator.refusal(400, f"Your key {key} is odd"))
    (row,) = job.results()
    assert isinstance(row, LlamaVisionError)
    assert key not in str(row) + row.body + repr(row.args)
    uploaded = next(received for received in emulator.requests if received.path.endswith("/files"))
    assert key.encode() not in uploaded.content


def test_a_key_that_is_a_function_is_asked_anew_for_each_call(emulator):
    keys = iter(["old", emulator.api_key, emulator.api_key, *[emulator.api_key] * 20])
    job = LangChain(emulator, "deepinfra", api_key=lambda: next(keys)).model.submit_batch(["Hello!"])
    assert job.refresh().status


def test_a_client_of_the_users_is_used(emulator):
    seen = []
    with httpx.Client(event_hooks={"request": [lambda request: seen.append(request.method)]}) as client:
        job = LangChain(emulator, "deepinfra", http_client=client).model.submit_batch(["Hello!"])
        job.results()
    assert seen[:3] == ["POST", "POST", "GET"]


def test_refresh_tells_how_far_it_is(emulator):
    emulator.dialect.batches.looks = 3
    job = LangChain(emulator, "deepinfra").model.submit_batch(["Hello!"])
    assert [job.status, job.refresh().status, asyncio.run(job.arefresh()).status] == [
        "validating",
        "in_progress",
        "finalizing",
    ]
    assert job.batch.num_requests == 1


def test_the_file_is_that_of_the_documentation(emulator):
    LangChain(emulator, "deepinfra").model.submit_batch(["Hello!", "Hi!"])
    content = emulator.dialect.batches.files["file_1"]
    first, second = (json.loads(line) for line in content.split(b"\n") if line)
    assert (first["custom_id"], second["custom_id"]) == ("0", "1")
    assert {first["method"], first["url"]} == {"POST", "/v1/chat/completions"}
    assert first["body"]["messages"] == [{"role": "user", "content": "Hello!"}]
