"""Where a new attempt goes on, and when it must not (rule 11)."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dtjob_api.ledger.lease_rules import next_unused_draw
from dtjob_api.ledger.ledger_rules import breaches
from dtjob_api.ledger.privacy_ledger import (
    CheckpointRecord,
    Lease,
    PrivacyLedger,
    Segment,
    VolumeRecord,
)
from dtjob_api.reasons import Reason
from dtjob_api.schema.validation import validate
from dtjob_trainer.gang.attempts import AttemptEnd, end_attempt, record_drained
from dtjob_trainer.ledger.backend import Superseded
from dtjob_trainer.ledger.checkpoint import CheckpointStore
from dtjob_trainer.ledger.durable import VolumeUnusable
from dtjob_trainer.ledger.file_ledger import FileLedger
from dtjob_trainer.ledger.journal import AttemptJournal, Entry, Header, Journal, attempt_folder
from dtjob_trainer.ledger.leasing import LeasedDraws, ReserveSpent
from dtjob_trainer.ledger.recovery import (
    ResumePoint,
    TrainingHeld,
    VolumeState,
    contradiction,
    restored,
    resume_point,
    vouched,
)
from dtjob_trainer.ledger.volume import read_volume
from tests.support.builders import UID, checkpoint, new_ledger, spent, tiny_plan
from tests.support.ledgers.durability import Job, state_at

RECORD = checkpoint(2, 2)


def ledger(**changes: Any) -> PrivacyLedger:
    """Attempt 2 begins after attempt 1 leased draws 2 and 3 from its checkpoint at step 2."""
    fields: dict[str, Any] = {
        "attempt": 2,
        "charged": 4,
        "lease": Lease(attempt=1, from_draw=2, to_draw=4, from_step=2),
        "segments": [Segment(draws=4, image="a", noise_multiplier=2.0, sample_rate=0.25)],
        "checkpoint": RECORD,
    }
    return new_ledger(tiny_plan(), **(fields | changes))


def journal(*entries: Entry, attempt: int = 1, charged: int = 0, uid: str = UID) -> Any:
    return AttemptJournal(Path("journal"), Header(uid, attempt, charged), entries)


JOURNAL = journal(Entry(0, 2, 0), Entry(2, 4, 2))
FILES = ((1, 0), (1, 2))
CLOSED = Lease(attempt=1, from_draw=2, to_draw=4, from_step=2, closed_at=3)


def on_volume(
    journals: Sequence[AttemptJournal], checkpoints: Sequence[tuple[int, int]], *empty: int
) -> VolumeState:
    """Journals, checkpoint files, and folders of attempts that left nothing else."""
    attempts = {*empty, *(j.header.attempt for j in journals), *(a for a, _ in checkpoints)}
    return VolumeState(sorted(attempts), journals, checkpoints)


def refused(newest: PrivacyLedger, volume: VolumeState) -> tuple[Reason, str]:
    with pytest.raises(TrainingHeld) as refusal:
        resume_point(newest, volume)
    assert "Nothing was " in refusal.value.message
    return refusal.value.reason, refusal.value.message


@pytest.mark.rule(10)
def test_a_lost_lease_is_spent_whole() -> None:
    assert resume_point(ledger(), on_volume([JOURNAL], FILES)) == ResumePoint(2, 4, RECORD)


@pytest.mark.rule(10)
def test_a_closed_lease_is_used_up() -> None:
    point = resume_point(ledger(lease=CLOSED), on_volume([JOURNAL], FILES))
    assert point.next_draw == 3


def test_an_empty_ledger_starts_at_zero() -> None:
    point = resume_point(new_ledger(tiny_plan(), attempt=1), on_volume([], ()))
    assert point == ResumePoint(0, 0, None)


def test_ledger_ahead_of_the_journal_is_a_crash_between_the_two() -> None:
    one_behind = journal(Entry(0, 2, 0))
    assert resume_point(ledger(), on_volume([one_behind], FILES)).next_draw == 4


def test_checkpoint_ahead_of_the_ledger_in_step_is_a_crash_before_the_write() -> None:
    assert resume_point(ledger(), on_volume([JOURNAL], [*FILES, (1, 4)])).step == 2


@pytest.mark.rule(11)
def test_raised_ledger_forgets_the_close_of_an_older_lease() -> None:
    """After `restore` nothing below the raised charge is given out."""
    raised = ledger(
        charged=7,
        lease=CLOSED,
        segments=[Segment(draws=7, image="a", noise_multiplier=2.0, sample_rate=0.25)],
    )
    assert resume_point(raised, on_volume([JOURNAL], FILES)).next_draw == 7


@pytest.mark.rule(11)
@pytest.mark.parametrize(
    ("volume", "words"),
    [
        (
            on_volume([journal(Entry(0, 2, 0), Entry(2, 5, 2))], FILES),
            "holds a lease up to draw 5, the ledger has charged 4",
        ),
        (
            on_volume([JOURNAL, journal(attempt=3, charged=4)], FILES),
            "is of attempt 3, the ledger is at attempt 2",
        ),
        (on_volume([JOURNAL, journal(attempt=2, charged=6)], FILES), "up to draw 6"),
        (
            on_volume(
                [journal(attempt=n, charged=charged) for n, charged in ((3, 6), (5, 9), (4, 7))],
                [*FILES, (4, 7)],
            ),
            "up to draw 9",
        ),
        (
            on_volume([journal(attempt=3, charged=6)], [*FILES, (3, 5), (4, 8)]),
            "step 8 of attempt 4 is on the volume",
        ),
        (on_volume([JOURNAL], [*FILES, (1, 5)]), "step 5 of attempt 1 is on the volume"),
        (on_volume([JOURNAL], [*FILES, (3, 1)]), "step 1 of attempt 3 is on the volume"),
        (on_volume([JOURNAL, journal(attempt=3, charged=9)], FILES, 7), "up to draw 9"),
    ],
    ids=[
        "lease",
        "attempt",
        "header",
        "of several journals",
        "beyond its journal",
        "checkpoint step",
        "checkpoint attempt",
        "empty folder beside a journal that proves more",
    ],
)
def test_ledger_behind_journal_or_checkpoint_is_privacy_state_lost(
    volume: VolumeState, words: str
) -> None:
    """Spending that the ledger has forgotten."""
    reason, message = refused(ledger(), volume)
    assert reason is Reason.PRIVACY_STATE_LOST
    assert words in message
    assert "dtjob ledger restore" in message


@pytest.mark.rule(11)
@pytest.mark.parametrize(
    ("volume", "words"),
    [
        (on_volume([], ()), "the journal of attempt 1, which leased them, is not on"),
        (on_volume([journal(attempt=2)], ()), "the journal of attempt 1"),
        (on_volume([journal(Entry(0, 1, 0))], FILES), "is older than the ledger"),
        (on_volume([journal(uid="other")], FILES), "belongs to the job with UID other"),
    ],
    ids=["empty", "attempt missing", "rolled back", "another job's"],
)
def test_volume_lost_while_draws_are_charged_is_checkpoint_lost(
    volume: VolumeState, words: str
) -> None:
    """No silent restart from step 0."""
    reason, message = refused(ledger(), volume)
    assert reason is Reason.CHECKPOINT_LOST
    assert words in message
    assert "training does not start over" in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"checkpoint": None}, "charged is 4 without a checkpoint"),
        ({"segments": []}, "status.segments must hold status.charged"),
        ({"charged": 10, "segments": [Segment(draws=10, image="a")]}, "spec.reservedDraws is 9"),
        (
            {"lease": Lease(attempt=1, from_draw=2, to_draw=5, from_step=2)},
            "must lie within status.charged",
        ),
        (
            {"lease": Lease(attempt=3, from_draw=2, to_draw=4, from_step=2)},
            "no later attempt than status.attempt",
        ),
        ({"lease": CLOSED.model_copy(update={"closed_at": 1})}, "status.lease.closedAt is 1"),
        (
            {"checkpoint": RECORD.model_copy(update={"attempt": 3})},
            "status.checkpoint must not be ahead",
        ),
        ({"checkpoint": RECORD.model_copy(update={"step": 3})}, "nor its step of its charge"),
        ({"checkpoint": RECORD.model_copy(update={"charged": 5})}, "status.charged is 4"),
    ],
)
def test_ledger_that_contradicts_itself_is_refused(changes: dict[str, Any], words: str) -> None:
    reason, message = refused(ledger(**changes), on_volume([JOURNAL], FILES))
    assert reason is Reason.LEDGER_UNREADABLE
    assert "contradicts itself" in message
    assert words in message


@pytest.mark.rule(11)
def test_a_ledger_that_contradicts_itself_hides_no_draws() -> None:
    """No other refusal keeps an outcome from being written."""
    volume = on_volume([JOURNAL, journal(Entry(4, 9, 4), attempt=3, charged=4)], FILES)
    assert contradiction(ledger(checkpoint=None))
    assert refused(ledger(checkpoint=None), volume)[0] is Reason.PRIVACY_STATE_LOST


def test_checkpoint_past_the_plan_contradicts() -> None:
    far = RECORD.model_copy(update={"step": 6, "charged": 6})
    lease = Lease(attempt=1, from_draw=4, to_draw=6, from_step=2)
    segment = Segment(draws=6, image="a")
    found = contradiction(ledger(charged=6, lease=lease, segments=[segment], checkpoint=far))
    assert found is not None
    assert "status.checkpoint must not be ahead of" in found
    assert "spec.plan.steps is 5" in found


# The same on a real volume


def _remove_volume(job: Job) -> None:
    shutil.rmtree(job.state_dir)


def _remove_newest_ledger_versions(job: Job) -> None:
    for _ in range(2):  # the new attempt, and the lease before it
        max((job.root / "ledger").iterdir()).unlink()


def _remove_checkpoint(job: Job) -> None:
    record = job.read().status.checkpoint
    assert record is not None
    (job.state_dir / record.path).unlink()


def _truncate_checkpoint(job: Job) -> None:
    record = job.read().status.checkpoint
    assert record is not None
    file = job.state_dir / record.path
    file.write_bytes(file.read_bytes()[:-1])


def _swap_checkpoints(job: Job) -> None:
    first, second = job.state_dir / "attempt-1/step-0.pt", job.state_dir / "attempt-1/step-2.pt"
    first.rename(job.state_dir / "third")
    second.rename(first)
    (job.state_dir / "third").rename(second)


def _break_journal(job: Job) -> None:
    file = job.state_dir / "attempt-1" / "journal"
    file.write_bytes(file.read_bytes().replace(b"to_draw", b"to_drew", 1))


def _remove_journal(job: Job) -> None:
    (job.state_dir / "attempt-1" / "journal").unlink()


@pytest.mark.rule(11)
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_remove_volume, Reason.CHECKPOINT_LOST),
        (_remove_newest_ledger_versions, Reason.PRIVACY_STATE_LOST),
        (_remove_checkpoint, Reason.CHECKPOINT_LOST),
        (_truncate_checkpoint, Reason.CHECKPOINT_LOST),
        (_swap_checkpoints, Reason.CHECKPOINT_LOST),
        (_break_journal, Reason.CHECKPOINT_LOST),
        (_remove_journal, Reason.CHECKPOINT_LOST),
    ],
)
def test_damage_is_refused_and_nothing_is_lost(
    damage: Callable[[Job], None], reason: Reason, tmp_path: Path
) -> None:
    """Refused with the reason, what is there stays as it is."""
    job = Job(tmp_path / "job", tiny_plan(steps=5, lease_steps=2, reserve=3))
    job.create()
    leased, _ = job.opened()
    assert [job.draw(leased), job.draw(leased)] == [0, 1]
    leased.publish(2, state_at(2))
    job.begin()
    damage(job)
    if damage is _remove_newest_ledger_versions:
        job.ledger = FileLedger(job.root / "ledger")
    before = {path: path.read_bytes() for path in job.root.rglob("*") if path.is_file()}
    attempt = job.read().status.attempt
    with pytest.raises(TrainingHeld) as refusal:
        job.leased(attempt).resume()
    assert refusal.value.reason is reason
    assert "Nothing was " in refusal.value.message
    after = {path: path.read_bytes() for path in job.root.rglob("*") if path.is_file()}
    assert after.items() >= before.items()
    proven = job.read().status.volume
    assert len(after) - len(before) == (proven is not None)
    assert (proven is not None) == (reason is Reason.PRIVACY_STATE_LOST)


@pytest.mark.rule(11)
def test_a_folder_that_an_attempt_left_empty_tells_of_the_attempt(tmp_path: Path) -> None:
    """Its journal may have held a lease. A stray one costs nothing once it is gone."""
    job = Job(tmp_path / "job", tiny_plan(steps=5, lease_steps=2, reserve=6))
    job.create()
    job.run(stop_after=2)
    attempt_folder(job.state_dir, 9).mkdir()
    for _ in range(2):
        with pytest.raises(TrainingHeld, match="the folder of attempt 9") as refusal:
            job.opened()
        assert refusal.value.reason is Reason.PRIVACY_STATE_LOST
        assert "take it away or give it its name back" in refusal.value.message
    assert job.read().status.volume is None
    attempt_folder(job.state_dir, 9).rmdir()
    job.run()
    assert job.check().status.outcome is not None


# A ledger that was behind, raised


BEHIND = ledger(**spent(2), lease=None)
AHEAD = RECORD.model_copy(update={"step": 3, "charged": 4, "attempt": 3})


@pytest.mark.rule(11)
def test_a_raised_ledger_covers_the_volume_and_one_open_lease() -> None:
    volume = VolumeRecord(attempt=3, charged=4, checkpoint=AHEAD)
    status = restored(BEHIND.model_copy(), volume)
    lease_steps = BEHIND.spec.plan.lease_steps
    assert (status.attempt, status.restored, status.charged) == (3, 3, 4 + lease_steps)
    assert (status.checkpoint, status.volume) == (AHEAD, None)
    raised = BEHIND.model_copy(update={"status": status})
    assert contradiction(raised) is None
    assert breaches(BEHIND, raised) == []
    assert next_unused_draw(status) == status.charged
    raised_fields = {"attempt", "restored", "charged", "segments", "checkpoint", "volume"}
    before, after = BEHIND.status.model_dump(), status.model_dump()
    changed = {name for name in after if after[name] != before[name]}
    assert changed <= raised_fields


def test_a_ledger_is_raised_no_higher_than_its_reserve() -> None:
    reserved = BEHIND.spec.reserved_draws
    status = restored(BEHIND, VolumeRecord(attempt=2, charged=reserved, checkpoint=AHEAD))
    assert status.charged == reserved


@pytest.mark.rule(11, 13)
def test_what_a_volume_proves_beyond_the_reserve_stays_in_the_ledger() -> None:
    """Its epsilon is of the draws that were spent, charged or not."""
    volume = VolumeRecord(
        attempt=3, charged=BEHIND.spec.reserved_draws + 5, leased=3, checkpoint=AHEAD
    )
    found = BEHIND.model_copy(
        update={"status": BEHIND.status.model_copy(update={"volume": volume})}
    )
    status = restored(found, volume)
    assert (status.charged, status.volume) == (found.spec.reserved_draws, volume)
    assert breaches(found, found.model_copy(update={"status": status})) == []


@pytest.mark.rule(11)
def test_a_ledger_keeps_what_it_knows_better_than_the_volume() -> None:
    status = restored(ledger(attempt=7), VolumeRecord(attempt=3, charged=5))
    assert (status.attempt, status.checkpoint) == (7, RECORD)
    status = restored(ledger(), VolumeRecord(attempt=3, charged=0, checkpoint=RECORD))
    assert (status.attempt, status.charged) == (3, 4 + tiny_plan().lease_steps)


def test_a_raised_ledger_keeps_a_checkpoint_that_the_volume_s_does_not_follow() -> None:
    """A record goes forward only; the API server would refuse any other."""
    back = RECORD.model_copy(update={"attempt": 3, "step": 1})
    status = restored(ledger(), VolumeRecord(attempt=3, charged=6, checkpoint=back))
    assert status.checkpoint == RECORD
    assert breaches(ledger(), ledger().model_copy(update={"status": status})) == []


@pytest.mark.rule(11)
def test_a_volume_vouches_for_the_most_that_anything_on_it_says() -> None:
    files = ((1, 0), (1, 2))
    later = CheckpointRecord.model_validate(RECORD.model_dump() | {"charged": 6, "attempt": 3})
    assert vouched(on_volume([], ()), None) is None
    assert vouched(on_volume([JOURNAL], files), RECORD) == (
        VolumeRecord(attempt=1, leased=1, charged=4, checkpoint=RECORD)
    )
    assert vouched(on_volume([JOURNAL], ((2, 5),)), None) == (
        VolumeRecord(attempt=2, leased=1, charged=5)
    )
    found = vouched(on_volume([JOURNAL, journal(attempt=4, charged=1)], files), later)
    assert found == VolumeRecord(attempt=4, leased=1, charged=6, checkpoint=later)
    assert vouched(on_volume([JOURNAL], files, 7), RECORD) == (
        VolumeRecord(attempt=1, leased=1, charged=4, checkpoint=RECORD)
    ), "an empty folder vouches for nothing that could be charged"


def test_a_ledger_that_is_not_behind_is_not_raised() -> None:
    with pytest.raises(ValueError, match="charged 4 draws in attempt 2, the volume"):
        restored(ledger(), VolumeRecord(attempt=2, charged=4, checkpoint=RECORD))


def test_without_any_checkpoint_there_is_nothing_to_go_on_from() -> None:
    with pytest.raises(TrainingHeld) as refusal:
        restored(new_ledger(tiny_plan()), VolumeRecord(attempt=1, charged=2))
    assert refusal.value.reason is Reason.CHECKPOINT_LOST


FOUND = VolumeRecord(attempt=3, leased=3, charged=9, checkpoint=AHEAD)


@pytest.mark.rule(11)
@pytest.mark.parametrize(
    "newest", [ledger(volume=FOUND), new_ledger(tiny_plan(), attempt=1, volume=FOUND)]
)
def test_what_a_worker_has_found_on_a_volume_outlives_the_volume(newest: PrivacyLedger) -> None:
    """What has been noticed is not forgotten where the files that showed it go, too."""
    reason, message = refused(newest, on_volume([], ()))
    assert reason is Reason.PRIVACY_STATE_LOST
    assert "a worker found 9 draws charged in attempt 3 there" in message


@pytest.mark.parametrize(
    ("lost", "step"), [(lambda _: None, 2), (lambda job: shutil.rmtree(job.state_dir), 3)]
)
def test_what_was_found_before_is_not_taken_back(
    lost: Callable[[Job], None], step: int, tmp_path: Path
) -> None:
    """Who raises the ledger goes by it; a checkpoint is better one that is there."""
    job = Job(tmp_path / "job", tiny_plan(steps=5, lease_steps=2, reserve=3))
    job.create()
    leased, _ = job.opened()
    assert [job.draw(leased), job.draw(leased)] == [0, 1]
    leased.publish(2, state_at(2))
    max((job.root / "ledger").iterdir()).unlink()
    job.ledger = FileLedger(job.root / "ledger")
    attempt, newest = job.begin(), job.ledger.read()
    job.ledger.replace_status(newest, newest.ledger.status.model_copy(update={"volume": FOUND}))
    lost(job)
    with pytest.raises(TrainingHeld):
        job.leased(attempt).resume()
    proven = job.read().status.volume
    assert proven is not None
    assert (proven.attempt, proven.leased, proven.charged) == (3, 3, 9)
    assert proven.checkpoint is not None
    assert proven.checkpoint.step == step


def _volume_of(job: Job) -> VolumeRecord | None:
    store = CheckpointStore(job.state_dir, UID, job.plan, keep=2)
    return vouched(read_volume(store), store.newest_whole())


def _unfinished_job(root: Path) -> Job:
    """Two attempts died within a lease, a third stopped in order; a fourth died."""
    job = Job(root, tiny_plan(steps=12, lease_steps=2, reserve=9))
    job.create()
    for died_at in (3, 3):
        leased, step = job.opened()
        while step < died_at:
            if job.draw(leased) is None:
                leased.publish(step, state_at(step))
            else:
                step += 1
    job.run(stop_after=5)
    leased, _ = job.opened()
    job.draw(leased)
    return job


@pytest.mark.slow
@pytest.mark.rule(10, 11)
def test_from_any_old_version_a_ledger_is_raised_and_its_job_ends_well(tmp_path: Path) -> None:
    """Whatever version came back, no draw is used twice, and all are charged."""
    newest = len(list((_unfinished_job(tmp_path / "whole").root / "ledger").iterdir()))
    raised = 0
    for version in range(1, newest + 1):
        job = _unfinished_job(tmp_path / str(version))
        for lost in range(version + 1, newest + 1):
            (job.root / "ledger" / f"{lost:010d}.json").unlink()
        job.ledger, job.charged = FileLedger(job.root / "ledger"), 0
        with contextlib.suppress(TrainingHeld):
            job.run()
        versioned = job.ledger.read()
        if (volume := versioned.ledger.status.volume) is not None:
            assert volume == _volume_of(job)
            job.ledger.replace_status(versioned, restored(versioned.ledger, volume))
            raised += 1
            job.run()
        assert job.check().status.outcome is not None
    assert raised >= newest // 2


def test_every_write_of_a_job_passes_the_rules_of_the_api_server(tmp_path: Path) -> None:
    """Attempts, leases, checkpoints, a drain, ends, the rest of a lease, a raised ledger, 25 deaths
    in a row and the outcome, as the file holds them, by the CustomResourceDefinition."""
    job = _unfinished_job(tmp_path / "job")
    _remove_newest_ledger_versions(job)
    job.ledger, job.charged = FileLedger(job.root / "ledger"), 0
    with contextlib.suppress(TrainingHeld):
        job.run()
    versioned = job.ledger.read()
    assert versioned.ledger.status.volume is not None
    raised = restored(versioned.ledger, versioned.ledger.status.volume)
    job.ledger.replace_status(versioned, raised)
    for _ in range(25):
        job.begin()
    end = AttemptEnd(Reason.STOPPED)
    end_attempt(job.ledger, job.read().status.attempt, end, job.clock())
    job.opened()
    record_drained(job.ledger, job.read().status.attempt, 1)
    job.run()
    last = job.check().status
    assert last.outcome is not None
    end_attempt(job.ledger, last.attempt, AttemptEnd(Reason.COMPLETED), job.clock())

    files = sorted((job.root / "ledger").iterdir())
    versions = [json.loads(file.read_text()) for file in files]
    assert len(versions) > 45
    for before, after in itertools.pairwise(versions):
        assert validate(after, old=before) == []


@pytest.mark.rule(10, 11)
@pytest.mark.parametrize("stop", [0, 2, 4])
@pytest.mark.parametrize("successors", [1, 3])
@pytest.mark.parametrize("reserve", [0, 6])
def test_the_rest_of_a_lease_is_used_once_though_the_ledger_forgets_it(
    tmp_path: Path, stop: int, successors: int, reserve: int
) -> None:
    """A successor uses the rest without a charge, and then the ledger is older.

    It is refused however often it is tried, and what goes on after it was raised begins behind
    all that was charged.
    """
    job = Job(tmp_path / "job", tiny_plan(steps=5, lease_steps=5, reserve=reserve))
    job.create()
    leased, _ = job.opened()
    for _ in range(stop):
        job.draw(leased)
    leased.close(stop, state_at(stop))
    backup = int(job.ledger.read().version)
    for _ in range(successors):
        with contextlib.suppress(ReserveSpent):
            job.draw(job.opened()[0])
    for newer in (job.root / "ledger").iterdir():
        if int(newer.stem) > backup:
            newer.unlink()
    job.ledger, job.charged = FileLedger(job.root / "ledger"), 0
    spent = list(job.given)
    for _ in range(successors + 2):
        with contextlib.suppress(TrainingHeld, Superseded, ReserveSpent):
            job.draw(job.opened()[0])
    assert job.given == spent
    versioned = job.ledger.read()
    volume = versioned.ledger.status.volume
    assert volume is not None
    assert volume == _volume_of(job)
    job.ledger.replace_status(versioned, restored(versioned.ledger, volume))
    job.run()
    assert job.check().status.outcome is not None


@pytest.mark.parametrize("what", ["journal", "step-2.pt"])
def test_volume_that_may_not_be_read_is_not_taken_for_a_lost_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """It is there; to put it back from a copy, or to start anew, would be the wrong remedy."""
    job = Job(tmp_path)
    job.create()
    job.run(stop_after=2)
    opened = io.open

    def refuse(file: Any, *more: Any, **options: Any) -> Any:
        if Path(file).name == what:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(file, *more, **options)

    monkeypatch.setattr(io, "open", refuse)
    with pytest.raises(VolumeUnusable, match="Permission denied"):
        job.opened()
    monkeypatch.undo()
    job.run()
    assert job.check().status.outcome is not None


def _without(job: Job, attempt: int) -> None:
    shutil.rmtree(attempt_folder(job.state_dir, attempt))


def _training(root: Path) -> tuple[Job, LeasedDraws]:
    """The second attempt of a job, from the first one's checkpoint, at the first draw it leased."""
    job = Job(root, tiny_plan(steps=8, lease_steps=2, reserve=8))
    job.create()
    job.run(stop_after=2)
    leased, _ = job.opened()
    job.draw(leased)
    return job, leased


def test_a_folder_that_is_removed_while_its_attempt_trains_is_named(tmp_path: Path) -> None:
    job, leased = _training(tmp_path)
    job.draw(leased)
    attempt = job.read().status.attempt
    _without(job, attempt)
    with pytest.raises(VolumeUnusable) as refused:
        leased.publish(4, state_at(4))
    folder = attempt_folder(job.state_dir, attempt)
    assert f"{folder} was there before: mount it again, or put it back" in str(refused.value)


@pytest.mark.rule(11)
def test_the_next_attempt_says_what_it_lacks_of_a_removed_folder_and_takes_it_back(
    tmp_path: Path,
) -> None:
    """With the journal of its lease gone the ledger can't be told from an older copy."""
    job, _ = _training(tmp_path)
    attempt = job.read().status.attempt
    folder, copy = attempt_folder(job.state_dir, attempt), tmp_path / "copy"
    folder.rename(copy)
    charged = job.read().status.charged
    with pytest.raises(
        TrainingHeld, match=f"the journal of attempt {attempt}, which leased"
    ) as refusal:
        job.opened()
    assert refusal.value.reason is Reason.CHECKPOINT_LOST
    assert job.read().status.charged == charged, "to look costs no lease"
    copy.rename(folder)
    job.run()
    assert job.check().status.outcome is not None


def test_a_removed_folder_without_what_a_start_needs_keeps_nothing_up(tmp_path: Path) -> None:
    """Neither the newest lease's journal nor the checkpoint was in it."""
    job, leased = _training(tmp_path)
    job.draw(leased)
    leased.publish(4, state_at(4))
    _without(job, 1)
    begun = job.begin()  # and dies before its lease
    Journal(job.state_dir, Header(UID, begun, job.read().status.charged)).create()
    _without(job, begun)
    job.run()
    assert job.check().status.outcome is not None
