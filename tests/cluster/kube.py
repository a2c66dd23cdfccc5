"""What tests do with a cluster: kubectl, and waiting for conditions with a deadline."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

Manifest = dict[str, Any]
Found = TypeVar("Found")


def wait_for(
    what: str, look: Callable[[], Found | None], timeout: float, every: float = 0.2
) -> Found:
    """Return the first result of `look` that is true, within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {what}"
        time.sleep(every)
    return found


@dataclass(frozen=True)
class Kubectl:
    """kubectl with the rights of the cluster's administrator, in one namespace."""

    program: Path
    kubeconfig: Path
    namespace: str = "default"

    def __call__(self, *arguments: str, stdin: str | None = None, fails: bool = False) -> str:
        """Return standard output, or standard error where the command should fail."""
        argv = [str(self.program), f"--kubeconfig={self.kubeconfig}"]
        argv += [f"--namespace={self.namespace}", *arguments]
        done = subprocess.run(
            argv, check=False, input=stdin, capture_output=True, text=True, timeout=120
        )
        assert (done.returncode != 0) == fails, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stderr if fails else done.stdout

    def apply(self, *manifests: Manifest) -> None:
        """Apply objects."""
        everything = {"apiVersion": "v1", "kind": "List", "items": manifests}
        self("apply", "--filename=-", stdin=json.dumps(everything))

    def create(self, manifest: Manifest) -> str:
        """Create an object and return its name, which the API server may have generated."""
        created = self("create", "--filename=-", "--output=json", stdin=json.dumps(manifest))
        name: str = json.loads(created)["metadata"]["name"]
        return name

    def get(self, kind: str, name: str) -> Manifest | None:
        """Return an object, or None if there is none."""
        found = self("get", kind, name, "--ignore-not-found", "--output=json")
        return json.loads(found) if found else None

    def list(self, kind: str, *arguments: str) -> list[Manifest]:
        """Return all objects of a kind in the namespace."""
        items: list[Manifest] = json.loads(self("get", kind, "--output=json", *arguments))["items"]
        return items

    def wait(
        self, kind: str, name: str, until: Callable[[Manifest], object], timeout: float
    ) -> Manifest:
        """Return the object once `until` is true of it."""

        def look() -> Manifest | None:
            found = self.get(kind, name)
            return found if found is not None and until(found) else None

        return wait_for(f"{until.__name__} of {kind}/{name}", look, timeout)


def ready(pod: Manifest) -> bool:
    """Whether a pod is ready."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


_POLICY = "validatingadmissionpolicybinding/ledger-writer.dtjob.dev"
_UNGUARDED = "dtjob.dev/test-unguarded"


@contextmanager
def unguarded(kubectl: Kubectl, ledger: Manifest) -> Iterator[None]:
    """In this namespace, for a while, only the CRD's own rules protect ledgers.

    Parameters
    ----------
    ledger
        One of the namespace, by which the end of the policy is seen.
    """
    kubectl("label", "namespace", kubectl.namespace, f"{_UNGUARDED}=")
    exempt = [{"key": _UNGUARDED, "operator": "DoesNotExist"}]
    change = {"spec": {"matchResources": {"namespaceSelector": {"matchExpressions": exempt}}}}
    kubectl("patch", _POLICY, "--type=merge", f"--patch={json.dumps(change)}")

    def deletable() -> bool:
        argv = ("delete", "privacyledger", ledger["metadata"]["name"], "--dry-run=server")
        try:
            kubectl(*argv)
        except AssertionError:  # the policy's refusal
            return False
        return True

    try:
        wait_for("the policy lets go of the namespace", deletable, 30)
        yield
    finally:
        kubectl("patch", _POLICY, "--type=merge", '--patch={"spec":{"matchResources":null}}')
