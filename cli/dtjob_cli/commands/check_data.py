"""`dtjob check-data`: try a data set record by record, for the eyes of its owner.

Training says nothing of single records (rule 20); here all is said, and no epsilon covers it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dtjob_cli import manifests, standard_streams
from dtjob_cli.display import Display, for_stream
from dtjob_cli.errors import BadInput, ExitCode
from dtjob_cli.interrupts import Interrupts, counted
from dtjob_cli.runs import data_process, given_paths, local_workers
from dtjob_cli.runs.data_process import DataProcess
from dtjob_trainer.trial import ENDS_THE_JOB, ENDS_THE_PROCESS
from dtjob_trainer.trial.data_check import Request

Findings = dict[str, Any]

PRIVATE = (
    "All of this is private: it was computed from the records, and no epsilon covers it. It is for "
    "your eyes: copy nothing of it, ranges included, into a public example_spec, manifest or log "
    "without thought. What is public of the data is known without looking at these records."
)
MORE_THAN_DATASET_SIZE = (
    "More records than privacy.datasetSize: step times would tell how many were drawn. Round it "
    "up, not down."
)


def check_data(file: Path, data: Path | None, records: int | None, *, as_json: bool) -> ExitCode:
    """Print what is wrong with the data set of a manifest; return whether nothing is.

    Raises
    ------
    CommandError
        If it can't be tried, or what was found can't be printed.
    """
    job = manifests.job(manifests.read(file))
    given_paths.require_data(job, data)
    training, size = job.spec.training, job.spec.privacy.dataset_size
    request = Request(
        entrypoint=training.entrypoint,
        args=training.args,
        data_dir=str(data.absolute()) if data else None,
        records=records,
    )
    environment = local_workers.environment(job, 1)
    with (
        counted() as interrupts,
        for_stream() as screen,
        data_process.started(request, environment) as process,
    ):
        findings = _watched(process, screen, interrupts)
    findings = {"job": job.metadata.name, "datasetSize": size, **findings, "private": PRIVATE}
    if as_json:
        sys.stdout.write(json.dumps(findings, indent=2) + "\n")
    else:
        _print(findings)
    standard_streams.check_printed()
    if findings["interrupted"]:
        return ExitCode.INTERRUPTED
    good = not (findings["bad"] or findings["refused"] or findings["records"] > size)
    return ExitCode.OK if good else ExitCode.FAILED


def _watched(process: DataProcess, screen: Display, interrupts: Interrupts) -> Findings:
    """Show how far it is; return what it has found, all or up to its end."""
    note: dict[str, Any] = {}
    for note in process.notes():
        if interrupts.count:
            break
        if stage := note.get("stage"):
            screen.waiting(stage)
        if findings := note.get("findings"):
            screen.trying(findings["tried"], findings["asked"], findings["bad"])
    if failed := note.get("failed"):
        raise BadInput(failed["reason"], failed["message"])
    found: Findings = {**note.get("findings", {}), "interrupted": False}
    if note.get("done"):
        return found
    if process.end is None:
        if "findings" not in note:
            interrupts.check("stopped before a record was read.")
        return {**found, "interrupted": True}
    if "findings" not in note:
        raise BadInput(
            "ProcessDied",
            f"the process that tries the data ended by {process.end} before it read a record.",
            "What it printed is above. Mostly memory is short, or a library of the task failed.",
        )
    reading = note["reading"]
    death = {
        "field": None,
        "reason": ENDS_THE_PROCESS,
        "count": 1,
        "first": [reading] if reading is not None else [],
        "example": process.end,
    }
    return {**found, "bad": found["bad"] + 1, "faults": [*found["faults"], death]}


def _print(findings: Findings) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=100)
    console.print(_counts(findings))
    if findings["faults"]:
        console.print()
        console.print(_faults(findings["faults"]))
    if findings["ranges"]:
        console.print()
        console.print(_ranges(findings["ranges"]))
    for text in _notes(findings):
        console.print()
        console.print(Text(standard_streams.readable(text)))


def _notes(findings: Findings) -> list[str]:
    notes = [_death(findings, fault) for fault in _deadly(findings, ENDS_THE_PROCESS)]
    notes += [f"Training would refuse these data: {message}" for message in findings["refused"]]
    if findings["records"] > findings["datasetSize"]:
        notes.append(MORE_THAN_DATASET_SIZE)
    if findings["interrupted"]:
        notes.append("Stopped by you: the records after these were not tried.")
    return [*notes, findings["private"]]


def _death(findings: Findings, fault: dict[str, Any]) -> str:
    """Say which record has killed the process, and what that means."""
    if not fault["first"]:
        return (
            "All records were read once. When some were read again, as training does at its "
            f"start, the process ended by {fault['example']}: a job would end there too. See what "
            "[i] keeps from one read to the next."
        )
    left = findings["asked"] - findings["tried"] - 1
    rest = f"The {left:,} that come after it are not tried. " if left else ""
    return (
        f"Reading record {fault['first'][0]} ended the process by {fault['example']}: a job would "
        f"end there too, whenever the record is drawn. {rest}Correct the record, or leave it "
        "out of dataset(), and try again."
    )


def _deadly(findings: Findings, *reasons: str) -> list[dict[str, Any]]:
    return [fault for fault in findings["faults"] if fault["reason"] in reasons]


def _bad(findings: Findings) -> str:
    bad = findings["bad"]
    ending = sum(f["count"] for f in _deadly(findings, ENDS_THE_PROCESS, ENDS_THE_JOB))
    if not ending:
        return f"{bad}" + (", each of which adds nothing" if bad else "")
    rest = ", each other adds nothing" if bad > ending else ""
    return f"{bad}, of which {ending} would end a job{rest}"


def _counts(findings: Findings) -> Table:
    table = _table(f"Data of job {findings['job']}")
    table.show_header = False
    spread = ", evenly spread" if findings["asked"] < findings["records"] else ""
    for label, text in (
        ("records", f"{findings['records']} (datasetSize {findings['datasetSize']})"),
        ("tried", f"{findings['tried']}{spread}"),
        ("bad", _bad(findings)),
    ):
        table.add_row(label, text)
    return table


def _faults(faults: list[dict[str, Any]]) -> Table:
    table = _table("", "field", "reason", "count", "first", "example")
    for fault in faults:
        first = ", ".join(map(str, fault["first"]))
        more = ", …" if fault["count"] > len(fault["first"]) else ""
        row = (fault["field"] or "", fault["reason"], str(fault["count"]), first + more)
        table.add_row(*(Text(standard_streams.readable(cell)) for cell in (*row, fault["example"])))
    return table


def _ranges(ranges: dict[str, dict[str, float]]) -> Table:
    table = _table("", "field", "least", "greatest", "example_spec has")
    for name, ends in ranges.items():
        spec = f"{ends['low']:g} to {ends['high']:g}"
        cells = (name, f"{ends['least']:.7g}", f"{ends['greatest']:.7g}", spec)
        table.add_row(*(Text(standard_streams.readable(cell)) for cell in cells))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=Text(standard_streams.readable(title)) if title else None,
        title_justify="left",
        title_style="bold",
        box=None,
    )
    for column in columns or ("", ""):
        table.add_column(column, style="cyan" if not table.columns else None, overflow="fold")
    return table
