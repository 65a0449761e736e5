"""What the standard suites need around them: no network, and no test left out without a reason."""

from types import SimpleNamespace

import pytest
from langchain_tests.integration_tests import chat_models as suite

from llama_vision.demo import SAMPLE_IMAGES
from llama_vision.images import download
from tests.langchain.standard.endpoints import Endpoint, left_out

IMAGE = SAMPLE_IMAGES["circle"].read_bytes()


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """The suite has an image at GitHub, which it downloads, and has us download; both get one of ours."""

    async def downloaded(url, options, resolve):
        assert url.startswith("https://raw.githubusercontent.com/")
        return IMAGE

    monkeypatch.setattr(download, "download", downloaded)
    monkeypatch.setattr(suite, "httpx", SimpleNamespace(get=lambda *_, **__: SimpleNamespace(content=IMAGE)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Fail what is skipped without a reason that the endpoint has."""
    report = yield
    skipped = report.skipped and not hasattr(report, "wasxfail") and isinstance(item.instance, Endpoint)
    if skipped and item.originalname not in left_out(item.instance.record()):
        report.outcome, report.longrepr = "failed", f"left out, and nobody said why: {report.longrepr}"
    return report
