"""The cluster's certificate authority, the certificates it signs and kubeconfigs that hold them."""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from localcluster.base import project
from localcluster.base.files import write_atomically
from localcluster.cluster import nodes
from localcluster.cluster.instance import CLUSTER_DOMAIN, Instance
from localcluster.control import metrics

_LIFETIME = datetime.timedelta(days=365)
_CLOCK_SKEW = datetime.timedelta(hours=1)


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, as PEM text."""

    certificate: str
    key: str

    def write(self, folder: Path, name: str) -> None:
        """Write `<name>.crt` and `<name>.key`."""
        write_atomically(folder / f"{name}.crt", self.certificate)
        write_atomically(folder / f"{name}.key", self.key, mode=0o600)


class Authority:
    """A certificate authority that lives for one cluster."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._certificate = certificate

    @classmethod
    def create(cls, common_name: str) -> Self:
        """Make a new authority with a key of its own."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _subject(common_name, ())
        builder = _builder(name, name, key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        return cls(key, builder.sign(key, hashes.SHA256()))

    @property
    def pair(self) -> Pair:
        """The authority's own certificate and key."""
        return _pem(self._certificate, self._key)

    def issue(
        self,
        common_name: str,
        organizations: Iterable[str] = (),
        *,
        names: Iterable[str] = (),
        addresses: Iterable[str | IPv4Address] = (),
    ) -> Pair:
        """Sign a certificate that is good for a client and for a server of these names.

        Parameters
        ----------
        common_name, organizations
            The user and its groups, as Kubernetes reads them.
        names, addresses
            DNS names and addresses that it serves under.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_subject(common_name, organizations), self._certificate.subject, key)
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        alternatives += [x509.IPAddress(ip_address(str(address))) for address in addresses]
        if alternatives:
            subject_names = x509.SubjectAlternativeName(alternatives)
            builder = builder.add_extension(subject_names, critical=False)
        return _pem(builder.sign(self._key, hashes.SHA256()), key)


def _subject(common_name: str, organizations: Iterable[str]) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, each) for each in organizations]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _LIFETIME)
    )


def _pem(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    return Pair(
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode(),
    )


def write_all(instance: Instance) -> None:
    """Make every key and certificate of a cluster, and the kubeconfigs.

    Writes `pki/` and `<user>.kubeconfig` files into the state folder, and last of all
    `kubeconfig`, the administrator's, whose presence shows that the rest is there.
    """
    pki = instance.folder / "pki"
    authority = Authority.create(f"{project.NAME}-{instance.name}")
    authority.pair.write(pki, "ca")
    front_proxy = Authority.create(f"{project.NAME}-{instance.name}-front-proxy")
    front_proxy.pair.write(pki, "front-proxy-ca")
    front_proxy.issue("front-proxy-client").write(pki, "front-proxy-client")

    signing_key = ec.generate_private_key(ec.SECP256R1())
    public_key = signing_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    write_atomically(pki / "service-accounts.pub", public_key.decode())
    private_key = signing_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_atomically(pki / "service-accounts.key", private_key.decode(), mode=0o600)

    short = "kubernetes.default.svc"
    names = ["localhost", "kubernetes", "kubernetes.default", short, f"{short}.{CLUSTER_DOMAIN}"]
    authority.issue(
        "kube-apiserver",
        names=names,
        addresses=[
            "127.0.0.1",
            instance.address,
            instance.bridge_address,
            instance.kubernetes_service,
        ],
    ).write(pki, "apiserver")
    authority.issue(metrics.NAME, names=[metrics.HOST]).write(pki, metrics.NAME)
    authority.issue("apiserver-kubelet-client", ["system:masters"]).write(pki, "kubelet-client")
    users = {}
    for node in nodes.every(instance):
        user, groups = users[node.process("kubelet")] = f"system:node:{node.name}", ["system:nodes"]
        authority.issue(user, groups, names=[node.name], addresses=[node.bridge_address]).write(
            pki, node.process("kubelet")
        )

    inside = f"https://{instance.bridge_address}:443"  # from every node
    users |= {
        "kube-controller-manager": ("system:kube-controller-manager", []),
        "kube-scheduler": ("system:kube-scheduler", []),
        metrics.NAME: (metrics.USER, []),
        "admin-inside": ("kubernetes-admin", ["system:masters"]),
    }
    for file, (user, groups) in users.items():
        text = kubeconfig(instance, inside, authority.pair, authority.issue(user, groups))
        write_atomically(instance.folder / f"{file}.kubeconfig", text, mode=0o600)
    admin = authority.issue("kubernetes-admin", ["system:masters"])
    text = kubeconfig(instance, instance.server, authority.pair, admin)
    write_atomically(instance.kubeconfig, text, mode=0o600)


def kubeconfig(instance: Instance, server: str, authority: Pair, client: Pair) -> str:
    """Return a kubeconfig (JSON is YAML) with one cluster, one user and one context."""
    name = f"{project.NAME}-{instance.name}"

    def encoded(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    cluster = {"server": server, "certificate-authority-data": encoded(authority.certificate)}
    user = {
        "client-certificate-data": encoded(client.certificate),
        "client-key-data": encoded(client.key),
    }
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
    }
    return json.dumps(content, indent=1)
