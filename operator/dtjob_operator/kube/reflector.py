"""Keeps a store equal to what the API server has of one kind: list, replace, watch."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

import structlog

from dtjob_operator.kube.api_errors import ApiError, Gone, explained
from dtjob_operator.kube.client import KubeClient
from dtjob_operator.kube.store import Entry, Store, key_of, version_of
from dtjob_operator.terms.kinds import Json, Kind, Selection

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
# A watch that ends sooner was cut off, as by a proxy: the next one would be too.
_STABLE_SECONDS = 1.0


class Reflector:
    """One kind's list and watch, for ever.

    Parameters
    ----------
    selection
        What is watched.
    store
        Filled before `synced` is set.
    changed
        Called with every object that appeared, changed or vanished. What it raises is logged and
        counted, since anybody may label an object so that it is watched.
    count_odd
        Called with the kind of each object at which `changed` raised.
    """

    def __init__(
        self,
        client: KubeClient,
        selection: Selection,
        store: Store,
        changed: Callable[[Json], None],
        count_odd: Callable[[Kind], None],
    ) -> None:
        self._client = client
        self._selection = selection
        self._store = store
        self._changed = changed
        self._count_odd = count_odd
        self._log = structlog.get_logger("reflector").bind(kind=selection.kind.plural)
        self.synced = asyncio.Event()
        self.tried = asyncio.Event()
        self._version: int | None = None
        self._is_outdated = False
        self._connected_since: float | None = None
        self.trouble: str | None = "not listed yet"
        """Why the store may be out of date; None while the watch is established."""

    async def run(self) -> None:
        """List and watch until cancelled; what goes wrong is tried again within 5 s."""
        pause = _FIRST_PAUSE
        while True:
            self._connected_since = None
            interrupted = False
            try:
                if self._version is None:
                    self._version = await self._list()
                    self.synced.set()
                    self.tried.set()
                await self._watch(self._version)
            except Gone:
                self._log.info("listing again", cause="the watch can't continue")
                self._version = None
            except ApiError as error:
                interrupted = True
                trouble = explained(error)
                if trouble != self.trouble:
                    self._log.warning("watch interrupted", error=trouble)
                self.trouble = trouble
                self.tried.set()
            if self._was_stable():
                pause = _FIRST_PAUSE
                if not interrupted:
                    continue
            # The next watch begins where this one broke off: nothing is missed.
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(2 * pause, _LONGEST_PAUSE)

    def begin_anew(self) -> None:
        """List again with the next news of the watch, or its next bookmark within a minute."""
        self._is_outdated = True

    @property
    def kind(self) -> Kind:
        """What is watched."""
        return self._selection.kind

    def _was_stable(self) -> bool:
        since = self._connected_since
        return since is not None and time.monotonic() - since >= _STABLE_SECONDS

    async def _list(self) -> int:
        selection, asked_at = self._selection, self._store.newest
        self._is_outdated = False
        entries: list[Entry] = []
        version = 0
        async for page, of_page in self._client.pages(
            selection.kind,
            namespace=selection.namespace,
            label_selector=selection.label_selector,
            field_selector=selection.field_selector,
        ):
            entries += map(Entry.of, page)
            version = of_page
        for obj in self._store.replace(entries, version, asked_at):
            self._notify(obj)
        return version

    async def _watch(self, version: int) -> None:
        """Follow a watch until the API server ends it."""
        selection = self._selection
        async with self._client.watch(
            selection.kind,
            version,
            namespace=selection.namespace,
            label_selector=selection.label_selector,
            field_selector=selection.field_selector,
        ) as events:
            self.trouble = None
            self._connected_since = time.monotonic()
            async for event, obj in events:
                if self._is_outdated:
                    raise Gone(0, "Outdated", f"watching {selection.kind.plural}: asked to list")
                self._version = version_of(obj)
                if event == "BOOKMARK":
                    self._store.bookmark(self._version)
                    continue
                news = self._store.remove(obj) if event == "DELETED" else self._store.put(obj)
                if news:
                    self._notify(obj)

    def _notify(self, obj: Json) -> None:
        try:
            self._changed(obj)
        except Exception:
            self._count_odd(self._selection.kind)
            self._log.exception("an object is passed over", object="/".join(key_of(obj)))
