"""The NetworkPolicy of a job: what it opens, when it goes, and what the status says of it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.reasons import Reason
from dtjob_operator.decide.builders.network_policy import network_policy
from dtjob_operator.terms import metadata_addresses
from dtjob_operator.terms.observed import Endpoint, Rejection
from dtjob_operator.terms.settings import Enforcement, Settings
from tests.support.builders import UID
from tests.support.worlds.world import CHILD, NOW, PLAN, World, claim, digits, pod, stamp

Json = dict[str, Any]
API_SERVER = (Endpoint(("192.0.2.10/32",), (6443,)), Endpoint(("10.96.0.1/32",), (443,)))
CLOSED_4 = ["169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32"]
CLOSED_6 = ["fd00:ec2::254/128", "fd00:ec2::23/128", "fd20:ce::254/128"]
ENFORCED = Settings(enforcement=Enforcement.ENFORCED)


def egress(job: Json, api_server: tuple[Endpoint, ...] = API_SERVER, **given: Any) -> list[Json]:
    """What a job's policy opens besides the workers and DNS."""
    read = DistributedTrainingJob.from_dict(job)
    rules: list[Json] = network_policy(read, api_server, Settings(**given))["spec"]["egress"]
    return rules[2:]


def opened(rule: Json) -> tuple[list[Json], list[int]]:
    return [peer["ipBlock"] for peer in rule["to"]], [port["port"] for port in rule["ports"]]


def test_the_platform_teams_word_on_the_api_server_goes_before_its_own() -> None:
    (rule,) = egress(digits(), api_server_cidrs=("198.51.100.0/24", "2001:db8::1/128"))
    assert opened(rule) == (
        [{"cidr": "198.51.100.0/24"}, {"cidr": "2001:db8::1/128"}],
        [443, 6443],
    )
    unusual = (Endpoint(("192.0.2.10/32",), (16443,)), API_SERVER[1])
    (rule,) = egress(digits(), unusual, api_server_cidrs=("198.51.100.0/24",))
    assert opened(rule) == ([{"cidr": "198.51.100.0/24"}], [443, 6443, 16443])


@pytest.mark.parametrize(
    ("cidrs", "opened_to"),
    [
        (("198.51.100.0/24",), ["198.51.100.0/24"]),
        ((), ["0.0.0.0/0", "::/0"]),
    ],
)
def test_a_port_that_is_known_without_its_address_is_opened(
    cidrs: tuple[str, ...], opened_to: list[str]
) -> None:
    """The operator may read the EndpointSlice, and not the Service."""
    (rule,) = egress(digits(), (Endpoint((), (16443,)),), api_server_cidrs=cidrs)
    blocks, ports = opened(rule)
    assert [block["cidr"] for block in blocks] == opened_to
    assert ports == [443, 6443, 16443]


def test_ports_that_are_open_to_every_address_are_told() -> None:
    world = World.of(privacy_plan=PLAN, api_server=(Endpoint((), (16443,)),))
    world.settle()
    assert world.reason("NetworkRestricted") == ("False", "ApiServerAddressUnknown")
    assert (
        "ports 443, 6443, 16443 of every address" in world.condition("NetworkRestricted")["message"]
    )


def test_an_api_server_that_nobody_knows_is_found_by_its_usual_ports() -> None:
    (rule,) = egress(digits(), api_server=())
    assert opened(rule) == (
        [
            {"cidr": "0.0.0.0/0", "except": CLOSED_4},
            {"cidr": "::/0", "except": CLOSED_6},
        ],
        [443, 6443],
    )


@pytest.mark.parametrize(
    ("block", "written"),
    [
        ({"cidr": "0.0.0.0/0"}, CLOSED_4),
        (
            {"cidr": "169.254.0.0/16"},
            [f"169.254.{its}/32" for its in ("169.254", "170.2", "170.23")],
        ),
        ({"cidr": "169.254.170.0/24"}, ["169.254.170.2/32", "169.254.170.23/32"]),
        ({"cidr": "169.254.170.23/32"}, None),
        ({"cidr": "169.254.20.10/32"}, None),
        ({"cidr": "100.64.0.0/10"}, ["100.100.100.200/32"]),
        ({"cidr": "169.254.169.254/31"}, ["169.254.169.254/32"]),
        ({"cidr": "169.254.0.0/16", "except": ["169.254.168.0/22"]}, ["169.254.168.0/22"]),
        ({"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}, ["10.0.0.0/8", *CLOSED_4]),
        ({"cidr": "169.254.169.254/32"}, None),
        ({"cidr": "10.0.0.0/8"}, None),
        ({"cidr": "::/0"}, CLOSED_6),
        ({"cidr": "fd00:ec2::/32"}, CLOSED_6[:2]),
        ({"cidr": "FD00:EC2:0::254/128"}, None),
    ],
)
def test_metadata_addresses_open_only_by_their_own_name(
    block: Json, written: list[str] | None
) -> None:
    job = digits(network={"egress": [{"to": [{"ipBlock": block}]}]})
    (peer,) = egress(job)[-1]["to"]
    assert peer["ipBlock"].get("except") == written


@pytest.mark.parametrize(
    ("message", "network"),
    [
        ("Get http://169.254.169.254/latest: i/o timeout", "169.254.169.254/32"),
        ("GET http://169.254.170.23/v1/credentials timed out", "169.254.170.23/32"),
        ("http://169.254.170.2/v2/credentials: timeout", "169.254.170.2/32"),
        ("dial tcp [FD00:EC2::23]:80: connect: no route", "fd00:ec2::23/128"),
        ("could not reach 168.63.129.16.", "168.63.129.16/32"),
        ("no IMDS endpoint", "169.254.169.254/32"),
        ("dial tcp 169.254.170.234:80", None),
        ("dial tcp 1.169.254.170.2:80", None),
        ("disk full", None),
    ],
)
def test_the_address_that_an_error_tells_of_is_the_one_to_open(
    message: str, network: str | None
) -> None:
    assert metadata_addresses.mentioned_in(message) == network


def started(**settings: Any) -> World:
    world = World.of(privacy_plan=PLAN, api_server=API_SERVER)
    world.settings = Settings(**settings)
    world.settle()
    world.see(pods=(pod(0), pod(1)), claims=(claim(0), claim(1)))
    return world


def with_network(world: World, **network: Any) -> None:
    """The job's owner edits spec.network."""
    job = copy.deepcopy(world.observed.job)
    job["spec"]["network"] = network
    job["metadata"]["generation"] += 1
    world.see(job=job)
    world.settle()


def test_the_policy_goes_and_comes_with_the_spec_while_the_job_runs() -> None:
    world = started()
    assert world.observed.network_policy is not None
    with_network(world, policy="None")
    assert world.observed.network_policy is None
    assert world.reason("NetworkRestricted") == ("False", "PolicyNone")
    assert "gloo and NCCL" in world.condition("NetworkRestricted")["message"]
    with_network(world, policy="Restricted")
    assert world.observed.network_policy is not None
    assert world.applied.count("StatefulSet") == 1, "no pod is touched"


def test_a_policy_of_another_is_left_alone_where_none_is_asked_for() -> None:
    world = started()
    theirs = {"kind": "NetworkPolicy", "metadata": {"name": CHILD, "uid": "theirs"}, "spec": {}}
    world.see(network_policy=theirs)
    with_network(world, policy="None")
    assert world.observed.network_policy == theirs
    assert world.reason("NetworkRestricted") == ("False", "PolicyNone")
    assert world.status["phase"] == "Starting"


def test_egress_takes_effect_at_once() -> None:
    world = started()
    with_network(world, policy="Restricted", egress=[{"to": [{"podSelector": {}}]}])
    assert world.observed.network_policy is not None
    assert world.observed.network_policy["spec"]["egress"][-1] == {"to": [{"podSelector": {}}]}


def test_the_policy_follows_the_api_server() -> None:
    world = started()
    moved = (Endpoint(("192.0.2.77/32",), (6443,)), API_SERVER[1])
    world.see(api_server=moved)
    world.settle()
    assert world.observed.network_policy is not None
    assert "192.0.2.77/32" in str(world.observed.network_policy["spec"]["egress"])
    assert "192.0.2.10/32" not in str(world.observed.network_policy["spec"]["egress"])


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
    assert world.events == ["Planned"], "an installation's state is no news of a job"
    assert len(world.patches) == 2, "it costs no write of its own"


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


def test_a_pod_that_lost_its_label_is_outside_the_policy() -> None:
    world = started(enforcement=Enforcement.ENFORCED)
    world.later(30)
    world.see(pods=(pod(0),), unlabelled=(f"{CHILD}-1",))
    world.settle()
    for kind in ("NetworkRestricted", "ResourcesReady", "Running"):
        assert world.reason(kind) == ("False", "WorkerUnlabelled")
        message = world.condition(kind)["message"]
        assert f"pod {CHILD}-1" in message
        assert f"dtjob.dev/job-uid={UID}" in message
        assert "NetworkPolicy does not hold for it" in message
    assert world.events.count("WorkerUnlabelled") == 1

    world.see(pods=(pod(0), pod(1, NOW)), unlabelled=())
    world.settle()
    assert world.reason("NetworkRestricted") == ("True", "PolicyEnforced")


def test_a_job_that_trains_tells_of_a_lost_label_too() -> None:
    world = World.of(privacy_plan=PLAN, api_server=API_SERVER)
    world.start()
    assert world.status["phase"] == "Running"
    world.see(pods=(pod(0),), unlabelled=(f"{CHILD}-1",))
    world.settle()
    assert world.reason("NetworkRestricted") == ("False", "WorkerUnlabelled")
    assert world.reason("Running") == ("True", "Training")
    assert world.events[-1] == "WorkerUnlabelled"


def test_without_a_policy_a_lost_label_is_told_without_one() -> None:
    world = started()
    world.later(30)
    world.see(pods=(pod(0),), unlabelled=(f"{CHILD}-1", f"{CHILD}-2"))
    with_network(world, policy="None")
    assert world.reason("NetworkRestricted") == ("False", Reason.POLICY_NONE)
    message = world.condition("Running")["message"]
    assert f"pod {CHILD}-1 in namespace research (and 1 more)" in message
    assert "NetworkPolicy" not in message
