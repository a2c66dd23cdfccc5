"""What the installation's ClusterRoles for people let somebody do who has nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.support.clusters.kube import Kubectl
from tests.support.clusters.operator_account import DRY
from tests.support.clusters.operator_process import unplaced_job

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

JOBS = "distributedtrainingjobs"


@pytest.fixture(scope="module")
def home(installed: Kubectl, new_namespace: Callable[[], Kubectl]) -> Kubectl:
    """A namespace with a job, where eve has `dtjob-edit` and vic has `dtjob-view`."""
    home = new_namespace()
    for role, user in (("dtjob-edit", "eve"), ("dtjob-view", "vic")):
        home("create", "rolebinding", user, f"--clusterrole={role}", f"--user={user}")
    home.apply(unplaced_job("digits", suspend=True))
    return home


def test_who_edits_jobs_sees_them(home: Kubectl) -> None:
    assert "digits" in home("get", JOBS, "--as=eve", "--output=name")
    assert "digits" in home("get", JOBS, "digits", "--as=eve", "--output=name")
    home("apply", "--filename=-", DRY, "--as=eve", stdin=json.dumps(unplaced_job("digits")))
    home("scale", "dtjob", "digits", "--replicas=3", DRY, "--as=eve")
    home("delete", "dtjob", "digits", DRY, "--as=eve")
    assert "forbidden" in home("get", "privacyledgers", "--as=eve", fails=True)


def test_who_views_jobs_changes_none(home: Kubectl) -> None:
    assert "digits" in home("get", JOBS, "--as=vic", "--output=name")
    home("get", "privacyledgers", "--as=vic")
    change = ("--type=merge", '--patch={"spec":{"suspend":false}}', DRY, "--as=vic")
    assert "forbidden" in home("patch", "dtjob", "digits", *change, fails=True)
    assert "forbidden" in home("delete", "dtjob", "digits", DRY, "--as=vic", fails=True)
