"""Addresses at which clouds give credentials to whatever asks from one of their nodes."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dtjob_api.schema.cidr import contains_cidr, parse_cidr

_COMMON = "169.254.169.254/32"
_KNOWN = (
    _COMMON,  # AWS, Google, Azure, Oracle and others
    "169.254.170.2/32",  # AWS: of a task
    "169.254.170.23/32",  # AWS: EKS Pod Identity
    "168.63.129.16/32",  # Azure: the wire server
    "100.100.100.200/32",  # Alibaba
    "fd00:ec2::254/128",  # AWS
    "fd00:ec2::23/128",  # AWS: EKS Pod Identity
    "fd20:ce::254/128",  # Google
)
# The whole of it: what answers there is the node's or the cloud's own.
_CLOSED = ("169.254.0.0/16", *_KNOWN)
_PATTERNS = {
    cidr: re.compile(rf"(?<![0-9a-f.:]){re.escape(cidr.split('/')[0])}(?![0-9a-f:]|\.?[0-9])", re.I)
    for cidr in _KNOWN
}
# How clients of object stores name the first of them, too.
_PHRASES = re.compile(
    r"metadata\.google\.internal|\bIMDS(?:v2)?\b|instance[- ]metadata|metadata (?:service|server)",
    re.IGNORECASE,
)


def closed_in(cidr: str, holes: Iterable[str]) -> list[str]:
    """What of a network stays closed besides its holes: not what it is itself, or lies within."""
    closed: list[str] = []
    for network in _CLOSED:
        is_wider = contains_cidr(cidr, network) and parse_cidr(cidr) != parse_cidr(network)
        if is_wider and not any(contains_cidr(hole, network) for hole in (*holes, *closed)):
            closed.append(network)
    return closed


def mentioned_in(message: str) -> str | None:
    """The network of the metadata address that an error message mentions, if it does."""
    for cidr, address in _PATTERNS.items():
        if address.search(message):
            return cidr
    return _COMMON if _PHRASES.search(message) else None
