"""What is known of each kind of object: the newest version of each, by name and by job."""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Entry:
    """An object as it is stored; one that is at rest is packed, which takes a fifth of the room.

    Attributes
    ----------
    key
        Namespace and name.
    job
        Namespace of the object and the UID of the job that its label names.
    """

    key: Key
    version: int
    job: Key | None
    content: Json | bytes

    @classmethod
    def of(cls, obj: Json) -> Entry:
        """The entry of an object, which is never changed after that."""
        content: Json | bytes = obj
        if _is_at_rest(obj):
            content = zlib.compress(json.dumps(obj, separators=(",", ":")).encode(), level=1)
        return cls(key_of(obj), version_of(obj), _job_of(obj), content)

    @property
    def obj(self) -> Json:
        """The object, read and never changed."""
        if isinstance(self.content, bytes):
            unpacked: Json = json.loads(zlib.decompress(self.content))
            return unpacked
        return self.content


def _is_at_rest(obj: Json) -> bool:
    """Whether an object hardly changes any more, and stays: a ledger that has its outcome."""
    return obj.get("kind") == kinds.LEDGER.name and "outcome" in (obj.get("status") or {})


class Store:
    """Objects of one kind. Older news never replaces newer, wherever it comes from.

    Attributes
    ----------
    newest
        The highest resource version that was seen.
    restores
        How often a list has shown that etcd was restored from a backup.
    """

    def __init__(self) -> None:
        self.restores = 0
        self._clear()

    def _clear(self) -> None:
        self.newest = 0
        self._entries: dict[Key, Entry] = {}
        self._by_job: dict[Key, set[Key]] = {}
        self._removed: dict[Key, int] = {}
        self._bookmark = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Json]:
        return (entry.obj for entry in list(self._entries.values()))

    def get(self, namespace: str, name: str) -> Json | None:
        """The object of that name, if there is one."""
        entry = self._entries.get((namespace, name))
        return entry.obj if entry is not None else None

    def of_job(self, namespace: str, uid: str) -> tuple[Json, ...]:
        """The objects of a namespace that are labelled with a job's UID, by name."""
        keys = sorted(self._by_job.get((namespace, uid), ()))
        return tuple(self._entries[key].obj for key in keys)

    def named(self, namespace: str, prefix: str) -> Iterator[Json]:
        """The objects of a namespace whose names begin so: only these are unpacked."""
        for (where, name), entry in list(self._entries.items()):
            if where == namespace and name.startswith(prefix):
                yield entry.obj

    def put(self, obj: Json) -> bool:
        """Remember an object; returns whether anything but its version is news."""
        return self._put(Entry.of(obj))

    def _put(self, entry: Entry) -> bool:
        key = entry.key
        self.newest = max(self.newest, entry.version)
        known = self._entries.get(key)
        if known is not None and known.version >= entry.version:
            return False
        if self._removed.get(key, -1) >= entry.version:
            return False
        self._removed.pop(key, None)
        self._forget(key)
        self._entries[key] = entry
        if entry.job:
            self._by_job.setdefault(entry.job, set()).add(key)
        return known is None or _unversioned(known.obj) != _unversioned(entry.obj)

    def remove(self, obj: Json) -> bool:
        """Forget an object that was deleted at its resource version; returns whether it was known.

        The version is kept, since an answer to an earlier write of ours may arrive later.
        """
        key, version = key_of(obj), version_of(obj)
        self.newest = max(self.newest, version)
        known = self._entries.get(key)
        if known is not None and known.version > version:
            return False
        self._removed[key] = max(version, self._removed.get(key, version))
        return self._forget(key)

    def replace(self, entries: Iterable[Entry], version: int, asked_at: int) -> Iterator[Json]:
        """Take over a list as of a resource version; returns what changed, appeared or vanished.

        What is returned is unpacked one by one, for a list may be of all ledgers ever made.

        Parameters
        ----------
        asked_at
            `newest` when the list was asked for. A list is never older than that, nor is anything
            in it older than what is known, unless etcd was restored from a backup: then it replaces
            all that was known before.
        """
        listed = {entry.key: entry for entry in entries}
        changed = []
        if self._went_back(listed, version, asked_at):
            self.restores += 1
            changed = [known for key, known in self._entries.items() if key not in listed]
            self._clear()
        self.newest = max(self.newest, version)
        for key, known in list(self._entries.items()):
            if key not in listed and known.version <= version:
                self._forget(key)
                changed.append(known)
        changed += [entry for entry in listed.values() if self._put(entry)]
        self._removed = {key: at for key, at in self._removed.items() if at > version}
        return (entry.obj for entry in changed)

    def _went_back(self, listed: Mapping[Key, Entry], version: int, asked_at: int) -> bool:
        """Whether a list shows a past that was left before; its own version may have caught up."""
        return version < asked_at or any(
            key in listed and listed[key].version < known.version <= version
            for key, known in self._entries.items()
        )

    def bookmark(self, version: int) -> None:
        """Note that the watch has delivered everything up to a resource version.

        What was deleted before the last bookmark, about a minute ago, is no longer remembered: no
        answer to a write of ours is that late.
        """
        self.newest = max(self.newest, version)
        self._removed = {key: at for key, at in self._removed.items() if at > self._bookmark}
        self._bookmark = version

    def _forget(self, key: Key) -> bool:
        known = self._entries.pop(key, None)
        if known is None:
            return False
        if known.job:
            keys = self._by_job[known.job]
            keys.discard(key)
            if not keys:
                del self._by_job[known.job]
        return True


class Divided:
    """The stores of several namespaces as one; each has lists and watches of its own.

    Attributes
    ----------
    parts
        By namespace.
    """

    def __init__(self, parts: Mapping[str, Store]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return sum(map(len, self.parts.values()))

    def __iter__(self) -> Iterator[Json]:
        return itertools.chain.from_iterable(self.parts.values())

    def get(self, namespace: str, name: str) -> Json | None:
        """As `Store.get`."""
        return self.parts[namespace].get(namespace, name)

    def of_job(self, namespace: str, uid: str) -> tuple[Json, ...]:
        """As `Store.of_job`."""
        return self.parts[namespace].of_job(namespace, uid)

    def named(self, namespace: str, prefix: str) -> Iterator[Json]:
        """As `Store.named`."""
        return self.parts[namespace].named(namespace, prefix)

    def put(self, obj: Json) -> bool:
        """As `Store.put`."""
        return self.parts[key_of(obj)[0]].put(obj)

    def remove(self, obj: Json) -> bool:
        """As `Store.remove`."""
        return self.parts[key_of(obj)[0]].remove(obj)


class Stores:
    """What is known of every kind.

    Parameters
    ----------
    namespaces
        Those of which anything is known; none: all.
    """

    def __init__(self, namespaces: Collection[str] = ()) -> None:
        self._by_kind: dict[Kind, Store | Divided] = {
            kind: Divided({each: Store() for each in namespaces}) if namespaces else Store()
            for kind in kinds.ALL
        }

    def __getitem__(self, kind: Kind) -> Store | Divided:
        return self._by_kind[kind]

    def parts(self, kind: Kind) -> list[tuple[str | None, Store]]:
        """What is listed and watched by itself: each namespace, or (None) all in one."""
        whole = self._by_kind[kind]
        return [(None, whole)] if isinstance(whole, Store) else [*whole.parts.items()]

    def note(self, obj: Json) -> None:
        """Remember the API server's answer to a write of ours, before its watch delivers it."""
        self._by_kind[kinds.kind_of(obj)].put(obj)


def _job_of(obj: Json) -> Key | None:
    """Namespace of the object and the UID of the job that its label names."""
    metadata = obj["metadata"]
    uid = metadata.get("labels", {}).get(JOB_UID_LABEL)
    return (metadata["namespace"], uid) if uid else None


def _unversioned(obj: Json) -> Json:
    """An object without what each write changes."""
    return {**obj, "metadata": {**obj["metadata"], "resourceVersion": None}}
