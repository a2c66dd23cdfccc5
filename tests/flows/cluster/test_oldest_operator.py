"""The operator works with the API server of the oldest Kubernetes that docs/cluster.md names.

Under its own account, with all that is installed. There is no controller: pods never come.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from ruamel.yaml import YAML

from dtjob_api.job.status import JobStatus
from dtjob_operator.kube import guard
from dtjob_operator.kube.api_server import credentials
from dtjob_operator.kube.client import KubeClient
from dtjob_operator.terms.kinds import JOB_UID_LABEL
from localcluster.base.progress import Progress
from localcluster.install import kubectl as kubectl_program
from tests.support.clusters import bare_api_server
from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.kube import Kubectl, wait_for
from tests.support.clusters.operator_process import (
    BASE,
    OPERATOR_NAMESPACE,
    OperatorProcess,
    child_name,
    install,
    unplaced_job,
)

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.nightly(minutes=3, together=True),
    pytest.mark.oldest_kubernetes,
    pytest.mark.timeout(600),
]
OPERATOR = "--as=system:serviceaccount:dtjob-system:dtjob-operator"
DRY = "--dry-run=server"
OF_JOB = ("service", "networkpolicy", "poddisruptionbudget", "statefulset", "statefulset/-w")
SHARED = ("serviceaccount", "rolebinding")
BY_HAND: dict[str, Any] = {
    "service": {"spec": {"publishNotReadyAddresses": False}},
    "networkpolicy": {"spec": {"ingress": []}},
    "poddisruptionbudget": {"spec": {"maxUnavailable": 2}},
    "statefulset": {"spec": {"replicas": 0}},
    "statefulset/-w": {"spec": {"replicas": 5}},
}
UNOWNED: dict[str, Any] = {"metadata": {"ownerReferences": []}}
UNLABELLED: dict[str, Any] = {"metadata": {"labels": {JOB_UID_LABEL: None}}}
Answer = TypeVar("Answer")


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """The administrator of an API server in which dtjob is installed, but for its pod."""
    bare_api_server.build()
    program = kubectl_program.find(Progress())
    with bare_api_server.serving(tmp_path_factory.mktemp("oldest")) as kubeconfig:
        admin = Kubectl(program, kubeconfig, OPERATOR_NAMESPACE)
        install(admin)
        yield admin


@pytest.fixture(scope="module")
def account(admin: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kubeconfig of the operator's own account."""
    token = admin("create", "token", "dtjob-operator", "--duration=1h").strip()
    content = json.loads(admin.kubeconfig.read_text())
    content["users"] = [{"name": content["users"][0]["name"], "user": {"token": token}}]
    path = tmp_path_factory.mktemp("account") / "kubeconfig"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def operator(account: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """The operator, at work; it has logged no error in the end."""
    process = OperatorProcess(account, tmp_path_factory.mktemp("operator") / "log")
    try:
        process.wait_until_ready()
        yield process
    finally:
        process.kill()
    assert [line for line in process.logs() if line["level"] in ("error", "critical")] == []


@pytest.fixture(scope="module")
def research(admin: Kubectl) -> Kubectl:
    """The administrator in a namespace for jobs."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": "research", "labels": labels}
    admin.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    return Kubectl(admin.program, admin.kubeconfig, "research")


@pytest.fixture(scope="module")
def job(operator: OperatorProcess, research: Kubectl) -> Manifest:
    """A job of two workers as it is stored, once the operator has seen to it."""
    research.apply(unplaced_job("digits"))

    def starts(found: Manifest) -> bool:
        return bool(found.get("status", {}).get("phase") == "Starting")

    return research.wait("dtjob", "digits", starts, 120)


def test_it_takes_all_that_is_installed(admin: Kubectl) -> None:
    rendered = list(YAML(typ="safe").load_all(admin("kustomize", str(BASE))))
    answered = admin("apply", f"--kustomize={BASE}", DRY, "--output=name").splitlines()
    kinds = {"Deployment", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
    assert kinds <= {each["kind"] for each in rendered}
    assert len(answered) == len(rendered)


def asked(account: Path, what: Callable[[KubeClient, str], Awaitable[Answer]]) -> Answer:
    """What the operator finds out of the API server under its own account."""

    async def ask() -> Answer:
        client = KubeClient(await credentials(str(account)), lambda _verb, _kind, _code: None)
        try:
            return await what(client, OPERATOR_NAMESPACE)
        finally:
            await client.close()

    return asyncio.run(ask())


def test_ledgers_are_guarded(admin: Kubectl, account: Path) -> None:
    """By the operator's own proof, as it starts with."""
    asked(account, guard.prove)
    assert asked(account, guard.policy_is_active)
    assert asked(account, guard.lapse) is None
    canary = admin.get("privacyledger", guard.CANARY)
    assert canary is not None
    assert canary["status"]["charged"] == 1


def test_a_policy_that_is_not_there_is_found_out_and_nothing_goes_by_that(
    admin: Kubectl, account: Path
) -> None:
    asked(account, guard.prove)
    before = admin.get("privacyledger", guard.CANARY)
    admin("delete", "validatingadmissionpolicybinding", "ledger-writer.dtjob.dev")
    try:
        wait_for("it is found out", lambda: not asked(account, guard.policy_is_active), 60)
        assert admin.get("privacyledger", guard.CANARY) == before
    finally:
        install(admin)


def test_ledgers_are_not_lost_with_their_definition(admin: Kubectl) -> None:
    definition = ("crd", "privacyledgers.dtjob.dev")

    def refused() -> bool:
        try:
            admin("delete", *definition, DRY)
        except AssertionError as error:
            return "dtjob.dev/allow-ledger-loss=true" in str(error)
        return False

    wait_for("the policy ledger-loss is in force", refused, 60)
    admin("annotate", *definition, "dtjob.dev/allow-ledger-loss=true")
    wait_for("it lets who says so", lambda: not refused(), 60)
    admin("annotate", *definition, "dtjob.dev/allow-ledger-loss-")


def found(research: Kubectl, job: Manifest, which: str) -> Manifest | None:
    """A child of the job, by kind and the end of its name."""
    kind, _, suffix = which.partition("/")
    return research.get(kind, "dtjob-worker" if which in SHARED else child_name(job) + suffix)


def test_every_child_is_made_and_the_status_says_so(research: Kubectl, job: Manifest) -> None:
    for which in (*OF_JOB, *SHARED):
        assert found(research, job, which) is not None, which
    ledger = found(research, job, "privacyledger")
    assert ledger is not None
    assert ledger["spec"]["plan"]["steps"] == 40
    sets = [found(research, job, which) or {} for which in ("statefulset", "statefulset/-w")]
    assert [each["spec"]["replicas"] for each in sets] == [1, 1]
    status = JobStatus.model_validate(job["status"])
    reasons = {str(each.type): (each.status, each.reason) for each in status.conditions}
    assert reasons["Accepted"] == ("True", "Planned")
    assert reasons["ResourcesReady"] == ("False", "CreatingResources")
    assert reasons["Running"] == ("False", "WaitingForWorkers")
    assert status.display is not None
    assert status.display.ready == "0/2"


def identity(child: Manifest) -> list[Any]:
    """What of a child may not change."""
    fields = ("uid", "labels", "ownerReferences")
    return [child["spec"], *(child["metadata"].get(field) for field in fields)]


@pytest.mark.parametrize("which", OF_JOB)
@pytest.mark.parametrize("how", ["spec", "owner", "label"])
def test_a_change_by_hand_is_put_right(
    research: Kubectl, job: Manifest, which: str, how: str
) -> None:
    before = found(research, job, which)
    assert before is not None
    changes = {"spec": BY_HAND[which], "owner": UNOWNED, "label": UNLABELLED}
    patch = json.dumps(changes[how])
    kind, _, suffix = which.partition("/")
    named = (kind, child_name(job) + suffix)
    assert "(no change)" not in research("patch", *named, "--type=merge", f"--patch={patch}")

    def right() -> bool:
        now = found(research, job, which)
        return now is not None and identity(now) == identity(before)

    wait_for(f"the {which} is as it was", right, 60)


@pytest.mark.parametrize("kind", SHARED)
def test_what_jobs_share_comes_back(research: Kubectl, job: Manifest, kind: str) -> None:
    research("delete", kind, "dtjob-worker")
    wait_for(f"the {kind} is back", lambda: found(research, job, kind), 60)


@pytest.mark.parametrize("which", OF_JOB[:4])
def test_a_foreign_write_in_the_operators_name_is_refused(
    research: Kubectl, job: Manifest, which: str
) -> None:
    """By the policy operator-writes: its account may write such objects of its jobs alone."""
    child = found(research, job, which)
    assert child is not None
    metadata = {field: child["metadata"][field] for field in ("labels", "ownerReferences")}
    own = {field: child[field] for field in ("apiVersion", "kind", "spec")}
    own |= {"metadata": metadata | {"name": "another"}}
    foreign = own | {"metadata": {"name": "another"}}
    create = ("create", "--filename=-", DRY, OPERATOR)

    def refused() -> bool:
        try:
            research(*create, stdin=json.dumps(foreign))
        except AssertionError as error:
            return "the dtjob operator writes no object but those of its jobs" in str(error)
        return False

    wait_for("the policy operator-writes is in force", refused, 60)
    research(*create, stdin=json.dumps(own))
