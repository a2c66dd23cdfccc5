"""benchmarks/operator_scale.py at a small size: that it runs, and what it counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.support.checkout import ROOT, TOOLS

pytestmark = [pytest.mark.cluster, pytest.mark.local_cluster, pytest.mark.timeout(900)]
JOBS, WORKERS = 5, 8
OPERATOR = "dtjob operator"


@pytest.fixture(scope="module")
def measured() -> subprocess.CompletedProcess[str]:
    """A quick run; the first one on a machine builds KWOK."""
    argv = [sys.executable, "benchmarks/operator_scale.py", "--quick", f"--jobs={JOBS}"]
    environment = os.environ | {"PYTHONPATH": str(TOOLS)}
    done = subprocess.run(
        argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def figures(measured: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(measured.stderr.splitlines()[-1])


def test_it_prints_tables(measured: subprocess.CompletedProcess[str]) -> None:
    assert f"## {JOBS} jobs of {WORKERS} workers" in measured.stdout
    assert "| dtjob: pods Running |" in measured.stdout
    assert "| writes of the operator a job, to phase Running |" in measured.stdout


def test_a_bare_client_makes_what_the_operator_makes(figures: Any) -> None:
    (bare,) = figures["bares"]
    assert len(bare["running"]) == len(figures["running"]["seconds"]) == JOBS
    made = bare["writes"]["bare-client"]
    applied = figures["writes_training"][OPERATOR]
    children = ("statefulsets", "services", "networkpolicies", "poddisruptionbudgets")
    for plural in children:
        assert made[f"create {plural}"] == applied[f"create {plural}"]
    assert len(made) == len(children)


def test_what_plays_nodes_is_in_nobodys_way(figures: Any) -> None:
    """KWOK writes once for a pod and the provisioner once for a claim; no one else writes that."""
    writes = figures["writes_training"]
    conflicts = [each for each in figures["refused"] if each.endswith(" 409")]
    assert [each for each in conflicts if each.startswith(("kwok:", "provisioner:"))] == []
    assert writes["kwok"] == {"patch pods/status": WORKERS}
    assert writes["provisioner"] == {"create persistentvolumes": 1}


def test_a_restart_writes_nothing_about_old_jobs(figures: Any) -> None:
    assert figures["restart"]["writes"] == []
    assert figures["restart"]["shown"] > figures["restart"]["running"] > 0


def test_what_is_left_of_jobs_is_what_stays(figures: Any) -> None:
    """Ledgers and claims of each: those measured, one beside them, and one after the restart."""
    left = figures["deletion"]["left"]
    assert left["persistentvolumeclaims"] == JOBS + 2
    assert left["privacyledgers"] >= JOBS + 2
