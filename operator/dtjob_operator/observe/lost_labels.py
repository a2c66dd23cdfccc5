"""Pods that a StatefulSet has let go of, since they lost a label of its selector.

Such a pod keeps its name, so that none can replace it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

from dtjob_api.wire import positions
from dtjob_api.wire.positions import Role
from dtjob_operator.read.events import newest
from dtjob_operator.terms import names
from dtjob_operator.terms.clocks import elapsed
from dtjob_operator.terms.kinds import Json
from dtjob_operator.terms.observed import EventsByObject

# A younger StatefulSet may not have made its pods yet.
_POD_CREATION_TIME = timedelta(seconds=10)
_MAX_LOOKED_UP = 4


def missed(
    sets: Mapping[Role, Json | None], child: str, pods: Iterable[Json], events: EventsByObject
) -> tuple[str, ...]:
    """Names of pods that a StatefulSet has missed for a while, and gives no reason: the first."""
    return tuple(itertools.islice(_missed(sets, child, pods, events), _MAX_LOOKED_UP))


def of_pod(job: Json, child: str, pod: Json) -> dict[str, str]:
    """The labels that a pod with the name of a worker lacks."""
    metadata = job["metadata"]
    position = positions.position_of(child, pod["metadata"]["name"])
    if position is None:
        return {}
    return names.missing_labels(metadata["name"], metadata["uid"], position, pod)


def _missed(
    sets: Mapping[Role, Json | None], child: str, pods: Iterable[Json], events: EventsByObject
) -> Iterator[str]:
    managed = {pod["metadata"]["name"] for pod in pods if names.controller_of(pod) is not None}
    for role, of_set in sets.items():
        if of_set is None or not _misses_pods(of_set):
            continue
        if newest(events, "StatefulSet", of_set["metadata"]["name"], {"FailedCreate"}) is not None:
            continue
        # All of a gang that is as large as this set makes it.
        workers = of_set["spec"]["replicas"] + (role is Role.WORKER)
        for position in positions.positions(role, workers):
            if (name := positions.pod_name(child, position)) not in managed:
                yield name


def _misses_pods(stateful_set: Json) -> bool:
    """Whether a StatefulSet has fewer pods than it should, and has had the time to make them."""
    metadata, status = stateful_set["metadata"], stateful_set.get("status") or {}
    age = elapsed(datetime.fromisoformat(metadata["creationTimestamp"]), datetime.now(UTC))
    return (
        age > _POD_CREATION_TIME
        and status.get("observedGeneration") == metadata.get("generation")
        and status.get("replicas", 0) < stateful_set["spec"].get("replicas", 0)
    )
