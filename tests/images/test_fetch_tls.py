"""Over TLS the name is verified, though the connection is made to an address that was checked."""

import asyncio
import ssl

import pytest
import trustme

from llama_vision.core.errors import ImageError
from llama_vision.core.messages import Image
from llama_vision.images import download
from llama_vision.images.fetch import fetch_image
from llama_vision.images.fetch_policy import FetchPolicy
from tests.images.image_server import PNG, ImageServer, answer, redirect

LOCAL = FetchPolicy(private_networks=True)


@pytest.fixture(params=["sync", "async"])
def get(request):
    """Either way to fetch."""
    if request.param == "sync":
        return fetch_image
    return lambda *args, **kwargs: asyncio.run(asyncio.to_thread(fetch_image, *args, **kwargs))


async def resolve(host, port):
    return ["127.0.0.1"]


def refusal(get, url):
    with pytest.raises(ImageError) as caught:
        get(Image(url=url), LOCAL, resolve=resolve)
    return str(caught.value)


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(autouse=True)
def trusted(authority, tmp_path, monkeypatch):
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    download._ssl_context.cache_clear()
    yield
    download._ssl_context.cache_clear()


@pytest.fixture
def tls_server(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("images.example").configure_cert(context)
    with ImageServer(context) as server:
        server.answers["/a.png"] = [answer(PNG)]
        yield server


def test_the_right_name(get, tls_server):
    url = tls_server.url(host="images.example")
    assert get(Image(url=url), LOCAL, resolve=resolve).data == PNG


@pytest.mark.parametrize("host", ["other.example", "a.images.example", "127.0.0.1"])
def test_a_wrong_name(get, tls_server, host):
    text = refusal(get, tls_server.url(host=host))
    assert "CERTIFICATE_VERIFY_FAILED" in text
    assert not tls_server.heads


def test_an_address_with_a_certificate(get, authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with ImageServer(context) as server:
        server.answers["/a.png"] = [answer(PNG)]
        assert get(Image(url=server.url()), LOCAL).data == PNG


def test_an_authority_that_is_not_known(get, tls_server, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    download._ssl_context.cache_clear()
    url = tls_server.url(host="images.example")
    assert "CERTIFICATE_VERIFY_FAILED" in refusal(get, url)
    assert not tls_server.heads


def test_no_redirect_to_http(get, tls_server):
    with ImageServer() as other:
        tls_server.answers["/a.png"] = redirect(other.url())
        assert "from https to http" in refusal(get, tls_server.url(host="images.example"))
        assert not other.connections


def test_certificates_that_cannot_be_read_are_named(get, monkeypatch, tmp_path):
    download._ssl_context.cache_clear()
    (tmp_path / "certificates.pem").write_text("no certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificates.pem"))
    assert "certificates of SSL_CERT_FILE" in refusal(get, "https://example.com/a.png")
