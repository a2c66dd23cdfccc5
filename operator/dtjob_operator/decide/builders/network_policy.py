"""The NetworkPolicy of a job's workers: what may reach them, and what they may reach."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.job.network import Egress, LabelSelector, Peer
from dtjob_api.wire.well_known import HTTP_PORT
from dtjob_operator.terms import kinds, names
from dtjob_operator.terms.kinds import JOB_UID_LABEL, Json
from dtjob_operator.terms.metadata_addresses import closed_in
from dtjob_operator.terms.observed import Endpoint, has_addresses
from dtjob_operator.terms.settings import Settings

_NAMESPACE_LABEL = "kubernetes.io/metadata.name"
_DNS_PORTS = (53, 5353)
_API_SERVER_PORTS = (443, 6443)
_ANYWHERE = ("0.0.0.0/0", "::/0")


def network_policy(
    job: DistributedTrainingJob, api_server: tuple[Endpoint, ...], settings: Settings
) -> Json:
    """Workers reach one another, DNS, the API server and what the job names, and nothing else.

    gloo and NCCL choose their own ports and authenticate nobody: between the workers every port is
    open, from elsewhere only that of report and metrics. What the API server would fill in is
    written, what it would drop is left out: any difference from what is stored is somebody else's.

    Parameters
    ----------
    api_server
        Where it says it is. While its address is unknown, its usual ports and those that are known
        are open to every address.
    """
    workers = {JOB_UID_LABEL: names.selector(job)[JOB_UID_LABEL]}
    among_workers = [{"podSelector": {"matchLabels": workers}}]
    readers = sorted({settings.operator_namespace, *settings.monitoring_namespaces})
    return {
        "apiVersion": kinds.NETWORK_POLICY.api_version,
        "kind": kinds.NETWORK_POLICY.name,
        "metadata": names.child_metadata(job),
        "spec": {
            "podSelector": {"matchLabels": workers},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {"from": among_workers},
                {
                    "from": [
                        {"namespaceSelector": {"matchLabels": {_NAMESPACE_LABEL: namespace}}}
                        for namespace in readers
                    ],
                    "ports": _ports("TCP", (HTTP_PORT,)),
                },
            ],
            "egress": [
                {"to": among_workers},
                # To any address, the metadata ones too: a node's own DNS cache is no pod, some
                # clouds resolve names at 169.254.169.254, and for Cilium no ipBlock holds a pod.
                {"ports": [*_ports("UDP", _DNS_PORTS), *_ports("TCP", _DNS_PORTS)]},
                *map(_endpoint_rule, api_server_endpoints(api_server, settings)),
                *map(_named_rule, job.spec.network.egress),
            ],
        },
    }


def api_server_endpoints(known: tuple[Endpoint, ...], settings: Settings) -> tuple[Endpoint, ...]:
    """What the platform team says, else what the API server says, else every address."""
    if has_addresses(known) and not settings.api_server_cidrs:
        return known
    ports = {*_API_SERVER_PORTS, *(port for endpoint in known for port in endpoint.ports)}
    return (Endpoint(settings.api_server_cidrs or _ANYWHERE, tuple(sorted(ports))),)


def _endpoint_rule(endpoint: Endpoint) -> Json:
    to = [{"ipBlock": _block(network, ())} for network in endpoint.networks]
    return {"to": to, "ports": _ports("TCP", endpoint.ports)}


def _ports(protocol: str, ports: Iterable[int]) -> list[Json]:
    return [{"protocol": protocol, "port": port} for port in ports]


def _named_rule(egress: Egress) -> Json:
    """An entry of the job's own."""
    rule: Json = {"to": [_peer(peer) for peer in egress.to]}
    if egress.ports:
        rule["ports"] = [port.to_dict() for port in egress.ports]
    return rule


def _peer(peer: Peer) -> Json:
    if peer.ip_block is not None:
        return {"ipBlock": _block(peer.ip_block.cidr, peer.ip_block.except_ or ())}
    selectors = {"podSelector": peer.pod_selector, "namespaceSelector": peer.namespace_selector}
    return {name: _selector(given) for name, given in selectors.items() if given is not None}


def _selector(selector: LabelSelector) -> Json:
    return _filled(selector.to_dict()) | (
        {"matchExpressions": [_filled(each.to_dict()) for each in selector.match_expressions]}
        if selector.match_expressions
        else {}
    )


def _filled(fields: Json) -> Json:
    return {name: value for name, value in fields.items() if value}


def _block(cidr: str, holes: Collection[str]) -> Json:
    """A network without the metadata addresses, unless it is one of these itself."""
    block: Json = {"cidr": cidr}
    if holes := [*holes, *closed_in(cidr, holes)]:
        block["except"] = holes
    return block
