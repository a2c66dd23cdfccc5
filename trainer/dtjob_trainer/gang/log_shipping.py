"""What ranks print, from their workers to the volume of the coordinator.

No rank waits for it: what the coordinator does not take waits in a bounded backlog of its worker.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum, auto
from http import HTTPStatus

import aiohttp

from dtjob_api.wire.gang import LogPart
from dtjob_trainer.gang.endpoints import LOG_PATH
from dtjob_trainer.identity.credentials import Credentials
from dtjob_trainer.identity.proof import HelloDenied
from dtjob_trainer.retention.backlog import Backlog
from dtjob_trainer.retention.log_budget import LogKey
from dtjob_trainer.retention.log_volume import LogVolume

#: How often what was printed is sent.
_SHIP_SECONDS = 0.5
#: How long it waits where the coordinator took nothing.
_LATER_SECONDS = 2.0
_REQUEST_SECONDS = 4.0
#: How long the end of an attempt waits for its logs.
_FLUSH_SECONDS = 2.0
#: Parts that wait on the coordinator for its volume.
_MOST_WAITING = 16


class Delivery(Enum):
    """What became of a part."""

    TAKEN = auto()
    REFUSED = auto()  # it will never be taken
    LATER = auto()


Deliver = Callable[[LogPart], Awaitable[Delivery]]


class Shipper:
    """Sends a worker's backlog, part by part."""

    def __init__(self, backlog: Backlog, deliver: Deliver) -> None:
        self._backlog, self._deliver = backlog, deliver
        self._sending = asyncio.Lock()

    async def ship(self) -> None:
        """Send what comes, for ever."""
        while True:
            emptied = await self._send()
            await asyncio.sleep(_SHIP_SECONDS if emptied else _LATER_SECONDS)

    async def flush(self) -> None:
        """Send what is there, unless the coordinator takes nothing now, or too slowly."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_SECONDS):
                await self._send()

    async def _send(self) -> bool:
        async with self._sending:
            while (part := self._backlog.part()) is not None:
                if await self._deliver(part) is Delivery.LATER:
                    return False
                self._backlog.taken()
            return True


class ToCoordinator:
    """Delivers to the coordinator's listener, with the proof of a hello."""

    def __init__(self, address: tuple[str, int], credentials: Credentials) -> None:
        host, port = address
        self._url = f"http://{host}:{port}{LOG_PATH}"
        self._credentials = credentials

    async def deliver(self, part: LogPart) -> Delivery:
        """Send one part."""
        body = part.model_dump_json().encode()
        try:
            proof = self._credentials.show(body)
            async with (
                aiohttp.ClientSession() as session,
                session.post(
                    self._url,
                    data=body,
                    headers={"Authorization": proof},
                    timeout=aiohttp.ClientTimeout(total=_REQUEST_SECONDS),
                    allow_redirects=False,
                ) as response,
            ):
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            return Delivery.LATER
        if status == HTTPStatus.OK:
            return Delivery.TAKEN
        return Delivery.REFUSED if status == HTTPStatus.CONFLICT else Delivery.LATER


class LogKeeper:
    """The coordinator's side: puts parts on its volume, in a thread, one after another.

    Parameters
    ----------
    newest
        The newest attempt that the coordinator has begun, and its ranks; zeros before the first.
    each
        Ranks of a worker.
    """

    def __init__(self, volume: LogVolume, newest: Callable[[], tuple[int, int]], each: int) -> None:
        self._volume, self._newest, self._each = volume, newest, each
        self._numbers: dict[LogKey, int] = {}
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="logs")
        self._waiting = 0

    async def receive(self, part: LogPart) -> None:
        """Keep what a worker has sent.

        Raises
        ------
        HelloDenied
            It is no word of that worker's ranks, or there is no room for it now.
        """
        match await self.keep(part):
            case Delivery.LATER:
                raise HelloDenied(HTTPStatus.SERVICE_UNAVAILABLE, "no log can be taken now")
            case Delivery.REFUSED:
                raise HelloDenied(
                    HTTPStatus.CONFLICT,
                    f"worker {part.position} has no rank {part.rank} in an attempt {part.attempt}",
                )

    async def keep(self, part: LogPart) -> Delivery:
        """Keep a part; LATER while the volume is behind, or no attempt has begun."""
        attempt, ranks = self._newest()
        if attempt == 0 or self._waiting >= _MOST_WAITING:
            return Delivery.LATER
        key = LogKey(part.attempt, part.rank)
        if part.attempt > attempt or part.rank // self._each != part.position:
            return Delivery.REFUSED
        if part.number <= self._numbers.get(key, -1):
            return Delivery.TAKEN  # its answer was lost
        self._numbers[key] = part.number
        self._waiting += 1
        written = asyncio.get_running_loop().run_in_executor(
            self._writer, lambda: self._add(key, part, ranks)
        )
        written.add_done_callback(self._has_written)
        await asyncio.shield(written)
        return Delivery.TAKEN

    def _add(self, key: LogKey, part: LogPart, ranks: int) -> None:
        self._volume.add(key, part.data, ranks=ranks, dropped=part.dropped)

    def _has_written(self, _written: object) -> None:
        self._waiting -= 1
