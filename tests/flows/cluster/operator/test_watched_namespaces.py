"""An operator that may look at one namespace runs its jobs, and knows of no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from demo import install
from tests.support.clusters.api_proxy import ApiProxy
from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.kube import Kubectl, wait_for
from tests.support.clusters.operator_process import BASE, OperatorProcess, child_name
from tests.support.jobs.played_jobs import Player, played_job

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

KUSTOMIZE = BASE.parent
CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding"}


@pytest.fixture
def own(installed: Kubectl, new_namespace: Callable[[], Kubectl]) -> Iterator[Kubectl]:
    """The namespace of an operator that was installed for some namespaces."""
    system = new_namespace()
    settings = {"namespace": system.namespace}
    with install.overlay(KUSTOMIZE / "namespaced", settings) as folder:
        rendered = list(YAML(typ="safe").load_all(system("kustomize", str(folder))))
    bindings = [each for each in rendered if each["kind"] == "ClusterRoleBinding"]
    assert [each["metadata"]["name"] for each in bindings] == ["dtjob-operator-plan"]
    rights = {"Role", "RoleBinding", "ServiceAccount", *CLUSTER_WIDE}
    system.apply(*(each for each in rendered if each["kind"] in rights))
    yield system
    for kind in ("clusterrolebinding", "clusterrole"):
        installed("delete", kind, "dtjob-operator-plan", "--ignore-not-found")


def bound(own: Kubectl) -> Manifest:
    """What gives that operator its rights in a namespace."""
    text = (KUSTOMIZE / "watched" / "operator-binding.yaml").read_text()
    binding: Manifest = YAML(typ="safe").load(text)
    binding["subjects"][0]["namespace"] = own.namespace
    return binding


def test_its_jobs_run_and_others_are_not_known(
    own: Kubectl,
    new_namespace: Callable[[], Kubectl],
    proxy: ApiProxy,
    player: Player,
    tmp_path: Path,
) -> None:
    watched, other = new_namespace(), new_namespace()
    watched.apply(bound(own))
    token = own("create", "token", "dtjob-operator", "--duration=1h").strip()
    options = (f"--namespace={own.namespace}", f"--watch-namespace={watched.namespace}")
    log, before = tmp_path / "operator.log", len(proxy.asked)
    operator = OperatorProcess(proxy.kubeconfig(token), log, *options)
    try:
        script = {"secondsPerStep": 0.1, "evaluation": {"accuracy": 0.5}}
        for kubectl in (other, watched):
            kubectl.apply(played_job("digits", player.label, script))
        operator.wait_until_ready()

        def status() -> Manifest:
            found: Manifest = (watched.get("dtjob", "digits") or {}).get("status", {})
            return found

        def restricted() -> str | None:
            conditions = {each["type"]: each for each in status().get("conditions", [])}
            found = conditions.get("NetworkRestricted", {})
            unknown = found.get("reason") == "ApiServerAddressUnknown"
            return found["message"] if unknown else None

        message = wait_for("how far its network is closed", restricted, 60)
        assert "than --watch-namespace names: give it --api-server-cidr" in message
        wait_for("the end of its job", lambda: status().get("phase") == "Succeeded", 120)
        job = watched.get("dtjob", "digits")
        assert job is not None
        ledger = watched.get("privacyledger", child_name(job))
        assert ledger is not None
        assert ledger["status"]["charged"] == 40
        stranger = other.get("dtjob", "digits")
        assert stranger is not None
        assert "status" not in stranger
        assert not other.list("privacyledgers")
        asked = [each for each in proxy.asked[before:] if each.namespace != own.namespace]
        assert {each.namespace for each in asked} == {watched.namespace}
        refused = [each for each in proxy.asked[before:] if each.status == 403]
        assert [each for each in refused if not each.dry_run] == []
        assert operator.terminate() == 0
        text = log.read_text()
        assert "forbidden" not in text.lower()
        assert "other namespaces than these are not looked at" in text
        assert "--api-server-cidr names them" in text
    finally:
        operator.kill()


def test_a_namespace_without_its_rights_holds_up_no_other(
    own: Kubectl,
    new_namespace: Callable[[], Kubectl],
    proxy: ApiProxy,
    player: Player,
    tmp_path: Path,
) -> None:
    """Neither at the start, nor when they are taken away; it is looked after once it has them."""
    first, second = new_namespace(), new_namespace()
    second.apply(bound(own))
    token = own("create", "token", "dtjob-operator", "--duration=1h").strip()
    watched = [f"--watch-namespace={each.namespace}" for each in (first, second)]
    operator = OperatorProcess(
        proxy.kubeconfig(token), tmp_path / "operator.log", f"--namespace={own.namespace}", *watched
    )
    script = {"secondsPerStep": 0.1, "evaluation": {"accuracy": 0.5}}

    def ends(kubectl: Kubectl, name: str) -> None:
        def succeeded() -> bool:
            found = kubectl.get("dtjob", name) or {}
            return bool(found.get("status", {}).get("phase") == "Succeeded")

        wait_for(f"the end of {name}", succeeded, 120)

    def closed() -> float:
        return operator.metrics()["dtjob_closed_namespaces"]

    try:
        first.apply(played_job("early", player.label, script))
        second.apply(played_job("early", player.label, script))
        operator.wait_until_ready()
        ends(second, "early")
        readiness = operator.ready()
        assert f"namespace {first.namespace} has to wait" in readiness
        assert "deploy/kustomize/watched" in readiness
        assert closed() == 1
        assert "status" not in (first.get("dtjob", "early") or {})

        first.apply(bound(own))
        ends(first, "early")
        wait_for("all are looked after", lambda: closed() == 0, 60)

        name = bound(own)["metadata"]["name"]
        second("delete", "rolebinding", name)
        proxy.disconnect()  # watches that are there go on without it
        proxy.connect()
        wait_for("its loss is seen", lambda: closed() == 1, 60)
        first.apply(played_job("late", player.label, script))
        ends(first, "late")
        second.apply(bound(own), played_job("late", player.label, script))
        ends(second, "late")
        assert operator.terminate() == 0
    finally:
        operator.kill()
