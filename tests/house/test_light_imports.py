"""The models of the API, which every process imports, load nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "scipy", "dp_accounting", "kopf", "kubernetes")
PROGRAM = """
import importlib, pkgutil, sys
import dtjob_api
for module in pkgutil.walk_packages(dtjob_api.__path__, "dtjob_api."):
    importlib.import_module(module.name)
print(*[name for name in sys.argv[1:] if name in sys.modules])
"""


@pytest.mark.slow
def test_the_models_of_the_api_load_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *HEAVY], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == ""
