"""One rank of one attempt: from a fresh process to the training loop and out again."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from dtjob_api.job.distributed_training_job import Telemetry
from dtjob_api.ledger.privacy_ledger import LedgerSpec
from dtjob_api.reasons import Reason
from dtjob_api.wire.gang import EndKind
from dtjob_api.wire.worker_config import WorkerConfig
from dtjob_api.wire.worker_report import WorkerState
from dtjob_trainer.ledger.recovery import TrainingHeld
from dtjob_trainer.process import confine, logs, streams
from dtjob_trainer.rank import interfaces
from dtjob_trainer.rank.failures import Failures, Phase
from dtjob_trainer.rank.mailbox import Mailbox
from dtjob_trainer.rank.setup import RankSetup
from dtjob_trainer.task import TaskError, load_task
from dtjob_trainer.usercode import data_place, library_first

if TYPE_CHECKING:
    import torch

    from dtjob_api.ledger.privacy_ledger import Provenance
    from dtjob_trainer.ledger.checkpoint import Checkpoint
    from dtjob_trainer.ledger.leasing import LeasedDraws
    from dtjob_trainer.mechanism.group import Group
    from dtjob_trainer.mechanism.mechanism import Mechanism
    from dtjob_trainer.mechanism.step import Learner, PrivateStep
    from dtjob_trainer.rank.loop import Stepper, Trainee
    from dtjob_trainer.task import Task

Watch = Callable[["Stepper"], "Stepper"]

#: The ends that are no failure, each with its reason.
ORDERLY = {
    EndKind.FINISHED: Reason.FINISHED,
    EndKind.DRAINED: Reason.STOPPED,
    EndKind.SUCCEEDED: Reason.COMPLETED,
}


def main(setup: RankSetup, pipe: Connection, watch: Watch | None = None) -> None:
    """Run one rank in its own process; it ends by a message on the pipe and an exit code.

    Parameters
    ----------
    watch
        Wraps the step, for tests that record what was executed.
    """
    confine.end_with_parent(signal.SIGKILL)
    confine.forbid_core_dumps()
    confine.leave_stops_to_supervisor()
    confine.let_forks_be_terminated()
    mail = Mailbox(pipe)
    streams.take_standard_streams()
    logs.quieten_libraries()
    log = logs.own_logger(
        confine.keep_own_log(), component="rank", rank=setup.rank, attempt=setup.attempt
    )
    rank = _Rank(setup, mail, log)
    try:
        kind = rank.run(watch)
        reason, message = ORDERLY[kind], ""
    except BaseException as error:
        # Also what is no Exception, as a panic of a library in Rust: it would come again.
        kind, reason, message = rank.explain(error)
        log.error("rank failed", kind=kind, reason=reason, detail=message, **rank.logged(error))
    mail.end(kind, reason, message)
    # Not a return: threads of the task or of torch must not keep a finished rank alive.
    os._exit(0 if kind in ORDERLY else 1)


@dataclass(frozen=True)
class _Attempt:
    """What a rank trains with, once all ranks have met and the dry run has passed.

    Attributes
    ----------
    rows
        P, the rows of a micro-batch.
    leased, provenance, checkpoint
        Rank 0's alone; before the first lease is published there is no checkpoint.
    """

    task: Task
    group: Group
    spec: LedgerSpec
    mechanism: Mechanism
    rows: int
    leased: LeasedDraws | None
    provenance: Provenance | None
    checkpoint: Checkpoint | None


class _Rank:
    def __init__(self, setup: RankSetup, mail: Mailbox, log: logs.Logger) -> None:
        self._setup = setup
        self._log = log
        self._mail = mail
        self._config = WorkerConfig.model_validate_json(setup.config)
        self._phase = Phase.OURS
        self._failures = Failures(
            self._config.training.entrypoint, setup.rank, self._shows_private_data
        )

    def run(self, watch: Watch | None) -> EndKind:
        """Preflight, rendezvous, training."""
        from dtjob_trainer.ledger import leasing, open_ledger
        from dtjob_trainer.mechanism.mechanism import Mechanism
        from dtjob_trainer.rank import dry_run, meeting, provenance

        config, setup = self._config, self._setup
        interfaces.require(setup.world_size, on_gpus=config.gpus_per_worker > 0)
        device = _prepare_device(config, setup)
        leased, spec, checkpoint, made_by = None, None, None, None
        if setup.rank == 0:
            # Before the task can fail: a fault of the ledger is reported first.
            self._mail.stage("reading ledger and checkpoint")
            leased, spec, checkpoint = leasing.resumed(
                open_ledger(config.ledger), config, setup.attempt
            )
            self._failures = replace(self._failures, charged=leased.charged > 0)
        self._mail.stage("importing the task")
        library_first.admit_working_folder()
        with self._trying():
            training = config.training
            task = load_task(training.entrypoint, training.args, in_pod=config.stays_after_outcome)
        self._mail.stage("waiting for the other ranks")
        group = meeting.join(setup, device)
        spec = meeting.share_spec(spec, group)
        mechanism = Mechanism.of(spec.plan)
        given = config.training.physical_batch_size
        layout = mechanism.layout(group.world_size, given if isinstance(given, int) else None)
        was_tried = False
        if leased is not None:
            made_by = provenance.of_attempt(config, device, layout.rows)
            was_tried = leased.has_tried(made_by.task_digest)
        whole = not meeting.share_choice(was_tried, group)
        began = time.monotonic()
        with self._trying():
            dry_run.dry_run(
                task,
                config,
                self._mail,
                device=device,
                mechanism=mechanism,
                rows=layout.rows,
                ranks=group.world_size,
                whole=whole,
                evaluates=setup.rank == 0 and checkpoint is None,
            )
        # It has passed P rows, among others: a step takes less than M times as long.
        self._mail.progress(step_estimate=layout.micro_batches * (time.monotonic() - began))
        attempt = _Attempt(task, group, spec, mechanism, layout.rows, leased, made_by, checkpoint)
        return self._train(attempt, watch)

    @contextlib.contextmanager
    def _trying(self) -> Iterator[None]:
        """Whatever is raised inside is the task's fault."""
        self._phase = Phase.TRIED
        with data_place.closed(self._config.data_dir):
            yield
        self._phase = Phase.OURS

    def _train(self, attempt: _Attempt, watch: Watch | None) -> EndKind:
        from dtjob_trainer.ledger.checkpoint import TrainingState
        from dtjob_trainer.mechanism.group import agreed_digest
        from dtjob_trainer.rank import loop

        learner = self._learner(attempt)
        model, optimizer, task = learner.model, learner.optimizer, attempt.task
        private = self._private_step(attempt, learner)
        step: Stepper = private if watch is None else watch(private)

        def state() -> TrainingState:
            private.check_publishable()
            return TrainingState(model.state_dict(), optimizer.state_dict())

        trainee = loop.Trainee(
            _NotifyingStep(step, self._begin_stepped),
            state=state,
            compare=lambda: agreed_digest(model, attempt.group),
            evaluate=(lambda: self._evaluated(task, model)) if task.evaluate else None,
        )
        if attempt.leased is None or attempt.provenance is None:
            return loop.Follower(trainee, attempt.group, self._mail).run()
        return self._coordinate(attempt, attempt.leased, attempt.provenance, trainee)

    def _coordinate(
        self, attempt: _Attempt, leased: LeasedDraws, made_by: Provenance, trainee: Trainee
    ) -> EndKind:
        from dtjob_trainer.ledger.checkpoint import expected_bytes
        from dtjob_trainer.rank import loop

        training, first = self._config.training, trainee.state()
        evaluation = training.evaluation
        with self._mail.waiting("writing checkpoint and ledger", state=WorkerState.STARTING):
            expected = expected_bytes(first, _OPTIMIZER_SLOTS[training.optimizer.name])
            leased.open(first, expected, made_by)
        course = loop.Course(
            attempt.spec.plan,
            start_step=attempt.checkpoint.step if attempt.checkpoint else 0,
            evaluate_every=evaluation.every_steps if evaluation else None,
        )
        return loop.RankZero(trainee, course, leased, attempt.group, self._mail).run()

    def _learner(self, attempt: _Attempt) -> Learner:
        """The task's model and its optimizer: those of the checkpoint, equal on all ranks."""
        from dtjob_trainer.mechanism import optim
        from dtjob_trainer.mechanism.step import Learner
        from dtjob_trainer.preflight import task_validation
        from dtjob_trainer.rank import fitting, meeting

        training = self._config.training
        with self._trying():
            model = task_validation.build_model(attempt.task, attempt.group.device)
            parameters = [p for p in model.parameters() if p.requires_grad]
            optimizer = optim.make_optimizer(training.optimizer.name, parameters)
        if attempt.checkpoint is not None:
            fitting.load(attempt.checkpoint, model, optimizer)
        meeting.share_training(model, optimizer, attempt.group)
        schedule = training.learning_rate_schedule
        learning_rate = optim.LearningRate(
            training.optimizer.learning_rate,
            schedule.name if schedule else "Constant",
            attempt.spec.plan.steps,
            schedule.warmup_steps if schedule else 0,
        )
        return Learner(model, attempt.task.losses, optimizer, learning_rate)

    def _private_step(self, attempt: _Attempt, learner: Learner) -> PrivateStep:
        """The step on the private records, which are opened here."""
        from dtjob_trainer.mechanism import keys
        from dtjob_trainer.mechanism.records import opening
        from dtjob_trainer.mechanism.step import PrivateData, PrivateStep

        task, group = attempt.task, attempt.group
        self._mail.stage("opening the dataset")
        self._begin_private()
        if self._config.data_dir is not None:
            data_place.announce(self._config.data_dir)
        with self._mail.waiting("opening the dataset", state=WorkerState.STARTING):
            records = opening.open_records(task, learner.untouched, group.device)
        self._phase = Phase.PRIVATE
        on_bad_record = self._on_bad_record if self._shows_private_data else None
        secret = keys.fresh_secret(group)
        return PrivateStep(
            learner,
            PrivateData(records, task.example_spec, on_bad_record),
            attempt.mechanism,
            keys.derive_keys(secret, attempt.spec.job_uid, self._setup.attempt),
            group,
            physical_batch_size=attempt.rows,
        )

    def _evaluated(self, task: Task, model: torch.nn.Module) -> dict[str, float]:
        """Public figures of the model as it is; private records are in memory too (Rule 20)."""
        from dtjob_trainer.preflight import task_validation

        try:
            return task_validation.public_figures(task, model)
        except (Exception, SystemExit) as error:
            more = self.logged(error)
            if isinstance(error, TaskError) and self._failures.own_words(error, self._phase):
                failed = error
            else:
                message = f"Task.evaluate raised {self._failures.describe(error)}"
                failed = TaskError(Reason.EVALUATION_INVALID, message)
        self._log.warning("evaluation failed", detail=failed.message, **more)
        raise failed

    def _begin_private(self) -> None:
        """From here on private records may be in memory (Rule 20)."""
        self._phase = Phase.OPENING
        if not self._shows_private_data:
            logs.mute_standard_loggers()
            confine.drop_task_output()

    def _begin_stepped(self) -> None:
        self._phase = Phase.STEPPED

    @property
    def _shows_private_data(self) -> bool:
        return self._config.telemetry is Telemetry.NOT_COVERED_BY_EPSILON

    def _on_bad_record(self, index: int, wrong: str) -> None:
        self._log.warning("record contributes zero", record=index, wrong=wrong)

    def explain(self, error: BaseException) -> tuple[EndKind, Reason, str]:
        """See `Failures.explain`."""
        return self._failures.explain(error, self._phase)

    def logged(self, error: BaseException) -> dict[str, str]:
        """See `Failures.logged`."""
        return self._failures.logged(error, self._phase)


class _NotifyingStep:
    """A step that reports when the job has done one, in this attempt or before."""

    def __init__(self, step: Stepper, has_stepped: Callable[[], None]) -> None:
        self._step, self._has_stepped = step, has_stepped

    def run(self, draw: int, step: int) -> None:
        if step:
            self._has_stepped()
        self._step.run(draw, step)
        self._has_stepped()


#: Tensors of a parameter's size that an optimizer keeps for it.
_OPTIMIZER_SLOTS: Mapping[str, int] = {"sgd": 0, "adam": 2, "adamw": 2}


def _prepare_device(config: WorkerConfig, setup: RankSetup) -> torch.device:
    import torch

    torch.set_num_threads(setup.threads)
    _take_own_randomness()
    if not config.gpus_per_worker:
        return torch.device("cpu")
    if torch.cuda.device_count() <= setup.local_rank:
        # Another node, or the driver once it is repaired, may have them.
        raise TrainingHeld(
            Reason.GPU_MISSING,
            f"workers.gpusPerWorker is {config.gpus_per_worker}, but this worker sees "
            f"{torch.cuda.device_count()} GPUs; lower it in a new job, or run where GPUs and "
            "driver are",
        )
    device = torch.device("cuda", setup.local_rank)
    torch.cuda.set_device(device)
    return device


def _take_own_randomness() -> None:
    """Give task code random numbers of this process's own, from the kernel.

    All ranks of a forkserver, and of every attempt, are born with its state. Each read and each
    micro-batch of a step has one of its own (`mechanism.coins`); this is for all the rest.
    """
    import numpy as np
    import torch

    torch.seed()
    random.seed()
    np.random.seed()
