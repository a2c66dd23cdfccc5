"""What is known of each kind of object: the newest version of each, by name and by job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dtjob_operator.terms import kinds
from dtjob_operator.terms.kinds import JOB_UID_LABEL, Json, Kind

Key = tuple[str, str]
"""Namespace and name."""


def key_of(obj: Json) -> Key:
    """Namespace and name of an object."""
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def version_of(obj: Json) -> int:
    """The object's resource version, which orders what several sources say of it."""
    return int(obj["metadata"]["resourceVersion"])


class Store:
    """Objects of one kind. Older news never replaces newer, wherever it comes from.

    Attributes
    ----------
    newest
        The highest resource version that was seen.
    """

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.newest = 0
        self._objects: dict[Key, Json] = {}
        self._by_job: dict[Key, set[Key]] = {}
        self._removed: dict[Key, int] = {}
        self._bookmark = 0

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[Json]:
        return iter(list(self._objects.values()))

    def get(self, namespace: str, name: str) -> Json | None:
        """The object of that name, if there is one."""
        return self._objects.get((namespace, name))

    def of_job(self, namespace: str, uid: str) -> tuple[Json, ...]:
        """The objects of a namespace that are labelled with a job's UID, by name."""
        return tuple(self._objects[key] for key in sorted(self._by_job.get((namespace, uid), ())))

    def put(self, obj: Json) -> bool:
        """Remember an object; returns whether that is news."""
        key, version = key_of(obj), version_of(obj)
        self.newest = max(self.newest, version)
        known = self._objects.get(key)
        if known is not None and version_of(known) >= version:
            return False
        if self._removed.get(key, -1) >= version:
            return False
        self._removed.pop(key, None)
        self._forget(key)
        self._objects[key] = obj
        if job := _job_of(obj):
            self._by_job.setdefault(job, set()).add(key)
        return True

    def remove(self, obj: Json) -> bool:
        """Forget an object that was deleted at its resource version; returns whether it was known.

        The version is kept, since an answer to an earlier write of ours may arrive later.
        """
        key, version = key_of(obj), version_of(obj)
        self.newest = max(self.newest, version)
        known = self._objects.get(key)
        if known is not None and version_of(known) > version:
            return False
        self._removed[key] = max(version, self._removed.get(key, version))
        return self._forget(key)

    def replace(self, objects: Iterable[Json], version: int, asked_at: int) -> list[Json]:
        """Take over a list as of a resource version; returns what changed, appeared or vanished.

        Parameters
        ----------
        asked_at
            `newest` when the list was asked for. A list is never older than that, unless etcd was
            restored from a backup: then it replaces all that was known before.
        """
        listed = {key_of(obj): obj for obj in objects}
        changed = []
        if version < asked_at:
            changed = [known for key, known in self._objects.items() if key not in listed]
            self._clear()
        self.newest = max(self.newest, version)
        for key, known in list(self._objects.items()):
            if key not in listed and version_of(known) <= version:
                self._forget(key)
                changed.append(known)
        changed += [obj for obj in listed.values() if self.put(obj)]
        self._removed = {key: at for key, at in self._removed.items() if at > version}
        return changed

    def bookmark(self, version: int) -> None:
        """Note that the watch has delivered everything up to a resource version.

        What was deleted before the last bookmark, about a minute ago, is no longer remembered: no
        answer to a write of ours is that late.
        """
        self.newest = max(self.newest, version)
        self._removed = {key: at for key, at in self._removed.items() if at > self._bookmark}
        self._bookmark = version

    def _forget(self, key: Key) -> bool:
        known = self._objects.pop(key, None)
        if known is None:
            return False
        if job := _job_of(known):
            keys = self._by_job[job]
            keys.discard(key)
            if not keys:
                del self._by_job[job]
        return True


class Stores:
    """What is known of every kind."""

    def __init__(self) -> None:
        self._by_kind = {kind: Store() for kind in kinds.ALL}

    def __getitem__(self, kind: Kind) -> Store:
        return self._by_kind[kind]

    def note(self, obj: Json) -> None:
        """Remember the API server's answer to a write of ours, before its watch delivers it."""
        self._by_kind[kinds.kind_of(obj)].put(kinds.without_managed_fields(obj))


def _job_of(obj: Json) -> Key | None:
    """Namespace of the object and the UID of the job that its label names."""
    metadata = obj["metadata"]
    uid = metadata.get("labels", {}).get(JOB_UID_LABEL)
    return (metadata["namespace"], uid) if uid else None
