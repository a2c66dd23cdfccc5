"""The page says how many of a row's mutations are made, and names their tests."""

from __future__ import annotations

from mutations.catalog import Mutation
from mutations.page import counted, unnamed

PAGE = """
| rule | mutation | caught by | made |
|---|---|---|---|
| 4 | no clipping | test_sum |
| 4 | clip to 2C | test_sum, test_norm (test_clip.py) | 7 |
| | never counted | test_count[one] | 1 |
"""


def mutation(row: str, test: str) -> Mutation:
    return Mutation(row, "clip.py", "a", "b", (f"tests/test_clip.py::{test}",))


def test_the_last_column_counts() -> None:
    made = [mutation("no clipping", "test_sum"), *[mutation("clip to 2C", "test_norm")] * 2]
    assert counted(PAGE, made).splitlines()[3:] == [
        "| 4 | no clipping | test_sum | 1 |",
        "| 4 | clip to 2C | test_sum, test_norm (test_clip.py) | 2 |",
        "| | never counted | test_count[one] |",
    ]
    assert counted(counted(PAGE, made), made) == counted(PAGE, made)


def test_a_row_or_a_test_that_the_page_lacks_is_told() -> None:
    assert unnamed(PAGE, [mutation("clip to 2C", "test_norm")]) == []
    for wrong in (mutation("clip to 3C", "test_norm"), mutation("clip to 2C", "test_no")):
        assert unnamed(PAGE, [wrong]) == [f"{wrong.row}: {wrong.tests[0]}"]
