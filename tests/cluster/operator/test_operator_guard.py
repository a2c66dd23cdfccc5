"""The proof at the operator's start that ledgers are guarded."""

from __future__ import annotations

import asyncio
import copy
import json
import re
from collections.abc import Callable

import pytest
from kube import Kubectl, Manifest
from operator_process import OPERATOR_NAMESPACE, OperatorProcess
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from dtjob_api.crd import ledger_crd
from dtjob_api.ledger_rules import CHARGED_NEVER_DECREASES
from dtjob_operator import guard, kinds
from dtjob_operator.cluster import Cluster, credentials
from dtjob_operator.errors import ApiError
from dtjob_operator.kinds import Kind

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
    """Rules 10 and 11: the operator does not work where what is spent could be taken back."""
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
        name = crd["metadata"]["name"]
        installed("wait", "--for=condition=Established", f"crd/{name}", "--timeout=120s")
        with pytest.raises(guard.Unguarded, match=re.escape(finding)):
            asyncio.run(prove(installed))
    finally:
        installed("delete", "crd", crd["metadata"]["name"])


# A kind that is just established may not be served everywhere yet.
@retry(
    retry=retry_if_exception_type(ApiError),
    stop=stop_after_delay(60),
    wait=wait_fixed(1),
    reraise=True,
)
async def prove(kubectl: Kubectl) -> None:
    configuration = await credentials(str(kubectl.kubeconfig))
    cluster = Cluster(configuration, lambda _verb, _kind, _code: None)
    try:
        await guard.prove(cluster, OPERATOR_NAMESPACE)
    finally:
        await cluster.close()
