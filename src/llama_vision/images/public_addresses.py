"""SSRF guard: which hosts are public, and which only this machine or its network reaches.

IP addresses are accepted in two notations: IPv4 as four decimal numbers, and IPv6. All others (`2130706433`, `0x7f.1`,
`127.1`) are refused, so that no lower layer can parse them differently.
"""

import ipaddress
import re
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_MAX_HOST_CHARS = 253
_NUMBER = re.compile(
    r"[0-9]+|0x[0-9a-f]*"
)  # as the last label, it makes the host an IPv4 address (WHATWG URL)
_PRIVATE_NAMES = ("localhost", "localdomain", "local", "internal", "home.arpa")

# https://www.iana.org/assignments/iana-ipv4-special-registry. Not `is_global`, which differs between
# patch versions of Python and takes multicast for public.
_SPECIAL_V4 = tuple(
    (ipaddress.IPv4Network(network), kind)
    for network, kind in (
        ("0.0.0.0/8", "unspecified, which means this machine"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared behind a provider's NAT"),
        ("127.0.0.0/8", "loopback, this machine itself"),
        ("168.63.129.16/32", "Azure's platform service"),  # numbered as public, answers only inside
        ("169.254.0.0/16", "link-local, where clouds keep credentials"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "reserved for documentation"),
        ("192.88.99.0/24", "reserved, a 6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "reserved for benchmarks"),
        ("198.51.100.0/24", "reserved for documentation"),
        ("203.0.113.0/24", "reserved for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
# https://www.iana.org/assignments/iana-ipv6-special-registry
_SPECIAL_V6 = tuple(
    (ipaddress.IPv6Network(network), kind)
    for network, kind in (
        ("::/128", "unspecified, which means this machine"),
        ("::1/128", "loopback, this machine itself"),
        ("::/96", "an IPv4 address in an old disguise"),
        ("::ffff:0:0:0/96", "an IPv4 address in disguise"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "private"),
        ("ff00::/8", "multicast"),
        ("2001::/32", "an IPv4 address in disguise (Teredo)"),
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "reserved for documentation"),
        ("2002::/16", "an IPv4 address in disguise (6to4)"),
        ("3fff::/20", "reserved for documentation"),
    )
)
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
# IPv6-only networks reach every IPv4 host by such an address: the embedded one decides.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def normalize_host(host: str) -> str:
    """Normalize a URL's host (an IDNA-encoded name, or an address) to the form that is compared, resolved and verified.

    Raises:
        ValueError: It is no host, or an address in a notation that is not accepted. The text says which.
    """
    if ":" in host:
        try:
            address = ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError("its host is not an IPv6 address") from None
        if address.scope_id is not None:
            raise ValueError("its host names a network interface")
        return str(address)
    host = host.lower().removesuffix(".")
    labels = host.split(".")
    if len(host) > _MAX_HOST_CHARS or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("it has no valid host name")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise ValueError("its host is a number; write IPv4 as four decimal numbers") from None
    return host


def parse_ip(host: str) -> Address | None:
    """Parse a normalized host that is an IP address; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def private_name_reason(host: str) -> str | None:
    """Tell why a normalized name is private, whatever it resolves to; None where it may be public."""
    for name in _PRIVATE_NAMES:
        if host == name or host.endswith(f".{name}"):
            return f"a name of this machine or its network (.{name})"
    return None


def non_public_reason(address: Address) -> str | None:
    """Tell why an address, or the IPv4 address embedded in it, is not public; None for a public one."""
    if isinstance(address, ipaddress.IPv4Address):
        return next((kind for network, kind in _SPECIAL_V4 if address in network), None)
    embedded = address.ipv4_mapped
    if embedded is None and address in _NAT64:
        embedded = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if embedded is not None:
        return (kind := non_public_reason(embedded)) and f"{embedded}, which is {kind}"
    for network, kind in _SPECIAL_V6:
        if address in network:
            return kind
    return None if address in _GLOBAL_V6 else "reserved"
