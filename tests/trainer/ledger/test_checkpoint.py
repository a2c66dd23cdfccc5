"""Checkpoints: what was saved is read back, anything else is refused with its reason."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dtjob_api.job.training import MAX_STEPS
from dtjob_api.ledger.privacy_ledger import CheckpointRecord
from dtjob_trainer.ledger import durable
from dtjob_trainer.ledger.checkpoint import (
    CheckpointStore,
    CheckpointUnusable,
    TrainingState,
    expected_bytes,
    plan_digest,
)
from dtjob_trainer.ledger.journal import NoSuchNumber
from dtjob_trainer.ledger.volume import read_volume
from dtjob_trainer.mechanism.digest import parameter_digest
from tests.support.builders import START, UID, tiny_plan
from tests.support.ledgers.durability import state_at

PLAN = tiny_plan()


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    for attempt in range(1, 5):
        (tmp_path / f"attempt-{attempt}").mkdir()
    return CheckpointStore(tmp_path, UID, PLAN, keep=2)


def save(store: CheckpointStore, attempt: int, step: int) -> CheckpointRecord:
    return store.save(attempt, step, step, state_at(step), START)


def file_of(store: CheckpointStore, record: CheckpointRecord) -> Path:
    return store.state_dir / record.path


def names(store: CheckpointStore) -> list[str]:
    return [str(file.path.relative_to(store.state_dir)) for file in store.files()]


def test_model_and_optimizer_come_back_bit_for_bit(store: CheckpointStore) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    saved = TrainingState(model.state_dict(), optimizer.state_dict())
    loaded = store.load(store.save(1, 1, 1, saved, START))
    assert parameter_digest(loaded.state.model) == parameter_digest(saved.model)
    other = torch.optim.Adam(torch.nn.Linear(3, 2).parameters(), lr=0.5)
    other.load_state_dict(dict(loaded.state.optimizer))
    assert other.param_groups[0]["lr"] == 0.1
    assert torch.equal(
        other.state_dict()["state"][0]["exp_avg"], saved.optimizer["state"][0]["exp_avg"]
    )
    assert (loaded.step, loaded.charged) == (1, 1)


def test_path_is_relative_to_the_volume(store: CheckpointStore) -> None:
    """The volume may be mounted elsewhere next time."""
    assert save(store, 1, 3).path == "attempt-1/step-3.pt"


@pytest.mark.rule(14)
def test_every_truncation_is_refused(store: CheckpointStore) -> None:
    record = save(store, 1, 1)
    file = file_of(store, record)
    data = file.read_bytes()
    for size in range(0, len(data), 97):
        file.write_bytes(data[:size])
        with pytest.raises(CheckpointUnusable, match="its SHA-256 is"):
            store.load(record)
        assert file.stat().st_size == size


def test_flipped_bit_is_refused(store: CheckpointStore) -> None:
    record = save(store, 1, 1)
    data = bytearray(file_of(store, record).read_bytes())
    data[len(data) // 2] ^= 1
    file_of(store, record).write_bytes(data)
    with pytest.raises(CheckpointUnusable, match="the ledger's record says"):
        store.load(record)


def test_missing_file_is_refused(store: CheckpointStore) -> None:
    record = save(store, 1, 1)
    file_of(store, record).unlink()
    with pytest.raises(CheckpointUnusable, match=r"step-1\.pt: it is gone"):
        store.load(record)


@pytest.mark.rule(14)
def test_other_steps_file_under_the_right_name_is_refused(store: CheckpointStore) -> None:
    first, second = save(store, 1, 1), save(store, 1, 2)
    shutil.copy(file_of(store, first), file_of(store, second))
    with pytest.raises(CheckpointUnusable, match="its SHA-256 is"):
        store.load(second)
    swapped = second.model_copy(update={"sha256": first.sha256})
    with pytest.raises(CheckpointUnusable, match="its step is 1, not 2"):
        store.load(swapped)


@pytest.mark.rule(14)
def test_other_jobs_file_is_refused(store: CheckpointStore) -> None:
    record = CheckpointStore(store.state_dir, "another", PLAN, 2).save(1, 1, 1, state_at(1), START)
    with pytest.raises(CheckpointUnusable, match="its job_uid is 'another'"):
        store.load(record)


def test_other_plans_file_is_refused(store: CheckpointStore) -> None:
    record = CheckpointStore(store.state_dir, UID, tiny_plan(noise_multiplier=1.0), 2).save(
        1, 1, 1, state_at(1), START
    )
    with pytest.raises(CheckpointUnusable, match="its plan_digest is"):
        store.load(record)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("attempt", 2, "its attempt is 2, not 1"),
        ("charged", 2, "its charged is 2, not 1"),
        ("parameter_digest", "0" * 64, "its parameters don't match their digest"),
    ],
)
def test_payload_that_is_not_what_the_record_says_is_refused(
    store: CheckpointStore, name: str, value: object, words: str
) -> None:
    """A whole file with a right SHA-256, written by something else."""
    record = save(store, 1, 1)
    payload = torch.load(file_of(store, record), weights_only=True)
    torch.save(payload | {name: value}, file_of(store, record))
    digest = hashlib.sha256(file_of(store, record).read_bytes()).hexdigest()
    with pytest.raises(CheckpointUnusable, match=words):
        store.load(record.model_copy(update={"sha256": digest}))


@pytest.mark.rule(14)
def test_code_in_a_checkpoint_is_not_run(store: CheckpointStore, tmp_path: Path) -> None:
    """Weights_only."""

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "run",)

    record = store.save(1, 1, 1, TrainingState({}, {"state": Payload()}), START)
    with pytest.raises(CheckpointUnusable, match="torch can't load it"):
        store.load(record)
    assert not (tmp_path / "run").exists()


def test_only_what_the_ledger_moved_past_is_pruned(store: CheckpointStore) -> None:
    for step in (0, 10, 20):
        save(store, 1, step)
    record = save(store, 2, 20)
    store.prune(record, 2)
    assert names(store) == ["attempt-1/step-20.pt", "attempt-2/step-20.pt"]


def test_unpublished_files_of_dead_attempts_are_pruned(store: CheckpointStore) -> None:
    """They hold steps that no ledger knows; the room is needed for the next checkpoint."""
    record = save(store, 1, 10)
    save(store, 1, 20)
    save(store, 2, 20)
    store.prune(record, 3)
    assert names(store) == ["attempt-1/step-10.pt"]


@pytest.mark.rule(10)
def test_stale_attempt_touches_nothing_of_a_newer_one(store: CheckpointStore) -> None:
    """Woken after its successor has published, it may only tidy what is its own."""
    record = save(store, 1, 10)
    newer = [save(store, 2, 10), save(store, 2, 20)]
    half = store.state_dir / "attempt-2" / ".step-30.pt.0.tmp"
    half.touch()
    store.prune(record, 1)
    store.clear_unfinished(1)
    assert half.exists()
    assert names(store) == ["attempt-1/step-10.pt", *(entry.path for entry in newer)]


def test_half_written_files_are_cleared(store: CheckpointStore) -> None:
    half = store.state_dir / "attempt-1" / ".step-30.pt.0.tmp"
    half.touch()
    store.clear_unfinished(2)
    assert not half.exists()


def test_recorded_file_stays_though_keep_is_one(store: CheckpointStore) -> None:
    one = CheckpointStore(store.state_dir, UID, PLAN, keep=1)
    record = save(one, 2, 10)
    save(one, 1, 0)
    one.prune(record, 2)
    assert names(one) == [record.path]
    with pytest.raises(ValueError, match="keep is 0"):
        CheckpointStore(store.state_dir, UID, PLAN, keep=0)


@pytest.mark.rule(14)
def test_room_for_keep_and_one_counts_what_is_there(store: CheckpointStore) -> None:
    free = durable.free_bytes(store.state_dir)
    store.require_room(free // 4)
    with pytest.raises(durable.VolumeFull, match="3 checkpoints of") as full:
        store.require_room(free)
    assert full.value.needed == 3 * free
    held = file_of(store, save(store, 1, 0)).stat().st_size
    with pytest.raises(durable.VolumeFull) as full:
        store.require_room(free)
    assert full.value.needed == 3 * free - held


@pytest.mark.parametrize(("name", "slots"), [("SGD", 0), ("Adam", 2)])
def test_expected_size_is_enough_and_not_absurd(
    store: CheckpointStore, name: str, slots: int
) -> None:
    model = torch.nn.Linear(300, 200)
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.1)
    expected = expected_bytes(TrainingState(model.state_dict(), optimizer.state_dict()), slots)
    model(torch.ones(1, 300)).sum().backward()
    optimizer.step()
    state = TrainingState(model.state_dict(), optimizer.state_dict())
    size = file_of(store, store.save(1, 1, 1, state, START)).stat().st_size
    assert size <= expected <= 1.5 * size


def test_digests_tell_values_types_and_shapes_apart() -> None:
    weights = torch.arange(6, dtype=torch.float32)
    digests = {
        parameter_digest(model)
        for model in (
            {"w": weights},
            {"v": weights},
            {"w": weights.reshape(2, 3)},
            {"w": weights.to(torch.bfloat16)},
            {"w": weights + 1},
            {"w": torch.tensor(1.0)},
        )
    }
    assert len(digests) == 6
    assert parameter_digest({"w": weights.reshape(2, 3).T.contiguous().T}) == parameter_digest(
        {"w": weights.reshape(2, 3)}
    )


def test_plan_digest_changes_with_any_figure() -> None:
    plans = [PLAN, tiny_plan(noise_multiplier=2.5), tiny_plan(steps=6), tiny_plan(dataset_size=17)]
    assert len({plan_digest(one) for one in plans}) == len(plans)


@pytest.mark.parametrize(
    "harm",
    [
        lambda _: [1, 2],
        lambda payload: {name: payload[name] for name in payload if name != "model"},
        lambda payload: {name: payload[name] for name in payload if name != "optimizer"},
        lambda payload: payload | {"model": 1},
        lambda payload: payload | {"model": {"weight": "none"}},
        lambda payload: payload | {"step": torch.tensor([1, 2])},
        lambda payload: payload | {"charged": 10**30},
        lambda payload: payload | {"charged": "many"},
    ],
)
def test_a_file_of_another_form_is_no_checkpoint_and_the_one_before_it_is_the_newest(
    store: CheckpointStore, harm: Callable[[dict[str, Any]], object]
) -> None:
    whole, other = save(store, 1, 1), save(store, 1, 2)
    payload = torch.load(file_of(store, other), weights_only=True)
    torch.save(harm(payload), file_of(store, other))
    digest = hashlib.sha256(file_of(store, other).read_bytes()).hexdigest()
    with pytest.raises(CheckpointUnusable):
        store.load(other.model_copy(update={"sha256": digest}))
    found = store.newest_whole()
    assert found is not None
    assert found.path == whole.path


def test_a_step_that_no_run_has_is_refused_by_its_file(store: CheckpointStore) -> None:
    file = store.state_dir / "attempt-1" / f"step-{MAX_STEPS + 1}.pt"
    file.touch()
    with pytest.raises(NoSuchNumber) as refused:
        store.files()
    assert refused.value.path == file


def test_a_folder_that_nobody_may_look_into_is_named(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = store.state_dir / "attempt-2"
    iterdir = Path.iterdir

    def refusing(path: Path) -> Iterator[Path]:
        if path == closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refusing)
    with pytest.raises(durable.VolumeUnusable) as refused:
        read_volume(store)
    assert refused.value.filename == str(closed)


@pytest.mark.rule(11)
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOENT, errno.EACCES])
def test_a_checkpoint_that_cannot_be_opened_makes_no_older_one_the_newest(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """What it holds is not known, and it proves what an older one does not."""
    save(store, 1, 1)
    newest = file_of(store, save(store, 1, 2))
    opened = io.open

    def failing(file: Any, *more: Any, **options: Any) -> Any:
        if Path(file) == newest:
            raise OSError(number, os.strerror(number))
        return opened(file, *more, **options)

    monkeypatch.setattr(io, "open", failing)
    with pytest.raises(durable.VolumeUnusable) as refused:
        store.newest_whole()
    assert (refused.value.errno, refused.value.filename) == (number, str(newest))


def test_a_recorded_checkpoint_that_is_out_of_sight_is_not_a_lost_one(
    store: CheckpointStore,
) -> None:
    record = save(store, 1, 1)
    file_of(store, record).unlink()
    file_of(store, record).symlink_to("/nowhere/step-1.pt")
    with pytest.raises(durable.VolumeUnusable) as refused:
        store.load(record)
    assert refused.value.filename == str(file_of(store, record))


@pytest.mark.timeout(10)
def test_a_checkpoint_that_is_a_queue_is_not_waited_for(store: CheckpointStore) -> None:
    whole, record = save(store, 1, 1), save(store, 1, 2)
    file_of(store, record).unlink()
    os.mkfifo(file_of(store, record))
    with pytest.raises(CheckpointUnusable, match="no regular file"):
        store.load(record)
    found = store.newest_whole()
    assert found is not None
    assert found.path == whole.path
