"""`dtjob report`: the privacy report and the public evaluation of a run, or of a job's ledger."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dtjob_accounting.process import PldProcess
from dtjob_api import shown
from dtjob_api.ledger.privacy_ledger import PrivacyLedger
from dtjob_api.model import first_error
from dtjob_cli import planning, privacy_report, privacy_report_text, standard_streams
from dtjob_cli.display import for_stream
from dtjob_cli.errors import BadInput
from dtjob_cli.runs import run_directory, spent

STANDARD_INPUT = Path("-")
REMEDY = (
    "Give the directory of a run, or pipe `kubectl get privacyledger NAME --output=json` into "
    "`dtjob report -`."
)


def report(source: Path, *, as_json: bool) -> None:
    """Print the report of a run or a ledger, finished or not.

    Parameters
    ----------
    source
        Directory of a local run; or a PrivacyLedger as JSON, in a file or on the standard input.

    Raises
    ------
    CommandError
        If there is no such run, the ledger can't be read, or the report can't be printed.
    """
    run = None
    if source == STANDARD_INPUT or run_directory.is_file(source):
        ledger = spent.of_ledger(_ledger(source))
    else:
        run = run_directory.existing(source)
        ledger = spent.complete_ledger(run, f"dtjob report {shlex.quote(str(source))}")
    with for_stream() as screen, planning.answered(), PldProcess() as accountant:
        screen.waiting("computing epsilon of what is charged")
        summary = privacy_report.build(ledger, accountant, run)
    privacy_report_text.show(summary, as_json=as_json)
    standard_streams.check_printed()


def _ledger(source: Path) -> PrivacyLedger:
    name = "the standard input" if source == STANDARD_INPUT else str(source)
    if source != STANDARD_INPUT and (run := run_directory.of_version(source)) is not None:
        raise BadInput(
            "NoLedger",
            f"{name} is one version of a run's ledger, beside which its journals tell more.",
            f"Give the run's directory: dtjob report {shlex.quote(str(run.path))}",
        )
    found = _json(source, name)
    kind = found.get("kind") if isinstance(found, dict) else None
    if kind != "PrivacyLedger":
        if isinstance(found, dict) and {"job", "scope", "plan", "spent"} <= found.keys():
            raise BadInput(
                "NoLedger",
                f"{name} is the report that a run has left, not its ledger.",
                f"Give the run's directory: dtjob report {_directory(source)}",
            )
        what = "this has no kind"
        if isinstance(kind, str) and kind:
            what = f"this is a {shown.line(kind)}"
        raise BadInput("NoLedger", f"{name}: {what}, not a PrivacyLedger.", REMEDY)
    try:
        return PrivacyLedger.from_dict(found)
    except ValidationError as error:
        message = f"{name}: a PrivacyLedger that can't be read: {first_error(error)}."
        raise BadInput("NoLedger", message, REMEDY) from None


def _json(source: Path, name: str) -> Any:
    try:
        data = sys.stdin.buffer.read() if source == STANDARD_INPUT else source.read_bytes()
        return json.loads(data)  # bytes: UTF-8, or what else a byte order mark announces
    except OSError as error:
        raise BadInput("NoLedger", f"{name}: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        message = f"{name} is no JSON: byte {error.start} is not {error.encoding.upper()}."
        raise BadInput("NoLedger", message, REMEDY) from None
    except ValueError as error:
        raise BadInput("NoLedger", f"{name} is no JSON: {error}.", REMEDY) from None
    except RecursionError:
        message = f"{name} is no PrivacyLedger: its JSON is nested too deeply."
        raise BadInput("NoLedger", message, REMEDY) from None


def _directory(source: Path) -> str:
    return shlex.quote(str(source.parent)) if source.name == "report.json" else "dtjob-runs/NAME"
