"""Networks as the API server's CEL reads them, and not as Python alone would."""

from __future__ import annotations

import pytest

from dtjob_api.schema.cel import is_true
from dtjob_api.schema.cidr import contains_cidr, is_cidr


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("10.0.0.0/8", True),
        ("10.0.0.1/8", True),
        ("0.0.0.0/0", True),
        ("fd00:ec2::254/128", True),
        ("FD00::/8", True),
        ("10.0.0.0", False),
        ("10.0.0.0/", False),
        ("10.0.0.0/33", False),
        ("10.0.0.0/08", False),
        ("10.0.0.0/+8", False),
        ("10.0.0.0/255.0.0.0", False),
        ("10.0.0/8", False),
        ("010.0.0.0/8", False),
        ("fd00::/129", False),
        ("fe80::1%eth0/64", False),
        ("::ffff:10.0.0.0/104", False),
        ("", False),
        ("/8", False),
    ],
)
def test_what_is_a_network(text: str, valid: bool) -> None:
    assert is_cidr(text) is valid


@pytest.mark.parametrize(
    ("outer", "inner", "within"),
    [
        ("10.0.0.0/8", "10.1.0.0/16", True),
        ("10.0.0.0/8", "10.0.0.0/8", True),
        ("10.0.0.1/8", "10.0.0.0/8", True),
        ("10.1.0.0/16", "10.0.0.0/8", False),
        ("10.0.0.0/8", "11.0.0.0/16", False),
        ("0.0.0.0/0", "fd00::/8", False),
        ("::/0", "10.0.0.0/8", False),
    ],
)
def test_which_network_is_within_which(outer: str, inner: str, within: bool) -> None:
    assert contains_cidr(outer, inner) is within
    assert is_true(f"cidr('{outer}').containsCIDR('{inner}')", None) is within


@pytest.mark.parametrize(
    ("text", "whole"), [("10.0.0.0/8", True), ("10.0.0.1/8", False), ("FD00:0::/8", True)]
)
def test_bits_beyond_the_prefix(text: str, whole: bool) -> None:
    assert is_true("cidr(self).masked() == cidr(self)", text) is whole
