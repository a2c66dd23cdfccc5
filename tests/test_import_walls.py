"""Which package may import what, tried in fresh interpreters."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.checkout import ROOT

pytestmark = pytest.mark.slow

OURS = ("accounting", "api", "cli", "exporter", "operator", "trainer")
WALLS = {
    "crds/dtjob_api": (
        "torch",
        "kopf",
        "dp_accounting",
        "dtjob_trainer",
        "dtjob_operator",
        "dtjob_serving",
    ),
    "serving/dtjob_serving": ("torch", "kopf", "kubernetes", *(f"dtjob_{part}" for part in OURS)),
    "accounting/dtjob_accounting": ("torch", "kopf", "dtjob_api", "dtjob_trainer", "dtjob_serving"),
    "operator/dtjob_operator": ("torch", "opacus", "dtjob_trainer", "dtjob_cli"),
    "trainer/dtjob_trainer": ("kopf", "dtjob_operator", "dtjob_cli"),
    "exporter/dtjob_exporter": ("torch", "kopf", "dtjob_trainer", "dtjob_serving"),
}
# Loads every module of a package but the one that the forkserver alone imports: it binds the
# process to its parent's life.
PROGRAM = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not module.name.endswith((".preload", ".__main__")):
        importlib.import_module(module.name)
print(*[name for name in sys.argv[2].split(",") if name in sys.modules])
"""


def _loaded(package: str, forbidden: tuple[str, ...]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, package, ",".join(forbidden)],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    return done.stdout.strip()


@pytest.mark.parametrize("folder", WALLS)
def test_package_stays_behind_its_wall(folder: str) -> None:
    assert _loaded(Path(folder).name, WALLS[folder]) == ""


def test_supervisor_imports_no_torch() -> None:
    program = (
        "import dtjob_trainer.supervisor, dtjob_trainer.worker, sys; print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "False"
