"""The privacy report as people read it."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dtjob_accounting.rounding import decimal_up, percent_up, significant_up
from dtjob_api.ledger.privacy_ledger import NO_IMAGE
from dtjob_cli import standard_streams
from dtjob_cli.privacy_report import Report, dumps

# Wide enough for a digest where no terminal says how wide it is.
PLAIN_WIDTH = 100
# No ε above it means anything. A ledger from anywhere may hold one.
BOUNDLESS = 1e9
# By what draws were made, as the segments of a report have it.
MADE_BY = ("image", "versions", "formats", "task")
UNKNOWN = "unknown"
_NO_IMAGE_RAN = "none: a machine's own processes, of these versions"
SECTIONS = {"assumed": "Assumed", "trusted": "Trusted", "notClaimed": "Not claimed"}


def show(report: Report, *, as_json: bool) -> None:
    """Print the report on the standard output."""
    if as_json:
        sys.stdout.write(dumps(report))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PLAIN_WIDTH)
    console.print()
    console.print(_table(report))
    for key, title in SECTIONS.items():
        if report.get(key):
            console.print(f"\n[bold]{title}[/]")
            console.print(_bullets(report[key]))
    if report.get("evaluation"):
        figures = {name: value for name, value in report["evaluation"].items() if name != "step"}
        step = report["evaluation"].get("step")
        console.print("\n[bold]Evaluation on public data[/]" + (f", step {step}" if step else ""))
        for name, value in figures.items():
            console.print(f" {name} {_number(value)}", markup=False)


def rows(report: Report) -> list[tuple[str, str]]:
    """Return the report's lines, label and text, those that apply."""
    return [*_state(report), *_privacy(report), *_provenance(report)]


def _table(report: Report) -> Table:
    title = f"{_title(report)} of job {report['job']} ({report['scope']})"
    table = Table(
        title=Text(standard_streams.readable(title)),
        title_justify="left",
        title_style="bold",
        show_header=False,
        box=None,
    )
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in rows(report):
        # Text is no markup: messages may hold brackets.
        table.add_row(standard_streams.readable(label), Text(standard_streams.readable(text)))
    return table


def _title(report: Report) -> str:
    return "Report" if report["plan"]["mode"] == "Disabled" else "Privacy report"


def _bullets(lines: Sequence[str]) -> Table:
    table = Table.grid(padding=(0, 1))
    for line in lines:
        table.add_row(standard_streams.readable(" ·"), Text(standard_streams.readable(line)))
    return table


def _state(report: Report) -> list[tuple[str, str]]:
    plan, spent = report["plan"], report["spent"]
    state = report["state"]
    if report.get("reason"):
        state += f" ({report['reason']}): {report['message']}"
    return [
        ("state", state),
        ("steps", f"{report['step']} of {plan['steps']} in {_attempts(report)}"),
        (
            "draws",
            f"{spent['draws']} charged of {plan['reservedDraws']} "
            f"(T = {plan['steps']} and R = {plan['replayReserveSteps']} in reserve)",
        ),
        *([("only if", spent["onlyIf"])] if "onlyIf" in spent else []),
    ]


def _privacy(report: Report) -> list[tuple[str, str]]:
    plan = report["plan"]
    if plan["mode"] == "Disabled":
        return [("privacy", "Disabled: no noise, no clipping, no guarantee")]
    meaning = report["meaning"]
    share, wrong = meaning["attackTruePositiveRate"], meaning["attackFalsePositiveRate"]
    target = f", target {plan['epsilon']:g}" if plan.get("epsilon") else ""
    promised = plan.get("epsilonGuaranteed")
    return [
        *(
            [("ε guaranteed", f"{_epsilon(promised)} (all reserved draws{target})")]
            if promised is not None
            else []
        ),
        ("ε spent", f"{decimal_up(report['spent']['epsilon'])} (the charged draws)"),
        ("δ", significant_up(plan["delta"])),
        ("neighbours", f"{plan['adjacency']}: one {plan['unit']} added or removed"),
        (
            "mechanism",
            f"DP-SGD: {plan['sampler']} draws, q = {plan['batchSize']}/{plan['datasetSize']} = "
            f"{significant_up(plan['sampleRate'])}; each gradient clipped to C = "
            f"{plan['maxGradNorm']}; Gaussian noise, σ = {plan['noiseMultiplier']}",
        ),
        ("bad records", "add nothing; dtjob check-data shows them, to their owner alone"),
        (
            "an attacker",
            f"who is wrong about {wrong:.0%} of those not in the data finds at most "
            f"{percent_up(share)} of those in it",
        ),
        (
            "replace one",
            f"ε {_epsilon(meaning['replaceOneEpsilon'])} when a record is exchanged for another, "
            "by the general bound: one taken out, one put in, at the same delta",
        ),
        *(
            (f"{size} records", f"ε {_epsilon(epsilon)} for a person with so many")
            for size, epsilon in meaning["groupEpsilon"].items()
        ),
        *([("released", _released(report["released"]))] if "released" in report else []),
        ("accountant", f"{plan['accountant']}, {plan['accountantVersion']}"),
    ]


def _provenance(report: Report) -> list[tuple[str, str]]:
    labels = {"initialModel": "initial weights", "model": "final weights"}
    found = [(label, report[key]) for key, label in labels.items() if report.get(key)]
    if report.get("checkpoint"):
        found.append(("checkpoint", report["checkpoint"]))
    found += [(name, text) for name in MADE_BY if (text := _over_draws(report["segments"], name))]
    return [*found, ("computed by", _listed(report["computedBy"]))]


def _over_draws(segments: Sequence[Report], name: str) -> str:
    """Word by what the draws were made, in their order, with their numbers where it changed."""
    made = [
        (known, sum(segment["draws"] for segment in of_it))
        for known, of_it in itertools.groupby(segments, key=lambda segment: segment.get(name))
    ]
    if all(known is None for known, _ in made):
        return ""
    if len(made) == 1:
        return _listed(made[0][0])
    return ", then ".join(
        f"{UNKNOWN if known is None else _listed(known)} for {draws} draws" for known, draws in made
    )


def _listed(known: str | dict[str, object]) -> str:
    if isinstance(known, str):
        return _NO_IMAGE_RAN if known == NO_IMAGE else known
    return ", ".join(f"{name} {it}" for name, it in known.items())


def _released(what: Sequence[str]) -> str:
    return ", ".join(what) or "nothing: no batch was drawn"


def _attempts(report: Report) -> str:
    count, refused = report["attempts"], report.get("attemptsRefused", 0)
    attempts = "one attempt" if count == 1 else f"{count} attempts"
    if not refused:
        return attempts
    least = "at least " if report["attemptsForgotten"] else ""
    return f"{attempts} ({least}{refused} refused)"


def _epsilon(epsilon: float | None) -> str:
    if epsilon is None or epsilon > BOUNDLESS:
        return "unbounded: nothing is claimed"
    return decimal_up(epsilon)


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
