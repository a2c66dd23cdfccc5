"""Which pod is which worker: positions in a gang, and the names of a job's two StatefulSets.

The coordinator, at position 0, is the one pod of the set that has the name of the job's other
children. The worker at position i + 1 is pod i of the other set, which has `-w` behind that name.
"""

from __future__ import annotations

import re
from enum import StrEnum

_ORDINAL = re.compile("0|[1-9][0-9]{0,9}")


class Role(StrEnum):
    """What a worker is in its gang; each role has a StatefulSet of its own."""

    COORDINATOR = "coordinator"
    WORKER = "worker"


_SUFFIXES = {Role.COORDINATOR: "", Role.WORKER: "-w"}


def set_name(child: str, role: Role) -> str:
    """Name of a role's StatefulSet, where the job's children are named `child`."""
    return child + _SUFFIXES[role]


def child_of_set(stateful_set: str) -> str:
    """Name of the children of which a StatefulSet of that name is one.

    No job's children have a name that ends as that of a set of workers: it ends with hexadecimal
    digits.
    """
    return stateful_set.removesuffix(_SUFFIXES[Role.WORKER])


def role_at(position: int) -> Role:
    """What the worker at a position is."""
    return Role.COORDINATOR if position == 0 else Role.WORKER


def positions(role: Role, workers: int) -> range:
    """Positions of a role's pods in a gang of so many workers, in order of their ordinals."""
    return range(min(1, workers)) if role is Role.COORDINATOR else range(1, max(1, workers))


def pod_name(child: str, position: int) -> str:
    """Name of the pod at a position."""
    return f"{set_name(child, role_at(position))}-{max(0, position - 1)}"


def position_of(child: str, pod: str) -> int | None:
    """Position of the pod of that name; None where it is no worker's."""
    owner, _, ordinal = pod.rpartition("-")
    if not _ORDINAL.fullmatch(ordinal):
        return None
    if owner == set_name(child, Role.WORKER):
        return int(ordinal) + 1
    return 0 if pod == pod_name(child, 0) else None
