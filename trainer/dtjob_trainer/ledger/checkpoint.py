"""Checkpoints: `attempt-<a>/step-<s>.pt` on the checkpoint volume.

A file is nobody's checkpoint until the ledger names it together with its SHA-256 (privacy.md,
rules 10 and 14), so there is no `latest` file that a stale process could move.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from pydantic import ValidationError

from dtjob_api.job.training import MAX_STEPS
from dtjob_api.ledger.privacy_ledger import CheckpointRecord, PrivacyPlan
from dtjob_api.model import first_error
from dtjob_trainer.ledger import durable
from dtjob_trainer.ledger.checkpoint_format import Format, TorchFormat
from dtjob_trainer.ledger.hashing import Hashing
from dtjob_trainer.ledger.journal import attempt_folder, attempts_on, numbered
from dtjob_trainer.ledger.room import with_room

if TYPE_CHECKING:
    import torch

_FILE = re.compile(r"step-(0|[1-9][0-9]*)\.pt")
_OVERHEAD_BYTES = 64 * 1024
_OVERHEAD_BYTES_PER_TENSOR = 1024


class CheckpointUnusable(Exception):
    """The recorded checkpoint is missing, or not what was saved; the message says which."""


@dataclass(frozen=True)
class TrainingState:
    """What a checkpoint keeps of the training: two `state_dict()` results, on any device."""

    model: Mapping[str, torch.Tensor]
    optimizer: Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read back and checked; tensors are on the CPU."""

    step: int
    charged: int
    parameter_digest: str
    state: TrainingState


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint file seen on the volume, recorded in the ledger or not."""

    attempt: int
    step: int
    path: Path


class CheckpointStore:
    """The checkpoints of one job.

    Parameters
    ----------
    state_dir
        The checkpoint volume.
    job_uid, plan
        Written into every checkpoint; one of another job or plan is refused.
    keep
        How many of the newest checkpoints stay on the volume, at least 1.
    format
        Of the files.
    """

    def __init__(
        self,
        state_dir: Path,
        job_uid: str,
        plan: PrivacyPlan,
        keep: int,
        format: Format | None = None,
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep is {keep}: the newest checkpoint must stay, so at least 1")
        self.state_dir, self.job_uid, self.keep = state_dir, job_uid, keep
        self._plan_digest = plan_digest(plan)
        self._format = format or TorchFormat()

    def digest(self, model: Mapping[str, torch.Tensor]) -> str:
        """A digest of a model's parameters, in hex."""
        return self._format.digest(model)

    def save(
        self, attempt: int, step: int, charged: int, state: TrainingState, now: datetime
    ) -> CheckpointRecord:
        """Write a checkpoint; it is on the disk when this returns, and not yet in the ledger.

        Parameters
        ----------
        charged
            Draws charged when it is taken.

        Raises
        ------
        durable.VolumeFull, durable.VolumeUnusable
            Earlier checkpoints are untouched.
        """
        payload = {
            "job_uid": self.job_uid,
            "plan_digest": self._plan_digest,
            "attempt": attempt,
            "step": step,
            "charged": charged,
            "parameter_digest": self.digest(state.model),
            "model": dict(state.model),
            "optimizer": dict(state.optimizer),
        }
        path = attempt_folder(self.state_dir, attempt) / f"step-{step}.pt"
        expected = expected_bytes(state)
        sha256 = with_room(self.state_dir, lambda: self._written(path, payload, expected))
        return CheckpointRecord(
            step=step,
            charged=charged,
            attempt=attempt,
            path=str(path.relative_to(self.state_dir)),
            sha256=sha256,
            time=now,
        )

    def _written(self, path: Path, payload: Mapping[str, Any], expected: int) -> str:
        """Write a checkpoint file; its SHA-256, in hex."""
        with durable.new_file(path, replace=True, expected=expected) as file:
            hashing = Hashing(file)
            try:
                self._format.write(payload, cast(BinaryIO, hashing))
            except RuntimeError:
                if hashing.failure is None:
                    raise
                # torch hides the file's error behind an "unexpected pos" of its own.
                raise hashing.failure from None
        return hashing.hexdigest()

    def load(self, record: CheckpointRecord) -> Checkpoint:
        """Read the recorded checkpoint back.

        Raises
        ------
        CheckpointUnusable
            Missing, torn, another job's, another step's, or not readable with
            `weights_only=True`. Nothing is deleted.
        durable.VolumeUnusable
            It is not known whether it is there, or this process may not read it.
        """
        with self._open(record) as file:
            payload = self._payload(file, record.path, record.attempt, record.step)
        if (found := payload.get("charged")) != record.charged:
            raise self._unusable(record.path, f"its charged is {found!r}, not {record.charged!r}")
        return Checkpoint(
            record.step,
            record.charged,
            payload["parameter_digest"],
            TrainingState(payload["model"], payload["optimizer"]),
        )

    def files(self) -> list[CheckpointFile]:
        """All checkpoint files on the volume, ascending by attempt, then step."""
        files = []
        for attempt in attempts_on(self.state_dir):
            files += [
                CheckpointFile(attempt, numbered(path, match.group(1), 0, MAX_STEPS), path)
                for path in durable.entries(attempt_folder(self.state_dir, attempt))
                if (match := _FILE.fullmatch(path.name))
            ]
        return sorted(files, key=lambda file: (file.attempt, file.step))

    def newest_whole(self) -> CheckpointRecord | None:
        """A record of the newest file on the volume that is this job's checkpoint, whole.

        Where the ledger's own record was lost, the digest that it held can't be compared; the
        parameters' digest inside the file is.

        What can't be read now may be newer, and whole: that is durable.VolumeUnusable.
        """
        for file in reversed(self.files()):
            try:
                return self._record_of(file)
            except CheckpointUnusable:
                continue
        return None

    def prune(self, record: CheckpointRecord, attempt: int) -> None:
        """Remove what the ledger has moved past; call it only once the ledger names `record`.

        Parameters
        ----------
        record
            The ledger's. It and the `keep` - 1 files before it stay.
        attempt
            The caller's. Earlier attempts can't publish any more, so what they left unpublished
            goes; a later attempt's files are not touched, for then the caller is the stale one.
        """
        newest = (record.attempt, record.step)
        files = self.files()
        published = [file for file in files if (file.attempt, file.step) <= newest]
        orphans = [
            file for file in files if newest < (file.attempt, file.step) and file.attempt < attempt
        ]
        for file in published[: -self.keep] + orphans:
            if file.path != self.state_dir / record.path:
                durable.remove(file.path)

    def clear_unfinished(self, attempt: int) -> None:
        """Remove what `attempt` and earlier ones left half-written; none of them writes now."""
        for past in attempts_on(self.state_dir):
            if past <= attempt:
                folder = attempt_folder(self.state_dir, past)
                for path in folder.glob(f".step-*{durable.TEMPORARY_SUFFIX}"):
                    durable.remove(path)

    def require_room(self, size: int) -> None:
        """Check before training that the volume can hold `keep` + 1 checkpoints.

        Parameters
        ----------
        size
            Bytes of one checkpoint; see `expected_bytes`.

        Raises
        ------
        durable.VolumeFull, durable.VolumeUnusable
        """
        held = sum(durable.size(file.path) for file in self.files())
        needed = (self.keep + 1) * size - held
        with_room(self.state_dir, lambda: self._check_free(needed, size))

    def _check_free(self, needed: int, size: int) -> None:
        if needed > (free := durable.free_bytes(self.state_dir)):
            raise durable.VolumeFull(
                self.state_dir / "checkpoints",
                needed,
                free,
                f"checkpoint.keep + 1 = {self.keep + 1} checkpoints of {size} bytes",
            )

    def prove_room(self, attempt: int, size: int) -> None:
        """Write a file of `size` bytes and remove it: no figure shows quotas and limits.

        Raises
        ------
        durable.VolumeFull, durable.VolumeUnusable
        """
        folder = attempt_folder(self.state_dir, attempt)
        path = folder / f".step-room{durable.TEMPORARY_SUFFIX}"
        with_room(self.state_dir, lambda: durable.write_in_vain(path, size))

    def _record_of(self, file: CheckpointFile) -> CheckpointRecord:
        path = str(file.path.relative_to(self.state_dir))
        with self._readable(path) as opened:
            digest = self._digest(path, opened)
            opened.seek(0)
            payload = self._payload(opened, path, file.attempt, file.step)
            written = datetime.fromtimestamp(os.fstat(opened.fileno()).st_mtime, UTC)
        try:
            return CheckpointRecord(
                step=file.step,
                charged=payload["charged"],
                attempt=file.attempt,
                path=path,
                sha256=digest,
                time=written,
            )
        except ValidationError as error:
            raise self._unusable(path, first_error(error)) from error

    def _open(self, record: CheckpointRecord) -> BufferedReader:
        if durable.is_absent(self.state_dir / record.path):
            raise self._unusable(record.path, "it is gone")
        file = self._readable(record.path)
        digest = self._digest(record.path, file)
        if digest != record.sha256:
            file.close()
            raise self._unusable(
                record.path, f"its SHA-256 is {digest}, the ledger's record says {record.sha256}"
            )
        file.seek(0)
        return file

    def _readable(self, path: str) -> BufferedReader:
        try:
            return durable.open_file(self.state_dir / path)
        except durable.NoFile as error:
            raise CheckpointUnusable(f"checkpoint {error}") from error

    def _digest(self, path: str, file: BufferedReader) -> str:
        with durable.known(self.state_dir / path):
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _payload(self, file: BinaryIO, path: str, attempt: int, step: int) -> dict[str, Any]:
        """What a checkpoint file holds, once it is found to be this job's, whole, of that step."""
        try:
            payload = dict(self._format.read(file))
        except Exception as error:
            raise self._unusable(path, f"torch can't load it: {error}") from error
        try:
            wrong = self._wrong(payload, attempt, step)
        except Exception as error:  # its fields may be of any type, and raise anything
            raise self._unusable(path, f"it is no checkpoint: {error!r}") from error
        if wrong:
            raise self._unusable(path, wrong)
        return payload

    def _wrong(self, payload: Mapping[str, Any], attempt: int, step: int) -> str | None:
        expected = {
            "job_uid": self.job_uid,
            "plan_digest": self._plan_digest,
            "attempt": attempt,
            "step": step,
        }
        for name, value in expected.items():
            if (found := payload.get(name)) != value:
                return f"its {name} is {found!r}, not {value!r}"
        if missing := {"charged", "model", "optimizer", "parameter_digest"} - payload.keys():
            return f"it has no {min(missing)}"
        if self.digest(payload["model"]) != payload["parameter_digest"]:
            return "its parameters don't match their digest"
        return None

    def _unusable(self, path: str, why: str) -> CheckpointUnusable:
        return CheckpointUnusable(f"checkpoint {self.state_dir / path}: {why}")


def expected_bytes(state: TrainingState, optimizer_slots: int = 0) -> int:
    """Bytes that a checkpoint of `state` will take, rounded up.

    Parameters
    ----------
    optimizer_slots
        Tensors of a parameter's size that the optimizer keeps once it has stepped (plain SGD 0,
        Adam 2); before its first step its state is empty.
    """
    optimizer = list(_tensors(state.optimizer))
    model_bytes = sum(tensor.nbytes for tensor in state.model.values())
    optimizer_bytes = max(sum(tensor.nbytes for tensor in optimizer), optimizer_slots * model_bytes)
    count = len(optimizer) + (1 + optimizer_slots) * len(state.model)
    overhead = _OVERHEAD_BYTES + _OVERHEAD_BYTES_PER_TENSOR * count
    return model_bytes + optimizer_bytes + overhead


def plan_digest(plan: PrivacyPlan) -> str:
    """SHA-256, in hex, of a plan's JSON with sorted keys and without what is absent."""
    fields = plan.model_dump(mode="json", by_alias=True, exclude_none=True)
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _tensors(value: object) -> list[torch.Tensor]:
    if isinstance(value, Mapping):
        return [tensor for item in value.values() for tensor in _tensors(item)]
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in _tensors(item)]
    return [cast("torch.Tensor", value)] if hasattr(value, "nbytes") else []
