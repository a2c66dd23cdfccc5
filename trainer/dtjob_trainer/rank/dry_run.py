"""The dry run of a rank: all that is tried on synthetic data, in order, each part announced."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from dtjob_api.wire.worker_config import WorkerConfig
from dtjob_api.wire.worker_report import WorkerState
from dtjob_trainer.mechanism.mechanism import Mechanism
from dtjob_trainer.preflight import rehearsal, task_validation
from dtjob_trainer.rank.mailbox import Mailbox
from dtjob_trainer.task import Task

Losses = Callable[[torch.nn.Module, Mapping[str, torch.Tensor]], torch.Tensor]


def dry_run(
    task: Task,
    config: WorkerConfig,
    mail: Mailbox,
    *,
    device: torch.device,
    mechanism: Mechanism,
    rows: int,
    ranks: int,
    whole: bool,
    evaluates: bool,
) -> None:
    """Try a task before any private record is read, and report progress at each pass.

    Parameters
    ----------
    rows
        P of the run.
    ranks
        How many there are in all.
    whole
        Whether no earlier attempt of the run has tried this task; see `task_validation.preflight`.
    evaluates
        Whether `Task.evaluate` is tried too: by one rank, before the first draw is charged.

    Raises
    ------
    TaskError
    """
    every = config.training.evaluation.every_steps if config.training.evaluation else None
    task_validation.check_evaluates(task, every)
    task = replace(task, losses=_with_heartbeats(task.losses, mail))
    memory = rehearsal.memory_of_a_rank(config.ranks, device)
    _say(mail, "memory of a step")
    rehearsal.require_fit(task, device, mechanism, rows=rows, ranks=ranks, memory=memory)
    announce = functools.partial(_say, mail)
    task_validation.preflight(task, device, rows, whole=whole, announce=announce)
    _say(mail, "a whole step")
    rehearsal.rehearse(task, device, mechanism, optimizer=config.training.optimizer.name)
    if evaluates:
        with mail.waiting("evaluating the untrained model", state=WorkerState.STARTING):
            task_validation.check_evaluation(task, device)


def _say(mail: Mailbox, part: str) -> None:
    """Announce a part to whoever waits for it; a stage has no digits."""
    mail.stage(f"dry run on synthetic data: {part}")


def _with_heartbeats(losses: Losses, mail: Mailbox) -> Losses:
    """Report progress at each pass: a dry run of slow passes is no hang."""

    def beating(model: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        mail.progress()
        return losses(model, batch)

    return beating
