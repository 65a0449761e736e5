"""Who may use the server, and what of hostile input: keys, origins, rebound names, addresses of images, paths."""

import hmac
import socket

import pytest

from llama_vision.core.errors import ConfigurationError
from llama_vision.serve import ServeSettings

HI = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", HI),
        ("/api/chat", {**HI, "max_tokens": None}),
        ("/api/generate", {}),
        ("/api/show", {}),
    ],
)
@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}]
)
@pytest.mark.slow_beyond(4)
def test_without_the_key_nothing_is_read(serving, path, body, headers):
    server = serving(api_key="secret")
    refused = server.post(path, body, headers=headers)
    assert refused.status_code == 401
    assert "Bearer" in refused.text
    assert "secret" not in refused.text


def test_with_the_key_it_answers_and_only_health_and_page_need_none(serving):
    server = serving(api_key="secret")
    for headers in ({"Authorization": "Bearer secret"}, {"x-api-key": "secret"}):
        assert server.post("/v1/chat/completions", HI, headers=headers).status_code == 200
    open_paths = [
        path
        for path in ("/health", "/", "/metrics", "/v1/models", "/api/tags")
        if server.get(path).is_success
    ]
    assert open_paths == ["/health", "/"]


def test_keys_are_compared_in_constant_time(serving, monkeypatch):
    compared = []
    monkeypatch.setattr(hmac, "compare_digest", lambda *keys: compared.append(keys) or False)
    assert serving(api_key="é").post("/api/show", {}, headers={"x-api-key": "wrong"}).status_code == 401
    assert compared == [(b"wrong", "é".encode())]


def test_a_public_address_needs_a_key_or_a_word():
    with pytest.raises(ConfigurationError, match="--no-auth"):
        ServeSettings(host="0.0.0.0")  # noqa: S104 - refused
    assert ServeSettings(host="0.0.0.0", no_auth=True)  # noqa: S104 - not served
    assert "secret" not in repr(ServeSettings(host="::", api_key="secret"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("port", 70_000), ("max_requests", 0), ("timeout_s", 0), ("timeout_s", float("nan")), ("api_key", " ")],
)
def test_a_setting_that_can_not_be_is_refused(name, value):
    with pytest.raises(ConfigurationError, match=name):
        ServeSettings(**{name: value})


def test_web_pages_of_other_origins_are_kept_out(served, serving):
    for path in ("/v1/models", "/api/tags"):
        refused = served.get(path, headers={"Origin": "https://evil.example"})
        assert refused.status_code == 403
        assert "access-control-allow-origin" not in refused.headers
    assert served.get("/v1/models", headers={"Origin": served.url}).status_code == 200
    server = serving(allowed_origins=("http://localhost:3000",))
    allowed = server.get("/v1/models", headers={"Origin": "http://localhost:3000"})
    assert allowed.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert server.get("/v1/models", headers={"Origin": "https://evil.example"}).status_code == 403


def test_a_host_name_that_was_made_to_point_here_is_kept_out(served):
    """DNS rebinding: the browser takes the page's own name for the server's."""
    assert served.get("/v1/models", headers={"Host": "evil.example"}).status_code == 403
    port = served.url.rpartition(":")[2]
    assert served.get("/v1/models", headers={"Host": f"localhost:{port}"}).status_code == 200


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:1/x.png", "http://169.254.169.254/", "http://[::1]/", "file:///etc/passwd"]
)
def test_images_are_not_fetched_from_private_addresses(served, address):
    content = [{"type": "image_url", "image_url": {"url": address}}, {"type": "text", "text": "?"}]
    refused = served.post(
        "/v1/chat/completions", {"model": "tiny", "messages": [{"role": "user", "content": content}]}
    )
    assert refused.status_code == 400
    assert "root:" not in refused.text


@pytest.mark.parametrize(
    "path", ["/v1/models/../../etc/passwd", "/v1/models/%2e%2e%2f%2e%2e", "/api/%00", "/v1/nothing"]
)
def test_paths_lead_nowhere(served, path):
    assert served.get(path).status_code == 404


def test_a_flood_of_headers_ends_the_connection(served):
    port = int(served.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        received = b""
        try:
            for number in range(50_000):
                connection.sendall(b"X-%d: %s\r\n" % (number, b"a" * 100))
            received = connection.recv(1000)
        except (ConnectionResetError, BrokenPipeError):
            pass
        assert b" 200 " not in received
    assert served.get("/health").status_code == 200


def test_a_head_that_is_too_large_but_comes_at_once_is_refused(served):
    headers = {f"X-{number}": "a" * 1000 for number in range(70)}
    assert served.get("/health", headers=headers).status_code == 400
    assert served.get("/health", headers={"X-1": "a" * 10_000}).status_code == 200
