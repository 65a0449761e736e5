"""Which hosts are public, and how they may be spelled."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_vision.images.public_addresses import (
    non_public_reason,
    normalize_host,
    parse_ip,
    private_name_reason,
)


def words(text):
    return text.split()


PRIVATE = words("""
    0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 100.127.255.255 127.0.0.1 127.255.255.255
    168.63.129.16 169.254.169.254 169.254.170.2 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1
    192.168.0.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
    :: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:a9fe:a9fe ::ffff:0:7f00:1 64:ff9b::7f00:1
    64:ff9b::a9fe:a9fe 64:ff9b:1::1 100::1 2001::1 2001:0:7f00:1:: 2001:2::1 2001:20::1 2001:db8::1 2002:7f00:1::
    2002:808:808:: 3fff::1 5f00::1 4000::1 fc00::1 fd00:ec2::254 fd20:ce::254 fe80::1 fec0::1 ff02::1 ff0e::1
""")
PUBLIC = words("""
    1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255
    172.15.255.255 172.32.0.0 192.167.255.255 192.169.0.0 223.255.255.255 2606:4700:4700::1111 2001:4860:4860::8888
    2a00:1450:4001::1 ::ffff:8.8.8.8 64:ff9b::808:808
""")


@pytest.mark.parametrize("text", PRIVATE)
def test_what_only_this_network_reaches(text):
    assert non_public_reason(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("127.0.0.1", "loopback, this machine itself"),
        ("::ffff:10.0.0.1", "10.0.0.1, which is private"),
        ("64:ff9b::a9fe:a9fe", "169.254.169.254, which is link-local, where clouds keep credentials"),
        ("4000::1", "reserved"),
    ],
)
def test_the_reason_says_what_the_address_is_for(text, reason):
    assert non_public_reason(ipaddress.ip_address(text)) == reason


@pytest.mark.parametrize("text", PUBLIC)
def test_what_everyone_reaches(text):
    assert non_public_reason(ipaddress.ip_address(text)) is None


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_nothing_is_public_that_python_knows_to_be_private(address):
    if non_public_reason(address) is None:
        inside = getattr(address, "ipv4_mapped", None) or address
        assert inside.is_global or address in ipaddress.ip_network("64:ff9b::/96")
        assert not inside.is_multicast


@given(st.ip_addresses(v=4))
def test_inside_ipv6_an_ipv4_address_is_no_more_public(address):
    mapped = ipaddress.IPv6Address(f"::ffff:{address}")
    translated = ipaddress.IPv6Address(f"64:ff9b::{address}")
    assert (
        bool(non_public_reason(address))
        == bool(non_public_reason(mapped))
        == bool(non_public_reason(translated))
    )
    for hidden in (f"::{address}", f"::ffff:0:{address}"):
        assert non_public_reason(ipaddress.IPv6Address(hidden))


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("a_b.xn--strae-oqa.de", "a_b.xn--strae-oqa.de"),
        ("1.example", "1.example"),
        ("0x7f.1.example", "0x7f.1.example"),
        ("8.8.8.8", "8.8.8.8"),
        ("8.8.8.8.", "8.8.8.8"),
        ("2606:4700:0:0::1111", "2606:4700::1111"),
        ("FE80::1", "fe80::1"),
        (f"{'a.' * 126}a", f"{'a.' * 126}a"),  # 253 characters
        ("x" * 63, "x" * 63),
    ],
)
def test_one_form_of_a_host(host, plain):
    assert normalize_host(host) == plain
    assert normalize_host(plain) == plain


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0X7F.1", "127.1", "127.0.1", "0177.0.0.1", "017700000001",
                                  "127.0.0.01", "0", "0x", "1.2.3.4.5", "256.1.1.1", "1.2.3.0x4", "example.1", "08.8.8.8",
                                  "4294967297", "127.0.0.1.0x0", "8.8.2056"])  # fmt: skip
def test_other_spellings_of_numbers_are_refused_and_not_read(host):
    with pytest.raises(ValueError, match="write IPv4 as four decimal numbers"):
        normalize_host(host)


@pytest.mark.parametrize("host", ["", ".", "..", "example..com", ".example.com", "example.com..", "a b", "a%20b", "exa%6dple",
                                  "a/b", "a@b", "a\\b", "ex\u00e4mple.com", "\uff11.1.1.1", "x" * 64, "a." * 127 + "a", "a\n", "*",
                                  "1.2.3.4%0", "::1%1", "fe80::1%eth0", "::g", "1:2", "[::1]", ":"])  # fmt: skip
def test_what_is_no_host(host):
    with pytest.raises(ValueError, match="host"):
        normalize_host(host)


@given(st.text())
def test_any_text_is_a_host_or_refused(host):
    try:
        plain = normalize_host(host)
    except ValueError:
        return
    assert normalize_host(plain) == plain
    assert parse_ip(plain) or not plain.rpartition(".")[2].isdecimal()


@pytest.mark.parametrize("name", ["localhost", "a.localhost", "localhost.localdomain", "printer.local", "local", "router.home.arpa",
                                  "metadata.google.internal"])  # fmt: skip
def test_names_of_this_network(name):
    assert private_name_reason(name)


@pytest.mark.parametrize(
    "name", ["example.com", "local.example", "mylocalhost.com", "notlocal", "home.arpa.example"]
)
def test_names_that_may_be_public(name):
    assert private_name_reason(name) is None
