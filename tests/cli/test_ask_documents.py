"""`llama-vision ask` about PDFs and TIFFs: pages, passwords, stdin, addresses."""

import pytest

from llama_vision.cli import main
from llama_vision.testing import ScriptedServer
from tests.images.damaged import tiff_of
from tests.images.images import sketch
from tests.pdfs import text_pdf

PDF = text_pdf("one", "two", "three")


@pytest.fixture
def report(tmp_path):
    path = tmp_path / "report.pdf"
    path.write_bytes(PDF)
    return path


@pytest.fixture
def ask(emulator, monkeypatch, capsys):
    """Run `ask` in this process, which is faster, and return exit code, requests and stderr."""
    monkeypatch.setenv("DEEPINFRA_TOKEN", emulator.api_key)

    def run(*words, provider="deepinfra"):
        hosted = ("--provider", provider, "--base-url", emulator.base_url)
        code = main(["ask", *hosted, *map(str, words)])
        return code, emulator.requests, capsys.readouterr().err

    return run


def texts(request):
    content = request.body["messages"][0]["content"]
    return [block["text"] for block in content if block["type"] == "text"]


def test_pages_of_a_pdf(ask, report):
    code, (request,), _ = ask(report, "What?", "--pages", "2-3")
    assert code == 0
    assert len(request.images) == 2
    assert texts(request) == ["report.pdf, page 2 of 3:\ntwo\n\nreport.pdf, page 3 of 3:\nthree", "What?"]


def test_all_pages_of_a_tiff(ask, tmp_path):
    path = tmp_path / "scan.tiff"
    path.write_bytes(tiff_of(sketch(), sketch()))
    code, (request,), _ = ask(path, "What?")
    assert (code, len(request.images)) == (0, 2)


def test_a_pdf_from_the_input(ask, report, monkeypatch):
    with report.open() as opened:
        monkeypatch.setattr("sys.stdin", opened)
        code, (request,), _ = ask("-", "What?", "--pages", "1")
    assert (code, len(request.images)) == (0, 1)


def test_a_password(ask, tmp_path):
    path = tmp_path / "secret.pdf"
    path.write_bytes(text_pdf("secret", password="pw"))
    assert "is encrypted. Pass its password" in ask(path, "What?")[2]
    code, (request,), _ = ask(path, "What?", "--password", "pw")
    assert (code, len(request.images)) == (0, 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{}", "What?", "--pages", "4"], "report.pdf has 3 pages, and pages='4' asks for others"),
        (["{}", "What?", "--max-pages", "2"], "limit of 2"),
        (["{}", "What?", "--max-pages", "0"], "document_max_pages is 0"),
        (["What?", "--pages", "1"], "--pages and --password are for PDFs and TIFFs"),
        (["{}"], "the question is missing"),
        (["http://127.0.0.1:1/a.pdf", "What?"], "loopback"),
        (["http://127.0.0.1:1/a", "What?", "--pages", "1"], "loopback"),
    ],
)
def test_what_can_not_be_is_said_before_anything_is_sent(ask, report, words, said):
    code, requests, err = ask(*[word.format(report) for word in words])
    assert (code, requests) == (2, [])
    assert said in err


def test_one_image_providers_take_a_page_or_a_sheet(report, capsys):
    with ScriptedServer("A sheet.", "A page.") as server:
        words = ["ask", "--provider", "ollama", "--base-url", server.base_url, str(report), "What?"]
        assert main(words) == 2
        assert "image_policy='grid'" in capsys.readouterr().err
        assert main([*words, "--image-policy", "grid"]) == 0
        assert main([*words, "--pages", "3"]) == 0
        assert [len(request.images) for request in server.requests] == [1, 1]
