"""``dtjob plan``: what the operator would compute for a job, without running it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dtjob_accounting import pld
from dtjob_accounting.plan import Plan, warnings
from dtjob_accounting.rounding import decimal_up
from dtjob_api.derive import frozen_plan
from dtjob_cli import manifests, planning, standard_streams
from dtjob_cli.display import for_stream
from dtjob_cli.planning import StepShape


def plan(file: Path, *, as_json: bool) -> None:
    """Print the privacy plan of a manifest and the shape of its steps.

    Raises
    ------
    CommandError
        If the manifest is invalid, no noise gives what it asks for, or the plan can't be printed.
    """
    manifest = manifests.read(file)
    job = manifests.job(manifest)
    with for_stream() as screen:
        screen.waiting("calibrating the noise")
        made = planning.privacy_plan(job, pld)
        shape = planning.step_shape(job, job.spec.workers.replicas)
    if as_json:
        sys.stdout.write(json.dumps(as_object(job.metadata.name, made, shape), indent=2) + "\n")
    else:
        _print(job.metadata.name, made, shape)
    standard_streams.check_printed()


def as_object(name: str, made: Plan, shape: StepShape) -> dict[str, Any]:
    """Return the plan as `-o json` prints it: Kubernetes' spelling, absent figures left out."""
    figures = frozen_plan(made).to_dict()
    return {
        "job": name,
        "plan": {**figures, "reservedDraws": made.reserved_draws},
        "step": {
            "ranks": shape.ranks,
            "rows": shape.rows,
            "physicalBatchSize": shape.physical_batch_size,
            "microBatches": shape.micro_batches,
        },
        "warnings": warnings(made),
    }


def _print(name: str, made: Plan, shape: StepShape) -> None:
    console = Console(highlight=False)
    console.print(_table(name, made, shape))
    for warning in warnings(made):
        console.print(f"warning: {warning}", markup=False)


def _table(name: str, made: Plan, shape: StepShape) -> Table:
    table = Table(title=f"Plan of job {name}", show_header=False, title_justify="left", box=None)
    # A narrow terminal folds figures and never cuts them.
    table.add_column(style="bold", overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim", overflow="fold")
    for row in _rows(made, shape):
        table.add_row(*map(standard_streams.readable, row))
    return table


def _rows(made: Plan, shape: StepShape) -> list[tuple[str, str, str]]:
    rows: list[tuple[str, str, str]] = []
    if made.noise_multiplier is None or made.epsilon_guaranteed is None:
        rows.append(("privacy", "Disabled", "no noise, no clipping, no guarantee"))
    else:
        rows += [
            ("σ", f"{made.noise_multiplier:.6g}", "noise multiplier: noise over maxGradNorm"),
            ("ε guaranteed", decimal_up(made.epsilon_guaranteed), "after all reserved draws"),
            ("δ", f"{made.delta:.3g}", f"below 1/N = {1 / made.dataset_size:.3g}"),
            ("C", f"{made.max_grad_norm:g}", "maxGradNorm: bound of an example's contribution"),
        ]
    rows += [
        ("q", f"{made.sample_rate:.6f}", f"sample rate: {made.batch_size} of {made.dataset_size}"),
        ("T", str(made.steps), "steps"),
        ("R", str(made.replay_reserve_steps), "draws in reserve for steps lost to crashes"),
        ("n", str(made.lease_steps), "steps between checkpoints, draws of a lease"),
        ("Q", str(shape.rows), "rows that every step has room for"),
        ("W", str(shape.ranks), "ranks"),
        ("P", str(shape.physical_batch_size), "rows that a rank holds at once"),
        ("M", str(shape.micro_batches), "micro-batches of a rank in every step"),
        ("accountant", made.accountant_version, f"{made.unit}, {made.adjacency}, {made.sampler}"),
    ]
    return rows
