"""The coordinator's report, as far as a status may show it."""

from __future__ import annotations

import re
from dataclasses import replace

from dtjob_api.wire.worker_report import WorkerReport
from dtjob_operator.terms import formatting
from dtjob_operator.terms.kinds import Json

_MAX_FIGURES = 32
_STAGE = re.compile(r"[A-Za-z][A-Za-z ,;:'()-]{0,127}")


def read(raw: Json, job_uid: str) -> WorkerReport | None:
    """The job's report in `raw`, or None where there is none worth the name.

    An address may have passed on to another job's pod since it was asked. The stage stands for
    words of ours in a condition, so it has no room for a figure.
    """
    report = WorkerReport.read(raw)
    if report is None or report.job_uid != job_uid:
        return None
    return report if _STAGE.fullmatch(report.stage) else replace(report, stage="")


def evaluation(report: WorkerReport) -> dict[str, str]:
    """The task's public figures, as many as a status holds, as text."""
    figures = sorted(report.evaluation.items())[:_MAX_FIGURES]
    return {name: formatting.significant(figure) for name, figure in figures}
