"""``dtjob report``: the privacy report and the public evaluation of a run, or of a job's ledger."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic import ValidationError

from dtjob_accounting.process import PldProcess
from dtjob_api.ledger import PrivacyLedger
from dtjob_cli import report as reports
from dtjob_cli import report_text, resume, runs
from dtjob_cli.display import for_stream
from dtjob_cli.errors import BadInput

STANDARD_INPUT = Path("-")


def report(source: Path, *, as_json: bool) -> None:
    """Print the report of a run or a ledger, finished or not.

    Parameters
    ----------
    source
        Directory of a local run; or a PrivacyLedger as JSON, in a file or on the standard input.

    Raises
    ------
    CommandError
        If there is no such run or the ledger can't be read.
    """
    run, summary = None, None
    if source == STANDARD_INPUT or source.is_file():
        ledger = _ledger(source)
    else:
        run = runs.existing(source)
        ledger = resume.readable(run).ledger
        summary = reports.load(run)
    if summary is None:
        with for_stream() as screen, PldProcess() as accountant:
            screen.waiting("computing epsilon of what is charged")
            summary = reports.build(ledger, accountant, run)
    report_text.show(summary, as_json=as_json)


def _ledger(source: Path) -> PrivacyLedger:
    text = sys.stdin.read() if source == STANDARD_INPUT else source.read_text()
    try:
        return PrivacyLedger.from_dict(json.loads(text))
    except (ValueError, ValidationError) as error:
        raise BadInput(
            "NoLedger",
            f"{source} holds no PrivacyLedger as JSON: {str(error).splitlines()[0]}",
            "Give the directory of a run, or pipe "
            "`kubectl get privacyledger NAME --output=json` into `dtjob report -`.",
        ) from None
