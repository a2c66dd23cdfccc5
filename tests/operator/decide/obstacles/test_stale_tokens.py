"""Pods whose account was made anew are replaced; clocks that were put back stop no training."""

from __future__ import annotations

import copy
from datetime import datetime, timedelta
from typing import Any

from tests.support.worlds.world import NOW, PLAN, World, pod, report, running, stamp

Json = dict[str, Any]


def account_of(world: World, created: datetime) -> Json:
    account = copy.deepcopy(world.observed.service_account)
    assert account is not None
    account["metadata"]["creationTimestamp"] = stamp(created)
    return account


def started() -> World:
    world = World.of(privacy_plan=PLAN)
    world.settle()
    return world


def sizes(world: World) -> tuple[int, ...]:
    sets = (world.observed.coordinator_set, world.observed.worker_set)
    return tuple(each["spec"]["replicas"] for each in sets if each is not None)


def test_pods_are_replaced_when_their_account_was_made_anew() -> None:
    """Their tokens are dead; one pod that is left keeps the others from coming back."""
    world = started()
    account = account_of(world, NOW + timedelta(seconds=1))
    old, new = (pod(0), pod(1)), (pod(0, NOW + timedelta(seconds=1)),)
    world.later(1)
    seen = []
    for pods in (old, old[:1], (), new):
        world.see(pods=pods, service_account=account)
        world.settle()
        seen.append((sizes(world), world.reason("ResourcesReady")[1]))
    replaced = ((0, 0), "ServiceAccountReplaced")
    assert seen[:2] == [replaced, replaced]
    assert [size for size, _ in seen[2:]] == [(1, 1), (1, 1)]
    assert "ServiceAccountReplaced" not in {reason for _, reason in seen[2:]}


def test_whose_tokens_are_refused_is_named() -> None:
    world = started()
    account = account_of(world, NOW + timedelta(seconds=1))
    world.later(1)
    world.see(pods=(pod(0), pod(1)), service_account=account)
    world.settle()
    message = world.condition("Running")["message"]
    assert "ServiceAccount dtjob-worker in namespace research was deleted" in message
    assert "older pods hold (2)" in message


def test_pods_stay_whose_account_was_made_under_a_clock_that_was_ahead() -> None:
    """The API server's clock was put right: each new pod would seem older than the account."""
    world = started()
    account = account_of(world, NOW + timedelta(days=2))
    world.later(60)
    world.see(service_account=account, pods=(pod(0, world.now), pod(1, world.now)))
    world.settle()
    assert sizes(world) == (1, 1)


def test_a_gang_that_trains_is_left_alone_when_that_time_comes() -> None:
    world = running()
    world.see(service_account=account_of(world, NOW + timedelta(hours=1)))
    for seconds in (1800, 1801):
        world.later(seconds)
        world.see(report=report(100, heartbeatTime=stamp(world.now)))
        world.settle()
        assert sizes(world) == (1, 1)
        assert world.status["phase"] == "Running"


def test_a_gang_whose_tokens_are_refused_is_replaced_though_its_pods_seem_well() -> None:
    """It waits for a ledger that it may not read any more; its probes are answered all the same."""
    world = running()
    world.later(60)
    world.see(service_account=account_of(world, world.now))
    world.see(report=report(100, heartbeatTime=stamp(world.now), state="Waiting"))
    world.settle()
    assert sizes(world) == (0, 0)
    assert world.reason("Running") == ("False", "ServiceAccountReplaced")
