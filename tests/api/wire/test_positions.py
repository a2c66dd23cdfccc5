"""One mapping between positions in a gang and the pods of a job's two StatefulSets."""

from __future__ import annotations

import pytest

from dtjob_api.derive import child_name
from dtjob_api.job.distributed_training_job import MAX_NAME_LENGTH
from dtjob_api.wire.positions import Role, pod_name, position_of, positions, role_at, set_name

LONGEST_SET_NAME = 52
"""Kubernetes puts `<name>-<ten characters>` into a label of each pod, which may have 63."""


@pytest.mark.parametrize(
    ("position", "pod"),
    [(0, "digits-0"), (1, "digits-w-0"), (2, "digits-w-1"), (511, "digits-w-510")],
)
def test_a_position_and_its_pod_belong_to_one_another(position: int, pod: str) -> None:
    assert pod_name("digits", position) == pod
    assert position_of("digits", pod) == position
    assert pod.rpartition("-")[0] == set_name("digits", role_at(position))


@pytest.mark.parametrize(
    "name",
    [
        "digits",
        "digits-",
        "digits-1",  # of the coordinator's set, if somebody scales it up
        "digits-00",
        "digits-w",
        "digits-w-",
        "digits-w-00",
        "digits-w-0-0",
        "digits-w--1",
        "digits-w-0\n",
        "digits-w-\u0661",
        "digits-w-99999999999",
        "digits-w-w-0",
        "miner-0",
        "miner-w-0",
    ],
)
def test_other_names_are_of_no_position(name: str) -> None:
    assert position_of("digits", name) is None


@pytest.mark.parametrize("workers", [0, 1, 2, 512])
def test_each_position_has_one_role(workers: int) -> None:
    of = {role: list(positions(role, workers)) for role in Role}
    assert of[Role.COORDINATOR] + of[Role.WORKER] == list(range(workers))
    assert all(role_at(position) is role for role in Role for position in of[role])


@pytest.mark.parametrize("rerun", [0, 1, 10**9])
def test_the_longest_names_of_sets_fit_a_pods_revision_label(rerun: int) -> None:
    child = child_name("j" * MAX_NAME_LENGTH, "01234567-89ab-cdef-0123-456789abcdef", rerun)
    assert max(len(set_name(child, role)) for role in Role) <= LONGEST_SET_NAME
