"""What replies carry beside the text: reasoning, log probabilities, tokens by kind, tiers, rate limits; in both frameworks."""

import asyncio
from functools import reduce
from operator import add

import pytest
from langchain_core.messages import AIMessage
from llama_index.core.base.llms.types import ChatMessage

from llama_vision.core.reply import Reply
from llama_vision.langchain import ChatLlamaVision
from llama_vision.langchain.convert import to_message
from llama_vision.llamaindex import LlamaVision
from tests.emulator import event_stream, json_answer
from tests.emulator.asking import MODEL
from tests.quirks.talk import answered, either, said

QUESTION = [ChatMessage("Hello!")]
HI = {
    "token": "Hi",
    "logprob": -0.25,
    "bytes": [72, 105],
    "top_logprobs": [{"token": "Hi", "logprob": -0.25}],
}
DOT = {"token": ".", "logprob": -1.5, "bytes": None, "top_logprobs": []}
USAGE = {
    "prompt_tokens": 1610,
    "completion_tokens": 5,
    "prompt_tokens_details": {
        "cached_tokens": 3,
        "image_tokens": 1601,
        "audio_tokens": 0,
        "cache_write_tokens": 7,
    },
    "completion_tokens_details": {"reasoning_tokens": 2, "accepted_prediction_tokens": None},
}
LIMITS = {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-tokens": "149984"}
ABOUT = {"model": "llama", "service_tier": "flex", "system_fingerprint": "fp_44709d6fcb"}


def full_reply(field="reasoning_content"):
    """Say `Hi.` with all that a reply may carry, whole or in chunks as servers cut it."""
    beside = {field: "Let me look."}
    whole = {
        **ABOUT,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi.", **beside},
                "logprobs": {"content": [HI, DOT], "refusal": None},
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }
    deltas = [
        ({field: "Let me ", "content": None}, None),
        ({field: "look."}, None),
        ({"content": "Hi"}, {"content": [HI]}),
        ({"content": "."}, {"content": [DOT], "refusal": []}),
    ]
    chunks = [
        {**ABOUT, "choices": [{"index": 0, "delta": delta, "logprobs": logprobs}]}
        for delta, logprobs in deltas
    ]
    end = {**ABOUT, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": USAGE}
    return either(json_answer(whole, headers=LIMITS), event_stream(*chunks, end, "[DONE]", headers=LIMITS))


def langchain_messages(emulator, **options):
    model = ChatLlamaVision(
        provider="openai-compatible",
        base_url=emulator.base_url,
        api_key=emulator.api_key,
        model=MODEL,
        **options,
    )

    async def streamed():
        return [chunk async for chunk in model.astream("Hello!")]

    return {
        "invoke": model.invoke("Hello!"),
        "ainvoke": asyncio.run(model.ainvoke("Hello!")),
        "stream": reduce(add, model.stream("Hello!")),
        "astream": reduce(add, asyncio.run(streamed())),
    }


def llamaindex_responses(emulator):
    llm = LlamaVision(
        provider="openai-compatible", api_base=emulator.base_url, api_key=emulator.api_key, model=MODEL
    )

    async def asynchronous():
        whole = await llm.achat(QUESTION)
        return whole, [response async for response in await llm.astream_chat(QUESTION)]

    achat, astream = asyncio.run(asynchronous())
    stream = list(llm.stream_chat(QUESTION))
    return {"chat": [llm.chat(QUESTION)], "achat": [achat], "stream_chat": stream, "astream_chat": astream}


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_beside_the_text_and_not_in_it(emulator_of, way, field):
    reply = answered(emulator_of, way, full_reply(field), "openai-compatible")
    assert (reply.text, reply.reasoning) == ("Hi.", "Let me look.")


def test_reasoning_that_a_server_sends_under_both_names_is_there_once(emulator_of, way):
    message = {"content": "Hi", "reasoning": "Hm.", "reasoning_content": "Hm."}
    assert answered(emulator_of, way, said(message)).reasoning == "Hm."


def test_a_reply_of_reasoning_alone_is_no_empty_reply(emulator_of, way):
    reply = answered(emulator_of, way, said({"content": None, "reasoning_content": "Hm."}))
    assert (reply.text, reply.reasoning) == ("", "Hm.")


def test_langchain_has_all_of_it_under_its_own_names(emulator_of):
    emulator = emulator_of("openai-compatible")
    emulator.always(full_reply())
    for style, message in langchain_messages(emulator).items():
        metadata = message.response_metadata
        assert message.text == "Hi.", style
        assert message.additional_kwargs == {"reasoning_content": "Let me look."}, style
        blocks = [
            (block["type"], block.get("reasoning", block.get("text"))) for block in message.content_blocks
        ]
        assert blocks == [("reasoning", "Let me look."), ("text", "Hi.")], style
        assert metadata["logprobs"]["content"] == [HI, DOT], style
        assert (metadata["service_tier"], metadata["system_fingerprint"]) == ("flex", "fp_44709d6fcb"), style
        assert metadata["rate_limits"] == LIMITS, style
        assert message.usage_metadata == {
            "input_tokens": 1610,
            "output_tokens": 5,
            "total_tokens": 1615,
            "input_token_details": {"cache_read": 3, "image": 1601, "audio": 0, "cache_creation": 7},
            "output_token_details": {"reasoning": 2},
        }, style


def test_langchains_v1_messages_hold_the_reasoning_once(emulator_of):
    emulator = emulator_of("openai-compatible")
    emulator.always(full_reply())
    for style, message in langchain_messages(emulator, output_version="v1").items():
        kinds = [block["type"] for block in message.content]
        assert kinds == [block["type"] for block in message.content_blocks] == ["reasoning", "text"], style
        assert message.content[0]["reasoning"] == "Let me look.", style


def test_reasoning_of_an_earlier_turn_is_not_sent_back(emulator_of):
    emulator = emulator_of("openai-compatible")
    emulator.always(full_reply())
    model = ChatLlamaVision(
        provider="openai-compatible", base_url=emulator.base_url, api_key=emulator.api_key, model=MODEL
    )
    model.invoke(["Hello!", model.invoke("Hello!"), "And?"])
    assert emulator.requests[-1].body["messages"][1] == {"role": "assistant", "content": "Hi."}


def test_llamaindex_has_all_of_it_where_it_looks_for_it(emulator_of):
    emulator = emulator_of("openai-compatible")
    emulator.always(full_reply())
    for style, responses in llamaindex_responses(emulator).items():
        response = responses[-1]
        thinking, text = response.message.blocks
        assert (thinking.block_type, thinking.content) == ("thinking", "Let me look."), style
        assert response.message.content == text.text == "Hi.", style
        assert [[(each.token, each.logprob) for each in token] for token in response.logprobs] == [
            [("Hi", -0.25)],
            [(".", -1.5)],
        ], style
        assert response.raw["logprobs"]["content"] == [HI, DOT], style
        assert response.raw["service_tier"] == "flex", style
        assert response.raw["rate_limits"] == LIMITS, style
        details = response.additional_kwargs["prompt_tokens_details"]
        assert details == {"image_tokens": 1601, "audio_tokens": 0, "cache_write_tokens": 7}, style
        assert response.additional_kwargs["completion_tokens_details"] == {"reasoning_tokens": 2}, style
        if len(responses) > 1:
            assert [each.additional_kwargs.get("thinking_delta") for each in responses[:3]] == [
                "Let me ",
                "look.",
                None,
            ], style
            assert "".join(each.delta for each in responses) == "Hi.", style


def test_a_reply_without_any_of_it_is_as_before():
    assert to_message(Reply("Hi"), "deepinfra") == AIMessage(
        "Hi", response_metadata={"model_provider": "llama_vision", "provider": "deepinfra"}
    )
