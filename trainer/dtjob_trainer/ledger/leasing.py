"""The draws that an attempt leases, and its rank 0 gives out (rules 10 to 12).

One operation moves everything forward: a durable checkpoint, then ONE write of the ledger that
names it and leases the next draws, then the journal, and only then is a draw given out. What a
crash leaves behind at any point of it is at worst draws that are charged and never used.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from dtjob_api.ledger.privacy_ledger import (
    MAX_RESULT_BYTES,
    CheckpointRecord,
    Lease,
    LedgerSpec,
    LedgerStatus,
    Outcome,
    OutcomeState,
    PrivacyLedger,
    Provenance,
    Segment,
)
from dtjob_api.reasons import Reason
from dtjob_api.wire.worker_config import WorkerConfig
from dtjob_trainer.ledger import recovery, volume
from dtjob_trainer.ledger.backend import Ledger, LedgerUnreadable, Superseded, clipped, update
from dtjob_trainer.ledger.checkpoint import (
    Checkpoint,
    CheckpointStore,
    CheckpointUnusable,
    TrainingState,
)
from dtjob_trainer.ledger.checkpoint_format import Format
from dtjob_trainer.ledger.journal import Entry, Header, Journal
from dtjob_trainer.ledger.lease import next_lease, with_lease
from dtjob_trainer.ledger.recovery import ResumePoint, TrainingHeld


class ReserveSpent(Exception):
    """Rule 12: no draw is left before the last step; the last checkpoint is the result."""


class LeasedDraws:
    """The draws of one attempt, used by its rank 0 alone.

    `resume()`, then `open(…)`; then `next_draw()` before each step, `publish` where
    it returns None; `close` or `succeed` at the end. Every write carries the attempt: once
    another one has begun they raise `Superseded`, and only draws already leased remain.

    Parameters
    ----------
    attempt
        Number from `dtjob_trainer.gang.attempts.begin_attempt`; nobody else has it.
    clock
        Gives the aware time that records carry.
    """

    def __init__(
        self,
        ledger: Ledger,
        checkpoints: CheckpointStore,
        attempt: int,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self._ledger, self._checkpoints, self._attempt = ledger, checkpoints, attempt
        self._clock = clock
        self._provenance: Provenance | None = None
        self._journal: Journal | None = None
        self._record: CheckpointRecord | None = None
        self._charged = 0
        self._segments: tuple[Segment, ...] = ()
        self._initial_model_digest: str | None = None
        self._steps = 0
        self._next_draw = 0
        self._end_of_lease = 0
        self._last_step = 0  # the step that the draws given out so far can have reached
        self._reserve_spent = False
        self._ended = False

    @property
    def charged(self) -> int:
        """Draws charged over all attempts, as of the last write."""
        return self._charged

    @property
    def recorded(self) -> CheckpointRecord | None:
        """The checkpoint that the ledger points to, as of the last write."""
        return self._record

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The charged draws by noise multiplier, sample rate and provenance (rule 14)."""
        return self._segments

    @property
    def initial_model_digest(self) -> str | None:
        """Of the weights that training began with, over all attempts (rule 5)."""
        return self._initial_model_digest

    def resume(self) -> tuple[ResumePoint, Checkpoint | None]:
        """Read ledger and volume, and the checkpoint to go on from (None before the first).

        Raises
        ------
        recovery.TrainingHeld
            Rule 11: going on could spend what nobody has counted, or would start over.
        Superseded, LedgerUnreadable, durable.VolumeUnusable
        """
        ledger = self._ledger.read().ledger
        if ledger.status.attempt != self._attempt:
            raise Superseded(
                f"attempt {self._attempt} was superseded: the ledger is at attempt "
                f"{ledger.status.attempt}"
            )
        try:
            point = volume.resume_point(ledger, self._checkpoints)
        except TrainingHeld as refusal:
            volume.record_proof(self._ledger, self._attempt, refusal, self._checkpoints)
            raise
        checkpoint = None
        if point.checkpoint is not None:
            try:
                checkpoint = self._checkpoints.load(point.checkpoint)
            except CheckpointUnusable as error:
                raise recovery.checkpoint_lost(str(error)) from error
        self._record, self._charged = point.checkpoint, ledger.status.charged
        self._segments = tuple(ledger.status.segments)
        self._initial_model_digest = ledger.status.initial_model_digest
        self._next_draw = self._end_of_lease = point.next_draw
        self._last_step = point.step
        self._steps = ledger.spec.plan.steps
        header = Header(ledger.spec.job_uid, self._attempt, ledger.status.charged)
        self._journal = Journal(self._checkpoints.state_dir, header)
        return point, checkpoint

    def has_tried(self, task_digest: str | None) -> bool:
        """Whether this run has leased draws for a task of that digest, whose dry run had passed.

        Of a task without one nobody knows.
        """
        tried = {segment.task_digest for segment in self._segments}
        return self._record is not None and task_digest is not None and task_digest in tried

    def open(self, state: TrainingState, checkpoint_bytes: int, provenance: Provenance) -> None:
        """Check the volume, start the journal and take the first lease.

        Parameters
        ----------
        state
            Initial weights; saved as step 0's checkpoint unless one is recorded.
        checkpoint_bytes
            Size of one checkpoint, see `checkpoint.expected_bytes`.
        provenance
            By what this attempt makes its draws; a change opens a segment (rule 14).

        Raises
        ------
        Superseded, durable.VolumeFull, durable.VolumeUnusable, LedgerRejected, LedgerUnreadable
        """
        journal = self._journaled()
        try:
            journal.create()
        except FileExistsError as error:
            raise Superseded(
                f"attempt {self._attempt} has a journal already ({journal.path}): somebody else "
                "runs under its number; take a new one"
            ) from error
        self._checkpoints.clear_unfinished(self._attempt)
        if self._record is not None:
            self._checkpoints.prune(self._record, self._attempt)
        self._checkpoints.require_room(checkpoint_bytes)
        if self._initial_model_digest is None:
            self._initial_model_digest = f"sha256:{self._checkpoints.digest(state.model)}"
        self._provenance = provenance
        self._advance(self._last_step, state, room=checkpoint_bytes)

    def next_draw(self) -> int | None:
        """The draw for the next step, each number once; None where `publish` is due.

        Raises
        ------
        ReserveSpent
            Rule 12: the last lease was refused; `succeed` with what `publish` saved.
        """
        if self._ended:
            raise RuntimeError("the account is closed")
        if self._next_draw < self._end_of_lease:
            self._next_draw += 1
            self._last_step += 1
            return self._next_draw - 1
        if self._reserve_spent:
            raise ReserveSpent(
                f"all reserved draws are charged ({self._charged}): lost leases have used up "
                "the replay reserve; the last checkpoint is the result"
            )
        return None

    def publish(self, step: int, state: TrainingState) -> None:
        """Make the state of `step` the job's checkpoint and lease what comes after it.

        Raises
        ------
        Superseded
            This attempt has been replaced; the file it wrote stays invisible.
        durable.VolumeFull, durable.VolumeUnusable
            The checkpoint before it and the ledger stand as they were.
        LedgerRejected, LedgerUnreadable
        """
        self._advance(step, state)

    def close(self, step: int, state: TrainingState) -> None:
        """Rule 10, orderly stop: checkpoint durable, the rest of the lease for the successor.

        Raises
        ------
        As `publish`.
        """
        self._end(step, state, {})

    def succeed(
        self,
        step: int,
        state: TrainingState,
        *,
        result: dict[str, Any],
        message: str,
    ) -> None:
        """Make the state of `step` the result: checkpoint and outcome in one write.

        The reason is `Completed` at the plan's last step and `PrivacyBudgetExhausted` before
        it; at step 0 there is no result, and the job has failed for that reason (rule 12).

        Raises
        ------
        ValueError
            Draws are left before the last step, or the ledger has no room for the result; the
            last published checkpoint stands.
        As `publish`.
        """
        if step < self._steps and not self._reserve_spent:
            raise ValueError(f"step {step} of {self._steps} is no result while draws are left")
        if (size := len(json.dumps(result).encode())) > MAX_RESULT_BYTES:
            raise ValueError(f"the result has {size} bytes as JSON, at most {MAX_RESULT_BYTES}")
        outcome = Outcome(
            state=OutcomeState.SUCCEEDED if step else OutcomeState.FAILED,
            reason=Reason.COMPLETED if step == self._steps else Reason.PRIVACY_BUDGET_EXHAUSTED,
            message=clipped(message),
            time=self._clock(),
            result=result if step else None,
        )
        self._end(step, state, {"outcome": outcome})

    def _advance(self, step: int, state: TrainingState, room: int = 0) -> None:
        self._require_live()
        provenance = self._opened()
        record = self._durable(step, state)
        if room:
            # To find out that the next checkpoint has no room must not cost a lease.
            self._checkpoints.prove_room(self._attempt, room)
        lease_is_used_up = self._next_draw == self._end_of_lease

        def change(newest: PrivacyLedger) -> LedgerStatus | None:
            status = newest.status
            if self._granted(status) is not None:
                return None  # the answer to this very write was lost
            self._require_own_charge(status)
            lease = None
            if lease_is_used_up:
                lease = next_lease(newest, self._attempt, self._next_draw, step)
            if lease is None:
                changed = status.model_copy(update={"checkpoint": record})
                return None if changed == status else changed
            leased = with_lease(newest, lease, record, provenance)
            return leased.model_copy(update={"initial_model_digest": self._initial_model_digest})

        newest = update(self._ledger, self._attempt, change).ledger
        self._record, self._charged = record, newest.status.charged
        self._segments = tuple(newest.status.segments)
        self._last_step = step
        if lease_is_used_up:
            lease = self._granted(newest.status)
            self._reserve_spent = lease is None and step < self._steps
            if lease is not None:
                self._journaled().append(Entry(lease.from_draw, lease.to_draw, lease.from_step))
                self._end_of_lease = lease.to_draw
        self._checkpoints.prune(record, self._attempt)

    def _end(self, step: int, state: TrainingState, update_with: dict[str, Any]) -> None:
        self._require_live()
        record = self._durable(step, state)

        def change(newest: PrivacyLedger) -> LedgerStatus | None:
            status, lease = newest.status, newest.status.lease
            if lease is not None and lease.attempt == self._attempt:
                lease = lease.model_copy(update={"closed_at": self._next_draw})
            changed = status.model_copy(
                update={"checkpoint": record, "lease": lease, **update_with}
            )
            return None if changed == status else changed

        update(self._ledger, self._attempt, change)
        self._record, self._ended = record, True
        self._checkpoints.prune(record, self._attempt)

    def _durable(self, step: int, state: TrainingState) -> CheckpointRecord:
        """The record of `step`, saved now unless the ledger already points to that step."""
        first = self._record.step if self._record else 0
        if not first <= step <= self._last_step:
            raise ValueError(
                f"step {step} can't follow: the draws handed out lead from step {first} to "
                f"{self._last_step} at most"
            )
        if self._record is not None and self._record.step == step:
            return self._record
        return self._checkpoints.save(self._attempt, step, self._charged, state, self._clock())

    def _granted(self, status: LedgerStatus) -> Lease | None:
        """The ledger's lease if it follows the draws that this attempt has used."""
        lease = status.lease
        mine = lease is not None and lease.attempt == self._attempt
        return lease if mine and lease and lease.from_draw == self._end_of_lease else None

    def _require_own_charge(self, status: LedgerStatus) -> None:
        if status.charged != self._charged:
            raise LedgerUnreadable(
                f"the ledger has charged {status.charged} draws where attempt {self._attempt} "
                f"left {self._charged}: somebody else has written to it. Nothing was leased; "
                "start a new attempt"
            )

    def _require_live(self) -> None:
        if self._ended:
            raise RuntimeError("the account is closed")
        self._journaled()

    def _opened(self) -> Provenance:
        if self._provenance is None:
            raise RuntimeError("open() comes first: it tells by what draws are made")
        return self._provenance

    def _journaled(self) -> Journal:
        if self._journal is None:
            raise RuntimeError("resume() comes first: it finds the draws that are left")
        return self._journal


def resumed(
    ledger: Ledger, config: WorkerConfig, attempt: int, format: Format | None = None
) -> tuple[LeasedDraws, LedgerSpec, Checkpoint | None]:
    """The leased draws of an attempt, what its ledger promises, and the checkpoint to go on from.

    Raises
    ------
    As `LeasedDraws.resume`.
    """
    spec = ledger.read().ledger.spec
    store = volume.store(spec, config, format)
    leased = LeasedDraws(
        ledger,
        store,
        attempt,
        clock=lambda: datetime.now(UTC),
    )
    _, checkpoint = leased.resume()
    return leased, spec, checkpoint
