"""Real gloo worlds as processes; the imports of torch and opacus are paid once, in a forkserver."""

from __future__ import annotations

import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_DEADLINE_SECONDS = 300


def run_world(work: Callable[..., Any], world_size: int) -> list[Any]:
    """Return `work(group)` of every rank, in rank order; raises if one does."""
    _CONTEXT.set_forkserver_preload(["pytest", "sklearn.datasets", "dtjob_trainer.mechanism.step"])
    with tempfile.TemporaryDirectory() as folder:
        pipes, processes = [], []
        for rank in range(world_size):
            receiver, sender = _CONTEXT.Pipe(duplex=False)
            process = _CONTEXT.Process(
                target=_rank, args=(work, rank, world_size, str(Path(folder) / "store"), sender)
            )
            process.start()
            sender.close()
            pipes.append(receiver)
            processes.append(process)
        try:
            answers = [_answer(pipe) for pipe in pipes]
        finally:
            for process in processes:
                process.join(5)
                if process.is_alive():
                    process.kill()
                    process.join()
    for failed, value in answers:
        if failed:
            raise AssertionError(f"a rank failed:\n{value}")
    return [value for _, value in answers]


def _answer(pipe: Any) -> tuple[bool, Any]:
    if not pipe.poll(_DEADLINE_SECONDS):
        return True, f"no answer in {_DEADLINE_SECONDS} s"
    try:
        answer: tuple[bool, Any] = pipe.recv()
        return answer
    except EOFError:
        return True, "the process ended without an answer"


def _rank(work: Callable[..., Any], rank: int, world_size: int, path: str, sender: Any) -> None:
    import torch
    from torch.distributed import FileStore  # type: ignore[attr-defined]

    from dtjob_trainer.mechanism.group import Group

    try:
        store = FileStore(path, world_size)
        group = Group.join(
            store, rank, world_size, torch.device("cpu"), timedelta(seconds=_DEADLINE_SECONDS)
        )
        sender.send((False, work(group)))
        group.gather_bytes(b"\0")  # who leaves early takes the others' connections away
        group.close()
    except BaseException:
        sender.send((True, traceback.format_exc()))
