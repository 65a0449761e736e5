"""Documents of a request become images of their pages, once it is known that the request is not refused for another reason."""

import asyncio

import pytest

from llama_vision import ChatRequest, Document, Image, Message, Text, ToolCall, ToolResult
from llama_vision.adaptation.pipeline import aadapt_request, adapt_request
from llama_vision.adaptation.token_estimate import estimate_tokens
from llama_vision.core.errors import (
    ConfigurationError,
    DocumentError,
    ImageError,
    MissingKeyError,
    UnsupportedInputError,
)
from llama_vision.core.request import SamplingParams
from llama_vision.dialects.chat_completions.dialect import ChatCompletionsDialect
from llama_vision.dialects.workers_ai.dialect import WorkersAiDialect
from llama_vision.images.fetch_policy import FetchPolicy
from llama_vision.images.settings import ImageSettings
from llama_vision.providers import find_provider
from tests.images.damaged import tiff_of
from tests.images.image_server import ImageServer, answer
from tests.images.images import as_image, sketch
from tests.pdfs import color_content, pdf_of, text_pdf

DEEPINFRA, OLLAMA, NVIDIA = (find_provider(name) for name in ("deepinfra", "ollama", "nvidia"))
REPORT = Document(data=text_pdf("one", "two", "three"), name="reports/report.pdf")
DRAWING = Document(data=pdf_of(color_content(200, 0, 0)), name="drawing.pdf")
TIFF = as_image(sketch()).data
LABELS = "report.pdf, page 1 of 3:\none\n\nreport.pdf, page 2 of 3:\ntwo\n\nreport.pdf, page 3 of 3:\nthree"
QUESTION = Text("What is it?")


def ask(*parts, **fields):
    return ChatRequest(model="m", messages=(Message("user", parts),), **fields)


def adapt(request, provider=DEEPINFRA, **settings):
    return adapt_request(provider, request, ImageSettings(**settings), api_key="key").request


def kinds(parts):
    return [part.text if isinstance(part, Text) else type(part).__name__ for part in parts]


def test_pages_come_before_the_text_that_names_them():
    adapted = adapt(ask(REPORT, QUESTION))
    assert kinds(adapted.messages[0].parts) == ["Image", "Image", "Image", LABELS, "What is it?"]
    other = asyncio.run(aadapt_request(DEEPINFRA, ask(REPORT, QUESTION), ImageSettings(), api_key="key"))
    assert other.request == adapted


def test_images_of_a_message_stay_side_by_side():
    """Text attends to the images just before it, and not to those before other text."""
    adapted = adapt(ask(DRAWING, as_image(sketch()), REPORT, QUESTION))
    assert kinds(adapted.messages[0].parts) == [
        *["Image"] * 5,
        f"drawing.pdf, page 1 of 1\n\n{LABELS}",
        QUESTION.text,
    ]


def test_without_text_layer_there_are_only_the_names():
    (message,) = adapt(ask(REPORT, QUESTION), document_text=False).messages
    assert kinds(message.parts)[3] == "\n\n".join(f"report.pdf, page {number} of 3" for number in (1, 2, 3))


def test_chosen_pages_and_password():
    secret = Document(data=text_pdf("a", "b", password="pw"), pages="2", password="pw")
    assert kinds(adapt(ask(secret)).messages[0].parts) == ["Image", "document, page 2 of 2:\nb"]


def test_a_tool_may_return_a_document():
    messages = (
        Message("user", (QUESTION,)),
        Message("assistant", (ToolCall("c1", "look", "{}"),)),
        Message("tool", (ToolResult("c1", (Text("Here:"), REPORT)),)),
    )
    adapted = adapt(ChatRequest(model="m", messages=messages))
    assert len(adapted.images()) == 3
    assert LABELS in adapted.messages[2].parts[0].text


def test_an_image_that_is_a_tiff_of_several_pages_is_shown_whole():
    several = Image(data=tiff_of(sketch(), sketch(40, 60)), media_type="image/tiff")
    single = Image(data=tiff_of(sketch()), media_type="image/tiff")
    assert kinds(adapt(ask(several, QUESTION)).messages[0].parts)[:2] == ["Image", "Image"]
    assert kinds(adapt(ask(single, QUESTION)).messages[0].parts) == ["Image", QUESTION.text]


def test_a_tiff_of_several_pages_behind_an_image_url_is_refused_by_name():
    with ImageServer() as server:
        server.answers["/a.tiff"] = [answer(tiff_of(sketch(), sketch()))]
        image = Image(url=f"http://127.0.0.1:{server.port}/a.tiff")
        with pytest.raises(ImageError, match="TIFF of 2 pages"):
            adapt(ask(image, QUESTION), OLLAMA, fetch=FetchPolicy(private_networks=True))


def test_more_pages_than_the_limit_are_refused():
    with pytest.raises(DocumentError, match=r"Message 0 \(user\): 3 pages of report.pdf .* limit of 2"):
        adapt(ask(REPORT), document_max_pages=2)
    with pytest.raises(ConfigurationError, match="document_max_pages is 0"):
        ImageSettings(document_max_pages=0)


@pytest.mark.parametrize("provider", [OLLAMA, NVIDIA])
def test_where_one_image_is_taken_the_error_says_what_to_do(provider):
    with pytest.raises(UnsupportedInputError, match=r"3 images.*image_policy='grid'.*pages='1'"):
        adapt(ask(REPORT, QUESTION), provider)
    assert len(adapt(ask(REPORT, QUESTION), provider, on_too_many="grid").images()) == 1
    assert len(adapt(ask(REPORT, QUESTION), provider, on_too_many="first").images()) == 1
    assert len(adapt(ask(Document(data=REPORT.data, pages="2"), QUESTION), provider).images()) == 1


def test_a_document_that_is_damaged_is_named_with_its_message():
    with pytest.raises(DocumentError, match=r"^Message 0 \(user\): a.pdf can't be opened"):
        adapt(ask(Document(data=b"%PDF-1.7", name="a.pdf")))


def test_nothing_is_downloaded_or_rendered_for_a_request_that_is_refused():
    with ImageServer() as server:
        server.answers["/a.pdf"] = [answer(REPORT.data)]
        document = Document(url=f"http://127.0.0.1:{server.port}/a.pdf")
        fetch = FetchPolicy(private_networks=True)
        with pytest.raises(UnsupportedInputError):
            adapt(ask(document, sampling=SamplingParams(temperature=99)), fetch=fetch)
        with pytest.raises(MissingKeyError):
            adapt_request(NVIDIA, ask(document), ImageSettings(fetch=fetch), api_key="")
        with pytest.raises(UnsupportedInputError, match="images"):
            adapt(ask(document), find_provider("cloudflare-openai"), fetch=fetch)
        assert server.connections == 0
        assert len(adapt(ask(document), fetch=fetch).images()) == 3


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_only_users_and_tools_have_documents(role):
    messages = (Message(role, (REPORT,)), Message("user", (QUESTION,)))
    with pytest.raises(UnsupportedInputError, match="image"):
        adapt(ChatRequest(model="m", messages=messages))


@pytest.mark.parametrize("dialect", [ChatCompletionsDialect(), WorkersAiDialect()])
def test_a_dialect_takes_only_pages(dialect):
    with pytest.raises(UnsupportedInputError, match="images of its pages"):
        dialect.encode(ask(REPORT, QUESTION), stream=False)


def test_tokens_of_a_document_are_those_of_its_pages():
    counted = estimate_tokens([Message("user", (REPORT,))])
    assert 3 * 4 * 1601 <= counted < 3 * 4 * 1601 + 50
    assert estimate_tokens([Message("user", (Document(url="https://example.com/a.pdf"),))]) == 4 * 1601 + 4


def test_a_document_has_data_or_a_url():
    for given in ({}, {"data": b"", "url": "https://example.com"}):
        with pytest.raises(ValueError, match="either data or a url"):
            Document(**given)
