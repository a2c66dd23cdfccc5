"""News of jobs, which is all that kopf is used for: it keeps 12 KiB of each object that it watches.

No handler here needs a finalizer, an annotation, a timer or a daemon; kopf writes nothing.
It runs in a thread of its own, since it takes over signals and the loop it runs in, and is started
again in place when it ends, as it does when one of its watches dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any

import kopf
import structlog

from dtjob_operator.kube.api_server import credentials
from dtjob_operator.terms import kinds
from dtjob_operator.terms.kinds import Json

Deliver = Callable[[Json, bool], None]
"""Takes a job and whether it still exists."""

_RESTART_SECONDS = (1.0, 5.0)
_FIRST_LOOK_SECONDS, _LONGEST_LOOK_SECONDS = 0.5, 5.0
_STOP_SECONDS = 5.0


def registry(deliver: Deliver) -> kopf.OperatorRegistry:
    """A handler for events on jobs, whose news it passes on."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await _connection()

    group, version = kinds.JOB.api_version.split("/")

    @kopf.on.event(group, version, kinds.JOB.plural, registry=handlers, id=kinds.JOB.plural)
    async def note(event: Any, **_: Any) -> None:
        deliver(dict(event["object"]), event["type"] != "DELETED")

    return handlers


async def _connection() -> kopf.ConnectionInfo:
    """Our own client's cluster and account, read anew: kopf would choose by other rules."""
    found = await credentials()
    scheme, _, token = (await found.get_api_key_with_prefix("BearerToken") or "").rpartition(" ")
    return kopf.ConnectionInfo(
        server=found.host,
        ca_path=found.ssl_ca_cert,
        insecure=not found.verify_ssl,
        username=found.username or None,
        password=found.password or None,
        scheme=scheme or None,
        token=token or None,
        certificate_path=found.cert_file,
        private_key_path=found.key_file,
        proxy_url=found.proxy,
    )


def settings() -> kopf.OperatorSettings:
    """kopf with everything off that would write or look at other kinds."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.scanning.disabled = True
    chosen.process.ultimate_exiting_timeout = None
    chosen.networking.connect_timeout = 5.0
    chosen.networking.request_timeout = 60.0
    # Not so long that an outage of a minute costs another half minute of silence.
    chosen.networking.error_backoffs = (0.5, 1, 1, 2, 2, 3, 3)
    return chosen


def _in_thread(work: Callable[[], str]) -> asyncio.Future[str]:
    """What `work` returns, in a thread that does not keep the process from ending.

    Those of the loop's own executor do, until the last of them has ended.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()

    def resolve(ended: str) -> None:
        if not answer.done():
            answer.set_result(ended)

    def run() -> None:
        ended = "its thread died"
        try:
            ended = work()
        finally:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody has waited
                loop.call_soon_threadsafe(resolve, ended)

    threading.Thread(target=run, name="kopf", daemon=True).start()
    return answer


class EventStream:
    """Runs kopf until it is stopped.

    Parameters
    ----------
    deliver
        Called in the loop that `run` runs in.
    gap
        Awaited whenever kopf begins anew: it never reports what was deleted in between.
    discovery_obstacle
        Says why kopf would not find the kind that it watches, None where it would. It looks once
        when it starts, and where it finds none it waits for ever.
    count_restart
        Called whenever kopf has ended and is to be started again.
    namespaces
        Returns those whose jobs are watched, some at each start; None: all are.
    """

    def __init__(
        self,
        deliver: Deliver,
        gap: Callable[[], Awaitable[None]],
        discovery_obstacle: Callable[[], Awaitable[str | None]],
        count_restart: Callable[[], None],
        namespaces: Callable[[], Collection[str]] | None = None,
    ) -> None:
        self._namespaces = namespaces
        self._deliver = deliver
        self._gap = gap
        self._discovery_obstacle = discovery_obstacle
        self._count_restart = count_restart
        self._stop: Callable[[], object] | None = None
        self._log = structlog.get_logger("event_stream")
        self.running = False
        self._obstacle: str | None = None

    @property
    def trouble(self) -> str | None:
        """Why no news of jobs arrives at the moment; None while kopf runs."""
        if self.running:
            return None
        return self._obstacle or "the stream of events on jobs is being started again"

    def restart(self) -> None:
        """Have kopf begin anew, from a list."""
        if self.running and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # it has just ended by itself
                self._stop()

    async def run(self) -> None:
        """Run kopf, again and again, until cancelled."""
        loop = asyncio.get_running_loop()

        def deliver(obj: Json, exists: bool) -> None:
            loop.call_soon_threadsafe(self._deliver, obj, exists)

        if await self._wait_for_discovery():
            await self._gap()
        while True:
            kopf_thread = _in_thread(partial(self._kopf, deliver))
            self.running = True
            try:
                ended = await asyncio.shield(kopf_thread)
            except asyncio.CancelledError:
                self.restart()  # nobody starts it again
                await asyncio.wait([kopf_thread], timeout=_STOP_SECONDS)
                raise
            finally:
                self.running = False
            self._count_restart()
            self._log.warning("the event stream ended and is started again", cause=ended)
            await asyncio.sleep(random.uniform(*_RESTART_SECONDS))  # noqa: S311
            await self._wait_for_discovery()
            await self._gap()

    async def _wait_for_discovery(self) -> bool:
        """Wait until kopf will find its kind; returns whether that took more than one look."""
        pause = _FIRST_LOOK_SECONDS
        waited = False
        while (obstacle := await self._discovery_obstacle()) is not None:
            if obstacle != self._obstacle:
                self._log.warning("the event stream can't be started yet", cause=obstacle)
            self._obstacle, waited = obstacle, True
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(2 * pause, _LONGEST_LOOK_SECONDS)
        self._obstacle = None
        return waited

    def _kopf(self, deliver: Deliver) -> str:
        """Run kopf in this thread until it ends; returns why."""

        async def operate() -> None:
            stop = asyncio.Event()
            loop = asyncio.get_running_loop()
            # What is left of kopf's watches when it stops is closed under protest.
            loop.set_exception_handler(
                lambda _loop, context: self._log.debug("kopf's loop", trouble=context["message"])
            )
            self._stop = partial(loop.call_soon_threadsafe, stop.set)
            await kopf.operator(
                registry=registry(deliver),
                settings=settings(),
                standalone=True,
                clusterwide=self._namespaces is None,
                namespaces=self._namespaces() if self._namespaces else (),
                stop_flag=stop,
            )

        try:
            asyncio.run(operate())
        except Exception as error:  # whatever it was, the next start begins from a list
            return f"{type(error).__name__}: {error}"
        return "stopped"
