"""Where logs and checkpoints of a job lie: a folder of this machine, or a claim in the cluster."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dtjob_api.wire.positions import pod_name
from dtjob_cli import kubectl, reader_pod
from dtjob_cli.cluster_jobs import ClusterJob, running_container
from dtjob_cli.display import Display
from dtjob_cli.errors import CommandError, ExitCode
from dtjob_trainer import reader
from dtjob_trainer.retention.log_budget import LogKey

#: Takes a part of a file; whether it wants more.
Take = Callable[[bytes], bool]
_CHECKPOINTS = "checkpoints"
_CHUNK = 1 << 20


class KeptVolume(Protocol):
    """A checkpoint volume, to be read."""

    def logs(self) -> dict[LogKey, int]:
        """Return the bytes of each log that is kept."""
        ...

    def send(self, path: str, take: Take) -> None:
        """Hand over a file, by its path on the volume.

        Raises
        ------
        CommandError
            It can't be read.
        """
        ...


@dataclass(frozen=True)
class Folder:
    """That of a local run."""

    path: Path

    def logs(self) -> dict[LogKey, int]:
        """See `KeptVolume.logs`."""
        with _named(self.path):
            return _keyed(reader.listed(self.path))

    def send(self, path: str, take: Take) -> None:
        """See `KeptVolume.send`."""
        with _named(self.path / path), reader.inside(self.path, path).open("rb") as file:
            while chunk := file.read(_CHUNK):
                if not take(chunk):
                    return


@dataclass(frozen=True)
class Mounted:
    """A claim, as a pod in the cluster has it mounted: it is asked by `kubectl exec`."""

    pod: str
    container: str
    namespace: str
    mount: str

    def logs(self) -> dict[LogKey, int]:
        """See `KeptVolume.logs`."""
        found = bytearray()

        def take(chunk: bytes) -> bool:
            found.extend(chunk)
            return True

        self._ask("list", self.mount, take=take)
        try:
            return _keyed(json.loads(found))
        except (ValueError, TypeError, KeyError):
            raise _unread(f"pod {self.pod} gave no list of logs: {bytes(found[:200])!r}") from None

    def send(self, path: str, take: Take) -> None:
        """See `KeptVolume.send`."""
        self._ask("send", self.mount, path, take=take)

    def _ask(self, *question: str, take: Take) -> None:
        into = (self.pod, f"--container={self.container}", "--", *reader_pod.READER, *question)
        kubectl.stream("exec", *into, namespace=self.namespace, take=take)


@contextmanager
def of_job(job: ClusterJob, screen: Display) -> Iterator[KeptVolume]:
    """Yield the claim of a job: by its coordinator, while that runs, or by a pod for this alone.

    A claim that one node alone may use is with the coordinator then.

    Raises
    ------
    CommandError
        As `reader_pod.running`.
    """
    coordinator = pod_name(job.ledger, 0)
    container = running_container(kubectl.find("pod", coordinator, job.namespace))
    mounts = (container or {}).get("volumeMounts") or []
    mount = next((each["mountPath"] for each in mounts if each["name"] == _CHECKPOINTS), None)
    if container is not None and mount is not None:
        yield Mounted(coordinator, container["name"], job.namespace, mount)
        return
    with reader_pod.running(job, screen) as pod:
        yield Mounted(pod, reader_pod.CONTAINER, job.namespace, reader_pod.MOUNT)


def _keyed(listed: list[dict[str, int]]) -> dict[LogKey, int]:
    return {LogKey(each["attempt"], each["rank"]): each["bytes"] for each in listed}


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unread(f"{error.filename or path}: {error.strerror}.") from None


def _unread(message: str) -> CommandError:
    return CommandError(
        ExitCode.REFUSED,
        "VolumeUnread",
        message,
        "Put it back, or let this user read it, then run the command again.",
    )
