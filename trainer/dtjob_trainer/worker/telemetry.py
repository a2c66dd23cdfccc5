"""What a worker shows of itself: `/report` for the operator and the CLI, `/metrics` for Prometheus.

Everything here is independent of the private data (Rule 19): steps, draws charged, epsilon,
throughput in expected examples, GPU figures, and metrics on public evaluation data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

from dtjob_api.job.status import GpuRange, GpuStatus
from dtjob_api.wire.worker_report import WorkerReport, WorkerState
from dtjob_exporter.nvml import GpuFigures
from dtjob_trainer.gang.worker_view import WorkerView


def worker_report(view: WorkerView, batch_size: int) -> WorkerReport:
    """What the operator scrapes and `dtjob run` shows."""
    return WorkerReport(
        job_uid=view.job_uid,
        generation=view.generation,
        attempt=view.attempt,
        workers=view.workers,
        restarts=view.restarts,
        state=view.state,
        stage=view.stage,
        reason=view.reason,
        message=view.message,
        step=view.step,
        total_steps=view.total_steps,
        charged=view.charged,
        reserved_draws=view.reserved_draws,
        samples_per_second=view.samples_per_second,
        epsilon_spent=view.epsilon_spent,
        evaluation=view.evaluation,
        checkpoint=view.checkpoint,
        heartbeat=view.heartbeat,
        estimated_completion=_estimated_completion(view, batch_size),
        gpu=summarise_gpus(view.gpus),
    )


def _estimated_completion(view: WorkerView, batch_size: int) -> datetime | None:
    rate = view.samples_per_second
    if view.state is not WorkerState.RUNNING or not rate or view.heartbeat is None:
        return None
    left = (view.total_steps - view.step) * batch_size / rate
    return view.heartbeat + timedelta(seconds=left)


def gpu_fields(gpus: list[GpuFigures], ordinal: int) -> list[dict[str, Any]]:
    """GPU figures in the names of the status, with the worker they belong to."""
    return [{"worker": ordinal, **asdict(gpu)} for gpu in gpus]


def summarise_gpus(gpus: list[dict[str, Any]]) -> GpuStatus | None:
    """The gang's GPUs in one object, or None where there is none; absent figures stay absent."""
    if not gpus:
        return None

    def known(name: str) -> list[Any]:
        return [gpu[name] for gpu in gpus if gpu[name] is not None]

    summary: dict[str, Any] = {"count": len(gpus)}
    if rates := known("utilization_percent"):
        mean = round(sum(rates) / len(rates))
        summary["utilization_percent"] = GpuRange(min=min(rates), mean=mean, max=max(rates))
    if used := known("memory_used_bytes"):
        summary["memory_used_bytes"] = sum(used)
        summary["memory_total_bytes"] = sum(known("memory_total_bytes"))
    if temperatures := known("temperature_celsius"):
        summary["temperature_max_celsius"] = max(temperatures)
    if power := known("power_watts"):
        summary["power_watts"] = round(sum(power))
    return GpuStatus(**summary)


class WorkerMetrics:
    """A Prometheus collector over a :class:`WorkerView`; figures that don't exist are absent."""

    def __init__(self, view: WorkerView, labels: dict[str, str]) -> None:
        self._view = view
        self._names = list(labels)
        self._values = list(labels.values())

    def collect(self) -> Iterator[Metric]:
        """Yield the current figures as gauges (a scrape reads, it never waits)."""
        view = self._view
        yield from self._gauges(
            ("dtjob_attempt", "Attempts of this job so far.", view.attempt),
            (
                "dtjob_worker_ready",
                "1 while this worker trains.",
                int(view.state is WorkerState.RUNNING),
            ),
        )
        if view.ordinal == 0:
            yield from self._gauges(
                ("dtjob_step", "Steps of the model.", view.step),
                ("dtjob_steps_planned", "Steps that the job is to make.", view.total_steps),
                ("dtjob_draws_charged", "Draws leased over all attempts.", view.charged),
                (
                    "dtjob_draws_reserved",
                    "Draws that the noise was calibrated for.",
                    view.reserved_draws,
                ),
                ("dtjob_restarts", "Attempts that did not end orderly.", view.restarts),
                (
                    "dtjob_samples_per_second",
                    "Expected examples per second.",
                    view.samples_per_second,
                ),
                (
                    "dtjob_epsilon_spent",
                    "Epsilon of the charged draws, rounded up.",
                    float(view.epsilon_spent) if view.epsilon_spent is not None else None,
                ),
            )
        steps = GaugeMetricFamily(
            "dtjob_rank_step", "Steps that a rank has finished.", labels=[*self._names, "rank"]
        )
        for rank, step in sorted(view.rank_steps.items()):
            steps.add_metric([*self._values, str(rank)], step)
        yield steps
        yield from self._gpu_gauges()

    def _gauges(self, *gauges: tuple[str, str, float | None]) -> Iterator[Metric]:
        for name, help_text, value in gauges:
            if value is not None:
                family = GaugeMetricFamily(name, help_text, labels=self._names)
                family.add_metric(self._values, value)
                yield family

    def _gpu_gauges(self) -> Iterator[Metric]:
        mine = [gpu for gpu in self._view.gpus if gpu["worker"] == self._view.ordinal]
        for name, field_name, help_text in (
            (
                "dtjob_gpu_utilization_percent",
                "utilization_percent",
                "Share of time the GPU was busy.",
            ),
            ("dtjob_gpu_memory_used_bytes", "memory_used_bytes", "GPU memory in use."),
            ("dtjob_gpu_memory_total_bytes", "memory_total_bytes", "GPU memory in all."),
            ("dtjob_gpu_temperature_celsius", "temperature_celsius", "Temperature of the GPU."),
            ("dtjob_gpu_power_watts", "power_watts", "Power that the GPU draws."),
        ):
            family = GaugeMetricFamily(name, help_text, labels=[*self._names, "gpu", "uuid"])
            for gpu in mine:
                if gpu[field_name] is not None:
                    family.add_metric(
                        [*self._values, str(gpu["index"]), gpu["uuid"]], gpu[field_name]
                    )
            if family.samples:
                yield family
