"""The supervisor is up before torch could be imported: only its ranks need that."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = (
    "import dtjob_trainer.supervisor, dtjob_trainer.worker.supervision, sys; "
    "print('torch' in sys.modules)"
)


@pytest.mark.slow
def test_supervisor_imports_no_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "False"
