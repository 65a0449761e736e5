"""What a body holds: words, calls, counts, costs, and reasons to end."""

import json

import pytest

from llama_vision import SamplingParams, Tool
from llama_vision.core.errors import MalformedReplyError, TruncatedStreamError
from tests.emulator import chunks, completion, event_stream, json_answer
from tests.quirks.talk import answered, ask, either, said, told

TOOL = Tool("f", "Do it.", {"type": "object", "properties": {"city": {"type": "string"}}})
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"city": "Paris"}'}}
CITY = json.dumps({"city": "Paris"})
SIZES = {"prompt_tokens": 7, "completion_tokens": 2}


@pytest.mark.parametrize("none", [{"tool_calls": []}, {"tool_calls": None}, {}], ids=str)
@pytest.mark.parametrize("provider", ["aimlapi", "cloudflare"])
def test_quirk_17_no_calls_may_be_said_in_three_ways(emulator_of, way, none, provider):
    script = told({"response": "Hi", **none}) if provider == "cloudflare" else said({"content": "Hi", **none})
    reply = answered(emulator_of, way, script, provider)
    assert (reply.text, reply.tool_calls, reply.finish_reason) == ("Hi", (), "stop")


def test_quirk_18_null_beside_calls_is_no_text(emulator_of, way):
    message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    reply = answered(emulator_of, way, said(message, "tool_calls"), tools=(TOOL,))
    assert reply.text == ""
    assert [(call.id, call.name, call.parsed()) for call in reply.tool_calls] == [
        ("c", "f", {"city": "Paris"})
    ]


@pytest.mark.parametrize(
    ("provider", "body"),
    [
        ("deepinfra", {"choices": [{"message": {"content": None}, "finish_reason": "stop"}]}),
        ("cloudflare", {"result": {"response": None, "tool_calls": []}, "success": True}),
        ("cloudflare", {"result": {"choices": [{"message": {"content": None}}]}, "success": True}),
    ],
)
def test_quirk_18_null_with_nothing_else_is_an_error(emulator_of, way, provider, body):
    with pytest.raises(MalformedReplyError, match="neither text nor tool calls"):
        answered(emulator_of, way, json_answer(body), provider)


@pytest.mark.parametrize(
    "message", [{"role": "assistant", "content": None}, {"content": None, "tool_calls": []}]
)
def test_quirk_18_null_alone_is_an_error_whole_and_streamed(emulator_of, way, message):
    with pytest.raises(MalformedReplyError, match="neither text nor tool calls"):
        answered(emulator_of, way, said(message))


def test_quirk_18_null_for_the_whole_message_is_an_error(emulator_of, way):
    with pytest.raises(MalformedReplyError, match="neither text nor tool calls"):
        answered(emulator_of, way, json_answer({"choices": [{"message": None, "finish_reason": "stop"}]}))


def test_quirk_18_null_before_text_is_none(emulator_of, streamed_way):
    script = event_stream(
        {"choices": [{"delta": {"role": "assistant", "content": None}}]},
        {"choices": [{"delta": {"content": ""}, "finish_reason": "stop"}]},
        "[DONE]",
    )
    assert answered(emulator_of, streamed_way, script).text == ""


def test_the_old_function_call_is_a_tool_call(emulator_of, way):
    def call(arguments, **name):
        return {"role": "assistant", "content": None, "function_call": {"arguments": arguments, **name}}

    script = either(
        json_answer({"choices": [{"message": call(CITY, name="f"), "finish_reason": "function_call"}]}),
        event_stream(
            {"choices": [{"delta": call("", name="f")}]},
            *({"choices": [{"delta": call(letter)}]} for letter in CITY),
            {"choices": [{"delta": {}, "finish_reason": "function_call"}]},
            "[DONE]",
        ),
    )
    (found,) = answered(emulator_of, way, script, tools=(TOOL,)).tool_calls
    assert found.id
    assert (found.name, found.parsed()) == ("f", {"city": "Paris"})


@pytest.mark.parametrize("nothing", [None, {}, {"name": None, "arguments": ""}], ids=repr)
def test_an_old_function_call_without_a_name_is_none(emulator_of, way, nothing):
    reply = answered(emulator_of, way, said({"content": "Hi", "function_call": nothing}))
    assert (reply.text, reply.tool_calls) == ("Hi", ())


@pytest.mark.parametrize(
    ("response", "text"),
    [
        ({"name": "x", "of": [1]}, '{"name": "x", "of": [1]}'),
        (42, "42"),
        (0, "0"),
        (1.5, "1.5"),
        (["a", "ü"], '["a", "ü"]'),
        (True, "true"),
        ("", ""),
    ],
)
def test_quirk_19_a_native_response_is_not_always_a_string(emulator_of, way, response, text):
    assert answered(emulator_of, way, told({"response": response}), "cloudflare").text == text


def test_quirk_19_a_native_response_is_null_beside_calls(emulator_of, way):
    calls = [{"name": "f", "arguments": {"city": "Paris"}}]
    reply = answered(emulator_of, way, told({"response": None, "tool_calls": calls}), "cloudflare")
    assert (reply.text, reply.tool_calls[0].parsed(), reply.finish_reason) == (
        "",
        {"city": "Paris"},
        "tool_calls",
    )


@pytest.mark.parametrize("message", [{"content": "Hi"}, {"content": None, "tool_calls": [CALL]}], ids=str)
def test_quirk_20_a_native_result_may_be_a_chat_completion(emulator_of, way, message):
    result = {"choices": [{"message": message}], "usage": SIZES, "model": "other", "id": "x"}
    whole = json_answer({"result": result, "success": True, "errors": [], "messages": []})
    streamed = event_stream({**result, "choices": [{"delta": message}]}, "[DONE]")
    reply = answered(emulator_of, way, either(whole, streamed), "cloudflare")
    assert reply.text == (message["content"] or "")
    assert [call.arguments for call in reply.tool_calls] == ([] if message["content"] else [CITY])
    assert (reply.usage.input_tokens, reply.model, reply.id) == (7, "other", "x")


@pytest.mark.parametrize("token", ["</s>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|eot_id|></s>"])
@pytest.mark.parametrize("provider", ["deepinfra", "cloudflare"])
def test_quirk_24_a_control_token_at_the_end_is_no_word_however_it_is_cut(emulator_of, way, token, provider):
    def pieces(received):
        text = f"a {token} b{token}"
        if not received.streamed:
            return emulator_of(provider).dialect.encode(completion(text), received)
        native = provider == "cloudflare"
        return event_stream(
            *(
                {"response": letter} if native else {"choices": [{"delta": {"content": letter}}]}
                for letter in text
            ),
            "[DONE]",
        )

    assert answered(emulator_of, way, pieces, provider).text == f"a {token} b"


@pytest.mark.parametrize("tools", [(), (TOOL,)])
@pytest.mark.parametrize("provider", ["deepinfra", "cloudflare"])
def test_a_header_that_leaked_is_not_part_of_the_text_however_it_is_cut(emulator_of, way, provider, tools):
    text = "<|start_header_id|>assistant<|end_header_id|>\n\nHi"

    def pieces(received):
        if not received.streamed:
            return emulator_of(provider).dialect.encode(completion(text), received)
        return event_stream(
            *({"response": letter, "choices": [{"delta": {"content": letter}}]} for letter in text), "[DONE]"
        )

    assert answered(emulator_of, way, pieces, provider, tools=tools).text == "Hi"


def test_quirk_25_a_leading_space_is_kept(emulator_of, way):
    assert answered(emulator_of, way, completion(" Hello!")).text == " Hello!"


USAGES = {
    "missing": ({}, (None, None)),
    "null": ({"usage": None}, (None, None)),
    "null counts": ({"usage": {"prompt_tokens": None, "completion_tokens": None}}, (None, None)),
    "zero": ({"usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}}, (0, 0)),
    "floats": ({"usage": {"prompt_tokens": 7.0, "completion_tokens": 2.0}}, (7, 2)),
    "wrong total": ({"usage": {**SIZES, "total_tokens": 3}}, (7, 2)),
    "unknown keys": ({"usage": {**SIZES, "seconds": {"cpu": 1}, "tier": None}}, (7, 2)),
    "null details": ({"usage": {**SIZES, "prompt_tokens_details": None}}, (7, 2)),
    "image tokens": ({"usage": {**SIZES, "prompt_tokens_details": {"image_tokens": 1601}}}, (7, 2)),
}


@pytest.mark.parametrize("provider", ["openai-compatible", "cloudflare"])
@pytest.mark.parametrize("form", USAGES)
def test_quirk_26_counts_may_be_missing_and_need_not_add_up(emulator_of, way, form, provider):
    fields, counts = USAGES[form]
    script = (
        told({"response": "Hi", **fields}) if provider == "cloudflare" else said({"content": "Hi"}, **fields)
    )
    usage = answered(emulator_of, way, script, provider).usage
    assert (usage.input_tokens, usage.output_tokens) == counts


def test_quirk_26_tokens_from_the_cache_are_told(emulator_of, way):
    fields = {"usage": {**SIZES, "prompt_tokens_details": {"cached_tokens": 5}}}
    assert answered(emulator_of, way, said({"content": "Hi"}, **fields)).usage.cached_input_tokens == 5


COSTS = {
    "usage.estimated_cost": ("deepinfra", {"usage": {**SIZES, "estimated_cost": 0.00124}}, {}, False),
    "usage.cost": ("aigateway", {"usage": {**SIZES, "cost": 0.00124}}, {}, False),
    "X-Cost-Cents": ("aigateway", {"usage": SIZES}, {"X-Cost-Cents": "0.124"}, False),
    "x-aimlapi-usd-spent": ("aimlapi", {}, {"x-aimlapi-usd-spent": "0.00124"}, False),
    "meta.usage.usd_spent": ("aimlapi", {"meta": {"usage": {"usd_spent": 0.00124}}}, {}, False),
    "usage.neurons": ("cloudflare", {"usage": {**SIZES, "neurons": 0.00124 / 0.011 * 1000}}, {}, True),
}


@pytest.mark.parametrize("place", COSTS)
def test_quirk_27_the_cost_is_found_in_each_of_its_places(emulator_of, way, place):
    provider, fields, headers, is_estimate = COSTS[place]
    if provider == "cloudflare":
        whole = json_answer({"result": {"response": "Hi", **fields}, "success": True})
        streamed = event_stream({"response": "Hi"}, {"response": "", **fields}, "[DONE]")
    else:
        whole = json_answer({**completion("Hi", usage={}), **fields}, headers=headers)
        streamed = event_stream(*chunks(completion("Hi", usage={})), fields, "[DONE]", headers=headers)
    usage = answered(emulator_of, way, either(whole, streamed), provider).usage
    assert usage.cost_usd == pytest.approx(0.00124)
    assert usage.cost_is_estimate is is_estimate


@pytest.mark.parametrize("created", [{}, {"created": 1778255778.5}, {"created": "2026-05-08"}], ids=str)
def test_quirk_28_what_the_envelope_lacks_is_filled_in_from_the_request(emulator_of, way, created):
    reply = answered(emulator_of, way, said({"content": "Hi"}, **created), "aigateway")
    assert (reply.model, reply.id) == ("meta/llama-3.2-11b-vision-instruct", None)
    reply = answered(emulator_of, way, told({"response": "Hi"}), "cloudflare")
    assert (reply.model, reply.id) == ("@cf/meta/llama-3.2-11b-vision-instruct", None)


@pytest.mark.parametrize(
    ("told_reason", "reason"),
    [(None, "stop"), ("model_length", "model_length"), ("eos", "eos"), ("function_call", "function_call"), (7, "7")],
)  # fmt: skip
def test_quirk_29_a_reason_outside_the_list_is_kept_and_null_is_a_stop(emulator_of, way, told_reason, reason):
    assert answered(emulator_of, way, said({"content": "Hi"}, told_reason)).finish_reason == reason


def test_quirk_29_a_reason_that_no_one_tells_is_worked_out(emulator_of, way):
    emulator = emulator_of("cloudflare")
    most = {"sampling": SamplingParams(max_tokens=3)}  # the count alone tells that the reply was cut
    replies = [ask(emulator, "cloudflare", way, "Count to 9", **more) for more in ({}, most)]
    assert [(reply.text, reply.finish_reason) for reply in replies] == [
        ("1 2 3 4 5 6 7 8 9", "stop"),
        ("1 2 3", "length"),
    ]


@pytest.mark.parametrize("content", [True, False])
def test_true_and_false_for_text_are_the_words(emulator_of, way, content):
    assert answered(emulator_of, way, said({"content": content})).text == str(content).lower()


def test_an_empty_array_for_an_object_is_one(emulator_of, way):
    script = either(
        json_answer({"choices": [{"delta": [], "message": {"content": "Hi"}, "finish_reason": "stop"}]}),
        event_stream(
            {"choices": [{"delta": []}]},
            {"choices": [{"delta": {"content": "Hi"}}]},
            {"choices": [{"delta": [], "message": [], "finish_reason": "stop"}]},
            "[DONE]",
        ),
    )
    assert answered(emulator_of, way, script).text == "Hi"


def test_an_array_with_something_in_it_is_not_read(emulator_of, way):
    with pytest.raises(MalformedReplyError, match="Hi"):
        answered(emulator_of, way, either(
            json_answer({"choices": [{"message": ["Hi"]}]}), event_stream({"choices": [{"delta": ["Hi"]}]}, "[DONE]")
        ))  # fmt: skip


SAID = {"choices": [{"index": 0, "delta": {"content": "Hi"}}], "response": "Hi"}
UNASKED = {
    "data first": event_stream(SAID, SAID, "[DONE]"),
    "comment first": event_stream(b": hello\n\n", SAID, b"data:\n\n", SAID, "[DONE]"),
    "event first": event_stream(b"event: message\n", SAID, SAID, "[DONE]"),
    "blank lines and a byte order mark first": event_stream(b"\xef\xbb\xbf\r\n\r\n", SAID, SAID, "[DONE]"),
}


@pytest.mark.parametrize("provider", ["deepinfra", "cloudflare"])
@pytest.mark.parametrize("form", UNASKED)
def test_an_event_stream_that_was_not_asked_for_is_read(emulator_of, way, form, provider):
    reply = answered(emulator_of, way, UNASKED[form], provider)
    assert (reply.text, reply.finish_reason) == ("HiHi", "stop")


def test_an_event_stream_that_was_not_asked_for_may_break_off_too(emulator_of, way):
    with pytest.raises(TruncatedStreamError) as caught:
        answered(emulator_of, way, event_stream(SAID))
    assert caught.value.partial.text == "Hi"


BODY = json.dumps({"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}).encode()


@pytest.mark.parametrize("pieces", [[b"\xef\xbb\xbf" + BODY], [b"\xef", b"\xbb", b"\xbf", BODY]], ids=len)
def test_a_body_may_begin_with_a_byte_order_mark(emulator_of, way, pieces):
    assert answered(emulator_of, way, event_stream(*pieces)).text == "Hi"
