"""The rules of docs/design/rules.md, by number."""

from __future__ import annotations

import re

from tests.support.checkout import ROOT

CONTRACT = ROOT / "docs" / "design" / "rules.md"
RULES = {
    int(number): text
    for number, text in re.findall(
        r"^\*\*(\d+)\. (.*?)(?=^\*\*\d|^## |\Z)",
        CONTRACT.read_text(),
        re.M | re.S,
    )
}


def cited_numbers(text: str) -> set[int]:
    """The numbers of a list such as `10, 11 and 17`."""
    return {int(number) for number in re.findall(r"\d+", text)}
