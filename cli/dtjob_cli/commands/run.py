"""`dtjob run`: train a job on this machine, from its manifest to its privacy report."""

from __future__ import annotations

import errno
import shlex
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

from dtjob_accounting.plan import warnings
from dtjob_accounting.process import PldProcess
from dtjob_api.derive import child_name, frozen_plan, ledger_spec
from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.ledger.privacy_ledger import PrivacyLedger, PrivacyPlan
from dtjob_api.model import ObjectMeta
from dtjob_api.reasons import Reason
from dtjob_api.wire.exit_codes import WorkerExit
from dtjob_api.wire.worker_report import WorkerState
from dtjob_cli import manifests, planning, privacy_report, privacy_report_text, standard_streams
from dtjob_cli.display import Display, for_stream, restart
from dtjob_cli.errors import BadInput, CommandError, ExitCode
from dtjob_cli.interrupts import Interrupts, counted
from dtjob_cli.manifests import Manifest
from dtjob_cli.privacy_report import Report
from dtjob_cli.runs import given_paths, local_workers, ports, resume, run_directory, spent, verdict
from dtjob_cli.runs.run_directory import RunDirectory
from dtjob_trainer.ledger.file_ledger import FileLedger

POLL_SECONDS = 0.1
_MAY_BE_THE_DATA = {Reason.TASK_FAILED, Reason.DATASET_INVALID}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
# How long workers have to leave by themselves once one of them has reported the end.
LEAVE_SECONDS = 60.0


@dataclass(frozen=True)
class Request:
    """What the command line asks for; see `dtjob_cli.main.run`."""

    manifest: Path
    resume: bool
    run_dir: Path | None
    workers: int | None
    runs: Path
    data: Path | None
    port: int | None
    as_json: bool

    def resume_command(self, run: RunDirectory, reason: str = "") -> str:
        """Return what a user types to go on with `run`, which ended for `reason`.

        Where that may be the data, it is left to the user to say where the right ones are.
        """
        arguments = ["dtjob", "run", str(self.manifest), "--resume", str(run.path)]
        data = "PATH" if self.data and reason in _MAY_BE_THE_DATA else self.data
        for option, value in (("--workers", self.workers), ("--data", data)):
            arguments += [option, str(value)] if value is not None else []
        return shlex.join(arguments)


def run(request: Request) -> ExitCode:
    """Train, and print the privacy report; the exit code of a run that has succeeded.

    Raises
    ------
    CommandError
        For every end but success.
    """
    manifest = manifests.read(request.manifest)
    _check(request, manifests.job(manifest))
    with counted() as interrupts, for_stream() as screen:
        session = _Session(request, manifest, screen, interrupts)
        try:
            with planning.answered():
                summary = session.resume() if request.resume else session.start()
        except OSError as error:
            raise refused(error) from None
    privacy_report_text.show(summary, as_json=request.as_json)
    if why := standard_streams.unprinted():
        run = RunDirectory(Path(summary["run"]))
        place = f"the report is in {run.privacy_report}"
        if not run.privacy_report.exists():
            place = f"dtjob report {shlex.quote(str(run.path))} prints the report"
        sys.stderr.write(f"The standard output failed ({why}): {place}\n")
    return ExitCode.OK if verdict.ended_early(summary) is None else ExitCode.ENDED_EARLY


def refused(error: OSError) -> CommandError:
    """Return the error of a run to which the operating system refused something."""
    again = "run the command again (with --resume if the run had begun)."
    if error.filename is None and error.errno not in _NO_ROOM:
        return CommandError(
            ExitCode.REFUSED,
            "System",
            f"the system refused what a run needs: {error.strerror or error}.",
            f"See that memory, processes and open files are not used up, then {again}",
        )
    cure = "Put it back" if error.errno == errno.ENOENT else "Make room or make it writable"
    return CommandError(
        ExitCode.REFUSED,
        "RunDirectory",
        f"{error.filename or 'the run directory'}: {error.strerror}.",
        "A run that had begun keeps its ledger and its last checkpoint; steps done since are done "
        f"again, and draws leased since stay charged. {cure}, then {again}",
    )


def _check(request: Request, job: DistributedTrainingJob) -> None:
    """Refuse what can be known to fail before anything is started."""
    if request.run_dir and not request.resume:
        raise BadInput(
            "UnexpectedArgument",
            f"{request.run_dir}: a run directory goes with --resume only.",
            "Add --resume to go on with that run, or leave the directory out.",
        )
    given_paths.require_text("--dir", request.run_dir or request.runs)
    given_paths.require_data(job, request.data)
    if request.port:
        ports.check(request.port, request.workers or job.spec.workers.replicas)


class _Session:
    """One `dtjob run`, from the checked request to the report."""

    def __init__(
        self, request: Request, manifest: Manifest, screen: Display, interrupts: Interrupts
    ) -> None:
        self._request = request
        self._manifest = manifest
        self._screen = screen
        self._interrupts = interrupts
        self._restarts = 0

    def start(self) -> Report:
        """Run a new job; return its report."""
        uid = str(uuid4())
        job = manifests.job(self._manifest, uid)
        name = child_name(job.metadata.name, uid, job.spec.rerun)
        if left := spent.unfinished(run_directory.begun(self._request.runs, job.metadata.name)):
            self._screen.note(left)
        run = run_directory.create(self._request.runs, name, self._request.manifest)
        with (
            run_directory.locked(run) as lock,
            PldProcess() as accountant,
            self._workers(run, job, lock) as workers,
        ):
            self._screen.fact(f"{run.path}: {_counted(self._count(job), 'worker')} started")
            plan = self._calibrated(run, job, workers, accountant)
            spec = ledger_spec(job, plan, workers=self._count(job))
            privacy_report.prepare(plan, accountant)
            meta = ObjectMeta(name=name, namespace=job.metadata.namespace or "default")
            FileLedger(run.ledger).create(PrivacyLedger(metadata=meta, spec=spec))
            return self._watched(run, workers, accountant)

    def resume(self) -> Report:
        """Go on with an earlier run, its spending included; return its report."""
        request, name = self._request, self._manifest["metadata"]["name"]
        run = (
            run_directory.existing(request.run_dir)
            if request.run_dir
            else run_directory.newest(request.runs, name)
        )
        with resume.taken_over(run, self._screen, self._interrupts) as lock:
            versioned = resume.readable(run)
            resume.check_unchanged(run, self._manifest)
            ledger = versioned.ledger
            if ledger.status.outcome is not None:
                self._screen.note(f"{run.path} has already ended: nothing is trained")
                with PldProcess() as accountant:
                    return self._concluded(run, [], accountant)
            job = manifests.job(self._manifest, ledger.spec.job_uid)
            resume.next_order(run, versioned, self._count(job), job.spec.run_policy)
            self._screen.fact(resume.summary(run, ledger))
            with PldProcess() as accountant, self._workers(run, job, lock) as workers:
                privacy_report.prepare(ledger.spec.plan, accountant)
                return self._watched(run, workers, accountant)

    def _count(self, job: DistributedTrainingJob) -> int:
        return self._request.workers or job.spec.workers.replicas

    @contextmanager
    def _workers(
        self, run: RunDirectory, job: DistributedTrainingJob, lock: int
    ) -> Iterator[local_workers.Workers]:
        count = self._count(job)
        workers = local_workers.Workers(
            run,
            local_workers.configs(
                run,
                job,
                data=self._request.data,
                http_port=self._request.port or ports.free(count),
                count=count,
            ),
            environment=local_workers.environment(job, count),
            lock=lock,
            max_restarts=job.spec.run_policy.max_restarts,
        )
        try:
            yield workers
        finally:
            workers.close()

    def _calibrated(
        self,
        run: RunDirectory,
        job: DistributedTrainingJob,
        workers: local_workers.Workers,
        accountant: PldProcess,
    ) -> PrivacyPlan:
        """Return the plan, computed while the workers import torch."""
        self._screen.waiting("calibrating the noise while the workers import torch")
        pool = ThreadPoolExecutor(1)
        future = pool.submit(planning.privacy_plan, job, accountant)
        try:
            while not future.done():
                time.sleep(POLL_SECONDS)
                ends = self._ended(workers)
                if ends or self._interrupts.count:
                    self._judge(run, None, ends)
            plan = future.result()
        except CommandError as error:
            workers.kill()  # without a ledger nothing is leased
            if error.exit_code is ExitCode.INTERRUPTED or error.reason == planning.IMPOSSIBLE:
                run_directory.discard(run)
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        self._screen.fact(planning.summary(plan))
        for warning in warnings(plan):
            self._screen.note(warning)
        return frozen_plan(plan)

    def _watched(
        self, run: RunDirectory, workers: local_workers.Workers, accountant: PldProcess
    ) -> Report:
        """Show how the workers get on until all have ended; return the report."""
        ends: list[local_workers.End] = []
        asked, leave_by = 0, float("inf")
        while workers.running:
            if self._interrupts.count > asked:
                asked = self._interrupts.count
                self._interrupt(workers, asked)
            for end in self._ended(workers):
                ends.append(end)
                leave_by = min(leave_by, time.monotonic() + LEAVE_SECONDS)
                if end.code != WorkerExit.OK:
                    workers.stop()
            if time.monotonic() > leave_by and not asked:
                workers.kill()
            self._show(workers)
            time.sleep(POLL_SECONDS)
        return self._concluded(run, ends, accountant)

    def _ended(self, workers: local_workers.Workers) -> list[local_workers.End]:
        """Return the workers that have ended for good; report those that are started again."""
        ends = workers.ends()
        for end in ends:
            if end.restarted:
                why = end.cause or end.message or "it left no message"
                what = f"worker {end.position} ended with {end.how}"
                self._screen.note(f"{what}; started again: {why}")
        return [end for end in ends if not end.restarted]

    def _interrupt(self, workers: local_workers.Workers, count: int) -> None:
        if count == 1:
            self._screen.note("stopping at the next step boundary; Ctrl-C again kills at once")
            workers.stop()
        else:
            self._screen.note("killed: what was leased and not used is spent")
            workers.kill()

    def _show(self, workers: local_workers.Workers) -> None:
        report = workers.worker_report()
        if report is None:
            return  # not there yet, or already gone: what was shown last still holds
        if report.restarts > self._restarts:
            self._screen.note(restart(report))
        self._restarts = report.restarts
        if report.state is WorkerState.RUNNING and report.step:
            self._screen.training(report)
        elif report.state is WorkerState.DRAINING:
            self._screen.waiting("finishing the step and writing a checkpoint")
        else:
            self._screen.waiting(report.stage)

    def _concluded(
        self, run: RunDirectory, ends: list[local_workers.End], accountant: PldProcess
    ) -> Report:
        """Save the report of a run whose workers have ended; return it after a success."""
        self._screen.waiting("writing the privacy report")
        ledger = spent.complete_ledger(run, self._request.resume_command(run))
        summary = privacy_report.build(ledger, accountant, run)
        self._save(run, summary)
        self._judge(run, summary, ends)
        if (early := verdict.ended_early(summary)) is not None:
            self._screen.note(early)
        return summary

    def _save(self, run: RunDirectory, summary: Report) -> None:
        """Save the report; where that fails, how the run ended is reported all the same."""
        try:
            privacy_report.save(run, summary)
        except OSError as error:
            self._screen.note(
                f"{run.privacy_report} is not written: {error.filename}: {error.strerror}; "
                f"once that is put right, dtjob report {shlex.quote(str(run.path))} prints it"
            )

    def _judge(
        self, run: RunDirectory, summary: Report | None, ends: list[local_workers.End]
    ) -> None:
        verdict.check(
            summary,
            ends,
            interrupted=self._interrupts.count > 0,
            run=run,
            resume_command=partial(self._request.resume_command, run),
        )


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "s")
