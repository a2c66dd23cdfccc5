"""The NetworkPolicy of a job: what it opens, and when it comes and goes."""

from __future__ import annotations

from typing import Any

import pytest

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_operator.decide.builders.network_policy import network_policy
from dtjob_operator.terms import metadata_addresses
from dtjob_operator.terms.observed import Endpoint
from dtjob_operator.terms.settings import Settings
from tests.support.worlds.networks import API_SERVER, started, with_network
from tests.support.worlds.world import CHILD, digits

Json = dict[str, Any]
CLOSED_4 = ["169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32"]
CLOSED_6 = ["fd00:ec2::254/128", "fd00:ec2::23/128", "fd20:ce::254/128"]


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


def test_the_policy_goes_and_comes_with_the_spec_while_the_job_runs() -> None:
    world = started()
    assert world.observed.network_policy is not None
    with_network(world, policy="None")
    assert world.observed.network_policy is None
    assert world.reason("NetworkRestricted") == ("False", "PolicyNone")
    assert "gloo and NCCL" in world.condition("NetworkRestricted")["message"]
    with_network(world, policy="Restricted")
    assert world.observed.network_policy is not None
    assert world.applied.count("StatefulSet") == 2, "no pod is touched"


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
