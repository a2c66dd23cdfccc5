"""PID 1 of a worker: starts ranks from a warm forkserver, watches them, and answers for them.

It imports no torch. Every supervisor follows the directives of the one on ordinal 0, which also
leads (see :mod:`dtjob_trainer.leader`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import time
import uuid
from datetime import UTC, datetime
from multiprocessing import forkserver
from typing import Any

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry

from dtjob_api.worker import WorkerConfig
from dtjob_exporter.nvml import GpuCollector
from dtjob_trainer import endpoints, telemetry
from dtjob_trainer.gang import (
    MISSED_PINGS,
    PING_SECONDS,
    Action,
    Directive,
    End,
    EndKind,
    Hello,
)
from dtjob_trainer.leader import EXIT_SUPERSEDED, Leader
from dtjob_trainer.ledgers import open_ledger
from dtjob_trainer.logs import Logger
from dtjob_trainer.pricing import Pricing
from dtjob_trainer.processes import (
    RankMain,
    Ranks,
    RankSetup,
    Store,
    forkserver_context,
    forkserver_lives,
    threads_per_rank,
    warm_up,
)

_PORT_SECONDS = 15.0
#: How often a worker looks whether its forkserver and its store live.
_LOOK_SECONDS = 0.5


class ConfigurationError(Exception):
    """This worker can't start as it is configured; the message names the remedy."""


class Worker:
    """One worker, as its supervisor sees it; ``run`` returns the process's exit code."""

    def __init__(
        self, config: WorkerConfig, ordinal: int, rank_main: RankMain, log: Logger
    ) -> None:
        self._config = config
        self._ordinal = ordinal
        self._rank_main = rank_main
        self._log = log
        self._bind_host = config.coordinator_host if _is_loopback(config.coordinator_host) else ""
        self._incarnation = uuid.uuid4().hex
        self._context = forkserver_context()
        self._view = telemetry.WorkerView(
            ordinal=ordinal, job_uid=config.job.uid, stage="importing torch and opacus"
        )
        self._gpus = GpuCollector()
        self._ranks: Ranks | None = None
        self._attempt = 0
        self._ends: list[End] = []
        self._warm = False
        self._terminating = False
        self._news = asyncio.Event()
        self._stopped = asyncio.Event()
        self._pricing = Pricing(self._view, log, self._tell_coordinator)
        self._leader: Leader | None = None
        if ordinal == 0:
            self._ledger = open_ledger(config.ledger)
            self._leader = Leader(config, self._ledger, self._view, log, self._tell_coordinator)

    async def run(self) -> int:
        """Serve until the directive says DONE or this worker is told to stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._terminate)
        listener = _listen(self._bind_host, self._config.http_port, "http_port")
        runner = web.AppRunner(self._application(), access_log=None, handler_cancellation=True)
        await runner.setup()
        await web.SockSite(runner, listener).start()
        self._start_forkserver()
        try:
            code = await self._follow_until_done()
            if self._config.hold and code != EXIT_SUPERSEDED:
                # A StatefulSet restarts whatever exits: a finished worker must not run again. One
                # that another coordinator overtook has finished nothing: restarted, and later each
                # time, it takes a new attempt, or finds the outcome of the other.
                await self._stopped.wait()
            return code
        finally:
            await self._stop_ranks()
            self._pricing.close()
            await runner.cleanup()

    def _start_forkserver(self) -> None:
        # From the main thread: the forkserver dies with the thread that started it.
        os.environ["OMP_NUM_THREADS"] = str(threads_per_rank(self._config.ranks))
        forkserver.ensure_running()

    async def _follow_until_done(self) -> int:
        store: Store | None = None
        if self._leader is not None:
            # In a thread: while a predecessor's store goes away, hellos are answered.
            listener = await asyncio.to_thread(
                _listen, self._bind_host, self._config.store_port, "store_port"
            )
            store = Store(self._context, listener)
        leading: asyncio.Task[int] | None = None
        try:
            async with asyncio.TaskGroup() as group:
                warming = group.create_task(self._keep_warm(store))
                if self._leader is not None:
                    leading = group.create_task(self._leader.lead())
                code = await self._follow()
                warming.cancel()
                if leading is not None:
                    code = await leading
            return code
        finally:
            if store is not None:
                store.stop()

    async def _keep_warm(self, store: Store | None) -> None:
        """Warm up, and put right what dies: nobody else would, and no attempt could start again.

        A store that comes back costs nothing: the ranks that train don't need it any more. The
        death of the forkserver takes all its ranks down, so this worker counts as restarted.
        """
        await self._warm_up(store)
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if not forkserver_lives():
                self._log.error("the forkserver died: it is started again")
                self._warm = False
                self._incarnation = uuid.uuid4().hex
                await self._stop_ranks()
                self._start_forkserver()
                await self._warm_up(store)
            elif store is not None and not store.lives:
                self._log.error("the store died: it is started again")
                store.start()

    @property
    def _able(self) -> bool:
        """Whether ranks can be started now; without the forkserver a start waits for imports."""
        return self._warm and not self._terminating and forkserver_lives()

    async def _warm_up(self, store: Store | None) -> None:
        started = time.monotonic()
        await warm_up(self._context)
        if store is not None:
            store.start()
            self._pricing.warm_up()
        self._log.info("ready", import_seconds=round(time.monotonic() - started, 2))
        self._warm = True
        self._news.set()

    # Following the directives -------------------------------------------------------------

    async def _follow(self) -> int:
        """Say hello and do as told, again and again; the exit code when told that all is done."""
        url = f"http://{self._config.coordinator_host}:{self._config.coordinator_port}/gang/hello"
        known, missed = -1, 0
        async with aiohttp.ClientSession() as session:
            while True:
                self._news.clear()
                # Who leaves says so, and waits for no news: nobody is to count on it any more.
                leaving = self._leader is None and self._terminating and self._ranks is None
                directive = await self._say_hello(session, url, -1 if leaving else known)
                if directive is None:
                    # The next answer may be another leader's, which numbers its directives anew.
                    known, missed = -1, missed + 1
                    if missed == MISSED_PINGS and self._ranks is not None:
                        self._log.warning("coordinator lost: ranks are killed")
                        await self._stop_ranks()
                    if self._terminating and self._ranks is None:
                        return 0
                    await self._pause(PING_SECONDS / 4)
                    continue
                missed = 0
                if directive.revision != known:
                    known = directive.revision
                    await self._obey(directive)
                    if directive.action is Action.DONE:
                        return directive.exit_code
                leaves = leaving if self._leader is None else self._leader.left
                if leaves and self._ranks is None:
                    return 0

    async def _say_hello(
        self, session: aiohttp.ClientSession, url: str, known: int
    ) -> Directive | None:
        """Exchange one hello for a directive; None if the leader gave no answer.

        Cut short when this worker has news, so that a dead rank is told of at once.
        """
        hello = Hello(
            ordinal=self._ordinal,
            incarnation=self._incarnation,
            ready=self._able,
            attempt=self._attempt,
            ends=tuple(self._ends),
            drain=self._terminating,
            gpus=tuple(telemetry.gpu_fields(self._gpus.read(), self._ordinal)),
            known=known,
        )
        request = asyncio.create_task(_post(session, url, hello))
        news = asyncio.create_task(self._news.wait())
        try:
            await asyncio.wait({request, news}, return_when=asyncio.FIRST_COMPLETED)
            if request.done():
                return request.result()
            return Directive(revision=known)
        finally:
            for task in (request, news):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _obey(self, directive: Directive) -> None:
        if directive.action is not Action.RUN or directive.attempt != self._attempt:
            await self._stop_ranks()
        if directive.action is Action.RUN and self._attempt == 0 and self._able:
            self._start_ranks(directive)

    def _start_ranks(self, directive: Directive) -> None:
        each = self._config.ranks
        self._attempt = directive.attempt
        self._view.attempt = directive.attempt
        self._ranks = Ranks(
            self._context,
            self._rank_main,
            [
                RankSetup(
                    config=self._config.model_dump_json(by_alias=True),
                    attempt=directive.attempt,
                    rank=self._ordinal * each + local,
                    local_rank=local,
                    world_size=directive.workers * each,
                    threads=threads_per_rank(each),
                )
                for local in range(each)
            ],
            self._on_message,
            self._on_end,
        )
        self._ranks.watch()
        self._log.info("ranks started", attempt=self._attempt, pids=self._ranks.pids)
        self._news.set()

    async def _stop_ranks(self) -> None:
        ranks, self._ranks = self._ranks, None
        if ranks is not None:
            await ranks.kill()
        self._attempt = 0
        self._ends = []
        self._view.rank_steps.clear()
        if self._leader is None:
            # On ordinal 0 the leader says what the whole gang is at.
            self._view.state, self._view.stage = "Starting", "no ranks"
        self._news.set()

    # What ranks say -------------------------------------------------------------------------

    def _tell_coordinator(self, message: dict[str, str]) -> bool:
        """Send to rank 0; False where there is none (yet) to hear it."""
        return self._ranks is not None and self._ranks.send(0, message)

    def _on_message(self, rank: int, message: dict[str, Any]) -> None:
        self._view.rank_steps[rank] = message.get("step", 0)
        if self._leader is None:
            self._view.state, self._view.stage = message["state"], message["stage"]
            return
        if rank != 0:
            return
        self._leader.heard_coordinator(message)
        view = self._view
        view.heartbeat = datetime.now(UTC)
        view.stage = message["stage"]
        if view.state != "Draining":
            view.state = message["state"]
        for name in ("step", "samples_per_second", "evaluation", "checkpoint"):
            if message.get(name) is not None:
                setattr(view, name, message[name])
        if (segments := message.get("segments")) is not None:
            self._pricing.charge(
                self._attempt,
                message["charged"],
                segments,
                message["delta"],
                message["guaranteed"],
            )
        elif (charged := message.get("charged")) is not None:
            view.charged = charged

    def _on_end(self, end: End) -> None:
        self._log.info("rank ended", **end.model_dump(exclude_none=True))
        if end.kind is not EndKind.CRASHED or self._ranks is not None:
            self._ends.append(end)
        self._news.set()

    # The rim --------------------------------------------------------------------------------

    def _terminate(self) -> None:
        self._terminating = True
        self._stopped.set()
        self._log.info("told to stop: the gang finishes its step and checkpoints")
        if self._leader is not None:
            self._leader.terminating = True
            self._leader.wake()
        self._news.set()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    def _application(self) -> web.Application:
        registry = CollectorRegistry(auto_describe=False)
        job = self._config.job
        registry.register(
            telemetry.WorkerMetrics(
                self._view,
                {"namespace": job.namespace, "job": job.name, "worker": str(self._ordinal)},
            )
        )
        return endpoints.application(
            ready=lambda: self._warm,
            report=lambda: telemetry.report(self._view, self._config.training.batch_size),
            registry=registry,
            hello=self._leader.hello if self._leader is not None else None,
        )


async def _post(session: aiohttp.ClientSession, url: str, hello: Hello) -> Directive | None:
    try:
        async with session.post(
            url,
            data=hello.model_dump_json(),
            timeout=aiohttp.ClientTimeout(total=2 * PING_SECONDS),
        ) as response:
            response.raise_for_status()
            return Directive.model_validate(json.loads(await response.text()))
    except (aiohttp.ClientError, TimeoutError, OSError):
        return None


def _is_loopback(host: str) -> bool:
    return host == "localhost" or host.startswith("127.")


def _listen(host: str, port: int, name: str) -> socket.socket:
    """Listen on ``port``; a predecessor that was just killed may hold it for a moment.

    Without a host on all addresses, IPv6 and IPv4: which of them reach a pod is the cluster's.
    """
    deadline = time.monotonic() + _PORT_SECONDS
    both = not host and socket.has_dualstack_ipv6()
    while True:
        try:
            return socket.create_server(
                (host, port),
                family=socket.AF_INET6 if both else socket.AF_INET,
                backlog=1024,
                dualstack_ipv6=both,
            )
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            raise ConfigurationError(
                f"{name} {port} on {host or 'all addresses'}: {os.strerror(error.errno or 0)}; "
                "choose another port or end the process that has it"
            ) from None
