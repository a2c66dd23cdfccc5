"""The proof at the operator's start that ledgers are guarded."""

from __future__ import annotations

import asyncio
import copy
import json
import re
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from dtjob_api.ledger.ledger_rules import CHARGED_NEVER_DECREASES
from dtjob_api.schema.crd import job_crd, ledger_crd
from dtjob_operator.kube import guard
from dtjob_operator.kube.api_errors import ApiError, NoSuchKind, NotFound
from dtjob_operator.kube.api_server import credentials
from dtjob_operator.kube.client import KubeClient
from dtjob_operator.terms import kinds
from dtjob_operator.terms.kinds import Kind
from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.kube import Kubectl, wait_for
from tests.support.clusters.operator_process import BASE, OPERATOR_NAMESPACE, OperatorProcess

Answer = TypeVar("Answer")

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


def test_the_canary_is_written_once(
    installed: Kubectl,
    operator: OperatorProcess,
    start_operator: Callable[[], OperatorProcess],
) -> None:
    canary = installed.get("privacyledger", guard.CANARY)
    assert canary is not None
    assert canary["status"]["charged"] == 1
    operator.terminate()
    start_operator().wait_until_ready()
    again = installed.get("privacyledger", guard.CANARY)
    assert again is not None
    assert again["metadata"]["resourceVersion"] == canary["metadata"]["resourceVersion"]


def no_rules(schema: Manifest) -> None:
    del schema["x-kubernetes-validations"]


def rules_on_the_field(schema: Manifest) -> None:
    """Where a field is removed its rules are not evaluated."""
    no_rules(schema)
    charged = schema["properties"]["status"]["properties"]["charged"]
    charged.pop("default", None)
    rule = {"rule": "self >= oldSelf", "message": CHARGED_NEVER_DECREASES}
    charged["x-kubernetes-validations"] = [rule]


def another_rule(schema: Manifest) -> None:
    rule = {"rule": "!has(oldSelf.status)", "message": "written once"}
    schema["x-kubernetes-validations"] = [rule]


@pytest.mark.rule(10, 11)
@pytest.mark.parametrize(
    ("weaken", "finding"),
    [
        (no_rules, "accepts a write that lowers status.charged"),
        (rules_on_the_field, "accepts a write that removes status.charged"),
        (another_rule, "not by the ledger's own rules"),
    ],
)
def test_an_api_server_that_guards_less_is_found_out(
    installed: Kubectl,
    monkeypatch: pytest.MonkeyPatch,
    weaken: Callable[[Manifest], None],
    finding: str,
) -> None:
    """The operator does not work where what is spent could be taken back."""
    crd = copy.deepcopy(ledger_crd())
    names = crd["spec"]["names"]
    group = f"{weaken.__name__.replace('_', '-')}.test"
    crd["metadata"]["name"] = f"{names['plural']}.{group}"
    crd["spec"]["group"] = group
    names["shortNames"] = []
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["apiVersion"] = {"type": "string"}
    weaken(schema)
    weak = Kind(f"{group}/v1alpha1", names["kind"], names["plural"])
    monkeypatch.setattr(kinds, "LEDGER", weak)
    monkeypatch.setitem(kinds._BY_NAME, (weak.api_version, weak.name), weak)
    installed("apply", "--server-side", "--filename=-", stdin=json.dumps(crd))
    try:
        established(installed, crd["metadata"]["name"])
        with pytest.raises(guard.Unguarded, match=re.escape(finding)):
            asyncio.run(prove(installed))
    finally:
        installed("delete", "crd", crd["metadata"]["name"])


def test_a_guard_that_lapses_is_found_out(
    installed: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where somebody exchanges the definition, or deletes it, while the operator runs."""
    crd = copy.deepcopy(ledger_crd())
    names, group = crd["spec"]["names"], "lapse.test"
    name = crd["metadata"]["name"] = f"{names['plural']}.{group}"
    crd["spec"]["group"] = group
    names["shortNames"] = []
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["apiVersion"] = {"type": "string"}
    kind = Kind(f"{group}/v1alpha1", names["kind"], names["plural"])
    monkeypatch.setattr(kinds, "LEDGER", kind)
    monkeypatch.setitem(kinds._BY_NAME, (kind.api_version, kind.name), kind)

    def put(definition: Manifest) -> None:
        text = json.dumps(definition)
        installed("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=text)

    put(crd)
    try:
        established(installed, name)
        wait_for("the guard", lambda: asyncio.run(lapse(installed)) is None, 60)
        no_rules(schema)
        put(crd)
        wait_for(
            "its lapse", lambda: "accepts a write" in (asyncio.run(lapse(installed)) or ""), 60
        )
    finally:
        installed("delete", "crd", name)
    assert "knows no ledgers any more" in (asyncio.run(lapse(installed)) or "")


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (kinds.LEDGER, NotFound),
        (kinds.POD, NotFound),
        (Kind(kinds.LEDGER.api_version, "Nothing", "nothings"), NoSuchKind),
        (Kind("nowhere.dev/v1", "Nothing", "nothings"), NoSuchKind),
    ],
    ids=["ledger", "pod", "kind", "group"],
)
def test_a_missing_kind_is_known_from_a_missing_object(
    installed: Kubectl, kind: Kind, error: type[NotFound]
) -> None:
    async def missing(client: KubeClient, namespace: str) -> NotFound:
        with pytest.raises(NotFound) as raised:
            await client.get(kind, namespace, "nowhere")
        return raised.value

    assert type(asyncio.run(asked(installed, missing))) is error


def test_the_ledgers_definition_is_deleted_only_where_it_says_so(installed: Kubectl) -> None:
    """Every ledger of the cluster would go with it."""
    ledgers = ledger_crd()["metadata"]["name"]
    lost = "every ledger of the cluster goes with this definition"
    delete = ("delete", "crd", ledgers, "--dry-run=server")

    def refused() -> bool:
        try:
            installed(*delete)
        except AssertionError as error:
            return lost in str(error)
        return False

    wait_for("the policy works, some seconds after it is installed", refused, 30)
    every = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions?dryRun=All"
    assert lost in installed("delete", "--raw", every, fails=True)
    installed("delete", "crd", job_crd()["metadata"]["name"], "--dry-run=server")
    annotate = ("annotate", "crd", ledgers, "--overwrite")
    try:
        installed(*annotate, "dtjob.dev/allow-ledger-loss=yes")
        assert refused()
        installed(*annotate, "dtjob.dev/allow-ledger-loss=true")
        installed(*delete)
    finally:
        installed(*annotate, "dtjob.dev/allow-ledger-loss-")
    assert refused()


def test_the_operator_is_removed_without_the_ledgers(installed: Kubectl) -> None:
    """As docs/cluster.md has it: definition and policies of ledgers stay."""
    others = "--selector=app.kubernetes.io/component!=ledgers"
    gone = installed("delete", f"--kustomize={BASE}", others, "--dry-run=server")
    assert "distributedtrainingjobs" in gone
    assert 'clusterrole.rbac.authorization.k8s.io "dtjob-operator"' in gone
    assert not [name for name in ("privacyledgers", "ledger-writer", "ledger-loss") if name in gone]


def established(kubectl: Kubectl, name: str) -> None:
    """Wait for a definition; `kubectl wait` fails where it has no conditions yet."""

    def is_established() -> bool:
        status = (kubectl.get("crd", name) or {}).get("status") or {}
        conditions = status.get("conditions") or []
        return any((c["type"], c["status"]) == ("Established", "True") for c in conditions)

    wait_for(f"{name} is established", is_established, 120)


# A kind that is just established may not be served everywhere yet.
@retry(
    retry=retry_if_exception_type(ApiError),
    stop=stop_after_delay(60),
    wait=wait_fixed(1),
    reraise=True,
)
async def prove(kubectl: Kubectl) -> None:
    await asked(kubectl, guard.prove)


async def lapse(kubectl: Kubectl) -> str | None:
    return await asked(kubectl, guard.lapse)


async def asked(kubectl: Kubectl, what: Callable[[KubeClient, str], Awaitable[Answer]]) -> Answer:
    configuration = await credentials(str(kubectl.kubeconfig))
    cluster = KubeClient(configuration, lambda _verb, _kind, _code: None)
    try:
        return await what(cluster, OPERATOR_NAMESPACE)
    finally:
        await cluster.close()
