"""What a stand-in must do without: whatever is heavy, and what its image does not hold."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.checkout import TOOLS

pytestmark = pytest.mark.slow

HEAVY = ("torch", "opacus", "numpy", "scipy", "sklearn", "dp_accounting", "kopf", "dtjob_operator")
PROGRAM = """
import importlib, pkgutil, sys
package = importlib.import_module("standin")
for module in pkgutil.walk_packages(package.__path__, "standin."):
    importlib.import_module(module.name)
import dtjob_trainer.ledger.kubernetes_ledger
print(*[name for name in sys.argv[1:] if name in sys.modules])
"""


def test_a_stand_in_imports_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *HEAVY],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(TOOLS)},
    )
    assert done.stdout.strip() == ""
