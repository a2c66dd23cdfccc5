"""A cluster class without an API server, for what surrounds the plan: observer and reconciler."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from dtjob_operator.kube.api_errors import AlreadyExists, ApiError, NotFound
from dtjob_operator.kube.api_server_address import ApiServerWatch
from dtjob_operator.kube.store import Stores
from dtjob_operator.observe.assemble import Memory, Observer
from dtjob_operator.run.applier import Trials
from dtjob_operator.run.metrics import Metrics
from dtjob_operator.run.reconcile import Reconciler
from dtjob_operator.terms.kinds import JOB, LEDGER, Json, Kind
from dtjob_operator.terms.settings import Settings
from tests.support.worlds.world import PLAN, digits, stamp

KEY = ("research", "digits")


class FakeCluster:
    """Objects and requests of one API server.

    Attributes
    ----------
    asked
        Verb and kind of each request.
    fails
        The error to answer a verb on a kind with, if any.
    mutate
        What an admission policy makes of an object that is applied.
    plurals
        What discovery lists.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Json] = {}
        self.asked: list[tuple[str, str]] = []
        self.fails: Callable[[str, str], ApiError | None] = lambda _verb, _kind: None
        self.mutate: Callable[[Json], None] = lambda _obj: None
        self.plurals = {JOB.plural, LEDGER.plural}
        self.version = 0

    def put(self, obj: Json) -> Json:
        self.version += 1
        metadata = {"uid": f"uid-{self.version}", "creationTimestamp": stamp_now()}
        metadata |= obj["metadata"] | {"resourceVersion": str(self.version)}
        stored: Json = copy.deepcopy(obj | {"metadata": metadata})
        self.objects[obj["kind"], metadata["namespace"], metadata["name"]] = stored
        return stored

    def count(self, verb: str, kind: Kind) -> int:
        return self.asked.count((verb, kind.name))

    async def _ask(self, verb: str, kind: str) -> None:
        self.asked.append((verb, kind))
        await asyncio.sleep(0)
        if error := self.fails(verb, kind):
            raise error

    async def get(self, kind: Kind, namespace: str, name: str) -> Json:
        await self._ask("get", kind.name)
        if (kind.name, namespace, name) not in self.objects:
            raise NotFound(404, "NotFound", name)
        return self.objects[kind.name, namespace, name]

    async def list(
        self, kind: Kind, *, field_selector: str | None = None, **_: Any
    ) -> tuple[list[Json], int]:
        await self._ask("list", kind.name)
        wanted = (field_selector or "").partition("metadata.name=")[2]
        return [
            obj
            for (of, _, name), obj in self.objects.items()
            if of == kind.name and wanted in ("", name)
        ], self.version

    async def pages(
        self, kind: Kind, **selectors: Any
    ) -> AsyncIterator[tuple[Iterator[Json], int]]:
        objects, version = await self.list(kind, **selectors)
        yield iter(objects), version

    async def apply(self, obj: Json) -> Json:
        await self._ask("apply", obj["kind"])
        wanted = copy.deepcopy(obj)
        self.mutate(wanted)
        metadata = obj["metadata"]
        known = self.objects.get((obj["kind"], metadata["namespace"], metadata["name"]))
        if known is not None:
            labels = [each["metadata"].get("labels") for each in (known, wanted)]
            if known.get("spec") == wanted.get("spec") and labels[0] == labels[1]:
                return known  # applied without effect: no new version
        return self.put(wanted)

    async def own_by_apply(self, obj: Json) -> None:
        await self._ask("patch", obj["kind"])

    async def served(self, api_version: str) -> set[str]:
        await self._ask("discover", api_version)
        return self.plurals

    async def create(self, obj: Json) -> Json:
        await self._ask("create", obj["kind"])
        metadata = obj["metadata"]
        if (obj["kind"], metadata["namespace"], metadata["name"]) in self.objects:
            raise AlreadyExists(409, "AlreadyExists", metadata["name"])
        wanted = copy.deepcopy(obj)
        self.mutate(wanted)
        return self.put(wanted)

    async def replace_status(self, obj: Json, status: Json) -> Json:
        await self._ask("update_status", obj["kind"])
        return self.put(obj | {"status": status})


def stamp_now() -> str:
    return stamp(datetime.now(UTC).replace(microsecond=0))


class Accountant:
    """Answers at once.

    Attributes
    ----------
    asked_for
        Of each epsilon that was asked for, whether the status has one already.
    """

    def __init__(self) -> None:
        self.asked_for: list[bool] = []

    def plan(self, *_: Any) -> Any:
        return PLAN

    def trouble(self, *_: Any) -> None:
        return None

    def before(self, *_: Any) -> int:
        return 0

    def spent(self, _key: object, _ledger: Json, *, is_final: bool) -> None:
        self.asked_for.append(is_final)

    def at_most(self, _ledger: Json) -> None:
        return None

    def is_pending(self, _ledger: Json) -> bool:
        return False


class NoReports:
    coordinators = 0

    def report(self, *_: Any) -> None:
        return None

    def trouble(self, *_: Any) -> None:
        return None


class Shell:
    """The operator around one job, without its watches."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.unguarded: str | None = None
        self.stores = Stores()
        self.accountant = Accountant()
        accountant: Any = self.accountant
        reports: Any = NoReports()
        api: Any = self.cluster
        self.api_server = ApiServerWatch(api, lambda: None, lambda _kind: None)
        self.observer = Observer(
            api,
            self.stores,
            accountant,
            accountant,
            reports,
            self.api_server,
            lambda: self.unguarded,
        )
        self.reconciler = Reconciler(api, self.stores, self.observer, Settings(), Metrics())
        self.see(digits())

    def see(self, obj: Json) -> None:
        """An object changes, and a watch reports it."""
        self.stores.note(self.cluster.put(obj))

    @property
    def job(self) -> Json:
        job = self.stores[JOB].get(*KEY)
        assert job is not None
        return job

    @property
    def memory(self) -> Memory:
        return self.reconciler._known[KEY].memory

    @property
    def trials(self) -> Trials:
        return self.reconciler._known[KEY].trials

    async def settle(self) -> None:
        """Reconcile until the plan has come to rest."""
        for _ in range(20):
            await self.reconciler(KEY)
            if self.trials.steps == 0:
                return
        raise AssertionError("no rest")

    def running(self) -> tuple[str, str]:
        conditions = self.job["status"]["conditions"]
        found = next(c for c in conditions if c["type"] == "Running")
        return found["reason"], found["message"]
