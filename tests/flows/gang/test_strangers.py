"""Who is no worker, and who no longer is one, against real supervisors (rules 2 and 10)."""

from __future__ import annotations

import json
import os
import signal
import socket
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from dtjob_api.wire.worker_config import GangProof, ProofKind, WorkerConfig
from dtjob_trainer.ledger import journal
from tests.support.gangs.fake_issuer import AUDIENCE, FakeIssuer, claims, serving
from tests.support.gangs.gang_run import PATIENCE, GangRun, signal_all, with_descendants
from tests.support.gangs.oracle import assert_finished, assert_true_account
from tests.support.strangers.garbage import a_lie, garbage, listeners, throw

pytestmark = [pytest.mark.processes, pytest.mark.timeout(900)]


@dataclass
class PodRun(GangRun):
    """Workers that prove by tokens which pods they are."""

    pods: dict[int, str] = field(default_factory=lambda: {0: "pod-0", 1: "pod-1"})

    def config(self, position: int) -> WorkerConfig:
        config = super().config(position)
        path = str(self.folder / f"token-{self.pods[position]}")
        proof = GangProof(kind=ProofKind.TOKEN, path=path, audience=AUDIENCE, stateful_set="faults")
        # A second pod of a position has an address of its own.
        port = config.http_port if self.pods[position] == f"pod-{position}" else self.http_port + 2
        return config.model_copy(update={"proof": proof, "http_port": port})


def test_two_pods_of_one_position_compete(
    tmp_path: Path, runs: list[GangRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one was cut off from its node's API server, and its token still holds."""
    with serving(FakeIssuer()) as issuer:
        monkeypatch.setenv("KUBECONFIG", str(issuer.kubeconfig(tmp_path)))
        for position, pod in ((0, "pod-0"), (1, "pod-1"), (1, "pod-1-again")):
            token = issuer.keys[0].sign(claims(position, pod))
            (tmp_path / f"token-{pod}").write_text(token)
        run = PodRun(tmp_path, gate_at=8)
        runs.append(run)
        run.create_ledger()
        run.start()
        run.wait_for_step(8)
        old = run.processes[1]
        ranks_of_old = set(with_descendants(old.pid))
        run.pods[1] = "pod-1-again"
        run.start_worker(1)
        try:
            run.wait_for_step(8, attempt=2)
            assert old.poll() is None
            run.wait("refusal of the old pod", lambda: "was replaced by pod" in run.logs())
            run.open_gate()
            ledger = assert_finished(run)
            late = {e.pid for e in run.executed() if e.attempt > 1}
            assert not late & ranks_of_old
        finally:
            signal_all(with_descendants(old.pid), signal.SIGKILL)
            old.wait(timeout=PATIENCE)
    assert ledger.status.attempt == 2
    first = ledger.status.attempts[0]
    assert (first.reason, first.message) == ("WorkerLost", "worker 1 was restarted")


def listening(pids: list[int]) -> dict[int, str]:
    """TCP ports of processes, each with the address that it listens on."""
    sockets = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(entry)
            if target.startswith("socket:["):
                sockets.add(target[8:-1])
    found = {}
    for address, port, inode in listeners(Path("/proc/net/tcp")):
        if inode in sockets:
            found[port] = socket.inet_ntoa(bytes.fromhex(address)[::-1])
    return found


def test_garbage_at_every_port_spends_nothing_twice(tmp_path: Path, runs: list[GangRun]) -> None:
    """It may end the attempt: gloo's own listeners ask nobody who he is."""
    run = GangRun(tmp_path, gate_at=8)
    runs.append(run)
    run.create_ledger()
    run.start()
    run.wait_for_step(8)
    places = listening(run.pids())
    ours = {run.store_port, run.hello_port, run.http_port, run.http_port + 1}
    assert ours < set(places), "gloo and the store listen too"
    for words in garbage():
        for port, address in places.items():
            throw("127.0.0.1" if address == "0.0.0.0" else address, port, words)
    run.open_gate()
    ledger = assert_finished(run)
    assert run.state is not None
    assert max(j.charged for j in journal.read_all(run.state)) == ledger.status.charged


def test_a_hello_without_proof_is_not_listened_to(tmp_path: Path, runs: list[GangRun]) -> None:
    """It ended any job for good; another incarnation burned its reserve."""
    run = GangRun(tmp_path, gate_at=8, workers=2)
    runs.append(run)
    run.create_ledger()
    run.start()
    run.wait_for_step(8)
    body = a_lie().model_dump_json()
    for headers in ({}, {"Authorization": "Bearer " + "0" * 64}):
        url = f"http://127.0.0.1:{run.hello_port}/gang/hello"
        answer = httpx.post(url, content=body, headers=headers)
        assert answer.status_code == 401, answer.text
    assert httpx.post(f"http://127.0.0.1:{run.http_port}/gang/hello", content=body).is_error
    run.open_gate()
    assert assert_finished(run).status.attempt == 1
    assert_true_account(run)
    lines = [json.loads(line) for line in run.log(0).read_text().splitlines() if "refused" in line]
    assert lines[0]["message"] == "hello refused"
