"""Rights granted and used: audit events folded into what RBAC had to allow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from testing import rights
from testing.rights import ACCOUNT, Right
from tests.support.checkout import ROOT


def event(
    verb: str, of: dict[str, str], *, user: str = ACCOUNT, code: int = 200, allowed: bool = True
) -> str:
    decision = {"authorization.k8s.io/decision": "allow" if allowed else "forbid"}
    found: dict[str, Any] = {"verb": verb, "user": {"username": user}, "annotations": decision}
    return json.dumps(found | {"objectRef": of, "responseStatus": {"code": code}})


LEASES = {"resource": "leases", "apiGroup": "coordination.k8s.io"}


def test_what_a_request_needs() -> None:
    status = {"resource": "privacyledgers", "apiGroup": "dtjob.dev", "subresource": "status"}
    used, forbidden = rights.needed(
        [
            event("watch", {"resource": "pods"}),
            event("update", LEASES | {"name": "dtjob-operator"}),
            event("patch", status | {"name": "a"}),
            event("patch", {"resource": "services", "name": "a"}, code=201),
            event("patch", {"resource": "services", "name": "b"}, code=403),
            event("delete", {"resource": "secrets", "name": "a"}, code=403, allowed=False),
            event("get", {"resource": "secrets"}, user="system:serviceaccount:a:dtjob-worker"),
            json.dumps({"verb": "get", "user": {"username": ACCOUNT}, "requestURI": "/apis"}),
        ]
    )
    assert used == {
        Right("watch", "pods"),
        Right("update", "leases.coordination.k8s.io", "dtjob-operator"),
        Right("patch", "privacyledgers.dtjob.dev/status", "a"),
        Right("patch", "services", "a"),
        Right("create", "services", "a"),
        Right("patch", "services", "b"),
    }
    assert forbidden == {Right("delete", "secrets", "a")}


def test_a_right_to_one_object_is_used_by_requests_about_it() -> None:
    lease, pods = Right("get", "leases.coordination.k8s.io", "own"), Right("list", "pods")
    assert rights.unused({lease, pods}, set()) == [lease, pods]
    about_another = lease._replace(name="another")
    assert rights.unused({lease, pods}, {about_another, pods._replace(name="a")}) == [lease]
    assert rights.unused({lease}, {lease}) == []


def test_the_rules_of_the_operator_are_read_whole() -> None:
    granted = rights.granted(ROOT / rights.RULES)
    assert Right("update", "leases.coordination.k8s.io", "dtjob-operator") in granted
    assert Right("watch", "pods") in granted
    assert Right("patch", "privacyledgers.dtjob.dev/status", "dtjob-canary") in granted
    assert {right[:2] for right in granted} >= set(rights._NO_REQUESTS)


@pytest.mark.parametrize("is_part", [False, True])
def test_a_part_of_the_tests_proves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_part: bool,
) -> None:
    monkeypatch.chdir(ROOT)
    everything = [
        {"verb": right.verb, "resource": right.resource, "name": right.name}
        for right in rights.granted(rights.RULES)
    ]
    lines = []
    for each in everything:
        resource, _, subresource = each["resource"].partition("/")
        plural, _, group = resource.partition(".")
        of = {"resource": plural, "apiGroup": group, "subresource": subresource}
        lines.append(event(each["verb"], of | {"name": each["name"]}))
    log = tmp_path / "0.jsonl"
    log.write_text("\n".join(lines))
    assert rights.report(tmp_path, passed=True, is_part=is_part) == (1 if is_part else 0)
    assert ("proves nothing" in capsys.readouterr().out) == is_part
    log.write_text("\n".join(line for line in lines if "leases" not in line))
    assert rights.report(tmp_path, passed=True, is_part=is_part) == 1
    told = capsys.readouterr().out
    assert ("never used: update leases.coordination.k8s.io dtjob-operator" in told) != is_part
    assert rights.report(tmp_path, passed=False, is_part=False) == 1
    assert "tests failed" in capsys.readouterr().out
    log.write_text("\n".join([*lines, event("get", {"resource": "secrets"}, allowed=False)]))
    assert rights.report(tmp_path, passed=True, is_part=False) == 1
    assert "forbidden: get secrets" in capsys.readouterr().out


def test_a_log_is_kept_where_a_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, folder = tmp_path / "audit.jsonl", tmp_path / "kept"
    folder.mkdir()
    log.write_text("{}\n")
    monkeypatch.delenv(rights.FOLDER_VARIABLE, raising=False)
    rights.keep(log)
    assert not list(folder.iterdir())
    monkeypatch.setenv(rights.FOLDER_VARIABLE, str(folder))
    for _ in range(2):
        rights.keep(log)
    assert [kept.read_text() for kept in folder.iterdir()] == ["{}\n", "{}\n"]
