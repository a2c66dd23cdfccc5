"""What somebody else wrote, made safe to show: no terminal obeys it, and no line of it is ours."""

from __future__ import annotations

import unicodedata

import pytest

from dtjob_api import shown

DIGEST = f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("told", "line"),
    [
        ("ε 7.6130 at δ = 1e-05 … naïve", "ε 7.6130 at δ = 1e-05 … naïve"),
        ("\x1b[12F\x1b[2K ε spent 0.01", r"\x1b[12F\x1b[2K ε spent 0.01"),
        ("\x9b2K", r"\x9b2K"),
        ("broken\n ε spent\r\n0.01\t\v\f", "broken  ε spent  0.01   "),
        ("broken\u2028\u2029\x85too", "broken   too"),
        ("0.01\b\b\b\b\x7f", r"0.01\x08\x08\x08\x08\x7f"),
        ("\u202e10.0\u2066\u200b\ufeff", r"\u202e10.0\u2066\u200b\ufeff"),
        ("\U000e0041\ud800", r"\U000e0041\ud800"),
    ],
)
def test_prose_is_one_line_that_no_terminal_obeys(told: str, line: str) -> None:
    assert shown.line(told) == line
    assert shown.line(line) == line


def test_no_character_is_left_that_is_not_seen() -> None:
    kept = shown.line("".join(map(chr, range(0x3000))) + "\U000e0001")
    assert kept.isprintable()
    assert {unicodedata.category(each)[0] for each in kept} <= {"L", "M", "N", "P", "S", "Z"}


@pytest.mark.parametrize("told", [None, {}, "", "a b", "a\n", "a\x1b[2K", "ε", " a", "-a"])
def test_what_has_a_form_is_shown_in_no_other(told: object) -> None:
    assert shown.digest(told) is None
    assert shown.image(told) is None
    assert shown.path(told) is None
    assert shown.version(told) is None
    assert shown.package(told) is None


def test_what_has_its_form_is_shown() -> None:
    image = f"ghcr.io:5000/dtjob/trainer:0.1.0+cu@{DIGEST}"
    assert shown.digest(DIGEST) == DIGEST
    assert shown.image(image) == image
    assert shown.path("attempt-3/step-40.pt") == "attempt-3/step-40.pt"
    assert shown.version("2.15.0a0+git1.cu128") == "2.15.0a0+git1.cu128"
    assert shown.package("ruamel.yaml==0.18.6+cu128") == "ruamel.yaml==0.18.6+cu128"
    assert shown.digest(f"{DIGEST}0") is None
    assert shown.package("peft") is shown.package("a==1==2") is shown.package("==1") is None
    for outside in ("../step-40.pt", "/step-40.pt", "attempt-3//step-40.pt"):
        assert shown.path(outside) is None
