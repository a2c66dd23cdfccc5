"""`python -m testing.rights`: what the operator's account was seen to do, and what it may do.

Runs all tests of a cluster, folds the API servers' audit logs, and compares with the rules of
deploy/kustomize/base/operator-rbac.yaml: rights that nobody used, and requests that were forbidden.
With arguments for pytest it runs a part of them, which proves nothing of what is unused.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from ruamel.yaml import YAML

FOLDER_VARIABLE = "DTJOB_AUDIT_LOGS"
"""Names the folder into which each cluster's log is copied before the cluster is removed."""
RULES = Path("deploy/kustomize/base/operator-rbac.yaml")
ACCOUNT = "system:serviceaccount:dtjob-system:dtjob-operator"
_TIERS = "--tier=cluster,pods,docs,nightly"
_NO_REQUESTS = {
    ("plan", "privacyledgers.dtjob.dev"): "an admission policy asks for it",
    ("bind", "clusterroles.rbac.authorization.k8s.io"): "asked for where a binding is made",
}
"""Verbs that no request of the account has."""
_FORBIDDEN_STATUS = 403


class Right(NamedTuple):
    """What RBAC allows, or a request needs."""

    verb: str
    resource: str
    """With its group, and with its subresource: `privacyledgers.dtjob.dev/status`."""
    name: str = ""
    """Of the one object; empty: of any, or of a collection."""

    def covers(self, other: Right) -> bool:
        """Whether whoever has this right may do the other."""
        return self[:2] == other[:2] and self.name in ("", other.name)

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}" + (f" {self.name}" if self.name else "")


def granted(rules: Path) -> set[Right]:
    """The rights in all roles of a file."""
    found = set()
    for document in YAML(typ="safe").load_all(rules.read_text()):
        for rule in document.get("rules") or ():
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    for name in rule.get("resourceNames") or ("",):
                        full = _full(resource, group)
                        found |= {Right(verb, full, name) for verb in rule["verbs"]}
    return found


def needed(lines: Iterable[str], account: str = ACCOUNT) -> tuple[set[Right], set[Right]]:
    """What requests of an account needed, of those that were allowed and of those forbidden.

    Parameters
    ----------
    lines
        Audit events, as JSON.
    """
    allowed: set[Right] = set()
    forbidden: set[Right] = set()
    for line in lines:
        event = json.loads(line)
        if event["user"].get("username") != account or "objectRef" not in event:
            continue
        decision = (event.get("annotations") or {}).get("authorization.k8s.io/decision")
        (forbidden if decision == "forbid" else allowed).update(_needed_by(event))
    return allowed, forbidden


def _needed_by(event: dict[str, Any]) -> Iterator[Right]:
    of = event["objectRef"]
    resource = of["resource"] + (f"/{of['subresource']}" if of.get("subresource") else "")
    full = _full(resource, of.get("apiGroup", ""))
    yield Right(event["verb"], full, of.get("name", ""))
    if event["verb"] == "patch" and (event.get("responseStatus") or {}).get("code") == 201:
        yield Right("create", full, of.get("name", ""))  # a server-side apply that made it


def _full(resource: str, group: str) -> str:
    plural, _, subresource = resource.partition("/")
    return f"{plural}.{group}".rstrip(".") + (f"/{subresource}" if subresource else "")


def unused(rights: set[Right], used: set[Right]) -> list[Right]:
    """Granted rights that nothing needed, but for those that no request has."""
    return sorted(
        right
        for right in rights
        if right[:2] not in _NO_REQUESTS and not any(right.covers(each) for each in used)
    )


def keep(log: Path) -> None:
    """Copy a cluster's audit log into the folder that was named, if one was."""
    if (named := os.environ.get(FOLDER_VARIABLE)) and log.is_file():
        folder = Path(named)
        shutil.copy(log, folder / f"{len(list(folder.iterdir()))}-{os.getpid()}.jsonl")


def _lines(logs: Path) -> Iterator[str]:
    for log in sorted(logs.glob("*.jsonl")):
        with log.open() as file:
            yield from file


def report(logs: Path, passed: bool, is_part: bool) -> int:
    """Say what was found; 0 if all rights were used, none was missing, and all of it was run."""
    used, forbidden = needed(_lines(logs))
    idle = unused(granted(RULES), used)
    print(f"rights used: {len({right[:2] for right in used})}")
    for right in sorted(forbidden):
        print(f"forbidden: {right}")
    if is_part or not passed or not used:
        why = "a part of the tests was run" if is_part else "tests failed or made no requests"
        print(f"{why}: that proves nothing of {len(idle)} rights that were not used")
        return 1
    for right in idle:
        print(f"never used: {right}")
    return 1 if idle or forbidden else 0


def main(arguments: list[str]) -> int:
    """Run the tests of a cluster and compare."""
    with TemporaryDirectory() as logs:
        command = [sys.executable, "-m", "pytest", "-q", "-m", "cluster", _TIERS, *arguments]
        done = subprocess.run(command, check=False, env=os.environ | {FOLDER_VARIABLE: logs})
        return report(Path(logs), done.returncode == 0, bool(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
