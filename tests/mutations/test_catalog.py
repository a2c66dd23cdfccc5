"""A mutation that can't be made, or would tell nothing, is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mutations.catalog import Mutation, NotApplicable, inapplicable, read

ENTRY = """
[[mutation]]
row = "a sum that is a difference"
file = "sums.py"
before = "a + b"
after = "a - b"
tests = ["test_sums.py::test_sum"]
"""
MUTATION = Mutation(
    "a sum that is a difference", "sums.py", "a + b", "a - b", ("test_sums.py::test_sum",)
)


def test_an_entry_is_a_mutation(tmp_path: Path) -> None:
    (tmp_path / "catalog.toml").write_text(ENTRY)
    assert read(tmp_path / "catalog.toml") == [MUTATION]
    assert MUTATION.of("def sum(a, b): return a + b") == "def sum(a, b): return a - b"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("return a", "has 0 times"),
        ("a + b == a + b", "has 2 times"),
        ("a + b == (", "would be no Python"),
    ],
)
def test_what_can_not_be_made_once_is_refused(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(NotApplicable, match=why):
        MUTATION.of(text)
    (tmp_path / "sums.py").write_text(text)
    assert [why in said for said in inapplicable([MUTATION], tmp_path)] == [True]


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    assert "sums.py" in inapplicable([MUTATION], tmp_path)[0]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('after = "a - b"', 'after = "a + b"'),
        ('tests = ["test_sums.py::test_sum"]', "tests = []"),
        ('file = "sums.py"\n', ""),
        ('row = "', 'rule = 4\nrow = "'),
    ],
)
def test_an_entry_that_can_tell_nothing_is_refused(tmp_path: Path, before: str, after: str) -> None:
    (tmp_path / "catalog.toml").write_text(ENTRY.replace(before, after))
    with pytest.raises(ValueError, match=r"mutation|changes nothing"):
        read(tmp_path / "catalog.toml")
