"""NetworkPolicies as iptables rules: a pod's chain returns what is named and drops the rest."""

from __future__ import annotations

from typing import Any

import pytest

from localcluster.networking.policies import selects, table

Manifest = dict[str, Any]
NAMESPACES = {"here": {"name": "here"}, "there": {"name": "there", "team": "a"}}


def pod(name: str, address: str, namespace: str = "here", **status: Any) -> Manifest:
    container = {"name": "c", "ports": [{"name": "web", "containerPort": 8000}]}
    return {
        "metadata": {"namespace": namespace, "name": name, "labels": {"app": name}},
        "spec": {"containers": [container]},
        "status": {"phase": "Running", "podIP": address} | status,
    }


PODS = [pod("a", "10.0.0.1"), pod("b", "10.0.0.2"), pod("a", "10.0.1.1", "there")]


def policy(*types: str, **rules: Any) -> Manifest:
    """One that selects pod a of namespace here."""
    spec = {"podSelector": {"matchLabels": {"app": "a"}}, "policyTypes": list(types)}
    return {"metadata": {"namespace": "here", "name": "p"}, "spec": spec | rules}


def chain(name: str, *policies: Manifest, pods: list[Manifest] = PODS) -> list[str]:
    """The rules of a chain, in the words after its name."""
    lines = table(policies, pods, NAMESPACES).splitlines()
    return [line.removeprefix(f"-A {name} ") for line in lines if line.startswith(f"-A {name} ")]


def ingress(*peers: Manifest, ports: list[Manifest] | None = None) -> list[str]:
    rule: Manifest = {"from": list(peers)} if peers else {}
    given = policy("Ingress", ingress=[rule | ({"ports": ports} if ports else {})])
    *let_in, last = chain("in-10.0.0.1", given)
    assert last == "-j DROP"
    return let_in


def test_without_a_policy_nothing_is_closed() -> None:
    assert chain("in") == chain("out") == []


def test_only_selected_pods_are_closed_and_only_in_the_policies_directions() -> None:
    assert chain("in", policy("Ingress")) == ["-d 10.0.0.1 -j in-10.0.0.1"]
    assert chain("out", policy("Ingress")) == []
    assert chain("in-10.0.0.1", policy("Ingress")) == ["-j DROP"]
    assert chain("out", policy("Egress")) == ["-s 10.0.0.1 -j out-10.0.0.1"]


def test_what_any_policy_names_is_open() -> None:
    one = policy("Ingress", ingress=[{"ports": [{"port": 80}]}])
    other = policy("Ingress", ingress=[{"ports": [{"port": 81, "protocol": "UDP"}]}])
    assert chain("in-10.0.0.1", one, other) == [
        "-s 0.0.0.0/0 -p tcp --dport 80:80 -j RETURN",
        "-s 0.0.0.0/0 -p udp --dport 81:81 -j RETURN",
        "-j DROP",
    ]


@pytest.mark.parametrize(
    ("peer", "addresses"),
    [
        ({"podSelector": {}}, ["10.0.0.1", "10.0.0.2"]),
        ({"podSelector": {"matchLabels": {"app": "b"}}}, ["10.0.0.2"]),
        ({"namespaceSelector": {}}, ["10.0.0.1", "10.0.0.2", "10.0.1.1"]),
        ({"namespaceSelector": {"matchLabels": {"team": "a"}}}, ["10.0.1.1"]),
        (
            {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "a"}}},
            ["10.0.0.1", "10.0.1.1"],
        ),
        ({"podSelector": {"matchLabels": {"app": "nobody"}}}, []),
    ],
)
def test_peers_are_pods_by_their_labels(peer: Manifest, addresses: list[str]) -> None:
    assert ingress(peer) == [f"-s {address}/32 -j RETURN" for address in addresses]


def test_a_block_has_its_holes() -> None:
    assert ingress({"ipBlock": {"cidr": "10.1.0.0/30", "except": ["10.1.0.1/32"]}}) == [
        "-s 10.1.0.0/32 -j RETURN",
        "-s 10.1.0.2/31 -j RETURN",
    ]
    assert ingress({"ipBlock": {"cidr": "10.1.0.0/30", "except": ["10.0.0.0/8"]}}) == []
    assert ingress({"ipBlock": {"cidr": "fd00::/8"}}) == []


def test_ports_may_be_ranges_and_the_listeners_names() -> None:
    (matched,) = ingress({"podSelector": {"matchLabels": {"app": "b"}}}, ports=[{"port": "web"}])
    assert matched == "-s 10.0.0.2/32 -p tcp --dport 8000:8000 -j RETURN"
    (matched,) = ingress(ports=[{"port": 1000, "endPort": 1010, "protocol": "UDP"}])
    assert matched == "-s 0.0.0.0/0 -p udp --dport 1000:1010 -j RETURN"
    assert ingress(ports=[{"port": "unknown"}]) == []
    named = policy("Egress", egress=[{"to": [{"podSelector": {}}], "ports": [{"port": "web"}]}])
    assert "-d 10.0.0.2/32 -p tcp --dport 8000:8000 -j RETURN" in chain("out-10.0.0.1", named)
    nobody = policy("Egress", egress=[{"ports": [{"port": "web"}]}])
    assert chain("out-10.0.0.1", nobody) == ["-j DROP"]


@pytest.mark.parametrize("status", [{"podIP": None}, {"phase": "Failed"}, {"phase": "Succeeded"}])
def test_an_address_that_a_pod_has_no_more_is_nobodys(status: Manifest) -> None:
    assert chain("in", policy("Ingress"), pods=[pod("a", "10.0.0.1", **status)]) == []


@pytest.mark.parametrize(
    ("requirement", "selected"),
    [
        ({"operator": "Exists"}, [True, True, False]),
        ({"operator": "DoesNotExist"}, [False, False, True]),
        ({"operator": "In", "values": ["x"]}, [True, False, False]),
        ({"operator": "NotIn", "values": ["x"]}, [False, True, True]),
    ],
)
def test_expressions(requirement: Manifest, selected: list[bool]) -> None:
    selector = {"matchExpressions": [{"key": "k"} | requirement]}
    assert [selects(selector, labels) for labels in ({"k": "x"}, {"k": "y"}, {})] == selected
