"""PID 1 of a worker: starts ranks from a warm forkserver, watches them, and answers for them.

It imports no torch. Every supervisor follows the directives of the coordinator's, which also
leads (see `dtjob_trainer.gang.leader`).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import aiohttp

from dtjob_api.wire.exit_codes import WorkerExit
from dtjob_api.wire.gang import Action, Directive, End, EndKind, Hello
from dtjob_api.wire.pipe import Progress, ToRank
from dtjob_api.wire.worker_config import LedgerRef, WorkerConfig
from dtjob_api.wire.worker_report import WorkerState
from dtjob_exporter.nvml import GpuCollector
from dtjob_serving import doors
from dtjob_trainer.gang import endpoints, ends
from dtjob_trainer.gang.ends import ORDERLY_SECONDS
from dtjob_trainer.gang.greeter import Greeter
from dtjob_trainer.gang.leader import Leader
from dtjob_trainer.gang.members import MISSED_PINGS, PING_SECONDS
from dtjob_trainer.gang.splice import StoreGate, Tunnel
from dtjob_trainer.gang.worker_view import CurrentView
from dtjob_trainer.identity.credentials import open_credentials
from dtjob_trainer.ledger import open_ledger
from dtjob_trainer.ledger.backend import Ledger
from dtjob_trainer.process import listening
from dtjob_trainer.process.logs import Logger
from dtjob_trainer.rank.setup import RankSetup
from dtjob_trainer.worker import telemetry
from dtjob_trainer.worker.keeper import Keeper
from dtjob_trainer.worker.pricing import Pricing
from dtjob_trainer.worker.processes import CannotStart, Nursery, Ranks, Store, threads_per_rank
from dtjob_trainer.worker.rank_logs import RankLogs


class Supervisor:
    """One worker, as its supervisor sees it; `run` returns the process's exit code.

    Parameters
    ----------
    nursery
        Starts the ranks.
    ledgers
        Opens the job's ledger.
    host
        The only address to listen on. Without it that is the coordinator's in a run on one machine,
        and every address in a pod.
    """

    def __init__(
        self,
        config: WorkerConfig,
        position: int,
        nursery: Nursery,
        log: Logger,
        *,
        ledgers: Callable[[LedgerRef], Ledger] = open_ledger,
        host: str | None = None,
    ) -> None:
        self._config = config
        self._position = position
        self._nursery = nursery
        self._log = log
        on_one_machine = listening.is_loopback(config.coordinator_host)
        self._bind_host = host or (config.coordinator_host if on_one_machine else "")
        self._credentials = open_credentials(config)
        self._incarnation = uuid.uuid4().hex
        self._current = CurrentView(position, config.job.uid, "importing torch and opacus")
        self._gpus = GpuCollector()
        self._ranks: Ranks | None = None
        self._tunnel: Tunnel | None = None
        self._attempt = 0
        self._ends: list[End] = []
        self._terminating = False
        self._news = asyncio.Event()
        self._stopped = asyncio.Event()
        self._pricing = Pricing(self._current, log, self._tell_rank_zero, nursery.accountant)
        self._keeper = Keeper(
            nursery,
            config.ranks,
            log,
            warm=self._on_warm,
            cold=self._begin_anew,
        )
        self._leader: Leader | None = None
        if position == 0:
            self._leader = Leader(
                config,
                ledgers(config.ledger),
                self._current,
                log,
                self._tell_rank_zero,
                lambda: self._credentials.trouble,
            )
        self._logs = RankLogs(config, position, self._credentials, self._leader)

    async def run(self) -> WorkerExit:
        """Serve until the directive says DONE or this worker is told to stop."""
        async with contextlib.AsyncExitStack() as rim:
            await self._open_doors(rim)
            self._nursery.open(self._config.ranks)
            rim.callback(self._pricing.close)
            rim.push_async_callback(self._stop_ranks)
            code = await self._follow_until_done()
            if self._config.stays_after_outcome and code != WorkerExit.SUPERSEDED:
                # A StatefulSet restarts whatever exits: a finished worker must not run again. One
                # that another coordinator overtook has finished nothing: restarted, and later each
                # time, it takes a new attempt, or finds the outcome of the other.
                await self._stopped.wait()
            return code

    async def _open_doors(self, rim: contextlib.AsyncExitStack) -> None:
        """What everybody may ask; on worker 0 also the gang's hellos and the way to the store."""
        config = self._config
        await self._serve(self._shown(), config.http_port, "http_port", rim)
        if (leader := self._leader) is None:
            return
        hellos = endpoints.Hellos(
            self._credentials, leader.reception.hello, self._logs.receive, self._log
        )
        await self._serve(hellos.doors, config.coordinator_port, "coordinator_port", rim)
        loopback = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._keeper.store = store = Store(self._nursery, loopback)
        gate = StoreGate(lambda: leader.store_key, store.port)
        await gate.open(await self._listen(config.store_port, "store_port"))
        rim.push_async_callback(gate.close)

    async def _serve(
        self, server: doors.Doors, port: int, name: str, rim: contextlib.AsyncExitStack
    ) -> None:
        runner = await doors.serve(server, await self._listen(port, name))
        rim.push_async_callback(runner.cleanup)

    async def _listen(self, port: int, name: str) -> socket.socket:
        # In a thread: while a predecessor goes away, this worker's probes are answered.
        return await asyncio.to_thread(listening.listen, self._bind_host, port, name)

    async def _follow_until_done(self) -> WorkerExit:
        try:
            async with asyncio.TaskGroup() as group:
                beside = [group.create_task(self._keeper.keep())]
                beside.append(group.create_task(self._logs.ship()))
                code = await self._exit_code(group)
                for task in beside:
                    task.cancel()
            return code
        except ExceptionGroup as group_of_one:
            if (found := group_of_one.subgroup(CannotStart)) is not None:
                raise found.exceptions[0] from None
            raise
        finally:
            if self._keeper.store is not None:
                self._keeper.store.stop()

    async def _exit_code(self, group: asyncio.TaskGroup) -> WorkerExit:
        """The exit code; on worker 0 the leader's, whose last directive no hello may bring."""
        following = group.create_task(self._follow())
        if self._leader is None:
            return await following
        leading = group.create_task(self._leader.lead())
        await asyncio.wait({leading, following}, return_when=asyncio.FIRST_COMPLETED)
        if leading.done() and not following.done():
            await asyncio.wait({following}, timeout=ORDERLY_SECONDS)
            following.cancel()
            await self._stop_ranks()
        return await leading

    @property
    def _can_start(self) -> bool:
        """Whether ranks can be started now."""
        return self._keeper.is_ready and not self._terminating

    def _on_warm(self) -> None:
        if self._leader is not None:
            self._pricing.warm_up()
        self._news.set()

    async def _begin_anew(self) -> None:
        """Count as restarted: whatever ranks there were are lost."""
        self._incarnation = uuid.uuid4().hex
        await self._stop_ranks()

    # Following the directives -------------------------------------------------------------

    async def _follow(self) -> WorkerExit:
        """Say hello and follow the directive, again and again; the exit code once all is done."""
        address = (self._config.coordinator_host, self._config.coordinator_port)
        known, missed = -1, 0
        async with aiohttp.ClientSession() as session:
            greeter = Greeter(session, address, self._credentials, self._log)
            while True:
                self._news.clear()
                # A worker that leaves reports it and waits for no news: nobody is to count on it.
                leaving = self._leader is None and self._terminating and self._ranks is None
                directive = await self._say_hello(greeter, -1 if leaving else known)
                if directive is None:
                    # The next answer may be another leader's, which numbers its directives anew.
                    known, missed = -1, missed + 1
                    if missed == MISSED_PINGS and self._ranks is not None:
                        self._log.warning("coordinator lost: ranks are killed")
                        await self._stop_ranks()
                    if self._terminating and self._ranks is None:
                        return WorkerExit.OK
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
                    return WorkerExit.OK

    async def _say_hello(self, greeter: Greeter, known: int) -> Directive | None:
        """Exchange one hello for a directive; None if the leader gave no answer.

        Cut short when this worker has news, so that a dead rank is reported at once.
        """
        gpus = telemetry.gpu_fields(self._gpus.read(), self._position)
        if self._leader is None:
            self._current.view = replace(self._current.view, gpus=gpus)
        hello = Hello(
            position=self._position,
            incarnation=self._incarnation,
            ready=self._can_start,
            attempt=self._attempt,
            ends=ends.bounded(self._ends),
            drain=self._terminating,
            gpus=gpus,
            known=known,
        )
        request = asyncio.create_task(greeter.say(hello))
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
        # One that the run has no more room for hears of it until its pod goes.
        is_asked = directive.action is Action.RUN and self._position < directive.workers
        if is_asked and self._attempt == 0 and self._can_start:
            await self._run(directive)

    async def _run(self, directive: Directive) -> None:
        """Have the attempt's ranks running, unless they can't be started any more by then."""
        store_port, tunnel = await self._way_to_the_store(directive.store_key)
        if not self._can_start:
            # Told to stop meanwhile, or the forkserver died: the leader counts on no ranks here.
            if tunnel is not None:
                await tunnel.close()
            return
        self._tunnel = tunnel
        try:
            self._start_ranks(directive, store_port)
        except CannotStart as error:
            self._log.error("no ranks started", detail=str(error))
            await self._begin_anew()

    def _start_ranks(self, directive: Directive, store_port: int) -> None:
        each = self._config.ranks
        self._ranks = Ranks(
            self._nursery,
            [
                RankSetup(
                    config=self._config.model_dump_json(by_alias=True),
                    attempt=directive.attempt,
                    rank=self._position * each + local,
                    local_rank=local,
                    world_size=directive.workers * each,
                    threads=threads_per_rank(each),
                    store_port=store_port,
                )
                for local in range(each)
            ],
            self._on_progress,
            self._on_end,
            partial(self._logs.output, directive.attempt),
        )
        self._attempt = directive.attempt
        self._current.update(attempt=directive.attempt)
        self._ranks.watch()
        self._log.info("ranks started", attempt=self._attempt, pids=self._ranks.pids)
        self._news.set()

    async def _way_to_the_store(self, key: str) -> tuple[int, Tunnel | None]:
        """The port on this worker's loopback by which its ranks reach the store."""
        if self._keeper.store is not None:
            return self._keeper.store.port, None
        tunnel = Tunnel(self._config.coordinator_host, self._config.store_port, key)
        return await tunnel.open(), tunnel

    async def _stop_ranks(self) -> None:
        ranks, self._ranks = self._ranks, None
        if ranks is not None:
            await ranks.kill()
            await self._logs.complete()
        tunnel, self._tunnel = self._tunnel, None
        if tunnel is not None:
            await tunnel.close()
        self._attempt = 0
        self._ends = []
        self._current.view = replace(self._current.view, rank_steps={})
        if self._leader is None:
            # On the coordinator the leader shows what the whole gang is at.
            self._current.update(state=WorkerState.STARTING, stage="no ranks")
        self._news.set()

    # What ranks report --------------------------------------------------------------------

    def _tell_rank_zero(self, message: ToRank) -> bool:
        """Send to rank 0; False where there is none (yet) to receive it."""
        return self._ranks is not None and self._ranks.send(0, message)

    def _on_progress(self, rank: int, progress: Progress) -> None:
        current, view = self._current, self._current.view
        current.view = replace(view, rank_steps={**view.rank_steps, rank: progress.step})
        if self._leader is None:
            current.update(state=progress.state, stage=progress.stage)
            return
        if rank != 0:
            return
        self._leader.heard_rank_zero(progress)
        current.update(heartbeat=datetime.now(UTC), stage=progress.stage, step=progress.step)
        if current.report.state is not WorkerState.DRAINING:
            current.update(state=progress.state)
        # Until an attempt reports a figure, that of the one before stays.
        if progress.samples_per_second is not None:
            current.update(samples_per_second=progress.samples_per_second)
        if progress.evaluation is not None:
            current.update(evaluation=progress.evaluation)
        if progress.checkpoint is not None:
            current.update(checkpoint=progress.checkpoint)
        if progress.charged is None:
            return
        if (spending := progress.spending) is None:
            current.update(charged=progress.charged)
            return
        self._pricing.charge(self._attempt, progress.charged, spending)

    def _on_end(self, end: End) -> None:
        self._log.info("rank ended", **end.model_dump(exclude_none=True))
        self._logs.ended(self._attempt, end)
        if end.kind is not EndKind.CRASHED or self._ranks is not None:
            self._ends.append(end)
        self._news.set()

    # The rim --------------------------------------------------------------------------------

    def terminate(self) -> None:
        """Stop in order, as on SIGTERM."""
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

    def _report(self) -> object:
        return telemetry.worker_report(
            self._current.view, self._config.training.batch_size
        ).to_json()

    def _shown(self) -> doors.Doors:
        return endpoints.shown(
            ready=lambda: self._keeper.is_warm,
            report=self._report,
            registry=telemetry.registry(self._current, self._config.job, self._position),
            log=self._log,
        )
