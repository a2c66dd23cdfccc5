"""A make-believe job in a cluster whose API server's address is known."""

from __future__ import annotations

import copy
from typing import Any

from dtjob_operator.terms.observed import Endpoint
from dtjob_operator.terms.settings import Settings
from tests.support.worlds.world import PLAN, World, claim, pod

API_SERVER = (Endpoint(("192.0.2.10/32",), (6443,)), Endpoint(("10.96.0.1/32",), (443,)))


def started(**settings: Any) -> World:
    """Two pods that are up and have not met yet."""
    world = World.of(privacy_plan=PLAN, api_server=API_SERVER)
    world.settings = Settings(**settings)
    world.settle()
    world.see(pods=(pod(0), pod(1)), claim=claim())
    return world


def with_network(world: World, **network: Any) -> None:
    """The job's owner edits spec.network."""
    job = copy.deepcopy(world.observed.job)
    job["spec"]["network"] = network
    job["metadata"]["generation"] += 1
    world.see(job=job)
    world.settle()
