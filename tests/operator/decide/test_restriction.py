"""What the status says of how far the workers' network is closed: `NetworkRestricted`."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from dtjob_api.reasons import Reason
from dtjob_operator.terms.observed import Endpoint, Rejection
from dtjob_operator.terms.settings import Enforcement, Settings
from tests.support.builders import UID
from tests.support.worlds.networks import API_SERVER, started, with_network
from tests.support.worlds.world import CHILD, NOW, PLAN, World, pod, stamp

Json = dict[str, Any]
ENFORCED = Settings(enforcement=Enforcement.ENFORCED)


def test_ports_that_are_open_to_every_address_are_told() -> None:
    world = World.of(privacy_plan=PLAN, api_server=(Endpoint((), (16443,)),))
    world.settle()
    assert world.reason("NetworkRestricted") == ("False", "ApiServerAddressUnknown")
    assert (
        "ports 443, 6443, 16443 of every address" in world.condition("NetworkRestricted")["message"]
    )


@pytest.mark.parametrize(
    ("settings", "api_server", "told"),
    [
        ({}, API_SERVER, ("Unknown", "EnforcementUnknown")),
        ({"enforcement": Enforcement.ENFORCED}, API_SERVER, ("True", "PolicyEnforced")),
        ({"enforcement": Enforcement.NONE}, API_SERVER, ("False", "PolicyNotEnforced")),
        ({"enforcement": Enforcement.NONE}, (), ("False", "PolicyNotEnforced")),
        ({}, (), ("False", "ApiServerAddressUnknown")),
        ({"enforcement": Enforcement.ENFORCED}, (), ("False", "ApiServerAddressUnknown")),
        (
            {"enforcement": Enforcement.ENFORCED, "api_server_cidrs": ("192.0.2.0/24",)},
            (),
            ("True", "PolicyEnforced"),
        ),
    ],
)
def test_the_status_says_how_far_the_network_is_closed(
    settings: Json, api_server: tuple[Endpoint, ...], told: tuple[str, str]
) -> None:
    world = World.of(privacy_plan=PLAN, api_server=api_server)
    world.settings = Settings(**settings)
    world.settle()
    assert world.reason("NetworkRestricted") == told
    message = world.condition("NetworkRestricted")["message"]
    assert f"NetworkPolicy {CHILD}" in message
    unknown = not (api_server or settings.get("api_server_cidrs"))
    assert ("--api-server-cidr" in message) == unknown, "it is open wider, enforced or not"
    if told[1] != "PolicyEnforced":
        assert "--network-policy-enforcement" in message or settings.get("enforcement")
    assert world.events == [], "an installation's state is no news of a job"
    assert len(world.patches) == 1, "it costs no write of its own"


def test_an_operator_that_does_not_look_there_needs_no_right_to() -> None:
    world = World.of(privacy_plan=PLAN, api_server=())
    world.settings = Settings(watch_namespaces=("research",))
    world.settle()
    message = world.condition("NetworkRestricted")["message"]
    assert "no other namespaces than --watch-namespace names: give it --api-server-cidr" in message
    assert "Allow the operator to read" not in message


@pytest.mark.parametrize("state", ["missing", "opened by another"])
def test_a_policy_that_can_not_be_applied_is_not_called_one(state: str) -> None:
    world = started(enforcement=Enforcement.ENFORCED)
    opened = copy.deepcopy(world.observed.network_policy)
    assert opened is not None
    opened["spec"]["ingress"].append({})
    world.see(network_policy=opened if state == "opened by another" else None)
    world.later(30)
    claims = world.decide().status
    assert claims is not None
    (found,) = (c for c in claims["conditions"] if c["type"] == "NetworkRestricted")
    assert (found["status"], found["reason"]) == ("False", "CreatingResources")


def test_a_policy_is_said_to_be_applied_only_where_it_is() -> None:
    def told(world: World) -> str:
        status = world.decide().status
        assert status is not None
        (found,) = (c for c in status["conditions"] if c["type"] == "NetworkRestricted")
        assert (found["status"], found["reason"]) == ("False", "CreatingResources")
        message: str = found["message"]
        return message

    world = World.of(api_server=API_SERVER)
    world.later(3)
    assert "as soon as the privacy plan is fixed" in told(world)

    world = started()
    world.later(30)
    world.see(network_policy=None)
    assert told(world).endswith("; it is applied")
    world.see(rejections=(Rejection("StatefulSet", CHILD, "quota"),))
    assert told(world).endswith("; it is applied"), "the StatefulSet comes after it"
    for kind in ("Service", "NetworkPolicy"):
        world.see(rejections=(Rejection(kind, CHILD, "exceeded quota"),))
        assert f"not applied yet: the API server refuses the {kind}" in told(world)
    world.see(rejections=(), unguarded="a test says so")
    assert "not applied yet: nothing is started while ledgers are not protected" in told(world)
    world.see(unguarded=None, ledger=None)
    assert f"not applied yet: PrivacyLedger {CHILD}" in told(world)


def test_a_policy_of_another_is_not_said_to_be_applied_over() -> None:
    theirs = {"kind": "NetworkPolicy", "metadata": {"name": CHILD, "uid": "theirs"}, "spec": {}}
    world = World.of(privacy_plan=PLAN, api_server=API_SERVER, network_policy=theirs)
    world.settle()
    message = world.condition("NetworkRestricted")["message"]
    assert "not applied yet" in message
    assert message.endswith(world.condition("ResourcesReady")["message"])


def test_a_policy_that_is_being_deleted_is_waited_for() -> None:
    world = started()
    going = copy.deepcopy(world.observed.network_policy)
    assert going is not None
    going["metadata"]["deletionTimestamp"] = stamp(world.now)
    going["spec"]["ingress"] = []
    world.see(network_policy=going)
    world.later(30)
    world.settle()
    message = world.condition("NetworkRestricted")["message"]
    assert message.endswith("being deleted; it is applied once it has gone")


@pytest.mark.parametrize("enforcement", Enforcement)
def test_what_the_installation_says_anew_waits_for_a_write(enforcement: Enforcement) -> None:
    """A thousand jobs are not written to at once because a flag or an address was changed."""
    world = World.of(privacy_plan=PLAN, api_server=API_SERVER)
    world.settings = Settings(enforcement=enforcement)
    world.start()
    world.see(api_server=())
    world.settings = ENFORCED
    before = len(world.patches)
    world.reconcile()
    assert len(world.patches) == before
    world.later(world.settings.telemetry_seconds)
    world.reconcile()
    assert len(world.patches) == before + 1
    assert world.reason("NetworkRestricted") == ("False", "ApiServerAddressUnknown")


def test_the_end_of_a_job_is_the_end_of_its_network() -> None:
    world = World.of(privacy_plan=PLAN, api_server=API_SERVER)
    world.start()
    world.end()
    world.settle()
    assert world.reason("NetworkRestricted") == ("False", "Finished")
    assert world.observed.network_policy is not None, "it goes with the job"


LOST = {"dtjob.dev/job-uid": UID}


def test_a_pod_that_lost_its_label_is_outside_the_policy() -> None:
    world = started(enforcement=Enforcement.ENFORCED)
    world.later(30)
    world.see(pods=(pod(0),), unlabelled={f"{CHILD}-w-0": LOST})
    world.settle()
    for kind in ("NetworkRestricted", "ResourcesReady", "Running"):
        assert world.reason(kind) == ("False", "WorkerUnlabelled")
        message = world.condition(kind)["message"]
        assert f"pod {CHILD}-w-0" in message
        assert f"dtjob.dev/job-uid={UID}" in message
        assert "NetworkPolicy does not hold for it" in message
    assert world.events.count("WorkerUnlabelled") == 1

    world.see(pods=(pod(0), pod(1, NOW)), unlabelled={})
    world.settle()
    assert world.reason("NetworkRestricted") == ("True", "PolicyEnforced")


def test_a_job_that_trains_tells_of_a_lost_label_too() -> None:
    world = World.of(privacy_plan=PLAN, api_server=API_SERVER)
    world.start()
    assert world.status["phase"] == "Running"
    world.see(pods=(pod(0),), unlabelled={f"{CHILD}-w-0": LOST})
    world.settle()
    assert world.reason("NetworkRestricted") == ("False", "WorkerUnlabelled")
    assert world.reason("ResourcesReady") == ("False", "WorkerUnlabelled")
    assert world.reason("Running") == ("True", "Training")
    assert world.events[-1] == "WorkerUnlabelled"


def test_a_worker_of_no_role_is_under_the_policy_all_the_same() -> None:
    """The StatefulSet alone goes by the role."""
    world = started(enforcement=Enforcement.ENFORCED)
    world.later(30)
    world.see(pods=(pod(0),), unlabelled={f"{CHILD}-w-0": {"dtjob.dev/role": "worker"}})
    world.settle()
    assert world.reason("NetworkRestricted") == ("True", "PolicyEnforced")
    message = world.condition("ResourcesReady")["message"]
    assert "lacks dtjob.dev/role=worker: " in message
    assert "NetworkPolicy" not in message


def test_without_a_policy_a_lost_label_is_told_without_one() -> None:
    world = started()
    world.later(30)
    world.see(pods=(pod(0),), unlabelled={f"{CHILD}-w-0": LOST, f"{CHILD}-w-1": LOST})
    with_network(world, policy="None")
    assert world.reason("NetworkRestricted") == ("False", Reason.POLICY_NONE)
    message = world.condition("Running")["message"]
    assert f"pod {CHILD}-w-0 in namespace research (and 1 more)" in message
    assert "NetworkPolicy" not in message
