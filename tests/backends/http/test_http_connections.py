"""Connections that break, addresses that can't be, proxies, and what a process keeps open."""

import asyncio
import json
import os
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from llama_vision import use_aiohttp
from llama_vision.backends import create_backend
from llama_vision.backends.http import connection_pools
from llama_vision.core.errors import (
    ConfigurationError,
    ConnectionFailedError,
    LlamaVisionError,
    ServerError,
    TruncatedStreamError,
)
from llama_vision.providers import find_provider
from tests.backends.http.raw_server import RawServer, chat_response
from tests.emulator import HANG_UP, Answer, Emulator, completion
from tests.emulator.asking import WAYS, ask, backend_for, question

PROXIES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy")


@pytest.fixture
def _no_pools(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin with no clients, and with no proxies in the environment."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    with monkeypatch.context() as patch:
        patch.setattr(connection_pools, "_sync_pools", {})
        yield
        connection_pools._close_all()


def second_is_dropped(server: RawServer, connection: socket.socket) -> None:
    """Answer the first request of a connection, and close it without a word at the second."""
    if len(server.requests) % 2:
        connection.sendall(chat_response("Hi"))
    else:
        connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("own", [False, True], ids=["our pools", "own client"])
@pytest.mark.parametrize("way", ["complete", "stream"])
def test_a_connection_that_was_closed_meanwhile_costs_no_retry(way: str, own: bool):
    with RawServer(second_is_dropped) as server, httpx.Client() as client:
        backend = server.backend(max_retries=0, http_client=client if own else None)
        assert [ask(backend, way).text for _ in range(3)] == ["Hi"] * 3
        assert len(server.requests) == 5  # two were dropped


@pytest.mark.parametrize("carrier", ["httpx", "aiohttp", "own client"])
async def test_a_connection_that_was_closed_meanwhile_costs_no_retry_of_an_asynchronous_call(carrier: str):
    from tests.emulator.asking import aask

    use_aiohttp(enabled=carrier == "aiohttp")
    try:
        with RawServer(second_is_dropped) as server:
            async with httpx.AsyncClient() as client:
                own = client if carrier == "own client" else None
                backend = server.backend(max_retries=0, http_async_client=own)
                assert [(await aask(backend, "acomplete")).text for _ in range(3)] == ["Hi"] * 3
                await backend.aclose()
    finally:
        use_aiohttp(enabled=False)


@pytest.mark.parametrize("headers", [{}, {"Host": "proxy.example", "content-length": "1"}])
@pytest.mark.parametrize("way", ["complete", "acomplete"])
def test_host_and_length_are_named_once(way: str, headers: dict[str, str]):
    with RawServer(lambda _, connection: connection.sendall(chat_response("Hi"))) as server:
        assert ask(server.backend(headers=headers), way).text == "Hi"
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
        found = Counter(line.partition(b": ")[::2] for line in head.lower().split(b"\r\n")[1:])
        host = headers.get("Host", server.base_url.split("/")[2]).encode()
        assert {
            name: value for (name, value), _ in found.items() if name in (b"host", b"content-length")
        } == {
            b"host": host,
            b"content-length": b"%d" % len(body),
        }
        assert len({name for name, _ in found}) == found.total()


@pytest.mark.parametrize("way", ["complete", "acomplete"])
async def test_an_idle_connection_that_the_server_has_closed_is_not_tried(
    way: str, caplog: pytest.LogCaptureFixture
):
    def answer_and_close(_: RawServer, connection: socket.socket) -> None:
        connection.sendall(chat_response("Hi"))
        connection.close()

    caplog.set_level("INFO", "llama_vision")
    with RawServer(answer_and_close) as server:
        backend = server.backend()
        for _ in range(3):
            reply = backend.complete(question()) if way == "complete" else await backend.acomplete(question())
            assert reply.text == "Hi"
            await asyncio.sleep(0.05)  # until the end of the stream has arrived
        assert server.num_connections == 3
        await backend.aclose()
    assert "closed an idle connection" not in caplog.text


@pytest.mark.parametrize("way", WAYS)
def test_a_new_connection_that_is_dropped_is_not_sent_again(way: str):
    with RawServer(lambda _, connection: connection.shutdown(socket.SHUT_RDWR)) as server:
        with pytest.raises(ConnectionFailedError):
            ask(server.backend(max_retries=0), way)
        assert len(server.requests) == 1


def test_it_is_sent_again_once_and_on_a_new_connection_only():
    """Three idle connections, all of which their server drops at their next request."""
    together, answered = threading.Barrier(3), set()

    def answer(_: RawServer, connection: socket.socket) -> None:
        if id(connection) in answered:
            connection.shutdown(socket.SHUT_RDWR)
            return
        if len(answered) < 3:
            together.wait(5)  # so that each call has a connection of its own
        answered.add(id(connection))
        connection.sendall(chat_response("Hi"))

    with RawServer(answer) as server, ThreadPoolExecutor(3) as pool:
        backend = server.backend(max_retries=0)
        assert [reply.text for reply in pool.map(ask, [backend] * 3, ["complete"] * 3)] == ["Hi"] * 3
        assert ask(backend, "complete").text == "Hi"
        assert (len(server.requests), server.num_connections) == (5, 4)


@pytest.mark.parametrize("way", ["complete", "acomplete"])
def test_a_whole_reply_that_breaks_off_is_told_at_once_with_what_arrived(emulator: Emulator, way: str):
    body = json.dumps(completion("Hello there, how are you?")).encode()
    cut = body.index(b"how are")
    headers = {"content-type": "application/json", "content-length": str(len(body))}
    emulator.script(Answer((body[:cut], HANG_UP), headers=headers))
    with pytest.raises(TruncatedStreamError) as caught:
        ask(backend_for(emulator, max_retries=2), way)
    assert len(emulator.requests) == 1
    assert caught.value.partial is not None
    assert caught.value.partial.text == "Hello there, "


def test_an_error_that_breaks_off_is_what_its_status_says(emulator: Emulator):
    emulator.script(Answer((b'{"error": ', HANG_UP), 500, {"content-length": "100"}))
    with pytest.raises(ServerError):
        ask(backend_for(emulator, max_retries=0), "complete")


@pytest.mark.parametrize("own", [False, True], ids=["our pools", "own client"])
@pytest.mark.parametrize("name", ["Authorization", "authorization", "AUTHORIZATION"])
def test_a_header_of_the_users_takes_the_place_of_ours_in_any_spelling(
    emulator: Emulator, name: str, own: bool
):
    emulator.api_key = None
    headers = {name: "Token mine", "USER-agent": "me"}
    with httpx.Client() as client:
        ask(
            backend_for(emulator, headers=headers, http_client=client if own else None, api_key="k"),
            "complete",
        )
    raw = emulator.requests[0].headers
    assert (raw["authorization"], raw["user-agent"]) == ("Token mine", "me")


def test_a_header_of_the_users_own_client_takes_the_place_of_the_key(emulator: Emulator):
    emulator.api_key = None
    with httpx.Client(headers={"Authorization": "Token mine"}) as client:
        ask(backend_for(emulator, http_client=client, api_key="k"), "complete")
    assert emulator.requests[0].headers["authorization"] == "Token mine"


@pytest.mark.parametrize(
    ("address", "match"),
    [
        ("http://user:secret-word@127.0.0.1/v1", "user name or password"),
        ("http://user:secret/word@127.0.0.1:1/v1", "can't be used"),
        ("http://127.0.0.1:99999/v1", "no port"),
        ("http://127.0.0.1:0/v1", "no port"),
        ("http://" + "a" * 64 + ".example/v1", "can't be used"),
        ("http://a..b/v1", "can't be used"),
        ("http://\ud800/v1", "can't be used"),
        ("http://xn--a/v1", "can't be used"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused_when_it_is_given(address: str, match: str):
    with pytest.raises(ConfigurationError, match=match) as caught:
        create_backend(find_provider("deepinfra"), base_url=address)
    assert "secret" not in f"{caught.value} {caught.value.__cause__}"


def test_a_query_of_the_address_follows_the_path(emulator: Emulator):
    ask(backend_for(emulator, base_url=emulator.base_url + "/?api-version=1"), "complete")
    assert emulator.requests[0].path == "/v1/openai/chat/completions"


@pytest.mark.parametrize(
    "options",
    [
        *(
            {name: value}
            for name in ("timeout", "deadline")
            for value in (-1, 0, float("nan"), float("inf"), 1e12)
        ),
        {"timeout": httpx.Timeout(5, read=-1)},
        {"max_retries": -1},
        {"max_retries": 1.5},
        {"headers": {"x": "a\nb"}},
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_is_refused_when_it_is_made(options: dict):
    with pytest.raises(ConfigurationError, match=rf"{next(iter(options)).removesuffix('s')}"):
        create_backend(find_provider("deepinfra"), **options)


@pytest.mark.usefixtures("_no_pools")
@pytest.mark.parametrize("proxy", ["socks9://127.0.0.1:1", "ftp://127.0.0.1:1", "http://127.0.0.1:port"])
def test_a_proxy_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, proxy: str):
    monkeypatch.setenv("HTTP_PROXY", proxy)
    backend = create_backend(find_provider("openai-compatible"), base_url="http://192.0.2.1/v1")
    with pytest.raises(ConfigurationError, match="HTTP_PROXY"):
        ask(backend, "complete")


@pytest.mark.usefixtures("_no_pools")
@pytest.mark.parametrize(
    ("name", "content"),
    [("SSL_CERT_FILE", None), ("SSL_CERT_FILE", "no certificate"), ("SSL_CERT_DIR", None)],
)
def test_certificates_that_cannot_be_read_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path, name, content):
    path = tmp_path / "certificates"
    if content:
        path.write_text(content)
    for each in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, str(path))
    connection_pools._ssl_context.cache_clear()
    try:
        with pytest.raises(LlamaVisionError, match=name):
            ask(
                create_backend(find_provider("openai-compatible"), base_url="http://192.0.2.1/v1"),
                "acomplete",
            )
    finally:
        connection_pools._ssl_context.cache_clear()


def test_one_of_several_folders_of_certificates_is_enough(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", os.pathsep.join([str(tmp_path / "none"), str(tmp_path)]))
    connection_pools._ssl_context.cache_clear()
    try:
        assert connection_pools._ssl_context() is connection_pools._ssl_context()
    finally:
        connection_pools._ssl_context.cache_clear()


@pytest.mark.usefixtures("_no_pools")
@pytest.mark.parametrize("carrier", ["httpx", "aiohttp"])
@pytest.mark.parametrize("way", ["complete", "acomplete"])
def test_calls_go_through_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, way: str, carrier: str
):
    use_aiohttp(enabled=carrier == "aiohttp")
    try:
        with RawServer(lambda _, connection: connection.sendall(chat_response("proxied"))) as proxy:
            monkeypatch.setenv("HTTP_PROXY", proxy.base_url.removesuffix("/v1"))
            backend = create_backend(
                find_provider("openai-compatible"), base_url="http://192.0.2.1/v1", timeout=5
            )
            assert ask(backend, way).text == "proxied"
            assert proxy.requests[0].startswith(b"POST http://192.0.2.1/v1/chat/completions ")
    finally:
        use_aiohttp(enabled=False)


@pytest.mark.usefixtures("_no_pools")
def test_a_proxy_that_aiohttp_does_not_know_is_refused_and_not_gone_round(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    use_aiohttp()
    try:
        with pytest.raises(ConfigurationError, match="socks5"):
            ask(create_backend(find_provider("openai-compatible"), base_url="http://192.0.2.1/v1"), "astream")
    finally:
        use_aiohttp(enabled=False)


@pytest.mark.usefixtures("_no_pools")
def test_many_addresses_leave_few_pools_open():
    with RawServer(lambda _, connection: connection.sendall(chat_response("Hi"))) as server:
        for number in range(50):
            address = f"{server.base_url}/{number}"
            assert ask(create_backend(find_provider("openai-compatible"), base_url=address), "complete").text
        assert len(connection_pools._sync_pools) <= 32
        assert address in connection_pools._sync_pools
        connection_pools._close_all()
