"""Two operators at a time: one works, and the other when that one is gone; if both do, no harm."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.checkout import SUPPORT
from tests.support.clusters import standstill
from tests.support.clusters.api_proxy import ApiProxy
from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.kube import Kubectl, wait_for
from tests.support.clusters.operator_process import OperatorProcess, child_name, unplaced_job
from tests.support.jobs.played_jobs import Player, played_job

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

AFTER_A_KILL, AFTER_A_STOP = 20.0, 3.0
SUPERSEDED = 3
Start = Callable[[], OperatorProcess]


def leads(process: OperatorProcess) -> bool:
    return process.ready() == "ok"


def stands_by(process: OperatorProcess) -> bool:
    return process.ready().startswith("standby: ")


@pytest.fixture
def pair(start_operator: Start) -> tuple[OperatorProcess, OperatorProcess]:
    """One that leads, and one that stands by."""
    leader = start_operator()
    leader.wait_until_ready()
    standby = start_operator()
    wait_for("a standby", lambda: stands_by(standby), 180)
    return leader, standby


def lead_after(began: float, process: OperatorProcess) -> float:
    """Seconds until it leads; the time in which the machine stood still is none."""
    wait_for("it leads", lambda: leads(process), 120, every=0.05)
    return standstill.ran(began, time.time())


def phase(kubectl: Kubectl, name: str) -> str | None:
    return ((kubectl.get("dtjob", name) or {}).get("status") or {}).get("phase")


def test_the_leader_is_killed(
    pair: tuple[OperatorProcess, OperatorProcess], namespace: Kubectl
) -> None:
    """The other leads within 20 s, and brings on what the first had begun and what came since."""
    leader, standby = pair
    assert (leader.metrics()["dtjob_leader"], standby.metrics()["dtjob_leader"]) == (1, 0)
    assert standby.metrics()['dtjob_reconciles_total{result="ok"}'] == 0
    namespace.apply(unplaced_job("first"))
    wait_for("it starts", lambda: phase(namespace, "first") == "Starting", 120)
    began = time.time()
    leader.kill()
    namespace.apply(unplaced_job("second"))
    seconds = lead_after(began, standby)
    print(f"led {seconds:.1f} s after a kill")
    assert seconds < AFTER_A_KILL
    assert standby.metrics()["dtjob_leader"] == 1
    wait_for("the second starts", lambda: phase(namespace, "second") == "Starting", 120)
    assert standby.terminate() == 0


def test_the_leader_is_stopped(pair: tuple[OperatorProcess, OperatorProcess]) -> None:
    leader, standby = pair
    began = time.time()
    leader.signal(signal.SIGTERM)
    seconds = lead_after(began, standby)
    print(f"led {seconds:.1f} s after a stop")
    assert seconds < AFTER_A_STOP
    assert leader.wait(60) == 0
    assert standby.terminate() == 0


def test_who_comes_back_when_another_leads_writes_nothing_and_ends(
    pair: tuple[OperatorProcess, OperatorProcess], namespace: Kubectl
) -> None:
    """As one whose machine was suspended, with a job to look at when it goes on."""
    leader, standby = pair
    leader.signal(signal.SIGSTOP)
    try:
        wait_for("the other leads", lambda: leads(standby), 120)
        namespace.apply(unplaced_job("digits"))
        wait_for("it starts", lambda: phase(namespace, "digits") == "Starting", 120)
    finally:
        leader.signal(signal.SIGCONT)
    assert leader.wait(60) == SUPERSEDED
    lines = [line["event"] for line in leader.logs()]
    assert lines[-1] == "another operator leads; this one ends"
    assert not {"child made", "child changed"} & set(lines)
    assert standby.terminate() == 0


def test_a_lease_is_renewed_every_five_seconds(start_operator: Start, proxy: ApiProxy) -> None:
    process = start_operator()
    process.wait_until_ready()
    before = len(proxy.asked)
    time.sleep(21)
    writes = [each for each in proxy.asked[before:] if each.resource == "leases"]
    assert {each.verb for each in writes} == {"update"}
    assert 3 <= len(writes) <= 5
    assert process.terminate() == 0


@pytest.fixture
def also_leads(
    proxy: ApiProxy, operator_token: str, tmp_path: Path
) -> Iterator[Callable[[], OperatorProcess]]:
    """Start an operator that works whoever holds the Lease."""
    started: list[OperatorProcess] = []

    def start() -> OperatorProcess:
        program = SUPPORT / "clusters" / "always_elected.py"
        kubeconfig, log = proxy.kubeconfig(operator_token), tmp_path / "also.log"
        started.append(OperatorProcess(kubeconfig, log, program=program))
        return started[-1]

    yield start
    for process in started:
        assert process.terminate() == 0
        assert not [line for line in process.logs() if line["level"] in ("error", "critical")]


def end(kubectl: Kubectl) -> Manifest:
    """What a job has come to, without what differs from one to the next."""
    wait_for("the end", lambda: phase(kubectl, "digits") == "Succeeded", 180)
    of_pods = ("pods", "statefulset", "service", "networkpolicy", "poddisruptionbudget")
    wait_for("nothing of its pods is left", lambda: not any(map(kubectl.list, of_pods)), 60)
    stored = kubectl.get("dtjob", "digits")
    assert stored is not None
    (ledger,) = kubectl.list("privacyledgers")
    status, account = stored["status"], ledger["status"]
    children = ("statefulset", "service", "networkpolicy", "poddisruptionbudget", "pvc")
    found = {
        "conditions": [(c["type"], c["status"], c["reason"]) for c in status["conditions"]],
        "result": status["result"]["evaluation"],
        "charged": (account["charged"], status["privacy"]["drawsCharged"]),
        "attempts": [attempt["reason"] for attempt in account["attempts"]],
        "children": {kind: len(kubectl.list(kind)) for kind in children},
        "ledger": ledger["spec"]["reservedDraws"],
        "events": {
            event["reason"]
            for event in kubectl.list("events")
            if event["involvedObject"]["uid"] == stored["metadata"]["uid"]
        },
    }
    assert child_name(stored) == ledger["metadata"]["name"]
    return found


def test_two_that_work_at_a_time_do_no_harm(
    start_operator: Start,
    also_leads: Start,
    player: Player,
    new_namespace: Callable[[], Kubectl],
) -> None:
    """The job ends as under one, with each child once, and is charged once."""
    alone, together = new_namespace(), new_namespace()
    script = {"secondsPerStep": 0.1, "evaluation": {"accuracy": 0.5}}
    first = start_operator()
    first.wait_until_ready()
    alone.apply(played_job("digits", player.label, script))
    as_of_one = end(alone)
    second = also_leads()
    second.wait_until_ready()
    together.apply(played_job("digits", player.label, script))
    assert end(together) == as_of_one
    assert as_of_one["charged"] == (40, 40)
    for process in (first, second):
        assert process.metrics()['dtjob_reconciles_total{result="ok"}'] > 5
    assert first.terminate() == 0
