"""`python -m testing.nightly [I/N]`: the nightly tests, or one shard of them.

What has passed at this commit is not run again: an interrupted shard goes on where it was. The
result goes to docs/design/nightly.md.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from testing.shards import Progress, Shard

PAGE = Path("docs/design/nightly.md")
FOLDER = Path(".pytest_cache/d/dtjob-nightly")
MOST_MINUTES = 45.0
"""Of a shard."""
_HEAD = """\
# The last nightly runs

Written by `make nightly SHARD=i/n`, one line for each shard; [how tests are divided](testing.md).
`not run` is what the machine could not run, and why is what pytest has said.

| shard | commit | date (UTC) | tests | passed | failed | not run | minutes |
|---|---|---|---|---|---|---|---|
"""
_ROW = re.compile(r"^\| (?P<number>\d+)/(?P<count>\d+) \|.*$", re.M)


def page(before: str, shard: Shard, row: str) -> str:
    """The page with the row of a shard, and those of others of the same division."""
    rows = {
        int(found["number"]): found[0]
        for found in _ROW.finditer(before)
        if int(found["count"]) == shard.count
    }
    rows[shard.number] = row
    return _HEAD + "".join(f"{rows[number]}\n" for number in sorted(rows))


def row(shard: Shard, commit: str, when: datetime, progress: Progress) -> str:
    """What is known of a shard."""
    tests, results = progress.tests(shard), progress.results()
    tried = {name: results[name] for name in tests if name in results}
    passed = sum(passed for passed, _ in tried.values())
    minutes = sum(seconds for _, seconds in tried.values()) / 60
    cells = [shard, commit, f"{when:%Y-%m-%d %H:%M}", len(tests), passed, len(tried) - passed]
    return f"| {' | '.join(map(str, [*cells, len(tests) - len(tried), f'{minutes:.1f}']))} |"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _commit() -> str:
    """The commit; what was changed since then makes it another."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    changes = _git("diff", "--binary", "HEAD", "--", ".", f":!{PAGE}")
    listed = _git("ls-files", "-z", "--others", "--exclude-standard", "--", ".", f":!{PAGE}")
    untracked = [name for name in listed.split("\0") if name]
    if not changes and not untracked:
        return commit
    digest = hashlib.sha256(changes.encode())
    for name in untracked:
        digest.update(f"{name}\0{_content(Path(name))}\0".encode())
    return f"{commit} with changes {digest.hexdigest()[:6]}"


def _content(path: Path) -> str:
    """What tells one content of a file from another; of a link, where it leads."""
    if path.is_symlink():
        return str(path.readlink())
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _pytest(*arguments: str) -> bool:
    command = [sys.executable, "-m", "pytest", "--tier=nightly", *arguments]
    done = subprocess.run(command, check=False).returncode
    return done in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)


def main(text: str) -> int:
    """Run a shard; 0 if all that the machine can run has passed, and that is something."""
    try:
        shard = Shard(text)
    except ValueError as error:
        print(f"SHARD={error}", file=sys.stderr)
        return 2
    FOLDER.mkdir(parents=True, exist_ok=True)
    commit = _commit()
    file = FOLDER / f"{commit.replace(' ', '-')}.jsonl"
    progress = Progress(file)
    # A file after a space would be a place of tests to pytest, whose options are known later.
    selected = [f"--shard={shard}", f"--progress={file}"]
    if not _pytest(*selected, "--collect-only", "-q", "-q"):
        return 1  # of tests that it could not read
    if not progress.tests(shard):
        print(f"SHARD={shard}: no test is in it: make it fewer shards", file=sys.stderr)
        return 2
    if (minutes := sum(progress.tests(shard).values())) > MOST_MINUTES:
        print(
            f"SHARD={shard}: {minutes:.0f} minutes by the tests' markers, and a shard is to take "
            f"{MOST_MINUTES:.0f} at most: make it {shard.count + 1} shards or more",
            file=sys.stderr,
        )
        return 2
    try:
        passed = _pytest(*selected, "-n", "2", "--dist", "loadgroup", "-m", "not cluster")
        passed &= _pytest(*selected, "-m", "cluster")
    except KeyboardInterrupt:
        print("interrupted: the same command goes on with what has not passed", file=sys.stderr)
        return 130
    before = PAGE.read_text() if PAGE.exists() else ""
    line = row(shard, commit, datetime.now(UTC), progress)
    PAGE.write_text(page(before, shard, line))
    print(f"{PAGE}: {line}")
    if not progress.tests(shard).keys() & progress.results().keys():
        print(f"SHARD={shard}: this machine could run none of its tests", file=sys.stderr)
        return 1
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "1/1"))
