"""metrics-server: by which name and certificate the API server finds it."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography import x509

from localcluster.cluster.instance import Instance
from localcluster.control import certificates, metrics


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Instance:
    monkeypatch.setattr(Instance, "folder", tmp_path)
    (tmp_path / "pki").mkdir()
    found = Instance("metrics", 3)
    certificates.write_all(found)
    return found


def test_its_certificate_is_of_the_service_that_the_api_server_asks(instance: Instance) -> None:
    by_kind = {each["kind"]: each for each in metrics.objects(instance)}
    service = by_kind["APIService"]["spec"]["service"]
    certificate = x509.load_pem_x509_certificate(
        (instance.folder / "pki" / "metrics-server.crt").read_bytes()
    )
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    host = f"{service['name']}.{service['namespace']}.svc"
    assert names.get_values_for_type(x509.DNSName) == [host]
    authority = x509.load_pem_x509_certificate(
        base64.b64decode(by_kind["APIService"]["spec"]["caBundle"])
    )
    certificate.verify_directly_issued_by(authority)


def test_the_service_leads_to_where_it_listens(instance: Instance) -> None:
    by_kind = {each["kind"]: each for each in metrics.objects(instance)}
    argv = metrics.component(instance).argv
    (endpoint,) = by_kind["EndpointSlice"]["endpoints"]
    (port,) = by_kind["EndpointSlice"]["ports"]
    assert f"--bind-address={endpoint['addresses'][0]}" in argv
    assert f"--secure-port={port['port']}" in argv
