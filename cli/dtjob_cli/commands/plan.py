"""`dtjob plan`: what the operator would compute for a job, without running it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dtjob_accounting import pld
from dtjob_accounting.plan import Plan, warnings
from dtjob_accounting.rounding import decimal_up, significant_up
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
        plan = planning.privacy_plan(job, pld)
        shape = planning.step_shape(job, plan, job.spec.workers.replicas)
    if as_json:
        sys.stdout.write(json.dumps(as_object(job.metadata.name, plan, shape), indent=2) + "\n")
    else:
        _print(job.metadata.name, plan, shape)
    standard_streams.check_printed()


def as_object(name: str, plan: Plan, shape: StepShape) -> dict[str, Any]:
    """Return the plan as `-o json` prints it: Kubernetes' spelling, absent figures left out."""
    figures = frozen_plan(plan).to_dict()
    return {
        "job": name,
        "plan": {**figures, "reservedDraws": plan.reserved_draws},
        "step": {
            "ranks": shape.ranks,
            "rows": shape.rows,
            "physicalBatchSize": shape.physical_batch_size,
            "microBatches": shape.micro_batches,
        },
        "warnings": warnings(plan),
    }


def _print(name: str, plan: Plan, shape: StepShape) -> None:
    console = Console(highlight=False)
    console.print(_table(name, plan, shape))
    for warning in warnings(plan):
        console.print(f"warning: {warning}", markup=False)


def _table(name: str, plan: Plan, shape: StepShape) -> Table:
    table = Table(title=f"Plan of job {name}", show_header=False, title_justify="left", box=None)
    # A narrow terminal folds figures and never cuts them.
    table.add_column(style="bold", overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim", overflow="fold")
    for row in _rows(plan, shape):
        table.add_row(*map(standard_streams.readable, row))
    return table


def _rows(plan: Plan, shape: StepShape) -> list[tuple[str, str, str]]:
    rows: list[tuple[str, str, str]] = []
    if plan.noise_multiplier is None or plan.epsilon_guaranteed is None or plan.delta is None:
        rows.append(("privacy", "Disabled", "no noise, no clipping, no guarantee"))
    else:
        rows += [
            ("σ", f"{plan.noise_multiplier:.6g}", "noise multiplier: noise over maxGradNorm"),
            ("ε guaranteed", decimal_up(plan.epsilon_guaranteed), "after all reserved draws"),
            ("δ", significant_up(plan.delta, 3), f"below 1/N = {1 / plan.dataset_size:.3g}"),
            ("C", f"{plan.max_grad_norm:g}", "maxGradNorm: bound of an example's contribution"),
        ]
    rows += [
        ("q", f"{plan.sample_rate:.6f}", f"sample rate: {plan.batch_size} of {plan.dataset_size}"),
        ("T", str(plan.steps), "steps"),
        ("R", str(plan.replay_reserve_steps), "draws in reserve for steps lost to crashes"),
        ("n", str(plan.lease_steps), "steps between checkpoints, draws of a lease"),
        ("Q", str(shape.rows), "rows that every step has room for"),
        ("W", str(shape.ranks), "ranks"),
        ("P", str(shape.physical_batch_size), "rows that a rank holds at once"),
        ("M", str(shape.micro_batches), "micro-batches of a rank in every step"),
        ("accountant", plan.accountant_version, f"{plan.unit}, {plan.adjacency}, {plan.sampler}"),
    ]
    return rows
