"""What tells a run that a task is the one that it has tried."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dtjob_trainer.usercode import sources


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "clinic"
    (folder / "nets" / "__pycache__").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / ".git").mkdir()
    (folder / "task.py").write_text("import nets.small\n")
    (folder / "nets" / "small.py").write_text("WIDTH = 3\n")
    return folder


def digest(root: Path) -> str | None:
    return sources.digest(root, str(root / "data"))


@pytest.mark.rule(21)
@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "task.py").write_text("import nets.large\n"),
        lambda root: (root / "nets" / "small.py").write_text("WIDTH = 4\n"),
        lambda root: (root / "nets" / "__init__.py").touch(),
        lambda root: (root / "fast.abi3.so").write_bytes(b"\x7fELF"),
        lambda root: (root / "nets" / "small.py").rename(root / "small.py"),
        lambda root: (root / "task.py").unlink(),
    ],
    ids=["entrypoint", "imported", "new", "extension", "moved", "removed"],
)
def test_a_change_of_the_sources_changes_their_digest(
    root: Path, change: Callable[[Path], object]
) -> None:
    before = digest(root)
    assert before is not None
    assert digest(root) == before
    change(root)
    assert digest(root) not in (before, None)


def test_what_a_run_writes_and_its_data_are_no_sources(root: Path) -> None:
    before = digest(root)
    for written in (
        "nets/__pycache__/small.cpython-313.pyc",
        ".git/hook.py",
        "data/a.py",
        "out.csv",
    ):
        (root / written).write_text("new")
    assert digest(root) == before


def test_a_lone_module_among_installed_ones_is_all_there_is(root: Path) -> None:
    before = digest(root / "task.py")
    (root / "nets" / "small.py").write_text("WIDTH = 4\n")
    assert digest(root / "task.py") == before


@pytest.mark.parametrize("limit", ["_MOST_ENTRIES", "_MOST_BYTES"])
def test_more_than_a_start_has_time_for_is_not_known(
    root: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(sources, limit, 3)
    assert digest(root) is None


def test_neither_a_loop_of_links_nor_a_pipe_is_waited_for(root: Path) -> None:
    (root / "nets" / "up").symlink_to(root)
    os.mkfifo(root / "pipe.py")
    assert digest(root) == digest(root)


def test_what_cannot_be_read_is_not_known(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path) -> bytes:
        raise PermissionError

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert digest(root) is None
    assert digest(root / "absent.py") is None
