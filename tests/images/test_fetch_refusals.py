"""Addresses that are refused, before any connection is made."""

import asyncio
import sys

import pytest

from llama_vision.core.errors import ImageError
from llama_vision.core.messages import Image
from llama_vision.images.fetch import fetch_image
from llama_vision.images.fetch_policy import FetchPolicy, redact_url
from tests.images.image_server import ImageServer, redirect

OPENED = []
NOTING = []
ASKED = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname")


@sys.addaudithook
def note_what_leaves(event, arguments):
    """Python itself tells of every connection and look-up, whichever library makes it."""
    if NOTING and event in ASKED:
        OPENED.append((event, arguments[1:] if event == "socket.connect" else arguments))


@pytest.fixture(autouse=True)
def opened():
    """Every connection and look-up of the test."""
    OPENED.clear()
    NOTING.append(True)
    yield OPENED
    NOTING.clear()


@pytest.fixture(autouse=True)
def nothing_leaves(opened):
    yield
    assert not opened


@pytest.fixture(params=["sync", "async"])
def get(request):
    if request.param == "sync":
        return fetch_image
    return lambda *args, **kwargs: asyncio.run(asyncio.to_thread(fetch_image, *args, **kwargs))


def refusal(get, url, options=None, **kwargs):
    with pytest.raises(ImageError) as caught:
        get(Image(url=url), options or FetchPolicy(), **kwargs)
    return str(caught.value)


def names(**table):
    async def resolve(host, port):
        return table[host.replace(".", "_")]

    return resolve


def words(text):
    return text.split()


PRIVATE_HOSTS = words("""
    127.0.0.1 127.0.0.1. 127.255.255.254 0.0.0.0 10.0.0.1 172.16.0.1 192.168.1.1 169.254.169.254 169.254.170.2 100.64.0.1
    100.100.100.200 168.63.129.16 192.0.0.192 198.18.0.1 224.0.0.1 240.0.0.1 255.255.255.255 127\u30020\u30020\u30021
    [::] [::1] [0:0:0:0:0:0:0:1] [::127.0.0.1] [::ffff:127.0.0.1] [::ffff:7f00:1] [0:0:0:0:0:ffff:a9fe:a9fe]
    [::ffff:0:7f00:1] [64:ff9b::7f00:1] [64:ff9b::169.254.169.254] [64:ff9b:1::7f00:1] [2002:7f00:1::] [2002:a9fe:a9fe::]
    [2001:0:7f00:1::] [fe80::1] [fec0::1] [fc00::1] [fd00:ec2::254] [ff02::1] [2001:db8::1]
    localhost LOCALHOST localhost. a.localhost localhost.localdomain printer.local metadata.google.internal x.home.arpa
""")
NO_HOSTS = words("""
    2130706433 2130706433. 0x7f000001 0X7F000001 0x7f.1 0x7f.0x0.0x0.0x1 127.1 127.0.1 0177.0.0.1 017700000001 0177.1
    00000177.0.0.1 0 0x0 2852039166 0xa9fea9fe 0251.0376.0251.0376 425.510.425.510 127.0.0.1.. 4294967297
    \uff11\uff12\uff17.0.0.1 \u2460\u2461\u2466.0.0.1 \u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3 %31%32%37.0.0.1 local%68ost
    [::1%25lo] [fe80::1%25eth0] [::1%lo] [127.0.0.1] [v1.x] localhost%00.example.com local\u00adhost
""")


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", PRIVATE_HOSTS, ids=ascii)
def test_private_hosts(scheme, host):
    text = refusal(fetch_image, f"{scheme}://{host}/a.png?key=secret")
    assert "allow it with image_private_networks=True" in text
    assert "secret" not in text


@pytest.mark.parametrize(
    "options", [FetchPolicy(), FetchPolicy(private_networks=True)], ids=["public", "any"]
)
@pytest.mark.parametrize("host", NO_HOSTS, ids=ascii)
def test_other_spellings_are_refused_even_where_private_is_allowed(host, options):
    text = refusal(fetch_image, f"http://{host}/a.png?key=secret", options)
    assert "host" in text or "not a valid URL" in text
    assert "secret" not in text


def test_a_running_event_loop_makes_no_difference():
    async def in_loop(*args):
        return fetch_image(*args)

    for host in PRIVATE_HOSTS + NO_HOSTS:
        url = f"http://{host}/a.png"
        assert refusal(lambda *args: asyncio.run(in_loop(*args)), url) == refusal(fetch_image, url)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://example.com/a.png", "only http and https"),
        ("file:///etc/passwd", "only http and https"),
        ("gopher://127.0.0.1/", "only http and https"),
        ("data:image/png;base64,AAAA", "only http and https"),
        ("/etc/passwd", "only http and https"),
        ("//example.com/a.png", "only http and https"),
        ("", "only http and https"),
        ("http:", "no valid host name"),
        ("http:///a.png", "no valid host name"),
        ("http:\\\\example.com", "no valid host name"),
        ("http://user:password@example.com/a.png", "user name or password"),
        ("http://user@example.com/a.png", "user name or password"),
        ("http://127.0.0.1\\@example.com/a.png", "user name or password"),
        ("http://example.com:0/", "port is out of range"),
        ("http://example.com:65536/", "port is out of range"),
        ("http://example.com:80:80/", "not a valid URL"),
        ("http://example.com\t/", "not a valid URL"),
        ("http://example.com/\ud83e", "not a valid URL"),
        ("http://example.com/" + "x" * 70_000, "not a valid URL"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_what_can_not_be_asked(get, url, why):
    text = refusal(get, url, FetchPolicy(private_networks=True))
    assert why in text
    assert "password@" not in text
    assert len(text) < 400


@pytest.mark.parametrize(
    "answers",
    [["127.0.0.1"], ["10.0.0.1"], ["::1"], ["1.1.1.1", "169.254.169.254"], ["fd00::1", "1.1.1.1"], ["fe80::1%eth0"],
     ["1.1.1.1", "::ffff:127.0.0.1"], ["1.1.1.1", "2606:4700::1", "0.0.0.1"]],
    ids=str,
)  # fmt: skip
def test_a_name_with_one_private_address_among_others(get, answers):
    text = refusal(get, "https://images.example/a.png", resolve=names(images_example=answers))
    assert "images.example resolves to" in text
    assert "allowed_hosts" in text


def test_a_name_without_addresses(get):
    assert "not known" in refusal(get, "http://images.example/", resolve=names(images_example=[]))


def test_answers_that_are_no_addresses(get):
    assert "no address" in refusal(get, "http://images.example/", resolve=names(images_example=["x"]))


@pytest.mark.parametrize(
    "host", ["b.example", "a.example.b", "x.a.example", "127.0.0.1", "xn--a-0fa.example"]
)
def test_only_allowed_hosts(get, host):
    options = FetchPolicy(allowed_hosts=frozenset({"a.example"}), private_networks=True)
    text = refusal(get, f"http://{host}/a.png", options)
    assert f"{host!r} is not among image_allowed_hosts" in text


def test_the_system_is_not_asked_for_private_names_nor_for_addresses(get):
    async def resolve(host, port):
        raise AssertionError(host)

    for host in PRIVATE_HOSTS:
        refusal(get, f"http://{host}/", resolve=resolve)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("https://example.com/a@1/b.png?sig=x#y", "https://example.com/a@1/b.png"),
        ("https://example.com?sig=x@y://z", "https://example.com"),
        ("https://example.com#x", "https://example.com"),
        ("https://u:secret@example.com:1/a?x", "https://example.com:1/a"),
        ("https://u:sec/ret@example.com/a", "https://example.com/a"),
        ("https://u:sec?ret@example.com/a", "https://..."),
        ("https://u:sec@ret@example.com/a", "https://example.com/a"),
        ("http:\\\\u:secret@example.com", "example.com"),
        ("HTTP://[::1]:80/a@b", "HTTP://[::1]:80/a@b"),
        ("not a url?secret", "not a url"),
        ("http://example.com/\n", "http://example.com/\n"),
        ("http://example.com/" + "x" * 1000, ("http://example.com/" + "x" * 1000)[:200] + "..."),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_what_is_shown_of_an_address(url, text):
    assert redact_url(url) == repr(text)


class TestRedirects:
    """Connections are made to the first host only."""

    @pytest.fixture(autouse=True)
    def nothing_leaves(self):
        """Take the place of the module's, for the first host is asked."""

    @pytest.mark.parametrize(
        ("to", "why"),
        [
            ("http://127.0.0.1:{other}/a.png", "'127.0.0.1' is not among"),
            ("//127.0.0.1:{other}/a.png", "'127.0.0.1' is not among"),
            ("http://localhost:{other}/a.png", "'localhost' is not among"),
            ("http://other.example:{other}/a.png", "'other.example' is not among"),
            ("http://2130706433:{other}/", "four decimal numbers"),
            ("http://u:p@images.example:{other}/a.png", "user name or password"),
            ("file:///etc/passwd", "only http and https"),
            ("http://[::1", "not a valid URL"),
            ("http://images.example:0/", "port is out of range"),
        ],
    )
    def test_each_is_checked_before_it_is_asked(self, get, opened, to, why):
        resolve = names(images_example=["127.0.0.1"], other_example=["127.0.0.1"])
        options = FetchPolicy(allowed_hosts=frozenset({"images.example"}))
        with ImageServer() as first, ImageServer() as other:
            first.answers["/a.png?k=secret"] = redirect(to.format(other=other.port))
            text = refusal(get, first.url("/a.png?k=secret", "images.example"), options, resolve=resolve)
            assert (first.connections, other.connections) == (1, 0)
        assert why in text
        assert f"(to which '{first.url('/a.png', 'images.example')}' redirects)" in text
        assert "secret" not in text
        assert opened == [("socket.connect", (("127.0.0.1", first.port),))]
