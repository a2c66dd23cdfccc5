"""metrics-server: how the API server finds it, and what it may do there."""

from __future__ import annotations

import base64
import json
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


def test_it_has_the_rights_that_are_bound_to_it_and_no_others(instance: Instance) -> None:
    argv = metrics.component(instance).argv
    files = {each.partition("=")[2] for each in argv if "kubeconfig=" in each}
    (file,) = files
    (user,) = json.loads(Path(file).read_text())["users"]
    certificate = x509.load_pem_x509_certificate(
        base64.b64decode(user["user"]["client-certificate-data"])
    )
    assert certificate.subject.rfc4514_string() == f"CN={metrics.USER}"  # in no group
    objects = metrics.objects(instance)
    bindings = [each for each in objects if each["kind"].endswith("Binding")]
    assert {each["roleRef"]["name"] for each in bindings} == {
        metrics.USER,
        "system:auth-delegator",
        "extension-apiserver-authentication-reader",
    }
    subjects = [subject["name"] for each in bindings for subject in each["subjects"]]
    assert set(subjects) == {metrics.USER}
    (role,) = (
        each for each in objects if each["metadata"]["name"] == metrics.USER and "rules" in each
    )
    verbs = {verb for rule in role["rules"] for verb in rule["verbs"]}
    assert verbs == {"get", "list", "watch"}
