"""NetworkPolicies as iptables rules: the arithmetic of `localcluster.networking.enforcer`.

A policy's meaning is Kubernetes': a pod that none selects is open; one that some select is closed
in their directions but for what any of them names. The node reaches all pods, as kubelets must, and
the machine that it is on counts as part of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from localcluster.networking.interfaces import UPLINK

Manifest = dict[str, Any]
_ALL = IPv4Network("0.0.0.0/0")
# What belongs to a connection that was let through comes back. "out" and "in" hold a jump for each
# pod that is closed in that direction, to a chain that returns what is named and drops the rest.
# What comes over the uplink is let in: it is from the machine, or on another node what the first
# one, over which all else comes, has let through.
_HEAD = f"""*filter
:INPUT ACCEPT
:FORWARD ACCEPT
:OUTPUT ACCEPT
:out -
:in -
-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A INPUT -j out
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -i {UPLINK} -j ACCEPT
-A FORWARD -j out
-A FORWARD -j in
"""
IPV6 = """*filter
:INPUT DROP
:FORWARD DROP
:OUTPUT ACCEPT
-A INPUT -i lo -j ACCEPT
COMMIT
"""
"""Nothing in the cluster speaks IPv6, and no policy is to be gone round by it."""


def table(
    policies: Iterable[Manifest],
    pods: Iterable[Manifest],
    namespaces: dict[str, dict[str, str]],
) -> str:
    """Return the filter table, for `iptables-restore`.

    Parameters
    ----------
    policies, pods
        As the API server returns them.
    namespaces
        The labels of each.
    """
    living = sorted(filter(_has_address, pods), key=_address)
    policies = sorted(policies, key=lambda p: (p["metadata"]["namespace"], p["metadata"]["name"]))
    lines = []
    for pod in living:
        for direction, chain, own in (("Ingress", "in", "-d"), ("Egress", "out", "-s")):
            applying = [p for p in policies if _applies(p, pod, direction)]
            if not applying:
                continue
            mine = f"{chain}-{_address(pod)}"
            lines += [f":{mine} -", f"-A {chain} {own} {_address(pod)} -j {mine}"]
            matches = {
                match
                for policy in applying
                for match in _matches(policy, pod, direction, living, namespaces)
            }
            lines += [f"-A {mine} {match}-j RETURN" for match in sorted(matches)]
            lines.append(f"-A {mine} -j DROP")
    return "\n".join([_HEAD + "\n".join(lines), "COMMIT", ""])


def _has_address(pod: Manifest) -> bool:
    status = pod.get("status", {})
    ended = status.get("phase") in ("Succeeded", "Failed")
    return bool(status.get("podIP")) and not ended and not pod["spec"].get("hostNetwork")


def _address(pod: Manifest) -> IPv4Address:
    return IPv4Address(pod["status"]["podIP"])


def _applies(policy: Manifest, pod: Manifest, direction: str) -> bool:
    return (
        direction in policy["spec"]["policyTypes"]
        and policy["metadata"]["namespace"] == pod["metadata"]["namespace"]
        and selects(policy["spec"].get("podSelector") or {}, _labels(pod))
    )


def _labels(pod: Manifest) -> dict[str, str]:
    return pod["metadata"].get("labels") or {}


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    """Whether a label selector selects what has `labels`."""
    wanted = (selector.get("matchLabels") or {}).items()
    return all(labels.get(key) == value for key, value in wanted) and all(
        _satisfies(each, labels.get(each["key"])) for each in selector.get("matchExpressions") or ()
    )


def _satisfies(requirement: Manifest, value: str | None) -> bool:
    match requirement["operator"]:
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "In":
            return value in requirement["values"]
        case _:
            return value not in requirement["values"]


def _matches(
    policy: Manifest,
    pod: Manifest,
    direction: str,
    living: list[Manifest],
    namespaces: dict[str, dict[str, str]],
) -> Iterator[str]:
    """Yield what a policy lets through to or from `pod`, each in iptables' words."""
    ingress = direction == "Ingress"
    side = "-s" if ingress else "-d"
    for rule in policy["spec"].get(direction.lower()) or ():
        peers = rule.get("from" if ingress else "to")
        found: list[tuple[IPv4Network, Manifest | None]] = [(_ALL, None)]
        if peers:
            home = policy["metadata"]["namespace"]
            found = [each for p in peers for each in _places(p, home, living, namespaces)]
        for network, other in found:
            for port in rule.get("ports") or (None,):
                if (match := _port(port, pod if ingress else other)) is not None:
                    yield f"{side} {network} {match}"


def _places(
    peer: Manifest,
    home: str,
    living: list[Manifest],
    namespaces: dict[str, dict[str, str]],
) -> Iterator[tuple[IPv4Network, Manifest | None]]:
    """Yield the networks that a peer means, those of pods with the pod."""
    if (block := peer.get("ipBlock")) is not None:
        for network in _without(block["cidr"], block.get("except") or ()):
            yield network, None
        return
    of_namespaces = peer.get("namespaceSelector")
    for pod in living:
        namespace = pod["metadata"]["namespace"]
        near = (
            namespace == home
            if of_namespaces is None
            else selects(of_namespaces, namespaces.get(namespace, {}))
        )
        if near and selects(peer.get("podSelector") or {}, _labels(pod)):
            yield IPv4Network(_address(pod)), pod


def _without(cidr: str, holes: Iterable[str]) -> list[IPv4Network]:
    """Return what is left of a network; nothing of one of IPv6."""
    if ":" in cidr:
        return []
    left = [IPv4Network(cidr)]
    for hole in map(IPv4Network, holes):
        left = [
            part
            for each in left
            for part in (each.address_exclude(hole) if hole.subnet_of(each) else [each])
            if not part.subnet_of(hole)
        ]
    return left


def _port(port: Manifest | None, listener: Manifest | None) -> str | None:
    """Return a port in iptables' words, or None for a name that `listener` does not have."""
    if port is None:
        return ""
    protocol, number = port.get("protocol", "TCP"), port.get("port")
    if number is None:
        return f"-p {protocol.lower()} "
    if isinstance(number, str):
        containers = listener["spec"]["containers"] if listener else []
        named = [p for c in containers for p in c.get("ports") or () if p.get("name") == number]
        if not named:
            return None
        number = named[0]["containerPort"]
    return f"-p {protocol.lower()} --dport {number}:{port.get('endPort', number)} "
