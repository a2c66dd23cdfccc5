"""The account of draws: lease, publish, stop, resume, supersede (rules 10 to 12)."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dtjob_api.reasons import Reason
from dtjob_trainer.gang.attempts import AttemptEnd, fail
from dtjob_trainer.ledger import durable, recovery
from dtjob_trainer.ledger.backend import LedgerUnreadable, Superseded
from dtjob_trainer.ledger.checkpoint import CheckpointStore
from dtjob_trainer.ledger.file_ledger import FileLedger
from dtjob_trainer.ledger.journal import Header, Journal, JournalUnreadable, read_all
from dtjob_trainer.ledger.lease import next_lease
from dtjob_trainer.ledger.leasing import LeasedDraws, ReserveSpent
from dtjob_trainer.ledger.volume import read_volume
from testing.examples import examples
from tests.support.builders import (
    FORMATS,
    PROVENANCE,
    UID,
    VERSIONS,
    new_ledger,
    public_plan,
    spent,
    tiny_plan,
)
from tests.support.ledgers.durability import (
    Crash,
    Disk,
    Job,
    LossyLedger,
    full_disk_after,
    no_fault,
    state_at,
    with_disk,
)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    made = Job(tmp_path / "job", tiny_plan(steps=5, lease_steps=2, reserve=3))
    made.create()
    return made


def use(job: Job, leased: LeasedDraws, count: int) -> None:
    for _ in range(count):
        assert job.draw(leased) is not None


# The uniform operation


@pytest.mark.rule(10, 14)
def test_first_write_names_checkpoint_zero_and_the_first_lease_together(job: Job) -> None:
    """No version of the ledger has a lease without its checkpoint."""
    job.opened()
    status = job.read().status
    assert status.lease is not None
    assert status.checkpoint is not None
    assert (status.lease.from_draw, status.lease.to_draw, status.charged) == (0, 2, 2)
    assert (status.checkpoint.step, status.checkpoint.charged) == (0, 0)
    assert job.ledger.read().version == "3"  # created, attempt begun, and this


@pytest.mark.rule(11)
def test_a_journal_begins_with_all_that_is_charged(job: Job) -> None:
    """Also where the rest of a closed lease is used: alone it vouches for as much as the ledger."""
    job.run(stop_after=1)
    job.opened()
    assert [journal.header.charged for journal in read_all(job.state_dir)] == [0, 2]


@pytest.mark.rule(10)
def test_an_attempt_that_was_replaced_does_not_resume(job: Job) -> None:
    leased = job.leased(job.begin())
    job.begin()
    with pytest.raises(Superseded, match="the ledger is at attempt 2"):
        leased.resume()


@pytest.mark.rule(11)
def test_draw_is_in_ledger_and_journal_before_it_is_given_out(job: Job) -> None:
    """Both know of a lease before its first draw is used."""
    leased, _ = job.opened()
    for step in (0, 1, 2):
        draw = job.draw(leased)
        if draw is None:
            leased.publish(step, state_at(step))
            draw = job.draw(leased)
        assert draw is not None
        assert draw < job.read().status.charged
        assert draw < max(journal.charged for journal in read_all(job.state_dir))


@pytest.mark.rule(10)
def test_lease_used_up_asks_for_a_checkpoint(job: Job) -> None:
    """No step is further than n from the last durable checkpoint."""
    leased, _ = job.opened()
    use(job, leased, 2)
    assert leased.next_draw() is None
    leased.publish(2, state_at(2))
    lease, checkpoint = job.read().status.lease, job.read().status.checkpoint
    assert lease is not None
    assert checkpoint is not None
    assert (lease.from_step, checkpoint.step) == (2, 2)
    assert lease.to_draw - lease.from_draw == 2


def test_checkpoint_inside_a_lease_leases_nothing(job: Job) -> None:
    leased, _ = job.opened()
    use(job, leased, 1)
    leased.publish(1, state_at(1))
    status = job.check().status
    assert status.checkpoint is not None
    assert status.checkpoint.step == 1
    assert status.charged == 2
    assert job.draw(leased) == 1


@pytest.mark.rule(10)
def test_step_that_no_draw_paid_for_is_refused(job: Job) -> None:
    """A step needs a leased, unused draw."""
    leased, _ = job.opened()
    use(job, leased, 1)
    with pytest.raises(ValueError, match="step 2 can't follow"):
        leased.publish(2, state_at(2))


@pytest.mark.rule(8, 10)
def test_discarded_batch_costs_its_draw_and_no_step(job: Job) -> None:
    """A batch that SIGTERM breaks is discarded whole; its draw is not given again."""
    leased, _ = job.opened()
    use(job, leased, 2)
    leased.close(1, state_at(1))
    leased, step = job.opened()
    assert step == 1
    assert job.draw(leased) == 2


@pytest.mark.rule(10, 12)
@pytest.mark.parametrize(
    ("next_draw", "step", "reserved", "expected"),
    [
        (0, 0, 8, (0, 2)),
        (4, 4, 8, (4, 5)),  # T - step
        (7, 3, 8, (7, 8)),  # what is reserved
        (8, 3, 8, None),  # the reserve is spent
        (5, 5, 8, None),  # no step is left
    ],
)
def test_lease_length(
    next_draw: int, step: int, reserved: int, expected: tuple[int, int] | None
) -> None:
    """Min(n, T - step, reserved - next draw)."""
    ledger = new_ledger(tiny_plan(steps=5, lease_steps=2, reserve=3), attempt=1)
    spec = ledger.spec.model_copy(update={"reserved_draws": reserved})
    lease = next_lease(ledger.model_copy(update={"spec": spec}), 1, next_draw, step)
    assert (lease and (lease.from_draw, lease.to_draw)) == expected


# Ends of attempts


@pytest.mark.rule(10)
def test_crash_spends_the_whole_lease(job: Job) -> None:
    """Nobody knows which draws of a lost lease were used."""
    leased, _ = job.opened()
    use(job, leased, 1)
    leased, step = job.opened()
    assert step == 0
    assert job.draw(leased) == 2


@pytest.mark.rule(10)
def test_orderly_stop_leaves_the_rest_to_the_successor(job: Job) -> None:
    """`closedAt` is the next unused draw; the rest is not charged again."""
    leased, _ = job.opened()
    use(job, leased, 1)
    leased.close(1, state_at(1))
    status = job.check().status
    assert status.lease is not None
    assert (status.lease.closed_at, status.charged) == (1, 2)
    leased, step = job.opened()
    assert (step, job.draw(leased)) == (1, 1)
    assert job.check().status.charged == 3


def test_crash_after_an_orderly_stop_spends_only_new_leases(job: Job) -> None:
    leased, _ = job.opened()
    use(job, leased, 1)
    leased.close(1, state_at(1))
    job.begin()  # dies before it leases
    _, step = job.opened()
    assert step == 1
    assert job.check().status.charged == 3


def test_job_without_faults_charges_its_steps_and_no_more(job: Job) -> None:
    job.run(stop_after=1)
    job.run(stop_after=2)
    job.run()
    status = job.check().status
    assert status.charged == 5
    assert job.given == [0, 1, 2, 3, 4]
    assert status.outcome is not None
    assert status.outcome.reason is Reason.COMPLETED


@pytest.mark.rule(12)
def test_reserve_spent_ends_with_the_last_checkpoint(job: Job) -> None:
    """The budget is checked before a step; the last checkpoint is the result."""
    leased, _ = job.opened()
    use(job, leased, 2)
    leased.publish(2, state_at(2))
    for _ in range(2):  # with the one above three lost leases, two draws each, of eight
        job.opened()
    leased, step = job.opened()
    with pytest.raises(ReserveSpent, match="all reserved draws are charged"):
        leased.next_draw()
    leased.succeed(step, state_at(step), result={"step": step}, message="")
    status = job.check().status
    assert status.charged == 8
    assert status.checkpoint is not None
    assert status.checkpoint.step == 2
    assert status.outcome is not None
    assert status.outcome.reason is Reason.PRIVACY_BUDGET_EXHAUSTED


@pytest.mark.rule(12)
def test_result_before_the_last_step_needs_a_spent_reserve(job: Job) -> None:
    """Nobody may stop early and call it a success."""
    leased, _ = job.opened()
    with pytest.raises(ValueError, match="no result while draws are left"):
        leased.succeed(0, state_at(0), result={}, message="")


def test_a_result_that_the_ledger_has_no_room_for_is_not_written(job: Job) -> None:
    leased, _ = job.opened()
    use(job, leased, 2)
    leased.publish(2, state_at(2))
    before = job.ledger.read().ledger
    with pytest.raises(ValueError, match="as JSON, at most 4096"):
        leased.succeed(5, state_at(5), result={"evaluation": "x" * 4096}, message="")
    assert job.ledger.read().ledger == before


@pytest.mark.rule(12)
def test_last_steps_use_a_shortened_lease_before_rule_12_ends_the_run(job: Job) -> None:
    """Every reserved draw is used before the run ends, and the last state is kept."""
    leased, _ = job.opened()
    use(job, leased, 2)
    leased.publish(2, state_at(2))
    job.opened()
    leased, step = job.opened()  # draws 6 and 7 are the last of eight
    use(job, leased, 2)
    leased.publish(4, state_at(4))
    assert step == 2
    with pytest.raises(ReserveSpent):
        leased.next_draw()
    made = job.check().status.checkpoint
    assert made is not None
    assert made.step == 4


def test_finished_ledger_takes_no_attempt(job: Job) -> None:
    job.run()
    with pytest.raises(Superseded, match="a finished job is not run again"):
        job.begin()


def test_disabled_privacy_has_the_same_leases_and_no_noise(tmp_path: Path) -> None:
    public = public_plan(steps=5, lease_steps=2, replay_reserve_steps=4)
    job = Job(tmp_path / "job", public)
    job.create()
    job.run(stop_after=1)
    job.run()
    status = job.check().status
    assert status.charged == public.steps
    assert [s.noise_multiplier for s in status.segments] == [None]


@pytest.mark.rule(7, 8, 14)
@pytest.mark.parametrize(
    "changed",
    [
        {"image": "other"},
        {"formats": FORMATS.model_copy(update={"sampling": 3})},
        {"formats": FORMATS.model_copy(update={"noise": 3})},
        {"versions": VERSIONS.model_copy(update={"torch": "2.16.0"})},
        {"task_digest": "sha256:" + "2" * 64},
    ],
    ids=["image", "sampling", "noise", "versions", "task"],
)
def test_a_change_of_provenance_opens_a_segment(job: Job, changed: dict[str, Any]) -> None:
    """Which code spent which draws; a name of an image may lead to newer code."""
    leased, _ = job.opened()
    use(job, leased, 2)
    leased.close(2, state_at(2))
    later = PROVENANCE.model_copy(update=changed)
    leased, _ = job.opened(provenance=later)
    segments = job.check().status.segments
    assert [(s.provenance, s.draws) for s in segments] == [(PROVENANCE, 2), (later, 2)]


@pytest.mark.rule(14, 21)
def test_a_task_was_tried_that_was_trained_in_this_run(job: Job) -> None:
    """A lease is published after the dry run; of a task without a digest nobody knows."""
    tried, later = PROVENANCE.task_digest, PROVENANCE.model_copy(update={"task_digest": None})
    leased = job.leased(job.begin())
    leased.resume()
    assert not leased.has_tried(tried)
    leased.open(state_at(0), 4096, PROVENANCE)
    leased.close(0, state_at(0))
    leased, _ = job.opened(provenance=later)
    assert leased.has_tried(tried)
    assert not leased.has_tried("sha256:" + "2" * 64)
    assert not leased.has_tried(None)


# Two incarnations


@pytest.mark.rule(10)
def test_superseded_attempt_neither_leases_nor_publishes(job: Job) -> None:
    """It may finish what it paid for, and its files stay invisible."""
    stale, _ = job.opened()
    use(job, stale, 1)
    job.opened()
    before = job.ledger.read()
    use(job, stale, 1)  # what it has paid for
    for write in (
        lambda: stale.publish(2, state_at(2)),
        lambda: stale.close(2, state_at(2)),
        lambda: stale.succeed(5, state_at(5), result={}, message=""),
        lambda: fail(
            job.ledger,
            1,
            end=AttemptEnd(Reason.RANK_FAILED),
            reason=Reason.TASK_FAILED,
            message="",
            now=job.clock(),
        ),
    ):
        with pytest.raises((Superseded, ValueError)):
            write()
    assert job.ledger.read().version == before.version
    assert stale.next_draw() is None


@pytest.mark.rule(2)
def test_second_process_with_the_same_attempt_number_is_refused(job: Job) -> None:
    attempt = job.begin()
    first, second = job.leased(attempt), job.leased(attempt)
    first.resume()
    second.resume()
    first.open(state_at(0), 4096, PROVENANCE)
    with pytest.raises(Superseded, match="somebody else runs under its number"):
        second.open(state_at(0), 4096, PROVENANCE)


@pytest.mark.rule(10, 11)
def test_ledger_charged_by_somebody_else_stops_the_attempt(job: Job) -> None:
    """An administrator raised the ledger while it ran."""
    leased, _ = job.opened()
    use(job, leased, 2)
    versioned = job.ledger.read()
    raised = versioned.ledger.status.model_copy(update=spent(4))
    job.ledger.replace_status(versioned, raised)
    with pytest.raises(LedgerUnreadable, match="somebody else has written"):
        leased.publish(2, state_at(2))


@pytest.mark.rule(17)
def test_reserve_taken_back_refuses_the_next_lease(job: Job) -> None:
    """Close, then refund; no survivor leases after it."""
    leased, _ = job.opened()
    use(job, leased, 2)
    versioned = job.ledger.read()
    closed = versioned.ledger.spec.model_copy(update={"reserved_draws": 2})
    FileLedger(job.root / "ledger").replace_spec(versioned, closed)
    leased.publish(2, state_at(2))
    with pytest.raises(ReserveSpent):
        leased.next_draw()


# Lost answers and conflicts


@pytest.mark.rule(2, 10)
@pytest.mark.parametrize("what", ["lose", "drop", "conflict"])
@pytest.mark.parametrize("nth", range(1, 7))
def test_lost_answers_and_conflicts_change_nothing(job: Job, what: str, nth: int) -> None:
    """An leased knows its own write again, and retries one that did not happen."""
    job.ledger = LossyLedger(
        FileLedger(job.root / "ledger"), lambda number: what if number == nth else None
    )
    job.run(stop_after=3)
    job.run()
    status = job.check().status
    assert status.charged == 5
    assert job.given == [0, 1, 2, 3, 4]
    assert status.outcome is not None
    # A begin whose answer is lost costs a number; it can't be told from somebody else's.
    assert status.attempt == (3 if what == "lose" and nth in {1, 5} else 2)


@pytest.mark.rule(11)
def test_write_whose_answer_was_lost_survives_the_power(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that was linked but not yet durable is made so before it is used."""
    disk = Disk(job.root)
    with_disk(disk, monkeypatch)
    attempt = job.begin()
    leased = job.leased(attempt)
    leased.resume()
    links = itertools.count()

    def fail_after_the_link(name: str, arguments: tuple[Any, ...]) -> int | None:
        if name == "link" and "ledger" in str(arguments[1]):
            next(links)
            disk.fail = fail_the_folder
        return None

    def fail_the_folder(name: str, arguments: tuple[Any, ...]) -> int | None:
        if name == "fsync" and os.readlink(f"/proc/self/fd/{arguments[0]}").endswith("ledger"):
            disk.fail = no_fault
            return errno.EIO
        return None

    disk.fail = fail_after_the_link
    leased.open(state_at(0), 4096, PROVENANCE)
    use(job, leased, 2)
    disk.power_off()
    assert next(links) == 1
    assert job.check().status.charged == 2


# No space


@pytest.mark.slow
@pytest.mark.rule(14)
def test_full_disk_at_any_write_leaves_checkpoint_and_ledger_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the volume, what is needed and what is free; then it goes on."""
    for writes in itertools.count(0, 3):
        job = Job(tmp_path / str(writes), tiny_plan(steps=3, lease_steps=2, reserve=9))
        job.create()
        disk = Disk(job.root)
        with_disk(disk, monkeypatch)
        disk.fail = full_disk_after(writes)
        full = None
        try:
            job.run()
        except durable.VolumeFull as error:
            full = str(error)
        if full is None:
            break
        assert str(job.root) in full
        assert re.search(r"needs \d+ bytes, \d+ are free", full)
        assert not list(job.root.rglob("*.tmp"))
        disk.fail = no_fault
        job.check()
        job.run()
        assert job.check().status.outcome is not None
    assert writes > 30


@pytest.mark.rule(11)
def test_journal_that_could_not_be_written_hands_out_nothing(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a line is followed by nothing; a new attempt goes on."""
    leased, _ = job.opened()
    use(job, leased, 2)
    disk = Disk(job.root)
    with_disk(disk, monkeypatch)

    def no_room_in_the_journal(name: str, arguments: tuple[Any, ...]) -> int | None:
        if name != "write" or not os.readlink(f"/proc/self/fd/{arguments[0]}").endswith("journal"):
            return None
        os.write(arguments[0], b'{"from_')
        return errno.ENOSPC

    disk.fail = no_room_in_the_journal
    with pytest.raises(durable.VolumeFull):
        leased.publish(2, state_at(2))
    assert leased.next_draw() is None
    disk.fail = no_fault
    with pytest.raises(JournalUnreadable, match="start a new attempt"):
        leased.publish(2, state_at(2))
    job.run()
    assert job.check().status.outcome is not None


def test_volume_too_small_for_keep_and_one_is_refused_at_the_start(job: Job) -> None:
    leased = job.leased(job.begin(), keep=2)
    leased.resume()
    with pytest.raises(durable.VolumeFull, match=r"checkpoint.keep \+ 1 = 3 checkpoints"):
        leased.open(state_at(0), 2**60, PROVENANCE)
    assert job.read().status.charged == 0


@pytest.mark.rule(10)
@pytest.mark.parametrize("code", [errno.EDQUOT, errno.EFBIG], ids=["quota", "limit"])
@pytest.mark.parametrize("resumed", [False, True], ids=["first", "resumed"])
def test_room_that_no_figure_denies_is_proved_before_a_lease(
    job: Job, monkeypatch: pytest.MonkeyPatch, code: int, resumed: bool
) -> None:
    """Else each look whether there is room again would spend one."""
    if resumed:
        job.run(stop_after=3)
    before, allowed = job.read().status.charged, 100_000

    def limited(name: str, arguments: tuple[Any, ...]) -> int | None:
        if name != "write" or os.fstat(arguments[0]).st_size + len(arguments[1]) <= allowed:
            return None
        return code

    disk = Disk(job.root)
    with_disk(disk, monkeypatch)
    disk.fail = limited
    for _ in range(3):
        leased = job.leased(job.begin())
        leased.resume()
        with pytest.raises(durable.VolumeFull, match=f"needs {allowed + 1} bytes"):
            leased.open(state_at(0), allowed + 1, PROVENANCE)
        assert job.read().status.charged == before
        assert not list(job.root.rglob("*.tmp"))
    disk.fail = no_fault
    job.run()
    assert job.check().status.outcome is not None


def _out_of_sight(journal: Path, _: pytest.MonkeyPatch) -> None:
    journal.unlink()
    journal.symlink_to("/nowhere/journal")


def _gone(journal: Path, _: pytest.MonkeyPatch) -> None:
    journal.unlink()


def _not_to_be_looked_at(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a folder that may be listed and not entered, with nothing else in it."""
    for checkpoint in journal.parent.glob("step-*"):
        checkpoint.unlink()
    lstat = os.lstat

    def refusing(path: Path) -> os.stat_result:
        if Path(path) == journal:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return lstat(path)

    monkeypatch.setattr(os, "lstat", refusing)


@pytest.mark.rule(11)
@pytest.mark.parametrize("lose", [_out_of_sight, _gone, _not_to_be_looked_at])
def test_an_older_ledger_beside_a_journal_that_is_out_of_sight_leases_nothing_twice(
    job: Job, monkeypatch: pytest.MonkeyPatch, lose: Callable[[Path, pytest.MonkeyPatch], None]
) -> None:
    """Neither at the first start, nor at one that takes another number."""
    leased, _ = job.opened()
    use(job, leased, 1)
    copy = job.root / "copy"
    shutil.copytree(job.root / "ledger", copy)
    leased, _ = job.opened()
    use(job, leased, 2)
    leased.publish(2, state_at(2))
    journal = job.state_dir / "attempt-2" / "journal"
    shutil.rmtree(job.root / "ledger")
    copy.rename(job.root / "ledger")
    lose(journal, monkeypatch)
    charged = job.read().status.charged

    for _ in range(3):
        with pytest.raises((durable.VolumeUnusable, recovery.TrainingHeld)) as refused:
            job.opened()
        assert str(journal) in str(refused.value)
        assert job.read().status.charged == charged


def test_what_a_dead_attempt_left_half_written_makes_room(job: Job) -> None:
    attempt = job.begin()
    journal = Journal(job.state_dir, Header(UID, attempt, 0))
    journal.create()
    (journal.path.parent / ".step-0.pt.0123.tmp").touch()
    job.opened()
    assert not list(job.root.rglob("*.tmp"))


# Any interleaving


class Interleavings(RuleBasedStateMachine):
    """Crashes, stops, restarts and a stale incarnation, in any order hypothesis thinks of."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = contextlib.ExitStack()
        self._monkeypatch = self._stack.enter_context(pytest.MonkeyPatch.context())
        factory = type(self).folders
        self.job = Job(next(factory), tiny_plan(steps=6, lease_steps=3, reserve=6))
        self.job.create()
        self.disk = Disk(self.job.root)
        with_disk(self.disk, self._monkeypatch)
        self.running: tuple[LeasedDraws, int] | None = None
        self.stale: list[tuple[LeasedDraws, int]] = []

    folders = iter([Path()])

    def teardown(self) -> None:
        self._stack.close()

    def unfinished(self) -> bool:
        return self.job.read().status.outcome is None

    def step(self, leased: LeasedDraws, step: int) -> int | None:
        """One step, or the checkpoint or the end that is due instead; None at the end."""
        try:
            if step == 6:
                leased.succeed(step, state_at(step), result={}, message="")
                return None
            if self.job.draw(leased) is None:
                leased.publish(step, state_at(step))
                return step
        except ReserveSpent:
            leased.succeed(step, state_at(step), result={}, message="")
            return None
        return step + 1

    @precondition(lambda self: self.running is None and self.unfinished())
    @rule(crash_at=st.none() | st.integers(1, 60), power=st.booleans())
    def start(self, crash_at: int | None, power: bool) -> None:
        with self.dying(crash_at, power):
            self.running = self.job.opened()

    @precondition(lambda self: self.running is not None)
    @rule(crash_at=st.none() | st.integers(1, 45), power=st.booleans())
    def go_on(self, crash_at: int | None, power: bool) -> None:
        assert self.running is not None
        leased, step = self.running
        self.running = None
        with self.dying(crash_at, power):
            after = self.step(leased, step)
            self.running = None if after is None else (leased, after)

    @precondition(lambda self: self.running is not None)
    @rule(crash_at=st.none() | st.integers(1, 45), power=st.booleans(), discard=st.booleans())
    def stop_in_order(self, crash_at: int | None, power: bool, discard: bool) -> None:
        assert self.running is not None
        leased, step = self.running
        self.running = None
        if discard and step < 6:
            with contextlib.suppress(ReserveSpent):
                self.job.draw(leased)
        with self.dying(crash_at, power):
            leased.close(step, state_at(step))

    @precondition(lambda self: self.running is not None)
    @rule()
    def crash(self) -> None:
        self.running = None

    @precondition(lambda self: self.running is not None)
    @rule()
    def lose_sight(self) -> None:
        """A stopped process: another attempt begins while this one still lives."""
        assert self.running is not None
        self.stale.append(self.running)
        self.running = None
        self.job.begin()

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def wake_stale(self, data: st.DataObject) -> None:
        """Rule 10: it may use what it paid for; it can neither lease nor publish."""
        index = data.draw(st.integers(0, len(self.stale) - 1))
        leased, step = self.stale[index]
        before = self.job.ledger.read()
        with contextlib.suppress(Superseded):
            after = self.step(leased, step)
            assert after == step + 1, "a stale attempt has leased or ended the job"
            self.stale[index] = (leased, after)
        with pytest.raises(Superseded):
            leased.close(step, state_at(step))
        assert self.job.ledger.read().version == before.version

    @precondition(lambda self: not self.unfinished())
    @rule()
    def finished(self) -> None:
        with pytest.raises(Superseded):
            self.job.begin()

    @contextlib.contextmanager
    def dying(self, crash_at: int | None, power: bool) -> Iterator[None]:
        self.disk.crash_at = None if crash_at is None else self.disk.calls + crash_at
        try:
            yield
        except Crash:
            self.running, self.disk.dead = None, False
            if power:
                self.stale.clear()
                self.disk.power_off()
        finally:
            self.disk.crash_at = None

    @invariant()
    def rules_hold(self) -> None:
        self.job.check()

    @invariant()
    def resume_is_never_refused(self) -> None:
        """Rule 11: no crash looks like lost state."""
        ledger = self.job.read()
        volume = read_volume(CheckpointStore(self.job.state_dir, UID, self.job.plan, keep=2))
        recovery.resume_point(ledger, volume)


@pytest.fixture
def job_folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    Interleavings.folders = (tmp_path_factory.mktemp("job") / "job" for _ in itertools.count())


# Rules 10 to 13 under any order of crash, stop, restart and a second incarnation.
TestInterleavings = pytest.mark.slow(pytest.mark.usefixtures("job_folders")(Interleavings.TestCase))
TestInterleavings.settings = settings(
    max_examples=examples(20),
    stateful_step_count=18,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
