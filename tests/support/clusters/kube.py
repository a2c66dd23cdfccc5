"""What tests do with a cluster: kubectl, and waiting for conditions with a deadline."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tenacity import (
    Retrying,
    retry_if_exception_type,
    retry_if_result,
    stop_after_attempt,
    stop_after_delay,
    stop_all,
    wait_fixed,
)

from tests.support.clusters.api_reader import Manifest, NotAnswered, Reader, reader

Found = TypeVar("Found")
_Done = subprocess.CompletedProcess[str]


def wait_for(
    what: str,
    look: Callable[[], Found | None],
    timeout: float,
    every: float = 0.2,
    at_most: float = 1.0,
) -> Found:
    """Return the first result of `look` that is true, within `timeout` seconds of looking.

    A machine that stands still does not use up the time: it is the sum of what the looks took with
    the pause after them, no more than `at_most` seconds for each. The last look comes after it.
    """
    spent, before = 0.0, time.monotonic()
    while not (found := look()):
        assert spent < timeout, f"not within {timeout:.0f} s: {what}"
        time.sleep(every)
        now = time.monotonic()
        spent += min(now - before, at_most)
        before = now
    return found


def wait_until_gone(kubectl: Kubectl, kind: str, name: str, timeout: float) -> None:
    """Wait until there is no such object."""
    wait_for(f"no {kind} {name}", lambda: kubectl.get(kind, name) is None, timeout)


# What kubectl says when the API server, or the way there, did not answer for a moment.
_TRANSPORT = re.compile(
    r"TLS handshake timeout|etcdserver: |i/o timeout|\bEOF\b|connection refused"
    r"|connection reset|connection lost|Unable to connect to the server"
    r"|connection to the server .* was refused|watch closed before"
)
_TRANSPORT_SECONDS = 120
_TRANSPORT_TRIES = 10


def _patience(**options: Any) -> Retrying:
    return Retrying(
        wait=wait_fixed(1),
        # By tries too: a machine that stands still uses up the time in one of them.
        stop=stop_all(stop_after_delay(_TRANSPORT_SECONDS), stop_after_attempt(_TRANSPORT_TRIES)),
        **options,
    )


def _not_answered(done: _Done) -> bool:
    return done.returncode != 0 and _TRANSPORT.search(done.stderr) is not None


@dataclass(frozen=True)
class Kubectl:
    """kubectl with the rights of the cluster's administrator, in one namespace."""

    program: Path
    kubeconfig: Path
    namespace: str = "default"

    def __call__(
        self, *arguments: str, stdin: str | None = None, fails: bool = False, patient: bool = True
    ) -> str:
        """Return standard output, or standard error where the command should fail.

        Parameters
        ----------
        patient
            Whether a command that the API server did not answer is tried again. What makes an
            object of a generated name never is: it might have been made.
        """
        argv = [str(self.program), f"--kubeconfig={self.kubeconfig}"]
        argv += [f"--namespace={self.namespace}", *arguments]
        again = patient and (arguments[0] != "create" or arguments[1:2] == ("token",))
        done = _answered(argv, stdin) if again else _once(argv, stdin)
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
        return self._read(lambda reader: reader.one(kind, self.namespace, name))

    def list(
        self,
        kind: str,
        *,
        selector: str = "",
        everywhere: bool = False,
        managed_fields: bool = False,
    ) -> list[Manifest]:
        """Return all objects of a kind in the namespace, or in all."""
        namespace = None if everywhere else self.namespace
        return self._read(
            lambda reader: reader.all(
                kind, namespace, selector=selector, managed_fields=managed_fields
            )
        )

    def _read(self, what: Callable[[Reader], Found]) -> Found:
        patience = _patience(retry=retry_if_exception_type(NotAnswered), reraise=True)
        return patience(what, reader(self.kubeconfig, self.kubeconfig.read_text()))

    def wait(
        self, kind: str, name: str, until: Callable[[Manifest], object], timeout: float
    ) -> Manifest:
        """Return the object once `until` is true of it."""

        def look() -> Manifest | None:
            found = self.get(kind, name)
            return found if found is not None and until(found) else None

        return wait_for(f"{until.__name__} of {kind}/{name}", look, timeout)


def _once(argv: list[str], stdin: str | None) -> _Done:
    return subprocess.run(
        argv, check=False, input=stdin, capture_output=True, text=True, timeout=400
    )


def _answered(argv: list[str], stdin: str | None) -> _Done:
    """Run kubectl until it has an answer; what it says if there is none for long."""
    deleted = "delete" in argv
    retrying = _patience(
        retry=retry_if_result(_not_answered),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
    )
    done: _Done = retrying(_once, argv, stdin)
    tries = retrying.statistics["attempt_number"]
    if deleted and tries > 1 and done.returncode != 0 and "(NotFound)" in done.stderr:
        done.returncode = 0  # only the answer to an earlier try was lost
    return done


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
        wait_for("the policy lets go of the namespace", deletable, 120)
        yield
    finally:
        kubectl("patch", _POLICY, "--type=merge", '--patch={"spec":{"matchResources":null}}')
