"""A provisioner: one write makes a claim's volume, and the controller manager binds the two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from scale.api import Api, Json

from dtjob_operator.terms import kinds
from localcluster.control.volumes import volume_for

VOLUMES = "/api/v1/persistentvolumes"
_FOLDER = Path("/volumes")  # never made: no pod looks
_DELAY_SECONDS = 0.2


class Provisioner:
    """Makes each volume once, after the scheduler has chosen a node, and deletes it when it can."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._made: set[str] = set()

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Follow claims and volumes meanwhile."""
        async with asyncio.TaskGroup() as group:
            follow = [
                group.create_task(self._follow_claims(group)),
                group.create_task(self._follow_volumes(group)),
            ]
            yield
            for task in follow:
                task.cancel()

    async def _follow_claims(self, group: asyncio.TaskGroup) -> None:
        async for _, claim in self._api.watch(kinds.CLAIM.path()):
            uid, volume = claim["metadata"]["uid"], volume_for(claim, _FOLDER)
            if volume is not None and uid not in self._made:
                self._made.add(uid)
                group.create_task(self._make(volume))

    async def _make(self, volume: Json) -> None:
        await asyncio.sleep(_DELAY_SECONDS)
        await self._api.post(VOLUMES, volume)

    async def _follow_volumes(self, group: asyncio.TaskGroup) -> None:
        released: set[str] = set()
        async for event, volume in self._api.watch(VOLUMES):
            name, phase = volume["metadata"]["name"], volume.get("status", {}).get("phase")
            if event != "DELETED" and phase == "Released" and name not in released:
                released.add(name)
                group.create_task(self._api.delete(f"{VOLUMES}/{name}"))
