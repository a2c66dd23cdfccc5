"""The privacy report of a job as an object (rule 23); `report_text` words it for people."""

from __future__ import annotations

import json
import math
import os
from concurrent.futures import Future
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dtjob_accounting.errors import PlanError
from dtjob_accounting.limits import Segment
from dtjob_accounting.process import PldProcess
from dtjob_accounting.report_figures import Figures
from dtjob_api import shown
from dtjob_api.job.privacy import PrivacyMode, Telemetry
from dtjob_api.ledger import ending
from dtjob_api.ledger.privacy_ledger import PrivacyLedger, PrivacyPlan, Provenance, Versions
from dtjob_api.reasons import TRAINING_HELD, Reason
from dtjob_cli.errors import CommandError, ExitCode
from dtjob_cli.runs.run_directory import RunDirectory, naming

Report = dict[str, Any]

#: Of what was spent, where a ledger that goes on is all that is known (rule 11).
ONLY_IF_NEWEST = (
    "no newer version of this ledger was ever written: it has no outcome, and the checkpoint "
    "volume, which would tell, was not asked"
)
SCOPE_OF_RUN = "this run only"
SCOPE_OF_JOB = "this job only"
ASSUMED = (
    "A person is one record; for one with more, see the groups.",
    "Other runs on the same data, and settings chosen after seeing their results, are not covered.",
    "Ledger and journal of the run are not lost or set back together.",
    "Crashes and their number do not depend on a single record, nor does it that a model is "
    "refused while it trains.",
    "The task keeps its contract: a record more is one element more of its data and changes no "
    "other, and a loss depends on its own record alone.",
    "What all records have in common is public: their fields, shapes and types. A start that is "
    "refused for the first record's says so.",
    "The data have at most datasetSize records; of more, draws may overflow more often than delta "
    "allows for.",
    "Nobody watches which records a step reads: a slow one, or one that ends the process, shows "
    "that it was read.",
    "Epsilon spent: when the run stopped did not depend on what it had shown. Epsilon guaranteed "
    "needs no such assumption.",
)
TRUSTED_MACHINE = "This machine and who administers it."
TRUSTED_CLUSTER = "The cluster: its administrators, nodes, storage and pod network."
TRUSTED = (
    "The job's code: its task sees the private data.",
    "The kernel's random numbers, and AES-256 as a source of more.",
)
NOT_CLAIMED = ("A floating-point proof of the sampler.",)
#: By what the figures of a report are computed.
READERS = ("dtjob", "dp-accounting")


def build(ledger: PrivacyLedger, accountant: PldProcess, run: RunDirectory | None) -> Report:
    """Return the report of a job as its ledger stands.

    What was not measured, is not known or does not apply is absent. The figures of an attack, of
    a replaced record and of groups hold for all reserved draws, hence for every moment of stopping.

    Parameters
    ----------
    run
        The directory of a local run; None where the ledger is all, as of a job of a cluster.

    Raises
    ------
    CommandError
        If no accountant computes epsilon for such a plan.
    HelperFailed
        If the accountant gives no answer.
    """
    status, plan = ledger.status, ledger.spec.plan
    report: Report = {
        "job": ledger.spec.job_name,
        "uid": ledger.spec.job_uid,
        "scope": SCOPE_OF_RUN if run else SCOPE_OF_JOB,
        "state": status.outcome.state.value if status.outcome else "Unfinished",
        "step": status.checkpoint.step if status.checkpoint else 0,
        "plan": {**plan.to_dict(), "reservedDraws": ledger.spec.reserved_draws},
        "spent": {"draws": status.charged},
        "attempts": status.attempt,
    }
    if run is None and status.outcome is None:
        report["spent"]["onlyIf"] = ONLY_IF_NEWEST
    if plan.mode is PrivacyMode.DPSGD:
        try:
            report["spent"]["epsilon"] = _spent(ledger, accountant)
            report["meaning"] = _meaning(plan, accountant)
        except PlanError as error:
            raise CommandError(
                ExitCode.REFUSED if run else ExitCode.BAD_INPUT,
                Reason.LEDGER_UNREADABLE,
                f"the ledger of job {ledger.spec.job_name} has a plan that the accountant refuses: "
                f"{error}. No epsilon can be stated.",
                "No job begins with such a plan: put the ledger back from a copy.",
            ) from None
        trusted = [TRUSTED_MACHINE if run else TRUSTED_CLUSTER, *TRUSTED]
        report["released"] = _released(plan.telemetry, status.charged)
        report |= {"assumed": [*ASSUMED], "trusted": trusted, "notClaimed": [*NOT_CLAIMED]}
    refused = [record for record in status.attempts if record.reason in TRAINING_HELD]
    if refused:
        report["attemptsRefused"] = len(refused)
        # In a full list of attempts the refused ones make room first.
        report["attemptsForgotten"] = status.attempt - len(status.attempts)
    if digest := shown.digest(status.initial_model_digest):
        report["initialModel"] = digest
    if status.checkpoint and (path := shown.path(status.checkpoint.path)):
        report["checkpoint"] = path
    report["segments"] = [{"draws": s.draws, **_provenance(s)} for s in status.segments]
    report["computedBy"] = {name: version(name) for name in READERS}
    return report | (_of_run(run, report) if run else {}) | _ended(ledger)


def _of_run(run: RunDirectory, report: Report) -> Report:
    """Return what the directory of a run shows beyond its ledger."""
    added: Report = {"run": _in_utf_8(run.path)}
    if "checkpoint" in report:
        added["checkpoint"] = _in_utf_8(run.state / report["checkpoint"])
    return added


def _in_utf_8(path: Path) -> str:
    """Return a path as programs read it, also where the locale has no such characters."""
    return os.fsencode(path).decode("utf-8", "surrogateescape")


def _provenance(segment: Provenance) -> Report:
    """Return by what the run made these draws, as far as that is known."""
    found = {
        "image": shown.image(segment.image),
        "formats": segment.formats.to_dict() if segment.formats else None,
        "versions": _versions(segment.versions) if segment.versions else None,
        "task": shown.digest(segment.task_digest),
    }
    return {name: value for name, value in found.items() if value}


def _versions(made_with: Versions) -> dict[str, str]:
    """Return versions by names, those of the task's packages last."""
    versions = made_with.to_dict()
    packages = versions.pop("packages")
    named = dict(each.split("==") for each in packages if shown.package(each))
    # No package stands for one that has a field of its own.
    found = versions | {name: version for name, version in named.items() if name not in versions}
    return {name: version for name, version in found.items() if shown.version(version)}


def prepare(plan: PrivacyPlan, accountant: PldProcess) -> Future[Figures] | None:
    """Ask for the figures of all reserved draws; who asks early has them when training ends."""
    if plan.noise_multiplier is None or plan.sample_rate is None or plan.delta is None:
        return None
    draws = plan.steps + plan.replay_reserve_steps
    return accountant.submit_figures([(plan.noise_multiplier, plan.sample_rate, draws)], plan.delta)


def save(run: RunDirectory, report: Report) -> None:
    """Write the report into the run, whole or not at all.

    It is for others to read, and never read back, since the task's processes can write it too.
    """
    draft = run.privacy_report.with_suffix(".tmp")
    with naming(draft):
        draft.write_text(dumps(report), encoding="ascii")
        os.replace(draft, run.privacy_report)


def dumps(report: Report) -> str:
    """Return the report as one JSON object, in ASCII: any file or stream takes it."""
    return json.dumps(report, indent=2) + "\n"


def _spent(ledger: PrivacyLedger, accountant: PldProcess) -> float:
    """Return ε of all charged draws, rounded up (rule 13)."""
    delta = ledger.spec.plan.delta
    segments: list[Segment] = [
        (s.noise_multiplier, s.sample_rate, s.draws)
        for s in ledger.status.segments
        if s.noise_multiplier is not None and s.sample_rate is not None and s.draws
    ]
    if not segments or delta is None:
        return 0.0
    return accountant.submit_epsilon_of_segments(segments, delta).result()


def _meaning(plan: PrivacyPlan, accountant: PldProcess) -> dict[str, Any]:
    """Return what the guarantee means to a person in the data."""
    asked = prepare(plan, accountant)
    if asked is None:
        return {}
    figures = asked.result()
    return {
        "attackTruePositiveRate": figures.attack_tpr,
        "attackFalsePositiveRate": figures.attack_fpr,
        "replaceOneEpsilon": _finite(figures.replace_one_epsilon),
        "groupEpsilon": {str(k): _finite(e) for k, e in figures.group_epsilon.items()},
    }


def _ended(ledger: PrivacyLedger) -> Report:
    """Return what the outcome adds: why, the public figures and the digest of the model."""
    outcome = ledger.status.outcome
    if outcome is None:
        return {}
    result = ending.result(ledger) or {}
    added = {
        "reason": outcome.reason.value,
        "message": ending.message(ledger),
        "evaluation": result.get("evaluation"),
        "model": result.get("modelDigest"),
    }
    return {name: value for name, value in added.items() if value}


def _released(telemetry: Telemetry, draws: int) -> list[str]:
    """Return what the run gave away; without a draw at most what its task prints."""
    released = (
        ["the model", "steps, draws and times", "figures of evaluate on public data"]
        if draws
        else []
    )
    if telemetry is Telemetry.NOT_COVERED_BY_EPSILON:
        released.append("statistics of the private data, NOT covered by epsilon (telemetry)")
    return released


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
