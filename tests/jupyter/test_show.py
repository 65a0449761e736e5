"""`show` on a terminal, for what both frameworks give: real models over a socket, and the texts that appear."""

import asyncio
import re

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.chat_engine.types import AgentChatResponse
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.schema import NodeWithScore, TextNode

from llama_vision import ChatRequest, Message, Reply, Text, ToolCall, Usage
from llama_vision.backends import create_backend
from llama_vision.jupyter import show
from llama_vision.langchain import ChatLlamaVision
from llama_vision.llamaindex import LlamaVision
from llama_vision.testing import Answer, ScriptedServer, tool_call

TEXT = "A <b>blue</b> circle,\non white."
TOLD = Usage(12, 5, cost_usd=0.00012)
ANSWER = Answer(TEXT, usage=TOLD)
FACTS = r"12 tokens in, 5 out, 0\.000120 USD"
TIMES = r", \d+\.\d\d s \(first token after \d+\.\d\d s\)"
QUESTION = [HumanMessage("What is it?")]
CHAT = [ChatMessage("What is it?")]


@pytest.fixture
def server():
    with ScriptedServer() as server:
        server.always(ANSWER)
        yield server


def printed(capsys):
    """What stands on the terminal: the words, and the line below them."""
    words, _, facts = capsys.readouterr().out.rstrip("\n").rpartition("\n")
    return words, facts.removeprefix("[").removesuffix("]")


STREAMS = {
    "LangChain": lambda langchain, _: langchain.stream(QUESTION),
    "stream_chat": lambda _, llama: llama.stream_chat(CHAT),
    "stream_complete": lambda _, llama: llama.stream_complete("What is it?"),
}
ASYNC_STREAMS = {
    "LangChain": lambda langchain, _: langchain.astream(QUESTION),
    "astream_chat": lambda _, llama: llama.astream_chat(CHAT),  # to be awaited first
    "astream_complete": lambda _, llama: llama.astream_complete("What is it?"),
}
WHOLE = {
    "LangChain": lambda langchain, _: langchain.invoke(QUESTION),
    "chat": lambda _, llama: llama.chat(CHAT),
    "complete": lambda _, llama: llama.complete("What is it?"),
}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_streams(server, capsys, stream):
    shown = show(stream(ChatLlamaVision(**server.model_options), LlamaVision(**server.model_options)))
    words, facts = printed(capsys)
    assert (words, shown.text) == (TEXT, TEXT)
    assert re.fullmatch(FACTS + TIMES, facts)
    assert (shown.reply.usage, shown.reply.finish_reason) == (TOLD, "stop")
    assert shown.seconds >= shown.time_to_first_token > 0


@pytest.mark.parametrize("stream", ASYNC_STREAMS.values(), ids=ASYNC_STREAMS)
async def test_async_streams(server, capsys, stream):
    shown = await show(stream(ChatLlamaVision(**server.model_options), LlamaVision(**server.model_options)))
    words, facts = printed(capsys)
    assert (words, shown.text) == (TEXT, TEXT)
    assert re.fullmatch(FACTS + TIMES, facts)


@pytest.mark.parametrize("ask", WHOLE.values(), ids=WHOLE)
def test_whole_answers(server, capsys, ask):
    shown = show(ask(ChatLlamaVision(**server.model_options), LlamaVision(**server.model_options)))
    assert (shown.text, shown.seconds) == (TEXT, None)
    words, facts = printed(capsys)
    assert words == TEXT
    assert re.fullmatch(FACTS, facts)


async def test_a_whole_answer_that_is_to_be_awaited(server, capsys):
    shown = await show(ChatLlamaVision(**server.model_options).ainvoke(QUESTION))
    assert shown.text == printed(capsys)[0] == TEXT
    assert shown.seconds > 0


def test_our_own_events_and_replies(server, capsys):
    provider = server.provider
    request = ChatRequest(provider.models[0].id, (Message("user", (Text("What is it?"),)),))
    backend = create_backend(provider)
    assert show(backend.stream(request)).reply.usage == TOLD
    assert show(backend.complete(request)).reply.text == TEXT
    assert capsys.readouterr().out.count(TEXT) == 2


def test_a_chain_of_texts(server, capsys):
    shown = show((ChatLlamaVision(**server.model_options) | StrOutputParser()).stream(QUESTION))
    words, facts = printed(capsys)
    assert (words, shown.text) == (TEXT, TEXT)
    assert facts.startswith("tokens not told, cost not told, ")


def test_words_appear_as_they_come(capsys):
    seen = []

    def pieces():
        for piece in ("One ", "two ", "three"):
            yield piece
            seen.append(capsys.readouterr().out)

    show(pieces())
    assert seen == ["One ", "two ", "three"]


def test_engines_of_llamaindex(server, capsys):
    llm = LlamaVision(**server.model_options)
    nodes = [NodeWithScore(node=TextNode(text="A drawing."), score=1.0)]
    for streaming in (False, True):
        synthesizer = get_response_synthesizer(llm=llm, streaming=streaming)
        assert show(synthesizer.synthesize("What is it?", nodes)).text == TEXT
    engine = SimpleChatEngine.from_defaults(llm=llm, memory=ChatMemoryBuffer.from_defaults())
    assert show(engine.stream_chat("What is it?")).text == TEXT
    assert show(engine.chat("What is it?")).text == TEXT
    assert show(AgentChatResponse(TEXT)).text == TEXT
    assert capsys.readouterr().out.count(TEXT) == 5


async def test_engines_of_llamaindex_in_an_event_loop(server, capsys):
    llm = LlamaVision(**server.model_options)
    engine = SimpleChatEngine.from_defaults(llm=llm, memory=ChatMemoryBuffer.from_defaults())
    assert (await show(engine.astream_chat("What is it?"))).text == TEXT
    assert (await show(await engine.astream_chat("What is it?"))).text == TEXT
    nodes = [NodeWithScore(node=TextNode(text="A drawing."), score=1.0)]
    synthesizer = get_response_synthesizer(llm=llm, streaming=True)
    assert (await show(synthesizer.asynthesize("What is it?", nodes))).text == TEXT
    assert capsys.readouterr().out.count(TEXT) == 3


CALLS = [tool_call("look", image="a"), tool_call("add", a=1, b=[2])]


@pytest.mark.parametrize(
    "ask", [*STREAMS.values(), *WHOLE.values()], ids=[*STREAMS, *map("whole {}".format, WHOLE)]
)
def test_calls_of_tools_get_a_line_each(capsys, ask):
    def look(image: str) -> str:
        """Look at it"""
        return image

    with ScriptedServer(Answer("Let me see.", tuple(CALLS))) as server:
        langchain = ChatLlamaVision(**server.model_options).bind_tools([look])
        shown = show(ask(langchain, LlamaVision(**server.model_options)))
    words, _ = printed(capsys)
    calls = ['-> look({"image": "a"})', '-> add({"a": 1, "b": [2]})']
    assert words.splitlines() == ["Let me see.", *calls]
    assert [call.parsed() for call in shown.reply.tool_calls] == [{"image": "a"}, {"a": 1, "b": [2]}]


def test_an_agents_turns_are_shown_in_their_order(capsys):
    def look(image: str) -> str:
        """Look at it"""
        return f"{image} is blue"

    script = [
        Answer("Let me see.", (tool_call("look", image="it"),), usage=TOLD),
        Answer("Blue.", usage=TOLD),
    ]
    with ScriptedServer(*script) as server:
        agent = create_agent(ChatLlamaVision(**server.model_options), [look])
        shown = show(agent.stream({"messages": QUESTION}, stream_mode="messages"))
    words, facts = printed(capsys)
    assert words.splitlines() == ["Let me see.", '-> look({"image": "it"})', "Blue."]
    assert facts.startswith("24 tokens in, 10 out, 0.000240 USD")
    assert (shown.text, shown.reply.tool_calls) == ("Blue.", ())
    assert shown.full_text == words


def test_a_stream_that_breaks_off_stays_and_raises(capsys):
    closed = []

    def pieces():
        try:
            yield "One "
            raise ConnectionError("gone")
        finally:
            closed.append(True)

    with pytest.raises(ConnectionError, match="gone"):
        show(pieces())
    words, facts = printed(capsys)
    assert words == "One "
    assert facts.endswith("broken off by ConnectionError")
    assert closed


async def test_an_async_stream_that_is_stopped_is_closed(capsys):
    closed = asyncio.Event()

    async def pieces():
        try:
            yield "One "
            await asyncio.sleep(60)
        finally:
            closed.set()

    showing = asyncio.create_task(show(pieces()))
    await asyncio.sleep(0.05)
    showing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await showing
    assert closed.is_set()
    assert "broken off by CancelledError" in capsys.readouterr().out


def test_a_stream_is_closed_when_something_in_it_can_not_be_shown(capsys):
    closed = []

    def pieces():
        try:
            yield "One "
            yield 7
        finally:
            closed.append(True)

    with pytest.raises(TypeError, match=r"A int can't be shown as an answer"):
        show(pieces())
    assert closed == [True]
    assert "broken off by TypeError" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [None, 7, object(), ["a"], {"messages": []}])
def test_what_is_no_answer_is_refused(wrong, capsys):
    with pytest.raises(TypeError, match=r"can't be shown as an answer\. Give what"):
        show(wrong)
    assert capsys.readouterr().out == ""


def test_an_empty_stream(capsys):
    shown = show(iter(()))
    assert (shown.text, shown.time_to_first_token) == ("", None)
    assert re.fullmatch(r"\[tokens not told, cost not told, \d\.\d\d s\]\n", capsys.readouterr().out)


def test_words_that_were_taken_back_begin_a_new_line(capsys):
    show(iter([Reply("One two"), Reply("One three")]))
    assert printed(capsys)[0] == "One two\nOne three"


def test_control_characters_do_nothing(capsys):
    show(iter(["a\x1b[2J", "\rb"]))
    assert printed(capsys)[0] == "a\\x1b[2J\\x0db"


def test_a_terminal_gets_all_of_a_long_answer(capsys):
    words = "x" * 30_000
    shown = show(iter([words[:15_000], words[15_000:]]))
    assert printed(capsys)[0] == words
    assert str(shown).startswith("x" * 20_000 + "... (10,000 characters more)")


def test_what_was_shown_can_be_printed_and_looked_at():
    shown = show(Reply("<b>", (ToolCall(None, "look", "{}"),), Usage(1, 2)))
    assert str(shown) == "<b>\n-> look({})\n[1 tokens in, 2 out, cost not told]"
    assert repr(shown) == "<DisplayedReply: 3 characters, 1 tokens in, 2 out, cost not told>"
    assert "&lt;b&gt;\n-&gt; look({})" in shown._repr_html_()


def test_providers_that_tell_usage_in_several_chunks_are_added_up(capsys):
    from langchain_core.messages import AIMessageChunk

    def usage(tokens_in, tokens_out):
        return {
            "input_tokens": tokens_in,
            "output_tokens": tokens_out,
            "total_tokens": tokens_in + tokens_out,
        }

    chunks = [
        AIMessageChunk("Hi", id="1", usage_metadata=usage(9, 0)),
        AIMessageChunk("!", id="1", usage_metadata=usage(0, 2)),
    ]
    assert show(iter(chunks)).reply.usage == Usage(9, 2)
    assert printed(capsys)[0] == "Hi!"
