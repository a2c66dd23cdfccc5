"""The table of what a run under coverage.py met."""

from __future__ import annotations

from pathlib import PurePath

from testing.covered import table


def test_a_package_counts_its_wings_and_a_wing_its_folders() -> None:
    modules = [
        (PurePath("dtjob_a/one.py"), 10, 10),
        (PurePath("dtjob_a/wing/two.py"), 20, 5),
        (PurePath("dtjob_a/wing/room/three.py"), 10, 0),
        (PurePath("dtjob_b/four.py"), 60, 60),
    ]
    assert table(modules)[2:] == [
        "| dtjob_a | 40 | 38% |",
        "| dtjob_a/wing | 30 | 17% |",
        "| dtjob_b | 60 | 100% |",
        "| all | 100 | 75% |",
    ]
    assert table(modules, ["dtjob_a/wing"])[2:] == ["| dtjob_a/wing | 30 | 17% |"]
