"""What was measured, as tables beside the targets and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

from scale.audit import OPERATOR
from scale.course import Course

_PERCENTILES = (50, 95, 99)
_TO_RUNNING, _TO_STATUS, _WRITES, _RESTART_SECONDS = 1.15, 1.2, 10, 3.0
_CPU_SECONDS = {100: 7.0, 300: 20.0}
_PEAK_MIB = {300: 150.0, 1000: 200.0}

PerJob = dict[str, dict[str, float]]
"""Writes a job by writer, then by verb and resource."""


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The least of the ordered values that so many percent do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


class Bare(NamedTuple):
    """Jobs of a bare client: seconds to all pods of each, in order, and of all since the first."""

    what: str
    running: list[float]
    whole: float
    writes: PerJob


@dataclass(frozen=True)
class Span:
    """Seconds from each job's own post, in order, and from the first post to the last job's."""

    seconds: list[float]
    whole: float

    @classmethod
    def of(cls, course: Course, moments: dict[str, float], names: list[str]) -> Self:
        """Of jobs that have all come so far."""
        return cls(
            sorted(course.since_posted(moments, names)),
            course.of_all(moments, names),
        )


@dataclass(frozen=True)
class Spent:
    """CPU in seconds since the first post, peak memory in MiB; of the helper since its start."""

    cpu_up: float
    cpu_training: float
    peak: float
    helper_cpu: float
    helper_peak: float


@dataclass(frozen=True)
class Steady:
    """So many seconds in which nothing happened, and what the operator wrote in them."""

    seconds: float
    cpu: float
    writes: list[str]


@dataclass(frozen=True)
class Restart:
    """Seconds from the start of a new operator, and its writes about other jobs.

    Attributes
    ----------
    alone
        To all pods of one job of a bare client, while nothing else went on.
    """

    running: float
    shown: float
    alone: float
    cpu: float
    writes: list[str]


@dataclass(frozen=True)
class Deletion:
    """Seconds until nothing was left but what stays, and how much of that there is."""

    seconds: float
    cpu: float
    writes: PerJob
    left: dict[str, int]


@dataclass(frozen=True)
class Figures:
    """One measurement.

    Attributes
    ----------
    bares
        The one with the operator's own children first.
    running, up
        All pods Running; the job's status has ResourcesReady=True.
    alone, beside
        Seconds of one job while nothing else is to be done: until the bare client's pods run, and
        until the status says so, with all other jobs there.
    shown
        From the coordinator's first lease to a status in phase Running, in seconds.
    writes_up, writes_training, writes_after
        From the first post to all jobs up, and to all in phase Running; and then until the operator
        had nothing more to write.
    """

    jobs: int
    workers: int
    bares: list[Bare]
    alone: float
    beside: float
    running: Span
    up: Span
    shown: list[float]
    writes_up: PerJob
    writes_training: PerJob
    writes_after: PerJob
    refused: dict[str, int]
    spent: Spent
    steady: Steady
    restart: Restart
    deletion: Deletion

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self) | {"bares": [bare._asdict() for bare in self.bares]}

    @property
    def operator_writes(self) -> float:
        """Of the operator, a job, from its post to phase Running."""
        return sum(self.writes_training.get(OPERATOR, {}).values())

    def lines(self) -> Iterator[str]:
        """Markdown."""
        yield f"\n## {self.jobs} jobs of {self.workers} workers\n"
        yield from self._seconds()
        yield ""
        yield from self._multiples()
        yield ""
        yield from self._targets()
        yield ""
        yield from self._writes()

    def _seconds(self) -> Iterator[str]:
        yield "| seconds from a job's own post | p50 | p95 | p99 | first post to last job |"
        yield "|---|---|---|---|---|"
        for bare in self.bares:
            yield _row(f"bare client, {bare.what}: pods Running", bare.running, bare.whole)
        yield _row("dtjob: pods Running", self.running.seconds, self.running.whole)
        yield _row("dtjob: ResourcesReady in the status", self.up.seconds, self.up.whole)
        yield _row("dtjob: first lease to phase Running", self.shown, None)

    def _multiples(self) -> Iterator[str]:
        yield "| dtjob as a multiple of a bare client with | p50 | p95 | p99 | all |"
        yield "|---|---|---|---|---|"
        for bare in self.bares:
            for what, span in (("pods Running", self.running), ("ResourcesReady", self.up)):
                cells = [
                    percentile(span.seconds, percent) / percentile(bare.running, percent)
                    for percent in _PERCENTILES
                ]
                shown = " | ".join(f"{cell:.2f}" for cell in [*cells, span.whole / bare.whole])
                yield f"| {bare.what}: {what} | {shown} |"

    def _targets(self) -> Iterator[str]:
        same, spent, restart = self.bares[0], self.spent, self.restart
        late = restart.shown - restart.alone
        p95 = percentile(same.running, 95)
        found: list[tuple[str, float, float | None]] = [
            ("× to pods Running, p95", percentile(self.running.seconds, 95) / p95, _TO_RUNNING),
            ("× to the status, p95", percentile(self.up.seconds, 95) / p95, _TO_STATUS),
            ("one job more: s to the status", self.beside, None),
            ("… × a bare client's to pods Running", self.beside / self.alone, None),
            ("writes of the operator a job, to phase Running", self.operator_writes, _WRITES),
            ("CPU seconds to all up", spent.cpu_up, _CPU_SECONDS.get(self.jobs)),
            ("CPU seconds to all in phase Running", spent.cpu_training, None),
            ("peak memory, MiB", spent.peak, _PEAK_MIB.get(self.jobs)),
            ("the accountant's helper: CPU seconds", spent.helper_cpu, None),
            ("the accountant's helper: peak memory, MiB", spent.helper_peak, None),
            (f"writes in {self.steady.seconds:.0f} steady seconds", len(self.steady.writes), 0),
            (f"CPU seconds in {self.steady.seconds:.0f} steady seconds", self.steady.cpu, None),
            ("writes about old jobs after a restart", len(restart.writes), 0),
            ("restart to a new job's pods Running, s", restart.running, None),
            ("restart to its phase Running, s", restart.shown, None),
            ("… beyond what a bare job's pods take, s", late, _RESTART_SECONDS),
            ("deletion of all, s", self.deletion.seconds, None),
        ]
        yield "| figure | measured | target |"
        yield "|---|---|---|"
        for what, value, target in found:
            yield f"| {what} | {value:.2f} | {'' if target is None else f'≤ {target:g}'} |"
        left = ", ".join(f"{count} {plural}" for plural, count in self.deletion.left.items())
        yield f"\nLeft after the deletion: {left}."
        if self.refused:
            yield f"Refused writes: {self.refused}."

    def _writes(self) -> Iterator[str]:
        """The operator's one by one; of others what they come to."""
        yield "| writes a job by | to all up | to phase Running | after | bare client |"
        yield "|---|---|---|---|---|"
        columns = (self.writes_up, self.writes_training, self.writes_after, self.bares[0].writes)
        for writer in sorted({writer for column in columns for writer in column}):
            found = [column.get(writer, {}) for column in columns]
            yield _cells(writer, [sum(each.values()) for each in found])
            if writer == OPERATOR:
                for what in dict.fromkeys(what for each in found for what in each):
                    yield _cells(f"… {what}", [each.get(what, 0.0) for each in found])


def _cells(what: str, values: Sequence[float]) -> str:
    return f"| {what} | " + " | ".join(f"{value:.2f}" for value in values) + " |"


def _row(what: str, ordered: Sequence[float], whole: float | None) -> str:
    cells = " | ".join(f"{percentile(ordered, percent):.2f}" for percent in _PERCENTILES)
    return f"| {what} | {cells} | {'' if whole is None else f'{whole:.2f}'} |"
