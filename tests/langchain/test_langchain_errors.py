"""Errors are ours and LangChain's: caught by either, retried, traced and pickled."""

import asyncio
import pickle
import sys

import httpx
import pytest
from langchain.agents.middleware import ModelRetryMiddleware, summarization
from langchain.agents.middleware._retry import default_retry_on
from langchain_core import exceptions as theirs
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage

from llama_vision.core import errors as ours
from llama_vision.core.messages import ToolCall
from llama_vision.core.reply import Reply
from llama_vision.langchain import ChatLlamaVision
from llama_vision.langchain.errors import (
    TraceResponse,
    TraceStatusResponse,
    TranslateErrors,
    to_langchain_error,
)
from llama_vision.providers.hosted import DEEPINFRA
from llama_vision.structured.method import StructuredMethodError
from tests.context_overflows import OVERFLOWS
from tests.emulator import ACCOUNT_ID, NO_ANSWER, STALL, completion, event_stream, json_answer, refusal

EXPECTED = {
    "LlamaVisionError": theirs.ModelError,
    "ConfigurationError": theirs.ModelError,
    "MissingKeyError": theirs.ModelAuthenticationError,
    "UnknownProviderError": theirs.ModelError,
    "MissingDependencyError": theirs.ModelError,
    "BudgetExceededError": theirs.ModelPermissionDeniedError,
    "BatchError": theirs.ModelError,
    "UnsupportedInputError": theirs.ModelInvalidRequestError,
    "ImageError": theirs.ModelInvalidRequestError,
    "DocumentError": theirs.ModelInvalidRequestError,
    "ConnectionFailedError": theirs.ModelConnectionError,
    "RequestTimeoutError": theirs.ModelTimeoutError,
    "StatusError": theirs.ModelError,
    "InvalidRequestError": theirs.ModelInvalidRequestError,
    "ContextTooLongError": theirs.ContextOverflowError,
    "AuthenticationError": theirs.ModelAuthenticationError,
    "InsufficientCreditsError": theirs.ModelPermissionDeniedError,
    "PermissionDeniedError": theirs.ModelPermissionDeniedError,
    "LicenseNotAcceptedError": theirs.ModelPermissionDeniedError,
    "ModelNotFoundError": theirs.ModelNotFoundError,
    "RateLimitError": theirs.ModelRateLimitError,
    "QuotaExhaustedError": theirs.ModelRateLimitError,
    "ServerError": theirs.ModelAPIError,
    "StreamError": theirs.ModelError,
    "MalformedReplyError": theirs.ModelAPIError,
    "TruncatedStreamError": theirs.ModelConnectionError,
    "LocalModelError": theirs.ModelAPIError,
}
TREE = {
    name: kind
    for name, kind in vars(ours).items()
    if isinstance(kind, type) and kind.__module__ == ours.__name__
}
HALF = {"choices": [{"index": 0, "delta": {"content": "Half"}, "finish_reason": None}]}


class Listener(BaseCallbackHandler):
    """Keeps what a tracer is told of errors."""

    def __init__(self):
        self.errors = []
        self.generations = []

    def on_llm_error(self, error, *, response=None, **kwargs):
        self.errors.append(error)
        self.generations += [one for several in response.generations for one in several]

    @property
    def metadata(self):
        return self.generations[-1].message.response_metadata


def model_at(emulator, **options):
    return ChatLlamaVision(
        provider=options.pop("provider", "deepinfra"),
        base_url=emulator.base_url,
        api_key=emulator.api_key,
        **{"max_retries": 0, **options},
    )


def test_every_error_of_the_tree_has_its_counterpart():
    assert set(TREE) == set(EXPECTED)


@pytest.mark.parametrize("name", TREE)
def test_an_error_is_caught_as_either(name):
    kind = TREE[name]
    original = kind("What happened.").with_context("deepinfra", "llama")
    with pytest.raises(kind) as caught, TranslateErrors():
        raise original
    error = caught.value
    assert isinstance(error, EXPECTED[name])
    assert isinstance(error, kind)
    assert type(error).__name__ == name
    assert type(error).__doc__ == kind.__doc__
    assert (str(error), error.args) == (str(original), original.args)
    assert error.is_retryable is kind.retryable
    assert type(error).is_retryable is kind.retryable
    assert default_retry_on(error) is kind.retryable


def test_a_context_that_is_too_long_is_an_invalid_request_too():
    error = to_langchain_error(ours.ContextTooLongError("Too long."))
    assert isinstance(error, theirs.ContextOverflowError)
    assert isinstance(error, theirs.ModelInvalidRequestError)
    assert not isinstance(error, theirs.ModelAPIError)


def test_an_error_that_is_not_in_the_tree_is_what_its_ancestors_are():
    class TeapotError(ours.ServerError):
        """With a constructor of its own."""

        def __init__(self, size, colour):
            super().__init__(f"{size} {colour}")
            self.size = size

    error = to_langchain_error(TeapotError(2, "red"))
    assert isinstance(error, TeapotError)
    assert isinstance(error, theirs.ModelAPIError)
    assert (str(error), error.size) == ("2 red", 2)


def test_an_error_is_made_both_once():
    with pytest.raises(ours.RateLimitError) as caught, TranslateErrors(), TranslateErrors():
        raise ours.RateLimitError("Slower.")
    assert type(caught.value).__mro__.count(theirs.ModelRateLimitError) == 1
    assert type(caught.value) is type(to_langchain_error(ours.RateLimitError("Again.")))


def test_other_errors_pass_as_they_are():
    original = KeyError("x")
    with pytest.raises(KeyError) as caught, TranslateErrors():
        raise original
    assert caught.value is original


def test_the_trace_and_the_cause_are_those_of_the_original():
    def failing():
        try:
            int("cable")
        except ValueError as error:
            raise ours.ConnectionFailedError("No connection.") from error

    with pytest.raises(theirs.ModelConnectionError) as caught, TranslateErrors():
        failing()
    assert isinstance(caught.value.__cause__, ValueError)
    assert "failing" in [entry.name for entry in caught.traceback]


def test_a_pickled_error_is_the_same():
    original = ours.QuotaExhaustedError("429: Enough for today.").with_context("cloudflare", "llama")
    original.status_code, original.retry_after, original.request_id = 429, 3600.0, "r-1"
    original.body = '{"error": "enough"}'
    original.add_note("A note.")
    error = to_langchain_error(original)
    thawed = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(thawed) is type(error)
    assert (str(thawed), thawed.args) == (str(error), error.args)
    assert vars(thawed) == vars(error) == {**vars(original), "response": error.response}
    assert error.response == TraceStatusResponse({"error": "enough"}, 429, {"retry-after": "3600"})
    assert thawed.is_retryable is False


def test_what_there_is_to_trace():
    cut = ours.TruncatedStreamError("It broke.")
    cut.partial = Reply(text="Half", tool_calls=(ToolCall("c1", "look", '{"at'),))
    assert to_langchain_error(cut).response == TraceResponse(
        {"partial": {"text": "Half", "tool_calls": [{"name": "look", "arguments": '{"at'}]}}
    )
    assert not hasattr(to_langchain_error(ours.ConnectionFailedError("No.")), "response")
    early = ours.TruncatedStreamError("It broke.")
    early.partial = Reply()
    assert not hasattr(to_langchain_error(early), "response")
    page = ours.ServerError("502: Bad gateway")
    page.status_code, page.body = 502, "<title>Bad gateway</title>"
    assert to_langchain_error(page).response == TraceStatusResponse("<title>Bad gateway</title>", 502, {})
    page.body = "[" * sys.getrecursionlimit() * 100
    assert to_langchain_error(page).response.json() == page.body


def styles(model, text="Hi"):
    """Every way to call a model, with whatever goes wrong raised."""

    async def astream():
        return [chunk async for chunk in model.astream(text)]

    return {
        "invoke": lambda: model.invoke(text),
        "stream": lambda: list(model.stream(text)),
        "ainvoke": lambda: asyncio.run(model.ainvoke(text)),
        "astream": lambda: asyncio.run(astream()),
        "batch": lambda: model.batch([text]),
        "streamed invoke": lambda: model.model_copy(update={"streaming": True}).invoke(text),
    }


@pytest.mark.parametrize("style", ["invoke", "stream", "ainvoke", "astream", "batch", "streamed invoke"])
def test_a_context_that_is_too_long_is_langchains_overflow(emulator, style):
    emulator.script(OVERFLOWS["DeepInfra"][0])
    with pytest.raises(theirs.ContextOverflowError) as caught:
        styles(model_at(emulator, max_retries=2))[style]()
    assert (caught.value.requested_tokens, caught.value.context_window) == (5000, 4095)
    assert caught.value.response.status_code == 500


@pytest.mark.parametrize("style", ["invoke", "stream", "ainvoke", "astream", "batch", "streamed invoke"])
def test_the_local_models_context_is_langchains_overflow_too(style):
    with pytest.raises(theirs.ContextOverflowError) as caught:
        styles(ChatLlamaVision(provider="local"), "so " * 3000)[style]()
    assert caught.value.context_window == 2048
    assert caught.value.requested_tokens > 3000
    assert not hasattr(caught.value, "response")


STYLES = ["invoke", "stream", "ainvoke", "astream", "batch", "streamed invoke"]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, theirs.ModelInvalidRequestError),
        (401, theirs.ModelAuthenticationError),
        (402, theirs.ModelPermissionDeniedError),
        (403, theirs.ModelPermissionDeniedError),
        (404, theirs.ModelNotFoundError),
        (429, theirs.ModelRateLimitError),
        (500, theirs.ModelAPIError),
    ],
)
def test_a_refusal_in_every_style(emulator, style, status, kind):
    emulator.script(refusal(status, {"error": {"message": "No."}}, retry_after=7))
    with pytest.raises(kind) as caught:
        styles(model_at(emulator))[style]()
    error = caught.value
    assert isinstance(error, ours.StatusError)
    assert (error.status_code, error.retry_after, error.provider) == (status, 7.0, "deepinfra")
    assert error.model == "meta-llama/Llama-3.2-11B-Vision-Instruct"
    assert error.response == TraceStatusResponse({"error": {"message": "No."}}, status, {"retry-after": "7"})


@pytest.mark.parametrize("style", STYLES)
def test_a_connection_that_is_closed_in_every_style(emulator, style):
    emulator.script(NO_ANSWER)
    with pytest.raises(theirs.ModelConnectionError) as caught:
        styles(model_at(emulator))[style]()
    assert isinstance(caught.value, ours.ConnectionFailedError)
    assert isinstance(caught.value.__cause__, httpx.RequestError)
    assert caught.value.is_retryable


@pytest.mark.parametrize("style", ["stream", "astream", "streamed invoke"])
def test_a_stream_that_breaks_in_every_style(emulator, style):
    emulator.script(event_stream(HALF))
    with pytest.raises(theirs.ModelConnectionError) as caught:
        styles(model_at(emulator))[style]()
    assert isinstance(caught.value, ours.TruncatedStreamError)
    assert caught.value.partial.text == "Half"
    assert not caught.value.is_retryable


def test_a_stream_that_stops_coming(emulator):
    answer = event_stream(HALF)
    emulator.script(type(answer)((answer.steps[0], STALL), headers=answer.headers))
    with pytest.raises(theirs.ModelTimeoutError) as caught:
        list(model_at(emulator, timeout=0.3).stream("Hi"))
    assert caught.value.partial.text == "Half"


def test_what_is_refused_before_it_is_sent_is_both(emulator, monkeypatch):
    for name in DEEPINFRA.key_env:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(theirs.ModelAuthenticationError, match="DEEPINFRA_TOKEN"):
        ChatLlamaVision(provider="deepinfra").invoke("Hi")
    with pytest.raises(theirs.ModelInvalidRequestError, match="colour"):
        model_at(emulator).invoke("Hi", colour="red")
    video = [HumanMessage([{"type": "video", "url": "https://example.org/v"}])]
    with pytest.raises(theirs.ModelInvalidRequestError, match="Message 0"):
        list(model_at(emulator).stream(video))
    with pytest.raises(theirs.ModelInvalidRequestError, match="Message 0"):
        model_at(emulator).get_num_tokens_from_messages(video)
    with pytest.raises(theirs.ModelError) as caught:
        model_at(emulator).with_structured_output({}, method="nope")
    assert isinstance(caught.value, StructuredMethodError)
    with pytest.raises(theirs.ModelError) as caught:
        ChatLlamaVision(provider="nope")
    assert isinstance(caught.value, ours.UnknownProviderError)
    with pytest.raises(theirs.ModelError, match="nope"):
        ChatLlamaVision(provider="nope", model="m", api_key=None)
    assert emulator.requests == []


def test_a_tracer_gets_what_the_provider_said(emulator):
    listener = Listener()
    for ask in (
        lambda model: model.invoke("Hi", {"callbacks": [listener]}),
        lambda model: list(model.stream("Hi", {"callbacks": [listener]})),
    ):
        emulator.script(refusal(429, {"error": {"message": "Busy"}}, retry_after=2))
        with pytest.raises(theirs.ModelRateLimitError) as caught:
            ask(model_at(emulator))
        assert listener.errors[-1] is caught.value
        assert listener.metadata == {
            "body": {"error": {"message": "Busy"}},
            "headers": {"retry-after": "2"},
            "status_code": 429,
            "request_id": caught.value.request_id,
        }


def test_a_tracer_gets_the_words_that_had_arrived(emulator):
    listener = Listener()
    emulator.script(event_stream(HALF))
    with pytest.raises(theirs.ModelConnectionError):
        list(model_at(emulator).stream("Hi", {"callbacks": [listener]}))
    assert listener.generations[0].text == "Half"
    for ask in (
        lambda model: model.invoke("Hi", {"callbacks": [listener]}),
        lambda model: asyncio.run(model.ainvoke("Hi", {"callbacks": [listener]})),
    ):
        emulator.script(event_stream(HALF))
        listener.generations.clear()
        with pytest.raises(theirs.ModelConnectionError):
            ask(model_at(emulator, streaming=True))
        assert listener.metadata == {"body": {"partial": {"text": "Half"}}}


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tracer_gets_no_key_and_no_account(emulator_of, streamed):
    emulator, listener = emulator_of("cloudflare"), Listener()
    said = {"errors": [{"code": 7000, "message": f"{emulator.api_key} {ACCOUNT_ID}"}], "success": False}
    emulator.script(json_answer(said, 400, {"set-cookie": f"key={emulator.api_key}"}))
    model = model_at(emulator, provider="cloudflare", account_id=ACCOUNT_ID)
    config = {"callbacks": [listener]}
    with pytest.raises(theirs.ModelError) as caught:
        list(model.stream("Hi", config)) if streamed else model.invoke("Hi", config)
    shown = f"{listener.metadata} {listener.generations} {caught.value!r} {vars(caught.value)}"
    assert "[key] [account]" in str(listener.metadata["body"])
    assert emulator.api_key not in shown
    assert ACCOUNT_ID not in shown


def test_with_retry_makes_the_call_again_for_errors_of_langchains(emulator):
    emulator.script(refusal(429), refusal(429), completion("Hi"))
    model = model_at(emulator).with_retry(
        retry_if_exception_type=(theirs.ModelRateLimitError,), wait_exponential_jitter=False
    )
    assert model.invoke("Hi").text == "Hi"
    emulator.script(refusal(401))
    with pytest.raises(ours.AuthenticationError):
        model.invoke("Hi")
    assert len(emulator.requests) == 4


def test_with_fallbacks_goes_on_to_another_model(emulator, other_emulator):
    model = model_at(emulator).with_fallbacks(
        [model_at(other_emulator)], exceptions_to_handle=(theirs.ModelNotFoundError,)
    )
    emulator.script(refusal(404))
    other_emulator.script(completion("From the other"))
    assert model.invoke("Hi").text == "From the other"
    emulator.script(refusal(401))
    with pytest.raises(ours.AuthenticationError):
        model.invoke("Hi")


def test_an_agents_retries_follow_what_is_retryable(emulator):
    from langchain.agents import create_agent

    retries = ModelRetryMiddleware(max_retries=2, initial_delay=0, on_failure="error")
    agent = create_agent(model_at(emulator), middleware=[retries])
    emulator.script(refusal(500), completion("Hi"))
    assert agent.invoke({"messages": "Hi"})["messages"][-1].text == "Hi"
    emulator.script(refusal(401))
    with pytest.raises(ours.AuthenticationError):
        agent.invoke({"messages": "Hi"})
    assert len(emulator.requests) == 3


@pytest.mark.skipif(
    not hasattr(summarization, "ContextOverflowError"), reason="this LangChain doesn't make a summary of less"
)
def test_a_summary_of_too_much_is_made_of_less(emulator):
    from langchain.agents.middleware import SummarizationMiddleware

    too_long = {"error": {"message": "This model's maximum context length is 8 tokens."}}
    emulator.script(refusal(400, too_long), completion("In short."))
    summarised = SummarizationMiddleware(model_at(emulator), trim_tokens_to_summarize=None)
    summary = summarised._create_summary([HumanMessage("word " * 4000)])
    assert summary == "In short."
    first, second = (len(str(request.body["messages"])) for request in emulator.requests)
    assert second < first
