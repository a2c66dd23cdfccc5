"""Every attack on a ledger, tried on the API server; what protects it is the CRD and a policy."""

from __future__ import annotations

import copy
import json
import os
import re
import secrets
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dtjob_api.derive import child_name
from dtjob_api.ledger.attempt_rules import ATTEMPTS_NEVER_VANISH
from dtjob_api.ledger.ledger_rules import (
    ATTEMPT_RISES_BY_ONE,
    CHARGED_NEVER_DECREASES,
    OUTCOME_IS_FINAL,
    RESERVED_COVERS_CHARGED,
    STATUS_NEVER_VANISHES,
)
from dtjob_cli.main import app
from tests.support.builders import UID, created, new_ledger, public_plan
from tests.support.checkout import ROOT
from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.kube import Kubectl, unguarded, wait_for
from tests.support.clusters.ledger_writers import bound_token, grant, workers

pytestmark = pytest.mark.cluster

SET = child_name("victim", UID)
COORDINATOR = f"{SET}-0"
NOT_THE_COORDINATOR = "only the coordinator pod of the ledger's own StatefulSet"
NOT_THE_OPERATOR = "only the dtjob operator"
NEVER_DELETED = "never deleted"
LEDGER_ATTEMPT_FALLS = "status.attempt never decreases"
TIME = "2026-01-01T00:00:00Z"
CHECKPOINT = {
    "step": 10,
    "charged": 20,
    "attempt": 2,
    "path": "attempt-2/step-10.pt",
    "sha256": "0" * 64,
    "time": TIME,
}
FIRST = {"attempt": 1, "start": TIME, "end": TIME, "reason": "RankFailed", "exitCode": 1}
SECOND = {"attempt": 2, "start": TIME}
IN_USE: dict[str, Any] = {
    "attempt": 2,
    "attempts": [FIRST, SECOND],
    "charged": 20,
    "lease": {"attempt": 2, "fromDraw": 10, "toDraw": 20, "fromStep": 10},
    "segments": [{"draws": 20, "image": "example.invalid/trainer:1"}],
}
EPSILON_FROM_SEGMENTS = "status.segments must hold status.charged draws in all"
OUTCOME = {
    "state": "Succeeded",
    "reason": "Completed",
    "message": "",
    "time": "2026-01-01T00:00:00Z",
}
WithToken = Callable[[Kubectl, str], Kubectl]
PRIVACY_PAGE = ROOT / "docs" / "privacy.md"


def ledger(job_name: str = "victim") -> Manifest:
    return created(new_ledger(public_plan(steps=40), job_name=job_name, workers=2))


def put_status(kubectl: Kubectl, status: Manifest | None, *, fails: bool = False) -> str:
    """Replace the ledger's status as the workers do; returns what is said about a failure."""
    stored = json.loads(kubectl("get", "privacyledger", SET, "--output=json"))
    changed = copy.deepcopy(stored)
    changed.pop("status", None)
    if status is not None:
        changed["status"] = status
    arguments = ("replace", "--subresource=status", "--filename=-")
    return kubectl(*arguments, stdin=json.dumps(changed), fails=fails)


@pytest.fixture(scope="module")
def home(
    new_namespace: Callable[[], Kubectl],
    installed: Kubectl,
    operator_token: str,
    with_token: WithToken,
) -> Kubectl:
    """A namespace with a ledger, its job's two pods and a pod of another job."""
    kubectl = new_namespace()
    workers(kubectl, COORDINATOR, f"{SET}-w-0", "other-4e5f6a7b-0")
    with_token(kubectl, operator_token)("create", "--filename=-", stdin=json.dumps(ledger()))
    wait_for("the policy works, some seconds after it is installed", lambda: _refused(kubectl), 30)
    return kubectl


def _refused(kubectl: Kubectl, name: str = SET) -> bool:
    try:
        refusal = kubectl("delete", "privacyledger", name, "--dry-run=server", fails=True)
    except AssertionError:
        return False
    return NEVER_DELETED in refusal


@pytest.fixture(scope="module")
def coordinator(home: Kubectl, with_token: WithToken) -> Kubectl:
    """kubectl as the coordinator pod, which has charged 20 draws."""
    kubectl = with_token(home, bound_token(home, COORDINATOR))

    put_status(kubectl, IN_USE)
    return kubectl


@pytest.fixture(scope="module")
def tampering_user(home: Kubectl, coordinator: Kubectl) -> str:
    """A user who may do all to ledgers, but for the verbs `plan` and `restore`."""
    verbs = "get,list,create,update,patch,delete,deletecollection"
    resources = "privacyledgers.dtjob.dev,privacyledgers.dtjob.dev/status"
    home("create", "role", "all", f"--verb={verbs}", f"--resource={resources}")
    home("create", "rolebinding", "all", "--role=all", "--user=mallory")
    return "--as=mallory"


@pytest.fixture(scope="module", params=["Role with verbs *", "cluster-admin in the namespace"])
def tenant(request: pytest.FixtureRequest, home: Kubectl, coordinator: Kubectl) -> str:
    """A user who may do all in the namespace, the policy's own verbs among it."""
    if request.param == "cluster-admin in the namespace":
        home("create", "rolebinding", "clara", "--clusterrole=cluster-admin", "--user=clara")
        return "--as=clara"
    everything = {"apiGroups": ["dtjob.dev"], "resources": ["*"], "verbs": ["*"]}
    api = "rbac.authorization.k8s.io/v1"
    metadata = {"name": "wildcard"}
    home.apply({"apiVersion": api, "kind": "Role", "metadata": metadata, "rules": [everything]})
    home("create", "rolebinding", "wildcard", "--role=wildcard", "--user=wanda")
    return "--as=wanda"


def changed(**fields: Any) -> Manifest:
    status = {**copy.deepcopy(IN_USE), **fields}
    return {name: value for name, value in status.items() if value is not None}


@pytest.mark.rule(10)
@pytest.mark.parametrize(
    ("status", "rule"),
    [
        pytest.param(changed(charged=19), CHARGED_NEVER_DECREASES, id="charged lowered"),
        pytest.param(changed(charged=None), CHARGED_NEVER_DECREASES, id="charged removed"),
        pytest.param(None, STATUS_NEVER_VANISHES, id="status removed"),
        pytest.param({}, CHARGED_NEVER_DECREASES, id="status emptied"),
        pytest.param(changed(attempt=1), LEDGER_ATTEMPT_FALLS, id="attempt lowered"),
        pytest.param(changed(charged=71), RESERVED_COVERS_CHARGED, id="charged over reserved"),
        pytest.param(changed(lease=None), "status.lease can't be removed", id="lease removed"),
        pytest.param(
            changed(lease={"attempt": 2, "fromDraw": 5, "toDraw": 20, "fromStep": 10}),
            "a new status.lease",
            id="draws leased twice",
        ),
        pytest.param(changed(segments=[]), EPSILON_FROM_SEGMENTS, id="segments removed"),
        pytest.param(changed(charged=30), EPSILON_FROM_SEGMENTS, id="charged without segments"),
        pytest.param(changed(attempt=4), ATTEMPT_RISES_BY_ONE, id="attempt by two"),
        pytest.param(
            changed(attempt=2**63 - 1), "less than or equal to 2147483648", id="attempt of 64 bits"
        ),
        pytest.param(changed(attempts=None), ATTEMPTS_NEVER_VANISH, id="attempts removed"),
        pytest.param(changed(attempts=[]), ATTEMPTS_NEVER_VANISH, id="attempts emptied"),
        pytest.param(changed(attempts=[SECOND]), ATTEMPTS_NEVER_VANISH, id="a failure dropped"),
        pytest.param(
            changed(attempts=[FIRST | {"reason": "Stopped"}, SECOND]),
            "never changes once it has an end",
            id="a failure rewritten",
        ),
        pytest.param(
            changed(attempt=3, lease=IN_USE["lease"] | {"closedAt": 10}),
            "set by the lease's own attempt",
            id="lease closed by another attempt",
        ),
    ],
)
def test_not_even_the_coordinator_takes_back_what_is_spent(
    coordinator: Kubectl, status: Manifest | None, rule: str
) -> None:
    """11 and 17."""
    assert rule in put_status(coordinator, status, fails=True)
    stored = coordinator.get("privacyledger", SET)
    assert stored is not None
    assert stored["status"]["charged"] == IN_USE["charged"]


def test_that_a_ledger_was_raised_is_no_word_of_the_coordinators(coordinator: Kubectl) -> None:
    """With it any attempt could follow."""
    raised = changed(attempt=9, restored=9)
    assert NOT_THE_COORDINATOR in put_status(coordinator, raised, fails=True)


def test_an_outcome_is_set_once(coordinator: Kubectl) -> None:
    done = changed(outcome=OUTCOME)
    put_status(coordinator, done)
    second = OUTCOME | {"state": "Failed", "reason": "TaskFailed"}
    for status in (changed(outcome=second), changed()):
        assert OUTCOME_IS_FINAL in put_status(coordinator, status, fails=True)
    later = {"attempt": 2, "fromDraw": 20, "toDraw": 30, "fromStep": 20}
    segments = [{"draws": 30, "image": "example.invalid/trainer:1"}]
    more = {**done, "charged": 30, "lease": later, "segments": segments}
    refusal = put_status(coordinator, more, fails=True)
    assert "no lease after status.outcome" in refusal


@pytest.mark.rule(18)
@pytest.mark.parametrize("writer", [f"{SET}-w-0", "other-4e5f6a7b-0"])
def test_only_the_coordinators_pod_writes(
    home: Kubectl, coordinator: Kubectl, with_token: WithToken, writer: str
) -> None:
    """Neither the job's other pods nor the pods of another job."""
    kubectl = with_token(home, bound_token(home, writer))
    raised = _stored_status(home) | {"attempt": 3}
    assert NOT_THE_COORDINATOR in put_status(kubectl, raised, fails=True)


def test_a_token_without_a_pod_does_not_write(
    home: Kubectl, coordinator: Kubectl, with_token: WithToken
) -> None:
    """Who may ask for tokens of the workers' account is not thereby a worker."""
    kubectl = with_token(home, home("create", "token", "dtjob-worker").strip())
    raised = _stored_status(home) | {"attempt": 3}
    assert NOT_THE_COORDINATOR in put_status(kubectl, raised, fails=True)


def test_a_pod_of_that_name_in_another_namespace_does_not_write(
    home: Kubectl,
    coordinator: Kubectl,
    with_token: WithToken,
    new_namespace: Callable[[], Kubectl],
) -> None:
    elsewhere = new_namespace()
    workers(elsewhere, COORDINATOR)
    grant(home, "dtjob-worker", "dtjob-worker", elsewhere.namespace)
    kubectl = with_token(home, bound_token(elsewhere, COORDINATOR))
    raised = _stored_status(home) | {"attempt": 3}
    assert NOT_THE_COORDINATOR in put_status(kubectl, raised, fails=True)


@pytest.mark.rule(18)
def test_who_may_edit_the_namespace_does_not_write(home: Kubectl, coordinator: Kubectl) -> None:
    """RBAC refuses, before the policy would."""
    home("create", "rolebinding", "editor", "--clusterrole=edit", "--user=eve")
    patch = ("patch", "privacyledger", SET, "--type=merge", "--as=eve")
    status = ("--subresource=status", '--patch={"status":{"attempt":9}}')
    assert "cannot patch" in home(*patch, *status, fails=True)
    assert "cannot patch" in home(*patch, '--patch={"spec":{"reservedDraws":1}}', fails=True)
    assert "cannot delete" in home("delete", "privacyledger", SET, "--as=eve", fails=True)
    assert "cannot create" in home(
        "create",
        "--filename=-",
        "--as=eve",
        stdin=json.dumps(ledger("forged")),
        fails=True,
    )


STATUS = ("patch", "--subresource=status", "--type=merge")
THE_OPERATORS = [
    (("patch", "--type=merge", '-p={"spec":{"reservedDraws":60}}'), NOT_THE_OPERATOR),
    (("patch", "--type=merge", '-p={"spec":{"run":{"generation":2}}}'), NOT_THE_OPERATOR),
    (("patch", "--type=merge", '-p={"metadata":{"finalizers":["a.b/c"]}}'), NOT_THE_OPERATOR),
    (("delete",), NEVER_DELETED),
]


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [((*STATUS, '-p={"status":{"attempt":3}}'), NOT_THE_COORDINATOR), *THE_OPERATORS],
)
def test_not_even_all_rights_on_ledgers_suffice(
    home: Kubectl, tampering_user: str, arguments: tuple[str, ...], refusal: str
) -> None:
    """Kubernetes' own verbs, given one by one: the policy refuses what RBAC lets pass."""
    verb, *rest = arguments
    assert refusal in home(verb, "privacyledger", SET, tampering_user, *rest, fails=True)


def test_not_even_all_rights_on_ledgers_make_one(home: Kubectl, tampering_user: str) -> None:
    forged = json.dumps(ledger("forged"))
    assert NOT_THE_OPERATOR in home("create", "-f=-", tampering_user, stdin=forged, fails=True)


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        ((*STATUS, '-p={"status":{"charged":19}}'), CHARGED_NEVER_DECREASES),
        ((*STATUS, '-p={"status":{"lease":{"closedAt":10}}}'), NOT_THE_COORDINATOR),
        *THE_OPERATORS,
    ],
)
def test_a_wildcard_in_a_namespace_makes_nobody_the_operator(
    home: Kubectl, tenant: str, arguments: tuple[str, ...], refusal: str
) -> None:
    """It holds the policy's verb `plan` there; the policy asks for it in the whole cluster."""
    verb, *rest = arguments
    assert refusal in home(verb, "privacyledger", SET, tenant, *rest, fails=True)


def test_a_wildcard_in_a_namespace_makes_no_ledger(home: Kubectl, tenant: str) -> None:
    forged = json.dumps(ledger("forged"))
    assert NOT_THE_OPERATOR in home("create", "-f=-", tenant, stdin=forged, fails=True)


def test_a_wildcard_in_a_namespace_holds_restore_there(home: Kubectl, tenant: str) -> None:
    """As user-roles.yaml says: it raises, and takes nothing back."""
    raised = json.dumps({"status": {"attempt": _stored_status(home)["attempt"] + 1}})
    home("patch", "privacyledger", SET, tenant, *STATUS[1:], f"-p={raised}", "--dry-run=server")


def test_nobody_deletes_a_ledger(
    home: Kubectl, coordinator: Kubectl, operator_token: str, with_token: WithToken
) -> None:
    """Not the administrator, one by one or all at once, and not the operator."""
    assert NEVER_DELETED in home("delete", "privacyledger", SET, fails=True)
    assert NEVER_DELETED in home("delete", "privacyledgers", "--all", fails=True)
    path = f"/apis/dtjob.dev/v1alpha1/namespaces/{home.namespace}/privacyledgers"
    assert NEVER_DELETED in home("delete", "--raw", path, fails=True)
    operator = with_token(home, operator_token)
    assert "cannot delete" in operator("delete", "privacyledger", SET, fails=True)
    assert home.get("privacyledger", SET)


def test_the_operator_does_not_write_what_is_spent(
    home: Kubectl, tampering_user: str, operator_token: str, with_token: WithToken
) -> None:
    """Not even if RBAC let it; its own role does not."""
    account = "--serviceaccount=dtjob-system:dtjob-operator"
    home("create", "rolebinding", "operator", "--role=all", account)
    operator = with_token(home, operator_token)
    raised = _stored_status(home) | {"attempt": 3}
    assert NOT_THE_COORDINATOR in put_status(operator, raised, fails=True)


@pytest.mark.rule(11)
def test_who_may_restore_raises_and_nothing_else(
    new_namespace: Callable[[], Kubectl], operator_token: str, with_token: WithToken
) -> None:
    """After a rollback of the ledger, its charges are raised to what the journal says."""
    kubectl = new_namespace()
    workers(kubectl, COORDINATOR)
    operator = with_token(kubectl, operator_token)
    operator("create", "--filename=-", stdin=json.dumps(ledger()))
    put_status(with_token(kubectl, bound_token(kubectl, COORDINATOR)), IN_USE)
    kubectl("create", "rolebinding", "restore", "--clusterrole=dtjob-ledger-restore", "--user=rita")
    patch = ("patch", "privacyledger", SET, "--subresource=status", "--type=merge", "--as=rita")

    def spent(charged: int) -> str:
        segments = [{"draws": charged, "image": "example.invalid/trainer:1"}]
        return "-p=" + json.dumps({"status": {"charged": charged, "segments": segments}})

    kubectl(*patch, spent(40))
    lowered = kubectl(*patch, spent(39), fails=True)
    assert CHARGED_NEVER_DECREASES in lowered or NOT_THE_COORDINATOR in lowered
    found = {"attempt": 7, "leased": 2, "charged": 60}
    kubectl(*patch, "-p=" + json.dumps({"status": {"volume": found}}))
    for less in (None, found | {"charged": 59}, found | {"attempt": 6}, found | {"leased": 1}):
        refused = kubectl(*patch, "-p=" + json.dumps({"status": {"volume": less}}), fails=True)
        assert "status.volume takes nothing back" in refused, less
    for other in (
        {"outcome": OUTCOME},
        {"lease": {"closedAt": 10}},
        {"attempts": [FIRST, SECOND | {"end": TIME, "reason": "Stopped"}]},
        {"drained": 1},
        {"initialModelDigest": "sha256:" + "0" * 64},
    ):
        refused = kubectl(*patch, "-p=" + json.dumps({"status": other}), fails=True)
        assert NOT_THE_COORDINATOR in refused, other
    raised = {"attempt": 7, "restored": 7, "checkpoint": CHECKPOINT}
    leap = json.dumps({"status": raised | {"restored": None}})
    assert ATTEMPT_RISES_BY_ONE in kubectl(*patch, f"-p={leap}", fails=True)
    kubectl(*patch, "-p=" + json.dumps({"status": raised}))
    back = json.dumps({"status": {"checkpoint": {"step": 9}}})
    assert "goes forward" in kubectl(*patch, f"-p={back}", fails=True)
    leased = {"lease": {"attempt": 7, "fromDraw": 40, "toDraw": 40, "fromStep": 10}}
    refused = kubectl(*patch, "-p=" + json.dumps({"status": leased}), fails=True)
    assert NOT_THE_COORDINATOR in refused
    spec = ("patch", "privacyledger", SET, "--type=merge", "--as=rita")
    assert "cannot patch" in kubectl(*spec, '-p={"spec":{"reservedDraws":60}}', fails=True)


@pytest.mark.rule(11)
def test_dtjob_ledger_restore_raises_what_a_worker_found(
    new_namespace: Callable[[], Kubectl],
    operator_token: str,
    with_token: WithToken,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As an administrator does it: by kubectl's login, with one ClusterRole."""
    kubectl = new_namespace()
    workers(kubectl, COORDINATOR)
    with_token(kubectl, operator_token)("create", "--filename=-", stdin=json.dumps(ledger()))
    coordinator = with_token(kubectl, bound_token(kubectl, COORDINATOR))
    checkpoint = {
        "step": 30,
        "charged": 40,
        "attempt": 4,
        "path": "attempt-4/step-30.pt",
        "sha256": "0" * 64,
        "time": "2026-01-01T00:00:00Z",
    }
    volume = {"attempt": 4, "leased": 4, "charged": 40, "checkpoint": checkpoint}
    behind = IN_USE | {"volume": volume}
    put_status(coordinator, behind)
    kubectl("create", "serviceaccount", "rita")
    rita = with_token(kubectl, kubectl("create", "token", "rita").strip())
    monkeypatch.setenv("KUBECONFIG", str(rita.kubeconfig))
    monkeypatch.setenv("PATH", str(rita.program.parent), prepend=os.pathsep)
    command = ["ledger", "restore", SET, f"--namespace={kubectl.namespace}"]

    refused = CliRunner().invoke(app, command)
    assert (refused.exit_code, "forbidden" in refused.stderr) == (3, True)
    grant(kubectl, "rita", "dtjob-ledger-restore", kubectl.namespace)
    tried = CliRunner().invoke(app, [*command, "--dry-run"])
    assert "would be raised: charged 20 to 50 of 70 reserved draws" in tried.stdout
    assert _stored_status(kubectl) == behind
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, done.stderr) == (0, "")
    status = _stored_status(kubectl)
    assert (status["charged"], status["attempt"]) == (50, 4)
    assert (status["checkpoint"], "volume" in status) == (checkpoint, False)
    assert [segment["draws"] for segment in status["segments"]] == [50]
    again = CliRunner().invoke(app, command)
    assert (again.exit_code, "NothingToRestore" in again.stderr) == (2, True)


def documented_restoration() -> list[str]:
    """The commands of docs/privacy.md that put a lost ledger back: cleaned, made, its status."""
    text = PRIVACY_PAGE.read_text()
    found = re.search(r"```sh\n(sed .*\n)(kubectl create .*\n)(kubectl .*\n)```", text)
    assert found
    return list(found.groups())


@pytest.mark.rule(11)
@pytest.mark.parametrize(
    "status",
    [
        pytest.param(changed(outcome=OUTCOME), id="ended"),
        pytest.param(changed(attempt=3), id="before the first lease of an attempt"),
    ],
)
def test_a_lost_ledger_is_put_back_from_a_backup(
    new_namespace: Callable[[], Kubectl],
    operator_token: str,
    with_token: WithToken,
    tmp_path: Path,
    status: Manifest,
) -> None:
    """The object by an administrator of the cluster, its status by who may restore.

    The policy is put off for the deletion alone, which simulates the loss.
    """
    kubectl = new_namespace()
    workers(kubectl, COORDINATOR)
    operator = with_token(kubectl, operator_token)
    seen = ledger("seen")
    for each in (ledger(), seen):
        operator("create", "--filename=-", stdin=json.dumps(each))
    coordinator = with_token(kubectl, bound_token(kubectl, COORDINATOR))
    put_status(coordinator, IN_USE)
    put_status(coordinator, status)
    before = kubectl.get("privacyledger", SET)
    assert before is not None
    backup = kubectl("get", "privacyledgers", f"--field-selector=metadata.name={SET}", "-o=yaml")
    (tmp_path / "backup.yaml").write_text(backup)
    with unguarded(kubectl, seen):
        kubectl("delete", "privacyledger", SET)
    wait_for("the policy is back", lambda: _refused(kubectl, "seen-0a1b2c3d"), 30)
    kubectl("create", "serviceaccount", "rita")
    grant(kubectl, "rita", "dtjob-ledger-restore", kubectl.namespace)
    rita = with_token(kubectl, kubectl("create", "token", "rita").strip())
    clean, create, replace = documented_restoration()

    def done(command: str, who: Kubectl) -> str:
        search = f"{who.program.parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": search, "KUBECONFIG": str(who.kubeconfig)}
        ran = subprocess.run(
            ["bash", "-c", command],
            check=False,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        return "" if ran.returncode == 0 else ran.stderr

    assert done(clean, kubectl) == ""
    assert "cannot create" in done(create, rita)
    assert done(create, kubectl) == ""
    made = kubectl.get("privacyledger", SET)
    assert made is not None
    assert "status" not in made
    assert NOT_THE_COORDINATOR in put_status(
        who_may_not_restore(kubectl, with_token), status, fails=True
    )
    assert done(replace, rita) == ""
    after = kubectl.get("privacyledger", SET)
    assert after is not None
    assert (after["spec"], after["status"]) == (before["spec"], before["status"])
    assert after["metadata"].get("labels") == before["metadata"].get("labels")
    older = changed(charged=10, lease=None, segments=[{"draws": 10, "image": "a.example/b:1"}])
    assert put_status(rita, older, fails=True)
    closed = {**status, "lease": {**IN_USE["lease"], "closedAt": 15}}
    refused = put_status(rita, closed, fails=True)
    assert NOT_THE_COORDINATOR in refused or "the lease's own attempt" in refused


def who_may_not_restore(kubectl: Kubectl, with_token: WithToken) -> Kubectl:
    """kubectl as an account with all of Kubernetes' verbs on ledgers of the namespace."""
    resources = "privacyledgers.dtjob.dev,privacyledgers.dtjob.dev/status"
    kubectl("create", "role", "all", "--verb=get,update,patch", f"--resource={resources}")
    kubectl("create", "serviceaccount", "mallory")
    account = f"--serviceaccount={kubectl.namespace}:mallory"
    kubectl("create", "rolebinding", "all", "--role=all", account)
    return with_token(kubectl, kubectl("create", "token", "mallory").strip())


def test_a_ledger_goes_with_its_namespace(
    installed: Kubectl, operator_token: str, with_token: WithToken
) -> None:
    name = f"test-{secrets.token_hex(4)}"
    installed("create", "namespace", name)
    kubectl = Kubectl(installed.program, installed.kubeconfig, name)
    operator = with_token(kubectl, operator_token)
    operator("create", "--filename=-", stdin=json.dumps(ledger()))
    installed("delete", "namespace", name, "--timeout=60s")


def _stored_status(kubectl: Kubectl) -> Manifest:
    stored = kubectl.get("privacyledger", SET)
    assert stored is not None
    status: Manifest = stored["status"]
    return status
