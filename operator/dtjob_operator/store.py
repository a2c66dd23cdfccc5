"""What is known of one kind of object: the newest version of each, by name and by job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dtjob_operator.kinds import JOB_UID_LABEL, Json

Key = tuple[str, str]
"""Namespace and name."""


def key_of(obj: Json) -> Key:
    """Namespace and name of an object."""
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def version_of(obj: Json) -> int:
    """The object's resource version, which orders what several sources tell about it."""
    return int(obj["metadata"]["resourceVersion"])


class Store:
    """Objects of one kind. Older news never replaces newer, wherever it comes from."""

    def __init__(self) -> None:
        self._objects: dict[Key, Json] = {}
        self._by_job: dict[str, set[Key]] = {}
        self._removed: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[Json]:
        return iter(list(self._objects.values()))

    def get(self, namespace: str, name: str) -> Json | None:
        """The object of that name, if there is one."""
        return self._objects.get((namespace, name))

    def of_job(self, uid: str) -> tuple[Json, ...]:
        """The objects labelled with a job's UID, by name."""
        return tuple(self._objects[key] for key in sorted(self._by_job.get(uid, ())))

    def put(self, obj: Json) -> bool:
        """Remember an object; returns whether that is news."""
        key, version = key_of(obj), version_of(obj)
        known = self._objects.get(key)
        if known is not None and version_of(known) >= version:
            return False
        if self._removed.get(key, -1) >= version:
            return False
        self._removed.pop(key, None)
        self._forget(key)
        self._objects[key] = obj
        if uid := obj["metadata"].get("labels", {}).get(JOB_UID_LABEL):
            self._by_job.setdefault(uid, set()).add(key)
        return True

    def remove(self, obj: Json) -> bool:
        """Forget an object that was deleted at its resource version; returns whether it was known.

        The version is kept, since an answer to an earlier write of ours may arrive later.
        """
        key, version = key_of(obj), version_of(obj)
        known = self._objects.get(key)
        if known is not None and version_of(known) > version:
            return False
        self._removed[key] = max(version, self._removed.get(key, version))
        return self._forget(key)

    def replace(self, objects: Iterable[Json], version: int) -> list[Json]:
        """Take over a list as of a resource version; returns what changed, appeared or vanished."""
        listed = {key_of(obj): obj for obj in objects}
        changed = []
        for key, known in list(self._objects.items()):
            if key not in listed and version_of(known) <= version:
                self._forget(key)
                changed.append(known)
        changed += [obj for obj in listed.values() if self.put(obj)]
        self._removed = {key: at for key, at in self._removed.items() if at > version}
        return changed

    def _forget(self, key: Key) -> bool:
        known = self._objects.pop(key, None)
        if known is None:
            return False
        if uid := known["metadata"].get("labels", {}).get(JOB_UID_LABEL):
            keys = self._by_job[uid]
            keys.discard(key)
            if not keys:
                del self._by_job[uid]
        return True
