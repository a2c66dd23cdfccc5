from __future__ import annotations

import copy
import errno
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dtjob_cli.errors import BadInput, CommandError, ExitCode
from dtjob_cli.main import app
from dtjob_cli.runs import resume, run_directory
from tests.support.checkout import DIGITS
from tests.support.commands import run_files

MANIFEST: dict[str, Any] = {
    "metadata": {"name": "digits"},
    "spec": {
        "image": "trainer",
        "workers": {"replicas": 2},
        "training": {"steps": 336, "optimizer": {"name": "sgd", "learningRate": 4.0}},
        "privacy": {"epsilon": 8.0},
        "storage": {"checkpoints": {"size": "1Gi"}},
    },
}


def _run(parent: Path, name: str, *, begun: bool = True) -> run_directory.RunDirectory:
    manifest = parent.parent / "job.yaml"
    manifest.write_text("kind: DistributedTrainingJob\n")
    run = run_directory.create(parent, name, manifest)
    if begun:
        (run.ledger / "0000000001.json").write_text("{}")
    return run


def test_the_quickstart_lists_what_a_run_leaves(tmp_path: Path) -> None:
    """The real run of test_run.py leaves this, too."""
    run = _run(tmp_path / "runs", "digits-00000001")
    with run_directory.locked(run):
        run_directory.new_secret(run)
    made = {path.name for path in run.path.iterdir()}

    assert made | {"report.json"} == run_files.documented()


def test_the_newest_run_of_a_job_is_the_one_made_last(tmp_path: Path) -> None:
    made = [_run(tmp_path / "runs", f"digits-{number:08x}") for number in (9, 3, 5)]
    for age, run in enumerate(reversed(made)):
        os.utime(run.manifest, ns=(0, 10**18 - age))

    (tmp_path / "runs/digits-ffffffff").touch()  # no run, whatever its name says
    assert run_directory.newest(tmp_path / "runs", "digits") == made[-1]


def test_runs_of_other_jobs_and_runs_that_never_began_are_not_resumed(tmp_path: Path) -> None:
    parent = tmp_path / "runs"
    mine = _run(parent, "digits-00000001")
    _run(parent, "digits-large-00000002")
    _run(parent, "digits-00000003", begun=False)

    assert run_directory.newest(parent, "digits") == mine


def test_a_run_killed_before_its_first_version_had_its_name_never_began(tmp_path: Path) -> None:
    """The real one before it is whole, and goes on."""
    parent = tmp_path / "runs"
    mine = _run(parent, "digits-00000001")
    young = _run(parent, "digits-00000002", begun=False)
    (young.ledger / ".0000000001.json.0123456789abcdef.tmp").touch()
    os.utime(mine.manifest, ns=(0, 0))

    assert run_directory.newest(parent, "digits") == mine
    with pytest.raises(BadInput, match="never had a ledger") as refused:
        resume.readable(young)
    assert refused.value.reason == "NeverStarted"


def test_of_a_ledger_that_is_lost_a_temporary_file_is_not_left(tmp_path: Path) -> None:
    run = _run(tmp_path / "runs", "digits-00000001", begun=False)
    (run.ledger / ".0000000007.json.0123456789abcdef.tmp").touch()
    (run.state / "attempt-1").mkdir()

    assert run.ledger_lost


@pytest.mark.parametrize("folder", ["ledger", "state"])
def test_a_run_that_can_not_be_looked_at_counts_as_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """It is not removed, and who reads it tells why it can't be read."""
    run = _run(tmp_path / "runs", "digits-00000001", begun=False)
    listed = Path.iterdir

    def refused(path: Path) -> Iterator[Path]:
        if path == run.path / folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", refused)
    run_directory.discard(run)

    assert run.begun
    assert run.path.exists()


@pytest.mark.parametrize("folder", ["ledger", "state"])
def test_a_folder_that_leads_nowhere_counts_as_begun(tmp_path: Path, folder: str) -> None:
    """As a link to a volume that is not mounted: nobody is told that nothing was spent."""
    run = _run(tmp_path / "runs", "digits-00000001", begun=False)
    (run.path / folder).rmdir()
    (run.path / folder).symlink_to("/nowhere/mounted")
    run_directory.discard(run)

    assert run.begun
    assert run.path.exists()
    with pytest.raises(CommandError) as refused:
        resume.readable(run)
    assert refused.value.exit_code == ExitCode.REFUSED


def _closed(monkeypatch: pytest.MonkeyPatch, run: run_directory.RunDirectory) -> None:
    """Make the directory of a run another user's private one."""
    lstat, is_file = os.lstat, Path.is_file

    def refused(path: Path, **where: Any) -> os.stat_result:
        if path == run.manifest:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return lstat(path, **where)

    monkeypatch.setattr(os, "lstat", refused)
    monkeypatch.setattr(Path, "is_file", lambda path: bool(refused(path)) and is_file(path))


@pytest.mark.parametrize("command", [["report"], ["ledger", "restore"]])
def test_a_directory_that_nobody_may_look_into_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    run = _run(tmp_path / "runs", "digits-00000001")
    _closed(monkeypatch, run)

    result = CliRunner().invoke(app, [*command, str(run.path)], catch_exceptions=False)

    assert result.exit_code == 2
    assert f"error (RunDirectory): {run.manifest}: Permission denied.\n" in result.stderr
    assert f"Let user {os.getuid()} read it" in result.stderr


def test_a_file_that_nobody_may_look_at_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> bool:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "is_file", refused)

    result = CliRunner().invoke(app, ["report", str(tmp_path / "l.json")], catch_exceptions=False)

    assert result.exit_code == 2
    assert "l.json: Permission denied." in result.stderr


def test_the_private_run_of_another_user_is_none_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = _run(tmp_path / "runs", "digits-00000001")
    _closed(monkeypatch, _run(tmp_path / "runs", "digits-00000002"))

    assert run_directory.begun(tmp_path / "runs", "digits") == [mine]


@pytest.mark.parametrize("others", [[], ["digits-00000001"]])
def test_a_run_that_one_may_not_look_into_is_not_passed_over_by_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: list[str]
) -> None:
    """Nobody knows whether it is the newest, and whether it has begun."""
    for name in others:
        _run(tmp_path / "runs", name)
    closed = _run(tmp_path / "runs", "digits-00000002")
    _closed(monkeypatch, closed)

    resumed = ["run", str(DIGITS), "--resume", "--dir", str(tmp_path / "runs")]
    result = CliRunner().invoke(app, resumed, catch_exceptions=False)

    assert result.exit_code == 2
    assert (
        f"error (RunDirectory): {closed.path} can't be looked into: Permission den" in result.stderr
    )
    assert "none that had begun" not in result.stderr
    assert "Leave out" not in result.stderr
    assert f"Let user {os.getuid()} read it" in result.stderr


@pytest.mark.parametrize("what", ["directory", "manifest"])
def test_nor_is_one_that_is_a_link_to_what_is_not_mounted(tmp_path: Path, what: str) -> None:
    _run(tmp_path / "runs", "digits-00000001")
    away = _run(tmp_path / "runs", "digits-00000002")
    link = away.path if what == "directory" else away.manifest
    link.rename(tmp_path / "unmounted")
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(BadInput, match=f"{away.path} can't be looked into: No such file"):
        run_directory.newest(tmp_path / "runs", "digits")


def test_nor_is_one_of_another_user_where_there_is_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = _run(tmp_path / "runs", "digits-00000001")
    theirs = _run(tmp_path / "runs", "digits-00000002")
    _closed(monkeypatch, theirs)
    monkeypatch.setattr(os, "getuid", lambda: theirs.path.stat().st_uid + 1)

    assert run_directory.newest(tmp_path / "runs", "digits") == mine
    shutil.rmtree(mine.path)
    with pytest.raises(BadInput, match=f"{theirs.path} can't be looked into"):
        run_directory.newest(tmp_path / "runs", "digits")


def test_a_run_that_one_may_not_write_is_not_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _run(tmp_path / "runs", "digits-00000001")

    def refused(*_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(run.lock))

    monkeypatch.setattr(os, "open", refused)
    restored = ["ledger", "restore", str(run.path)]
    result = CliRunner().invoke(app, restored, catch_exceptions=False)

    assert result.exit_code == 3
    refusal = f"error (RunDirectory): {run.lock}: Permission denied. Nothing was changed."
    assert refusal in result.stderr


def test_without_a_run_to_resume_the_message_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=str(tmp_path / "runs")):
        run_directory.newest(tmp_path / "runs", "digits")


def test_only_a_run_without_ledger_and_journal_is_ever_removed(tmp_path: Path) -> None:
    fresh = _run(tmp_path / "runs", "digits-00000001", begun=False)
    begun = _run(tmp_path / "runs", "digits-00000002")
    journal_only = _run(tmp_path / "runs", "digits-00000003", begun=False)
    (journal_only.state / "attempt-1").mkdir()

    for run in (fresh, begun, journal_only):
        run_directory.discard(run)

    assert not fresh.path.exists()
    assert begun.ledger.exists()
    assert journal_only.state.exists()


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("training", "steps"), 400, "spec.training.steps: 336 in the run, now 400"),
        (
            ("training", "optimizer", "learningRate"),
            2.0,
            "spec.training.optimizer.learningRate: 4.0 in the run, now 2.0",
        ),
        (("privacy", "epsilon"), None, "spec.privacy.epsilon: 8.0 in the run, now absent"),
        (("privacy", "noiseMultiplier"), 1.0, "spec.privacy.noiseMultiplier: absent in the run"),
        (("storage", "data"), {"claimName": "x"}, "spec.storage.data"),
        (("checkpoint",), {"everySteps": 5}, "spec.checkpoint"),
    ],
)
def test_a_change_of_what_is_frozen_is_named(
    path: tuple[str, ...], value: object, said: str
) -> None:
    changed = copy.deepcopy(MANIFEST)
    *parents, last = path
    section = changed["spec"]
    for parent in parents:
        section = section[parent]
    if value is None:
        del section[last]
    else:
        section[last] = value

    found = run_directory.difference(MANIFEST, changed)

    assert found is not None
    assert said in found


def test_workers_and_image_may_change_between_resumes() -> None:
    changed = copy.deepcopy(MANIFEST)
    changed["spec"]["workers"] = {"replicas": 5}
    changed["spec"]["image"] = "other"

    assert run_directory.difference(MANIFEST, changed) is None


def test_a_run_is_held_until_the_last_process_that_inherited_it_ends(tmp_path: Path) -> None:
    run = _run(tmp_path / "runs", "digits-00000001")
    with run_directory.locked(run) as lock:
        heir = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,)
        )
        with pytest.raises(run_directory.RunInUse), run_directory.locked(run):
            pass
    try:
        with pytest.raises(run_directory.RunInUse), run_directory.locked(run):
            pass
    finally:
        heir.communicate(b"\n", timeout=30)

    with run_directory.locked(run):
        pass


def test_a_place_that_can_not_be_written_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(BadInput, match="run directory") as caught:
        run_directory.create(tmp_path / "file", "digits-00000001", tmp_path / "file")

    assert caught.value.reason == "RunDirectory"


def test_what_is_no_run_directory_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not the directory of a run") as caught:
        run_directory.existing(tmp_path)

    assert caught.value.reason == "NoSuchRun"


def test_only_its_user_can_read_the_secret_of_a_run(tmp_path: Path) -> None:
    run = _run(tmp_path / "runs", "digits-00000001")
    run_directory.new_secret(run)
    first = run.secret.read_bytes()
    run.secret.parent.chmod(0o755)
    run_directory.new_secret(run)
    assert run.secret.read_bytes() != first
    assert len(first) == 32
    assert stat.S_IMODE(run.secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(run.secret.parent.stat().st_mode) == 0o700
