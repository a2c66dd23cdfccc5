"""Who a certificate is of."""

from __future__ import annotations

import json
from base64 import b64decode
from ipaddress import IPv4Address

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from localcluster.cluster import nodes
from localcluster.cluster.instance import Instance
from localcluster.control import certificates

pytestmark = pytest.mark.usefixtures("empty_machine")


def user_of(certificate: x509.Certificate) -> object:
    return certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value


def test_each_kubelet_is_the_user_of_its_own_node_and_serves_at_its_own_address() -> None:
    """By which the API server lets it write of this node alone."""
    cluster = Instance("a", 3, node_count=2)
    certificates.write_all(cluster)
    for node in nodes.every(cluster):
        name = node.process("kubelet")
        pem = (cluster.folder / "pki" / f"{name}.crt").read_bytes()
        served = x509.load_pem_x509_certificate(pem)
        others = served.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert others.get_values_for_type(x509.DNSName) == [node.name]
        assert others.get_values_for_type(x509.IPAddress) == [node.bridge_address]
        config = json.loads((cluster.folder / f"{name}.kubeconfig").read_text())
        encoded = config["users"][0]["user"]["client-certificate-data"]
        asking = x509.load_pem_x509_certificate(b64decode(encoded))
        assert user_of(served) == user_of(asking) == f"system:node:{node.name}"


def test_what_a_process_of_any_node_asks_the_api_server_by_is_an_address_of_its_certificate() -> (
    None
):
    cluster = Instance("a", 3, node_count=2)
    certificates.write_all(cluster)
    pem = (cluster.folder / "pki" / "apiserver.crt").read_bytes()
    extensions = x509.load_pem_x509_certificate(pem).extensions
    alternatives = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    for file in cluster.folder.glob("*.kubeconfig"):
        server = json.loads(file.read_text())["clusters"][0]["cluster"]["server"]
        host = IPv4Address(server.removeprefix("https://").removesuffix(":443"))
        assert host in alternatives.get_values_for_type(x509.IPAddress)
        assert not host.is_loopback, "another node has another one"
