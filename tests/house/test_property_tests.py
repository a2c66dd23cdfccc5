"""What nights try with more examples is every property test there is."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
MACHINE = re.compile(r"^class (\w+)\(RuleBasedStateMachine\):", re.M)


def test_state_machines_are_tests_and_no_number_of_examples_is_fixed() -> None:
    """A machine that a function runs is no property test to pytest."""
    machines = 0
    for path in TESTS.rglob("test_*.py"):
        text = path.read_text()
        for name in MACHINE.findall(text):
            machines += 1
            assert re.search(rf"^Test\w+ = .*\b{name}\.TestCase\b", text, re.M), path
        assert not re.search(r"max_examples=\d", text), f"{path}: use testing.examples"
    assert machines
