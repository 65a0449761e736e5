"""`ChatLlamaVision` as an object: its fields, its secrets, its requests."""

import copy
import logging
import pickle
from dataclasses import fields

import httpx
import pytest
from langchain_core.load import dumps, load
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from pydantic import BaseModel, ValidationError

from llama_vision import Provider
from llama_vision.core.errors import (
    ConfigurationError,
    MissingKeyError,
    UnknownProviderError,
    UnsupportedInputError,
)
from llama_vision.core.request import SamplingParams
from llama_vision.langchain import ChatLlamaVision
from llama_vision.providers.hosted import DEEPINFRA
from llama_vision.testing import ScriptedServer
from tests.emulator import completion, event_stream

KEY = "sk-very-secret-3141"


class Weather(BaseModel):
    """The weather of a place."""

    city: str
    days: int = 1


@tool
def get_time(zone: str) -> str:
    """Tell the time."""
    return zone


def model_at(emulator, **options):
    return ChatLlamaVision(
        provider="deepinfra", base_url=emulator.base_url, api_key=emulator.api_key, max_retries=0, **options
    )


def test_defaults(monkeypatch):
    for name in ("LLAMA_VISION_PROVIDER", "LLAMA_VISION_MODEL"):
        monkeypatch.delenv(name, raising=False)
    model = ChatLlamaVision()
    assert (model.provider, model.model, model.max_tokens) == ("local", "tiny", 1024)
    assert ChatLlamaVision(provider="deepinfra").model_name == "llama-3.2-11b-vision"
    monkeypatch.setenv("LLAMA_VISION_PROVIDER", "deepinfra")
    assert ChatLlamaVision().provider == "deepinfra"
    monkeypatch.setenv("LLAMA_VISION_MODEL", "llama-3.2-90b-vision")
    assert ChatLlamaVision().model == "llama-3.2-90b-vision"


def test_a_wrong_provider_is_named_with_those_that_are_known():
    with pytest.raises(UnknownProviderError, match=r"'nope'.*local.*deepinfra"):
        ChatLlamaVision(provider="nope")


def test_a_misspelt_field_is_refused_without_showing_its_value():
    with pytest.raises(ValidationError, match="apikey") as caught:
        ChatLlamaVision(apikey=KEY)
    assert KEY not in str(caught.value)


def test_a_missing_key_is_told_when_the_first_call_is_made(monkeypatch):
    for name in DEEPINFRA.key_env:
        monkeypatch.delenv(name, raising=False)
    model = ChatLlamaVision(provider="deepinfra")
    with pytest.raises(MissingKeyError, match="DEEPINFRA_TOKEN"):
        model.invoke("Hi")
    with pytest.raises(MissingKeyError, match="DEEPINFRA_TOKEN"):
        next(model.stream("Hi"))


def test_openai_compatible_needs_an_address():
    with pytest.raises(ConfigurationError, match="base_url"):
        ChatLlamaVision(provider="openai-compatible").invoke("Hi")


def test_an_account_is_refused_where_there_are_none():
    with pytest.raises(ConfigurationError, match="account_id"):
        ChatLlamaVision(account_id="a").invoke("Hi")


def test_every_option_arrives_and_a_call_overrides_the_fields(emulator):
    model = model_at(
        emulator,
        model="llama-3.2-90b-vision",
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.1,
        seed=7,
        frequency_penalty=0.1,
        presence_penalty=0.2,
        repetition_penalty=1.1,
        max_tokens=99,
        stop=["END"],
        extra_body={"user": "u-1"},
        default_headers={"x-team": "blue"},
    )
    model.invoke("Hi")
    model.invoke("Hi", temperature=0, stop=["STOP"], model="llama-3.2-11b-vision", extra_body={"user": "u-2"})
    first, second = (request.body for request in emulator.requests)
    options = {
        "model": "meta-llama/Llama-3.2-90B-Vision-Instruct",
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "seed": 7,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.2,
        "repetition_penalty": 1.1,
        "max_tokens": 99,
        "stop": ["END"],
        "user": "u-1",
        "messages": [{"role": "user", "content": "Hi"}],
    }
    assert first == options
    assert second == {
        **options,
        "model": "meta-llama/Llama-3.2-11B-Vision-Instruct",
        "temperature": 0,
        "stop": ["STOP"],
        "user": "u-2",
    }
    assert emulator.requests[0].headers["x-team"] == "blue"


def test_an_unknown_option_of_a_call_is_refused(emulator):
    with pytest.raises(UnsupportedInputError, match=r"colour.*extra_body"):
        model_at(emulator).invoke("Hi", colour="red")
    assert emulator.requests == []


def test_usage_is_asked_for_in_streams_unless_declined(emulator):
    list(model_at(emulator).stream("Hi"))
    list(model_at(emulator, stream_usage=False).stream("Hi"))
    asked, declined = (request.body for request in emulator.requests)
    assert asked["stream_options"] == {"include_usage": True}
    assert "stream_options" not in declined


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("any", "required"),
        ("required", "required"),
        (True, "required"),
        ("auto", "auto"),
        ("none", "none"),
        ("Weather", {"type": "function", "function": {"name": "Weather"}}),
        (
            {"type": "function", "function": {"name": "Weather"}},
            {"type": "function", "function": {"name": "Weather"}},
        ),
        (None, None),
        (False, None),
    ],
)
def test_the_choice_of_a_tool_in_every_spelling(emulator, choice, sent):
    emulator.script(completion("Hi"))
    model_at(emulator).bind_tools([Weather, get_time], tool_choice=choice).invoke("Hi")
    body = emulator.requests[0].body
    assert [entry["function"]["name"] for entry in body["tools"]] == ["Weather", "get_time"]
    assert body.get("tool_choice") == sent


def test_tools_can_be_strict_and_called_one_at_a_time(emulator_of):
    emulator = emulator_of("openai-compatible")
    model = ChatLlamaVision(
        provider="openai-compatible",
        model="meta-llama/Llama-3.2-11B-Vision-Instruct",
        base_url=emulator.base_url,
        api_key=emulator.api_key,
    )
    emulator.script(completion("Hi"), completion("Hi"))
    model.bind_tools([Weather], strict=True, parallel_tool_calls=False).invoke("Hi")
    model.bind_tools([Weather]).invoke("Hi")
    told, silent = (request.body for request in emulator.requests)
    assert told["tools"][0]["function"]["strict"] is True
    assert told["parallel_tool_calls"] is False
    assert "strict" not in silent["tools"][0]["function"]
    assert "parallel_tool_calls" not in silent


def test_tool_calls_in_text_are_read_unless_declined():
    def asked(model, **call):
        return model._request([HumanMessage("Hi")], None, call).text_tool_calls

    assert [asked(ChatLlamaVision()), asked(ChatLlamaVision(text_tool_calls=False))] == [True, False]
    assert asked(ChatLlamaVision(), text_tool_calls=False) is False
    assert asked(ChatLlamaVision(text_tool_calls=False), text_tool_calls=True) is True


def test_no_tools_say_nothing_about_tools(emulator):
    wanted = {
        "type": "json_schema",
        "json_schema": {"name": "Weather", "schema": Weather.model_json_schema()},
    }
    model_at(emulator).bind_tools([], response_format=wanted).invoke("Hi")
    body = emulator.requests[0].body
    assert "tools" not in body
    assert body["response_format"] == wanted


def test_structured_output_through_a_tool(emulator):
    answer = model_at(emulator).with_structured_output(Weather).invoke("The weather in Paris?")
    assert isinstance(answer, Weather)
    assert emulator.requests[0].body["tool_choice"] == "required"


def test_tokens_reach_the_callbacks_once_each(emulator):
    from langchain_core.callbacks import BaseCallbackHandler

    class Listener(BaseCallbackHandler):
        tokens: list[str] = []  # noqa: RUF012 - one listener, one list

        def on_llm_new_token(self, token, **kwargs):
            self.tokens.append(token)

    listener = Listener()
    answer = "".join(chunk.text for chunk in model_at(emulator).stream("Hi", {"callbacks": [listener]}))
    assert "".join(listener.tokens) == answer
    assert len(answer) > 0


def test_clients_of_the_users_own_are_used(emulator):
    with httpx.Client(headers={"x-mine": "yes"}) as client:
        model_at(emulator, http_client=client).invoke("Hi")
    assert emulator.requests[0].headers["x-mine"] == "yes"


def test_a_record_of_the_users_own_is_a_provider(emulator):
    own = Provider(
        name="own",
        title="Our own",
        dialect=DEEPINFRA.dialect,
        models=DEEPINFRA.models,
        base_url=emulator.base_url,
        key_env=("OUR_KEY",),
    )
    message = ChatLlamaVision(provider=own, api_key=emulator.api_key).invoke("Hi")
    assert message.response_metadata["provider"] == "own"


def test_the_key_stays_secret(emulator, caplog):
    caplog.set_level(logging.DEBUG)
    headers = {"x-byok-other": KEY + "-other"}
    model = ChatLlamaVision(
        provider="deepinfra", base_url=emulator.base_url, api_key=KEY, default_headers=headers, max_retries=0
    )
    with pytest.raises(Exception, match="401") as caught:
        model.invoke("Hi")
    shown = [repr(model), str(model), dumps(model), str(model.asdict()), repr(caught.value), caplog.text]
    shown += [str(model._identifying_params), str(model._get_ls_params())]
    assert not any(KEY in text for text in shown)
    assert KEY.encode() not in pickle.dumps(model)


def test_a_pickle_leaves_the_key_out_and_a_copy_keeps_it(emulator):
    model = model_at(emulator, temperature=0.5)
    assert copy.deepcopy(model).invoke("Hi").content == model.invoke("Hi").content
    thawed = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own bytes
    assert (thawed.temperature, thawed.llama_vision_api_key) == (0.5, None)


@pytest.mark.filterwarnings("ignore:The function `load` is in beta")  # LangChain says so of its own
def test_it_can_be_saved_and_loaded(monkeypatch):
    monkeypatch.setenv("DEEPINFRA_TOKEN", KEY)
    model = ChatLlamaVision(provider="deepinfra", temperature=0.5)
    saved = model.to_json()
    loaded = load(
        saved, allowed_objects=[ChatLlamaVision], valid_namespaces=["llama_vision"], secrets_from_env=True
    )
    assert loaded.temperature == 0.5
    assert loaded.llama_vision_api_key.get_secret_value() == KEY


def test_models_that_answer_differently_have_different_cache_keys():
    one, other = (ChatLlamaVision(temperature=temperature) for temperature in (0.1, 0.9))
    assert one._get_llm_string() != other._get_llm_string()
    assert one._identifying_params != other._identifying_params


def test_tracing_parameters():
    params = ChatLlamaVision(provider="deepinfra", temperature=0.5, stop=["END"])._get_ls_params(
        model="other"
    )
    assert params["ls_provider"] == "llama_vision"
    assert params["ls_model_name"] == "other"
    assert (params["ls_temperature"], params["ls_max_tokens"], params["ls_stop"]) == (0.5, 1024, ["END"])


def test_a_stream_that_breaks_keeps_what_had_arrived(emulator):
    piece = {"choices": [{"index": 0, "delta": {"content": "Half"}, "finish_reason": None}]}
    emulator.script(event_stream(piece))
    received = []
    with pytest.raises(Exception, match="ended before") as caught:
        received.extend(model_at(emulator).stream([HumanMessage("Hi")]))
    assert received[0].text == "Half"
    assert caught.value.partial.text == "Half"


def test_every_sampling_parameter_is_a_field_and_is_sent():
    values = {field.name: 0.5 for field in fields(SamplingParams)} | {"max_tokens": 7, "top_k": 5, "seed": 3}
    assert values.keys() <= ChatLlamaVision.model_fields.keys()
    with ScriptedServer("Hi") as server:
        ChatLlamaVision(**server.model_options, **values).invoke("Hi")
        assert values.items() <= server.requests[0].body.items()
