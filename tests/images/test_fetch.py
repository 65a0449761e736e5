"""Downloads of images, from real servers on this machine."""

import asyncio
import gzip
import logging
import subprocess
import sys
import time
import zlib

import pytest

from llama_vision.core.errors import ImageError
from llama_vision.core.messages import Image
from llama_vision.images.fetch import fetch_image
from llama_vision.images.fetch_policy import FetchPolicy
from llama_vision.version import __version__
from tests.images.image_server import PNG, ImageServer, answer, redirect

LOCAL = FetchPolicy(private_networks=True)
BIG = b"\x89PNG\r\n\x1a\n" + bytes(5_000_000)


@pytest.fixture(params=["sync", "async"])
def get(request):
    """Either way to fetch."""
    if request.param == "sync":
        return fetch_image
    return lambda *args, **kwargs: asyncio.run(asyncio.to_thread(fetch_image, *args, **kwargs))


@pytest.fixture
def server():
    with ImageServer() as server:
        yield server


def refusal(get, url, options=LOCAL, **kwargs):
    with pytest.raises(ImageError) as caught:
        get(Image(url=url), options, **kwargs)
    assert "secret" not in str(caught.value)
    return str(caught.value)


def resolved_to(*addresses):
    """A resolver that gives its answer once, as someone who rebinds names would."""
    answers = [list(addresses)]

    async def resolve(host, port):
        return answers.pop()

    return resolve


def test_a_image(get, server):
    server.answers["/a.png?x=%2F&y"] = [answer(PNG, Content_Type="text/html")]
    image = get(Image(url=server.url("/a.png?x=%2F&y#part"), detail="low"), LOCAL)
    assert image == Image(data=PNG, media_type="image/png", detail="low")
    assert server.heads == [
        [
            "GET /a.png?x=%2F&y HTTP/1.1",
            f"Host: 127.0.0.1:{server.port}",
            f"User-Agent: llama-vision/{__version__}",
            "Accept: image/*, application/pdf",
            "Accept-Encoding: identity",
            "Connection: close",
        ]
    ]


def test_a_image_that_is_there_already(get):
    image = Image(data=b"anything", media_type="image/png")
    assert get(image) is image


@pytest.mark.parametrize("pieces", [[answer(PNG, length=False)], [answer(PNG)[:-9], 0.05, PNG[-9:]],
                                    [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(PNG), PNG)]],
                         ids=["no length", "in pieces", "chunked"])  # fmt: skip
def test_other_ways_to_send_it(get, server, pieces):
    server.answers["/a.png"] = pieces
    assert get(Image(url=server.url()), LOCAL).data == PNG


@pytest.mark.parametrize(
    ("encoding", "body"),
    [("gzip", gzip.compress(PNG)), ("X-GZIP", gzip.compress(PNG)), ("deflate", zlib.compress(PNG)), ("identity", PNG)],
    ids=["gzip", "X-GZIP", "deflate", "identity"],
)  # fmt: skip
def test_a_compressed_image(get, server, encoding, body):
    server.answers["/a.png"] = [answer(body, Content_Encoding=encoding)]
    assert get(Image(url=server.url()), LOCAL).data == PNG


def test_a_name_is_said_to_the_address_that_was_checked(get, server):
    options = FetchPolicy(allowed_hosts=frozenset({"images.example"}))
    server.answers["/a.png"] = [answer(PNG)]
    url = server.url(host="Images.Example.")
    assert get(Image(url=url), options, resolve=resolved_to("127.0.0.1")).data == PNG
    assert server.heads[0][1] == f"Host: images.example:{server.port}"


def test_an_address_that_is_allowed_by_itself(get, server):
    server.answers["/a.png"] = [answer(PNG)]
    assert get(Image(url=server.url()), FetchPolicy(allowed_hosts=frozenset({"127.0.0.1"}))).data == PNG


def test_the_systems_resolver(get, server):
    server.answers["/a.png"] = [answer(PNG)]
    assert get(Image(url=server.url(host="localhost")), LOCAL).data == PNG


def test_a_name_that_nobody_knows(get):
    assert "can't be looked up" in refusal(get, f"http://{'x' * 63}.invalid/a.png")


def test_the_next_address_where_one_takes_no_connection(get, server):
    server.answers["/a.png"] = [answer(PNG)]
    resolve = resolved_to("127.0.0.2", "127.0.0.1")  # the server is bound to the second
    assert get(Image(url=server.url(host="a.example")), LOCAL, resolve=resolve).data == PNG


def test_no_connection(get, server):
    resolve = resolved_to("127.0.0.2", "127.0.0.3")
    assert "there is no connection" in refusal(get, server.url(host="a.example"), resolve=resolve)


async def test_sync_inside_a_running_loop(server):
    server.answers["/a.png"] = [answer(PNG)]
    assert fetch_image(Image(url=server.url()), LOCAL).data == PNG


async def test_many_at_once(server):
    server.answers["/a.png"] = [0.1, answer(PNG)]
    began = time.monotonic()
    fetches = (asyncio.to_thread(fetch_image, Image(url=server.url()), LOCAL) for _ in range(20))
    assert {image.data for image in await asyncio.gather(*fetches)} == {PNG}
    assert time.monotonic() - began < 1.5


def test_proxies_cookies_and_logs_know_nothing_of_it(get, server, monkeypatch, caplog):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    caplog.set_level(logging.DEBUG)
    server.answers["/a.png?secret"] = [answer(b"", "302 Found", Location="/b.png", Set_Cookie="a=b; Path=/")]
    server.answers["/b.png"] = [answer(PNG)]
    assert get(Image(url=server.url("/a.png?secret")), LOCAL).data == PNG
    assert not any("cookie" in line.lower() for line in server.heads[1])
    assert "secret" not in caplog.text


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "to", ["/b.png", "b.png", "?b", "http://127.0.0.1:{port}/b.png", "//127.0.0.1:{port}/b.png"]
)
def test_a_redirect(server, status, to):
    server.answers["/a.png"] = redirect(to.format(port=server.port), f"{status} Elsewhere")
    server.answers["/b.png"] = server.answers["/a.png?b"] = [answer(PNG)]
    assert fetch_image(Image(url=server.url()), LOCAL).data == PNG


@pytest.mark.parametrize(("allowed", "connections"), [(0, 1), (2, 3), (3, 4)])
def test_too_many_redirects(get, server, allowed, connections):
    for number in range(9):
        server.answers[f"/{number}"] = redirect(f"/{number + 1}")
    options = FetchPolicy(private_networks=True, max_redirects=allowed)
    assert f"there are more than {allowed} redirects" in refusal(get, server.url("/0"), options)
    assert server.connections == connections


@pytest.mark.parametrize(
    "encoding", ["UTF-8", "none", "undefined", "binary", "aws-chunked", "", "null", "identity, aws-chunked"]
)
def test_a_content_encoding_that_is_none(server, encoding):
    server.answers["/a.png"] = [answer(PNG, Content_Encoding=encoding)]
    assert fetch_image(Image(url=server.url()), LOCAL).data == PNG


@pytest.mark.parametrize("encoding", ["aws-chunked, gzip", "gzip,aws-chunked", "GZIP, utf-8"])
def test_a_compression_beside_one_that_is_none(server, encoding):
    server.answers["/a.png"] = [answer(gzip.compress(PNG), Content_Encoding=encoding)]
    assert fetch_image(Image(url=server.url()), LOCAL).data == PNG


def test_an_answer_that_a_proxy_changed(server):
    server.answers["/a.png"] = [answer(PNG, "203 Non-Authoritative Information")]
    assert fetch_image(Image(url=server.url()), LOCAL).data == PNG


@pytest.mark.parametrize(
    "status", ["404 Not Found", "500 Oh", "204 No Content", "206 Part", "304 Same", "302 Where"]
)
def test_other_answers(get, server, status):
    server.answers["/a.png?secret"] = [answer(b"" if status[:3] in {"204", "304"} else PNG, status)]
    text = refusal(get, server.url("/a.png?secret"))
    assert (
        text
        == f"The image at '{server.url()}' can't be fetched: the server answers with status {status[:3]}."
    )


@pytest.mark.parametrize(
    ("pieces", "why"),
    [
        ([answer(b"<!doctype html>", Content_Type="image/png")], "it looks like a web page"),
        (
            [
                answer(
                    b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
                )
            ],
            "it looks like XML, perhaps an error of the server in place of the image: 'AccessDenied Request has expired'",
        ),
        ([answer(b"")], "it is empty"),
        ([b""], "the answer broke off"),
        ([b"not http\r\n\r\n"], "the answer broke off"),
        ([answer(PNG)[:-9]], "the answer broke off"),
        ([answer(PNG, Content_Encoding="br")], "compressed as 'br', which was not asked for"),
        ([answer(PNG, Content_Encoding="gzip, gzip")], "compressed as 'gzip, gzip'"),
        ([answer(PNG, Content_Encoding="gzip")], "its compression can't be read"),
        ([answer(gzip.compress(PNG)[:-9], Content_Encoding="gzip")], "its compressed content is cut off"),
        (redirect("http://a:b/"), "not a valid URL"),
        (redirect("http://[x/"), "no valid host name"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_no_image(get, server, pieces, why):
    server.answers["/a.png?secret"] = pieces
    text = refusal(get, server.url("/a.png?secret"))
    assert why in text
    assert f"'{server.url()}'" in text


@pytest.mark.parametrize(
    "pieces",
    [
        [answer(BIG)],
        [answer(BIG, length=False)],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n", 60.0],
        [
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"1000\r\n%b\r\n" % bytes(4096) * 30,
            60.0,
        ],
        [answer(gzip.compress(BIG), Content_Encoding="gzip")],
        [answer(gzip.compress(gzip.compress(bytes(300_000_000), 1), 1), Content_Encoding="gzip")],
        [
            answer(
                gzip.compress(b"")[:10] + b"\0\0\0\xff\xff" * 50_000, length=False, Content_Encoding="gzip"
            ),
            60.0,
        ],
    ],
    ids=["length", "no length", "length alone", "chunked", "gzip", "bomb", "gzip of nothing"],
)
def test_more_than_is_allowed(get, server, pieces):
    server.answers["/a.png"] = pieces
    text = refusal(get, server.url(), FetchPolicy(private_networks=True, max_bytes=100_000))
    assert "it has more than 100000 bytes. Scale it down" in text


def test_just_as_much_as_is_allowed(get, server):
    options = FetchPolicy(private_networks=True, max_bytes=len(PNG))
    for number, pieces in enumerate([[answer(PNG)], [answer(PNG, length=False)]]):
        server.answers[f"/{number}"] = pieces
        assert get(Image(url=server.url(f"/{number}")), options).data == PNG
    less = FetchPolicy(private_networks=True, max_bytes=len(PNG) - 1)
    assert "it has more than" in refusal(get, server.url("/1"), less)


@pytest.mark.parametrize(
    "pieces",
    [[60.0], [piece for _ in range(60) for piece in (b"HTTP/1.1 200 OK\r\n"[:1], 0.1)],
     [b"HTTP/1.1 200 OK\r\n", *[piece for _ in range(60) for piece in (b"A: b\r\n", 0.1)]],
     [answer(BIG)[:200], *[piece for _ in range(60) for piece in (b"x", 0.1)]]],
    ids=["silence", "a slow line", "slow headers", "a slow body"],
)  # fmt: skip
@pytest.mark.slow_beyond(2)
def test_the_time_limit_is_for_everything(get, server, pieces):
    server.answers["/a.png?secret"] = pieces
    began = time.monotonic()
    text = refusal(get, server.url("/a.png?secret"), FetchPolicy(private_networks=True, timeout_s=0.3))
    assert time.monotonic() - began < 2
    assert "it took longer than 0.3 s. Download it yourself" in text


def test_the_time_limit_holds_over_redirects_and_look_ups(get, server):
    async def resolve(host, port):
        await asyncio.sleep(0.15)
        return ["127.0.0.1"]

    server.answers["/a.png"] = [0.1, *redirect("/a.png")]
    options = FetchPolicy(private_networks=True, timeout_s=0.4, max_redirects=50)
    assert "it took longer than 0.4 s" in refusal(get, server.url(host="a.example"), options, resolve=resolve)
    assert server.connections < 4


def test_importing_loads_no_httpx():
    code = "import sys, llama_vision.images.fetch; print('httpx' in sys.modules, 'asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
