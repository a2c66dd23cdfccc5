"""`python -m mutations [--shard I/N] [--only TEXT]`: make each mutation, and see its tests fail."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

from mutations import catalog, scratch, trial
from mutations.catalog import Mutation
from mutations.trial import Trial
from testing.shards import Shard

AT_A_TIME = 2
_LINES = 25


@dataclass(frozen=True)
class Verdict:
    """What became of a mutation; `why` is empty where all its tests have failed."""

    mutation: Mutation
    why: str


def verdicts(mutations: Sequence[Mutation], folders: Sequence[Path]) -> Iterator[Verdict]:
    """Try mutations side by side, each in one of the copies; in the order of their ends."""
    left, free = list(reversed(mutations)), list(folders)
    running: dict[int, tuple[Mutation, Path, Trial, ExitStack]] = {}
    while left or running:
        while left and free:
            mutation, folder, stack = left.pop(), free.pop(), ExitStack()
            stack.enter_context(scratch.mutated(folder, mutation))
            started = Trial(folder, mutation.tests)
            running[started.sentinel] = mutation, folder, started, stack
        for sentinel in wait(list(running)):
            mutation, folder, ended, stack = running.pop(sentinel)  # type: ignore[arg-type]
            outcomes = ended.outcomes()
            stack.close()
            free.append(folder)
            why = [f"passes: {test}" for test in outcomes.passed(mutation.tests)]
            if not_run := outcomes.not_run(mutation.tests):
                why += [f"does not run: {test}" for test in not_run]
                why += ended.log.read_text(errors="replace").splitlines()[-_LINES:]
            yield Verdict(mutation, "\n  ".join(why))


def failing(mutations: Sequence[Mutation], folders: Sequence[Path]) -> list[str]:
    """The tests that do not pass where nothing is mutated: they tell nothing."""
    tests = sorted({test for mutation in mutations for test in mutation.tests})
    shares = [tests[n :: len(folders)] for n in range(len(folders))]
    trials = [
        (share, Trial(folder, share))
        for share, folder in zip(shares, folders, strict=True)
        if share
    ]
    passing = {name for share, each in trials for name in each.outcomes().passed(share)}
    return [test for test in tests if test not in passing]


def main(arguments: Sequence[str]) -> int:
    """Return 0 if every mutation could be made and was told by each of its tests."""
    parser = argparse.ArgumentParser(prog="mutations", description=__doc__)
    parser.add_argument("--shard", type=Shard, default=Shard("1/1"), metavar="I/N")
    parser.add_argument("--only", default="", metavar="TEXT", help="in the words of a row")
    chosen = parser.parse_args(arguments)
    root, shard = Path.cwd(), chosen.shard
    mutations = [each for each in catalog.read() if chosen.only in each.row]
    mutations = mutations[shard.number - 1 :: shard.count]
    if not mutations or (why := catalog.inapplicable(mutations, root)):
        print("\n".join(why) if mutations else "no such mutation", file=sys.stderr)
        return 2
    trial.import_libraries()
    survivors = 0
    with tempfile.TemporaryDirectory() as scratches:
        folders = [Path(scratches) / f"copy-{n}" for n in range(AT_A_TIME)]
        for folder in folders:
            scratch.copy(root, folder)
        if tests := failing(mutations, folders):
            print("do not pass without a mutation:", *tests, sep="\n  ", file=sys.stderr)
            return 2
        for number, verdict in enumerate(verdicts(mutations, folders), start=1):
            survivors += bool(verdict.why)
            outcome = f"SURVIVED\n  {verdict.why}" if verdict.why else "told"
            mutation = verdict.mutation
            where = f"{mutation.row} ({Path(mutation.file).name})"
            print(f"{number}/{len(mutations)} {where}: {outcome}", flush=True)
    print(f"mutations: {len(mutations)} made, {survivors} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
