"""A copy has what git would have, and is as before once a mutation is taken back."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mutations import scratch
from mutations.catalog import Mutation, NotApplicable

MUTATION = Mutation("a sum", "sums.py", "+", "-", ("test_sums.py::test_sum",))


def test_a_copy_has_what_is_tracked_and_what_is_new(tmp_path: Path) -> None:
    root, copy = tmp_path / "root", tmp_path / "copy"
    (root / "folder").mkdir(parents=True)
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    for name in ("tracked", "removed", "folder/new", "ignored"):
        (root / name).write_text(name)
    (root / ".gitignore").write_text("ignored\n")
    subprocess.run(["git", "-C", str(root), "add", "tracked", "removed"], check=True)
    (root / "removed").unlink()
    scratch.copy(root, copy)
    found = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}
    assert found == {".gitignore", "tracked", "folder/new"}


def test_a_mutation_is_taken_back_whatever_happens(tmp_path: Path) -> None:
    path = tmp_path / "sums.py"
    path.write_text("a + b")
    before = path.stat().st_mtime_ns
    seen = set()

    def interrupted() -> None:
        with scratch.mutated(tmp_path, MUTATION):
            assert path.read_text() == "a - b"
            seen.add(int(path.stat().st_mtime))
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert (path.read_text(), path.stat().st_mtime_ns) == ("a + b", before)
    assert len(seen) == 2  # by which Python tells that it was compiled from another text


def test_what_can_not_be_made_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "sums.py").write_text("a * b")
    with pytest.raises(NotApplicable), scratch.mutated(tmp_path, MUTATION):
        pass
    assert (tmp_path / "sums.py").read_text() == "a * b"
