"""What is wanted of each child, as YAML that a person can read, and how drift is told."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from dtjob_api.job.template import RESERVED_MOUNT_PATHS
from dtjob_api.wire.well_known import CONFIG_VARIABLE
from dtjob_api.wire.worker_config import WorkerConfig
from dtjob_operator.decide.drift import has_drifted
from tests.support.builders import UID
from tests.support.worlds import children_files
from tests.support.worlds.world import CHILD, NOW, PLAN, World, claim, digits, pod, running

Json = dict[str, Any]
folders = pytest.mark.parametrize("folder", children_files.FOLDERS, ids=lambda folder: folder.name)


def test_no_mount_of_a_template_can_hide_one_of_ours() -> None:
    wanted = children_files.read(children_files.FOLDERS[0] / "wanted.yaml")
    (container,) = template(wanted)["containers"]
    for mount in container["volumeMounts"]:
        path = PurePosixPath(mount["mountPath"])
        assert any(path.is_relative_to(own) for own in RESERVED_MOUNT_PATHS), path


@folders
def test_children_are_what_the_files_say(folder: Path) -> None:
    assert children_files.build(folder) == children_files.read(folder / "wanted.yaml")


@folders
def test_what_the_api_server_adds_is_no_drift(folder: Path) -> None:
    """Defaults, canonical quantities and bookkeeping would else be fought for ever."""
    wanted = children_files.read(folder / "wanted.yaml")
    for kind, stored in children_files.read(folder / "stored.yaml").items():
        assert not has_drifted(stored, wanted[kind]), kind


def template(stored: Json) -> Json:
    found: Json = stored["StatefulSet coordinator"]["spec"]["template"]["spec"]
    return found


CHANGES: dict[str, Callable[[Json], Any]] = {
    "replicas": lambda s: s["StatefulSet coordinator"]["spec"].update(replicas=5),
    "image": lambda s: template(s)["containers"][0].update(image="other"),
    "command": lambda s: template(s)["containers"][0]["command"].append("--debug"),
    "variable removed": lambda s: template(s)["containers"][0]["env"].pop(0),
    "memory limit": lambda s: template(s)["containers"][0]["resources"]["limits"].update(
        memory="3Gi"
    ),
    "toleration added": lambda s: template(s)["tolerations"].append({"operator": "Exists"}),
    "security": lambda s: template(s)["securityContext"].update(runAsNonRoot=False),
    "service selector": lambda s: s["Service"]["spec"].update(selector={"app": "other"}),
    "not ready addresses": lambda s: s["Service"]["spec"].pop("publishNotReadyAddresses"),
    "service selector narrowed": lambda s: s["Service"]["spec"]["selector"].update(app="other"),
    "owner": lambda s: s["Service"]["metadata"].pop("ownerReferences"),
    "policy for fewer pods": lambda s: s["NetworkPolicy"]["spec"]["podSelector"][
        "matchLabels"
    ].update(app="other"),
    "policy for ingress alone": lambda s: s["NetworkPolicy"]["spec"]["policyTypes"].pop(),
    "anybody let in": lambda s: s["NetworkPolicy"]["spec"]["ingress"].append({}),
    "workers of all namespaces let in": lambda s: s["NetworkPolicy"]["spec"]["ingress"][0]["from"][
        0
    ].update(namespaceSelector={}),
    "fewer workers' ports": lambda s: s["NetworkPolicy"]["spec"]["ingress"][0].update(
        ports=[{"protocol": "TCP", "port": 8080}]
    ),
    "DNS at one address": lambda s: s["NetworkPolicy"]["spec"]["egress"][1].update(
        to=[{"ipBlock": {"cidr": "10.96.0.10/32"}}]
    ),
    "worker replicas": lambda s: s["StatefulSet worker"]["spec"].update(replicas=5),
    "role label": lambda s: s["StatefulSet worker"]["metadata"]["labels"].pop("dtjob.dev/role"),
    "evictions": lambda s: s["PodDisruptionBudget"]["spec"].update(maxUnavailable=2),
    "budget of fewer pods": lambda s: s["PodDisruptionBudget"]["spec"]["selector"][
        "matchLabels"
    ].update(app="other"),
    "subjects": lambda s: s["RoleBinding"].update(subjects=[]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_by_another_is_drift(change: str) -> None:
    folder = children_files.FOLDERS[0]
    wanted = children_files.read(folder / "wanted.yaml")
    stored = children_files.read(folder / "stored.yaml")
    CHANGES[change](stored)
    unchanged = children_files.read(folder / "stored.yaml")
    (changed,) = (kind for kind in wanted if stored[kind] != unchanged[kind])
    assert [kind for kind in wanted if has_drifted(stored[kind], wanted[kind])] == [changed]


@pytest.mark.parametrize("kind", ["service", "network_policy", "coordinator_set", "worker_set"])
def test_what_others_add_to_a_spec_is_taken_away(kind: str) -> None:
    world = started()
    stored = getattr(world.observed, kind)
    applied = len(world.applied)
    world.see(**{kind: stored | {"specSetBy": ["kubectl-edit"]}})
    world.reconcile()
    assert world.applied[applied:] == [stored["kind"]]
    world.settle()
    assert len(world.applied) == applied + 1


def test_what_was_added_to_a_template_stays_with_that_while_its_pods_run() -> None:
    """Another version made it, and it is replaced at 0 pods: then nothing of it is left."""
    world = running()
    stored = copy.deepcopy(world.observed.coordinator_set)
    assert stored is not None
    stored["metadata"]["annotations"]["dtjob.dev/template-digest"] = "of another version"
    applied = len(world.applied)
    world.see(coordinator_set=stored | {"specSetBy": ["kubectl-edit"]})
    world.settle()
    assert len(world.applied) == applied


@pytest.mark.parametrize(
    ("stored", "wanted", "drifted"),
    [
        ("1Gi", "1024Mi", False),
        ("500m", "0.5", False),
        ("2", "2", False),
        ("1G", "1Gi", True),
        ("1e3", "1k", False),
    ],
)
def test_quantities_are_compared_by_value(stored: str, wanted: str, drifted: bool) -> None:
    assert has_drifted({"limits": {"memory": stored}}, {"limits": {"memory": wanted}}) is drifted


def started() -> World:
    world = World.of(privacy_plan=PLAN)
    world.settle()
    return world


def sizes(world: World) -> tuple[int | None, ...]:
    """Of the coordinator's StatefulSet and that of the other workers; None where there is none."""
    sets = (world.observed.coordinator_set, world.observed.worker_set)
    return tuple(each["spec"]["replicas"] if each is not None else None for each in sets)


@pytest.mark.parametrize(("workers", "wanted"), [(1, (1, None)), (2, (1, 1)), (512, (1, 511))])
def test_the_coordinator_has_a_set_of_its_own(workers: int, wanted: tuple[int | None, ...]) -> None:
    world = World.of(digits(workers={"replicas": workers}), privacy_plan=PLAN)
    world.settle()
    assert sizes(world) == wanted


def test_both_sets_are_made_in_one_look_the_coordinators_first() -> None:
    world = World.of(privacy_plan=PLAN)
    world.reconcile()
    made = [(child["kind"], child["metadata"]["name"]) for child in world.decide().applies]
    assert made == [("StatefulSet", CHILD), ("StatefulSet", f"{CHILD}-w")]


def test_a_set_that_is_there_is_kept_at_no_pods() -> None:
    """A job of one worker whose set of other workers was made for more of them."""
    larger = started()
    world = World.of(digits(workers={"replicas": 1}), privacy_plan=PLAN)
    world.see(worker_set=larger.observed.worker_set)
    world.see(ledger=larger.observed.ledger)
    assert world.observed.ledger is not None
    run = world.observed.ledger["spec"]["run"] | {"workers": 1}
    spec = world.observed.ledger["spec"] | {"run": run}
    world.see(ledger=world.observed.ledger | {"spec": spec})
    world.settle()
    assert sizes(world) == (1, 0)


@folders
def test_only_the_coordinator_has_the_state_and_asks_the_api_server(folder: Path) -> None:
    wanted = children_files.build(folder)
    sets = [wanted[f"StatefulSet {role}"]["spec"] for role in ("coordinator", "worker")]
    tokens = [each["template"]["spec"]["automountServiceAccountToken"] for each in sets]
    assert tokens == [True, False]
    assert [len(each.get("volumeClaimTemplates", ())) for each in sets] == [1, 0]
    paths = [
        {mount["mountPath"] for mount in each["template"]["spec"]["containers"][0]["volumeMounts"]}
        for each in sets
    ]
    assert paths[0] - paths[1] == {"/var/run/dtjob/state"}
    assert not paths[1] - paths[0]
    selectors = [each["selector"]["matchLabels"] for each in sets]
    assert selectors[0].items() - selectors[1].items() == {("dtjob.dev/role", "coordinator")}
    for spec, selector in zip(sets, selectors, strict=True):
        assert selector.items() <= spec["template"]["metadata"]["labels"].items()
    assert sets[0]["serviceName"] == sets[1]["serviceName"] == wanted["Service"]["metadata"]["name"]


@pytest.mark.parametrize("slot", ["coordinator_set", "worker_set"])
def test_workers_get_their_configuration(slot: str) -> None:
    world = started()
    (container,) = getattr(world.observed, slot)["spec"]["template"]["spec"]["containers"]
    variable = next(v for v in container["env"] if v["name"] == CONFIG_VARIABLE)
    config = WorkerConfig.model_validate_json(variable["value"])
    assert config.coordinator_host == f"{CHILD}-0.{CHILD}"
    assert (config.ledger.namespace, config.ledger.name) == ("research", CHILD)
    assert config.proof.stateful_set == CHILD
    assert config.stays_after_outcome
    assert config.job.uid == UID
    assert config.data_dir is None


def test_the_kubelet_expands_no_task_argument() -> None:
    job = digits()
    job["spec"]["training"]["args"] = {"pattern": "$(HOME)"}
    world = World.of(job, privacy_plan=PLAN)
    world.settle()
    assert world.observed.coordinator_set is not None
    text = json.dumps(world.observed.coordinator_set)
    assert "$$(HOME)" in text


def test_drift_is_repaired_with_the_uid_of_what_is_there() -> None:
    world = started()
    assert world.observed.coordinator_set is not None
    changed = copy.deepcopy(world.observed.coordinator_set)
    changed["spec"]["replicas"] = 3
    world.see(coordinator_set=changed)
    (repair,) = world.decide().applies
    assert repair["metadata"]["uid"] == changed["metadata"]["uid"]
    assert repair["spec"]["replicas"] == 1


@pytest.mark.parametrize(
    "kind",
    [
        *("coordinator_set", "worker_set", "service", "network_policy", "disruption_budget"),
        *("service_account", "role_binding"),
    ],
)
def test_a_deleted_child_comes_back(kind: str) -> None:
    world = started()
    before = getattr(world.observed, kind)
    world.see(**{kind: None})
    world.settle()
    assert getattr(world.observed, kind)["metadata"]["name"] == before["metadata"]["name"]


def test_a_child_that_is_being_deleted_is_waited_for() -> None:
    world = started()
    assert world.observed.service is not None
    going = copy.deepcopy(world.observed.service)
    going["metadata"]["deletionTimestamp"] = "2026-03-01T14:00:01Z"
    going["spec"]["selector"] = {}
    world.see(service=going)
    assert world.decide().applies == ()


def test_a_newer_operator_leaves_the_template_of_running_pods() -> None:
    """An upgrade touches no running pod: the template follows at 0 pods."""
    world = started()
    assert world.observed.coordinator_set is not None
    older = copy.deepcopy(world.observed.coordinator_set)
    older["metadata"]["annotations"] = {"dtjob.dev/template-digest": "older"}
    older["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 5
    world.see(coordinator_set=older, pods=(pod(0), pod(1)), claim=claim())
    assert world.decide().applies == ()

    scaled = copy.deepcopy(older)
    scaled["spec"]["replicas"] = 0
    world.see(coordinator_set=scaled, pods=(pod(0),))
    (repair,) = world.decide().applies
    assert repair["spec"]["template"] == older["spec"]["template"], "its pod still ends"
    world.see(pods=(pod(1),))
    (repair,) = world.decide().applies
    assert repair["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 60


def test_a_template_of_this_operator_is_repaired_at_once() -> None:
    world = started()
    assert world.observed.coordinator_set is not None
    edited = copy.deepcopy(world.observed.coordinator_set)
    edited["spec"]["template"]["spec"]["containers"][0]["image"] = "edited"
    world.see(coordinator_set=edited, pods=(pod(0), pod(1)), claim=claim())
    (repair,) = world.decide().applies
    assert repair["spec"]["template"]["spec"]["containers"][0]["image"] != "edited"


def test_a_larger_volume_does_not_touch_the_immutable_claim_template() -> None:
    world = started()
    job = copy.deepcopy(world.observed.job)
    job["spec"]["storage"]["checkpoints"]["size"] = "2Gi"
    world.see(job=job)
    assert world.decide().applies == ()


def test_a_prepared_account_is_used_as_it_is() -> None:
    """Platform teams may prepare namespaces themselves."""
    prepared = {"kind": "ServiceAccount", "metadata": {"name": "dtjob-worker", "uid": "theirs"}}
    binding = {
        "kind": "RoleBinding",
        "metadata": {"name": "dtjob-worker", "uid": "theirs"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "dtjob-worker",
        },
        "subjects": [{"kind": "ServiceAccount", "name": "dtjob-worker", "namespace": "research"}],
    }
    world = World.of(privacy_plan=PLAN, service_account=prepared, role_binding=binding)
    world.settle()
    before = ["Service", "NetworkPolicy", "PodDisruptionBudget", "PrivacyLedger"]
    assert world.applied == [*before, "StatefulSet", "StatefulSet"]


def test_our_binding_to_another_role_is_made_anew() -> None:
    world = started()
    assert world.observed.role_binding is not None
    other = copy.deepcopy(world.observed.role_binding)
    other["roleRef"]["name"] = "view"
    world.see(role_binding=other)
    world.settle()
    assert world.observed.role_binding["roleRef"]["name"] == "dtjob-worker"


def test_an_account_of_the_user_is_neither_made_nor_bound() -> None:
    job = digits(workers={"replicas": 1, "serviceAccountName": "trainers"})
    world = World.of(job, privacy_plan=PLAN)
    world.settle()
    before = ["Service", "NetworkPolicy", "PodDisruptionBudget", "PrivacyLedger"]
    assert world.applied == [*before, "StatefulSet"], "it has one worker, the coordinator"
    assert world.observed.coordinator_set is not None
    spec = world.observed.coordinator_set["spec"]["template"]["spec"]
    assert spec["serviceAccountName"] == "trainers"


SLOTS = {
    "coordinator_set": ("StatefulSet", CHILD),
    "worker_set": ("StatefulSet", f"{CHILD}-w"),
    "service": ("Service", CHILD),
    "network_policy": ("NetworkPolicy", CHILD),
    "disruption_budget": ("PodDisruptionBudget", CHILD),
    "ledger": ("PrivacyLedger", CHILD),
}


@pytest.mark.parametrize("slot", SLOTS)
def test_a_foreign_object_of_a_childs_name_is_left_alone(slot: str) -> None:
    kind, name = SLOTS[slot]
    foreign: Json = {
        "kind": kind,
        "metadata": {"name": name, "namespace": "research", "uid": "theirs"},
        "spec": {"replicas": 3},
    }
    world = World.of(privacy_plan=PLAN, **{slot: foreign})
    world.settle()
    assert getattr(world.observed, slot) == foreign
    assert "StatefulSet" not in world.applied
    assert world.reason("ResourcesReady") == ("False", "NameConflict")
    message = world.condition("ResourcesReady")["message"]
    assert f"{kind} {name} in namespace research" in message
    assert "delete it" in message
    assert ("keep a copy" in message) is (kind == "PrivacyLedger"), "it tells of what was spent"
    assert ("its spec.jobUID is not" in message) is (kind == "PrivacyLedger")
    assert world.events == ["NameConflict"]
    assert world.status["phase"] == "Pending"

    world.see(**{slot: None})
    world.settle()
    assert "StatefulSet" in world.applied


OWNED = [slot for slot in SLOTS if slot != "ledger"]


@pytest.mark.parametrize("slot", OWNED)
def test_a_child_that_lost_its_labels_gets_them_back(slot: str) -> None:
    """Its controller is the job: nobody has to delete it."""
    world = started()
    world.start()
    bare = copy.deepcopy(getattr(world.observed, slot))
    labels = bare["metadata"].pop("labels")
    world.see(**{slot: bare})
    (repair,) = world.decide().applies
    assert repair["metadata"]["uid"] == bare["metadata"]["uid"]
    assert repair["metadata"]["labels"] == labels
    world.settle()
    assert world.reason("Running") == ("True", "Training")


@pytest.mark.parametrize("slot", OWNED)
def test_a_child_is_its_controllers_whatever_its_labels_say(slot: str) -> None:
    world = started()
    taken = copy.deepcopy(getattr(world.observed, slot))
    taken["metadata"]["ownerReferences"][0]["uid"] = "theirs"
    world.see(**{slot: taken})
    world.settle()
    assert getattr(world.observed, slot) == taken
    assert world.reason("Running") == ("False", "NameConflict")


@pytest.mark.parametrize("slot", OWNED)
def test_a_child_without_an_owner_is_known_by_its_label(slot: str) -> None:
    """Else it would outlive its job."""
    world = started()
    orphan = copy.deepcopy(getattr(world.observed, slot))
    owners = orphan["metadata"].pop("ownerReferences")
    world.see(**{slot: orphan})
    world.settle()
    assert getattr(world.observed, slot)["metadata"]["ownerReferences"] == owners


def test_pods_go_when_the_job_ends_though_their_sets_lost_their_labels() -> None:
    world = started()
    world.start()
    for slot in ("coordinator_set", "worker_set"):
        bare = copy.deepcopy(getattr(world.observed, slot))
        bare["metadata"].pop("labels")
        world.see(**{slot: bare})
    world.end()
    world.settle()
    assert (world.observed.coordinator_set, world.observed.worker_set) == (None, None)


def test_what_was_for_pods_goes_once_they_are_gone() -> None:
    """A NetworkPolicy that went before them would leave them open. What jobs share stays."""
    world = started()
    world.start()
    world.end()
    world.settle()
    for_pods = ("service", "network_policy", "disruption_budget")
    assert all(getattr(world.observed, slot) is not None for slot in for_pods)
    world.see(pods=())
    world.settle()
    assert all(getattr(world.observed, slot) is None for slot in for_pods)
    for slot in ("ledger", "service_account", "role_binding"):
        assert getattr(world.observed, slot) is not None


def test_another_incarnation_shares_no_name() -> None:
    first, second = started(), started()
    job = copy.deepcopy(second.observed.job)
    job["metadata"]["uid"] = "ffffffff-0000-4000-8000-000000000002"
    job.pop("status")
    again = World.of(job, privacy_plan=PLAN)
    again.settle()
    for slot in SLOTS:
        one, other = getattr(first.observed, slot), getattr(again.observed, slot)
        assert one["metadata"]["name"] != other["metadata"]["name"]


@pytest.mark.rule(9)
def test_the_ledger_comes_before_everything_that_spends() -> None:
    """All draws are reserved, the plan is frozen, and only then is there a pod."""
    world = World.of(privacy_plan=PLAN)
    world.reconcile()
    account = ["ServiceAccount", "RoleBinding"]
    before_the_ledger = [*account, "Service", "NetworkPolicy", "PodDisruptionBudget"]
    assert world.applied == [*before_the_ledger, "PrivacyLedger"]
    assert world.observed.ledger is not None
    spec = world.observed.ledger["spec"]
    assert spec["reservedDraws"] == PLAN.steps + PLAN.replay_reserve_steps == 366
    assert spec["plan"] == PLAN.to_dict()
    assert "ownerReferences" not in world.observed.ledger["metadata"]
    assert "status" not in world.observed.ledger
    world.reconcile()
    assert world.applied[len(before_the_ledger) + 1 :] == ["StatefulSet", "StatefulSet"]


def test_a_terminating_job_is_left_to_the_garbage_collector() -> None:
    world = World.of(privacy_plan=PLAN)
    world.start()
    world.observed.job["metadata"]["deletionTimestamp"] = str(NOW)
    world.see(coordinator_set=None, worker_set=None, pods=())
    decision = world.decide()
    assert (decision.applies, decision.deletes, decision.events) == ((), (), ())
    assert decision.status == world.status


OURS = {"kind": "ServiceAccount", "name": "dtjob-worker", "namespace": "research"}
OTHERS = {"kind": "ServiceAccount", "name": "trainers", "namespace": "research"}


def prepared_binding(role: str, *subjects: Json) -> World:
    binding = {
        "kind": "RoleBinding",
        "metadata": {"name": "dtjob-worker", "namespace": "research", "uid": "theirs"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": role,
        },
        "subjects": [dict(each) for each in subjects],
    }
    return World.of(privacy_plan=PLAN, role_binding=binding)


@pytest.mark.parametrize("subjects", [(OURS, OTHERS), (OTHERS, OURS), (OURS | {"apiGroup": ""},)])
def test_a_prepared_binding_may_bind_others_too(subjects: tuple[Json, ...]) -> None:
    """An apply would take the list of subjects whole, and drop theirs: there is none."""
    world = prepared_binding("dtjob-worker", *subjects)
    before = copy.deepcopy(world.observed.role_binding)
    world.settle()
    assert "StatefulSet" in world.applied
    assert "RoleBinding" not in world.applied
    assert world.observed.role_binding == before


@pytest.mark.parametrize(
    ("role", "subjects"),
    [
        ("dtjob-worker", (OTHERS,)),
        ("dtjob-worker", ()),
        ("dtjob-worker", (OURS | {"namespace": "other"},)),
        ("view", (OURS, OTHERS)),
    ],
    ids=["others", "nobody", "another namespace", "another role"],
)
def test_a_prepared_binding_that_does_not_do_is_told(role: str, subjects: tuple[Json, ...]) -> None:
    world = prepared_binding(role, *subjects)
    world.settle()
    assert world.reason("Running") == ("False", "NameConflict")
    assert "RoleBinding" not in world.applied
