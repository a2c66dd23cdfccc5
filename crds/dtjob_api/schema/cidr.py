"""Networks in CIDR notation, as the API server's CEL reads them (Go's `netip.ParsePrefix`)."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Interface, IPv6Interface, ip_interface

_PREFIX_LENGTH = re.compile("0|[1-9][0-9]{0,2}")


def is_cidr(text: str) -> bool:
    """Whether the text is an address with a prefix length, such as `10.0.0.0/8` or `fd00::1/64`."""
    try:
        parse_cidr(text)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=1024)
def parse_cidr(text: str) -> IPv4Interface | IPv6Interface:
    """The address with its network.

    Raises
    ------
    ValueError
        The text is none. Python alone would also take `10.0.0.0`, `10.0.0.0/255.0.0.0`,
        `10.0.0.0/08`, zones and IPv4 addresses in IPv6, which the API server does not.
    """
    address, _, length = text.partition("/")
    if not _PREFIX_LENGTH.fullmatch(length) or "%" in address:
        raise ValueError(f"{text!r} is not an address with a prefix length, such as 10.0.0.0/8")
    parsed = ip_interface(text)
    if isinstance(parsed, IPv6Interface) and parsed.ip.ipv4_mapped is not None:
        raise ValueError(f"{text!r} is an IPv4 address in IPv6")
    return parsed


@lru_cache(maxsize=4096)
def contains_cidr(outer: str, inner: str) -> bool:
    """Whether all addresses of one network are in another; a look at a job asks for the same."""
    network, other = parse_cidr(outer).network, parse_cidr(inner).network
    if network.version != other.version:
        return False
    return int(network[0]) <= int(other[0]) and int(other[-1]) <= int(network[-1])
