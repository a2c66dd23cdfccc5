"""What a worker shows of itself: `/report` for the operator and the CLI, `/metrics` for Prometheus.

Everything here is independent of the private data (Rule 19): steps, draws charged, epsilon,
throughput in expected examples, GPU figures, and metrics on public evaluation data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric

from dtjob_api.job.status import GpuRange, GpuStatus
from dtjob_api.wire.gang import GpuReading
from dtjob_api.wire.worker_config import JobIdentity
from dtjob_api.wire.worker_report import WorkerReport, WorkerState
from dtjob_exporter.nvml import GpuFigures
from dtjob_trainer.gang.worker_view import CurrentView, WorkerView

Figure = TypeVar("Figure", int, float)


def worker_report(view: WorkerView, batch_size: int) -> WorkerReport:
    """The worker report, which the operator scrapes and `dtjob run` shows."""
    return replace(
        view.report,
        estimated_completion=_estimated_completion(view.report, batch_size),
        gpu=summarise_gpus(view.gpus),
    )


def _estimated_completion(report: WorkerReport, batch_size: int) -> datetime | None:
    rate = report.samples_per_second
    if report.state is not WorkerState.RUNNING or not rate or report.heartbeat is None:
        return None
    left = (report.total_steps - report.step) * batch_size / rate
    return report.heartbeat + timedelta(seconds=left)


def gpu_fields(gpus: Sequence[GpuFigures], position: int) -> tuple[GpuReading, ...]:
    """GPU figures with the worker that they belong to."""
    return tuple(GpuReading(worker=position, **asdict(gpu)) for gpu in gpus)


def summarise_gpus(gpus: Sequence[GpuReading]) -> GpuStatus | None:
    """The gang's GPUs in one object, or None where there is none; absent figures stay absent."""
    if not gpus:
        return None
    summary: dict[str, Any] = {"count": len(gpus)}
    if rates := _known(gpu.utilization_percent for gpu in gpus):
        mean = round(sum(rates) / len(rates))
        summary["utilization_percent"] = GpuRange(min=min(rates), mean=mean, max=max(rates))
    if used := _known(gpu.memory_used_bytes for gpu in gpus):
        summary["memory_used_bytes"] = sum(used)
        summary["memory_total_bytes"] = sum(_known(gpu.memory_total_bytes for gpu in gpus))
    if temperatures := _known(gpu.temperature_celsius for gpu in gpus):
        summary["temperature_max_celsius"] = max(temperatures)
    if power := _known(gpu.power_watts for gpu in gpus):
        summary["power_watts"] = round(sum(power))
    return GpuStatus(**summary)


def _known(figures: Iterable[Figure | None]) -> list[Figure]:
    return [figure for figure in figures if figure is not None]


def registry(current: CurrentView, job: JobIdentity, position: int) -> CollectorRegistry:
    """What `/metrics` of a worker shows."""
    labels = {"namespace": job.namespace, "job": job.name, "worker": str(position)}
    found = CollectorRegistry(auto_describe=False)
    found.register(WorkerMetrics(current, labels))
    return found


class WorkerMetrics:
    """A Prometheus collector over the current view; figures that don't exist are absent."""

    def __init__(self, current: CurrentView, labels: dict[str, str]) -> None:
        self._current = current
        self._names = list(labels)
        self._values = list(labels.values())

    def collect(self) -> Iterator[Metric]:
        """Yield the current figures as gauges (a scrape reads, it never waits)."""
        view = self._current.view
        report = view.report
        yield from self._gauges(
            ("dtjob_attempt", "Attempts of this job so far.", report.attempt),
            (
                "dtjob_worker_ready",
                "1 while this worker trains.",
                int(report.state is WorkerState.RUNNING),
            ),
        )
        if view.position == 0:
            yield from self._gauges(
                ("dtjob_step", "Steps of the model.", report.step),
                ("dtjob_steps_planned", "Steps that the job is to make.", report.total_steps),
                ("dtjob_draws_charged", "Draws leased over all attempts.", report.charged),
                (
                    "dtjob_draws_reserved",
                    "Draws that the noise was calibrated for.",
                    report.reserved_draws,
                ),
                ("dtjob_restarts", "Attempts that did not end orderly.", report.restarts),
                (
                    "dtjob_samples_per_second",
                    "Expected examples per second.",
                    report.samples_per_second,
                ),
                (
                    "dtjob_epsilon_spent",
                    "Epsilon of the charged draws, rounded up.",
                    float(report.epsilon_spent) if report.epsilon_spent is not None else None,
                ),
            )
        steps = GaugeMetricFamily(
            "dtjob_rank_step", "Steps that a rank has finished.", labels=[*self._names, "rank"]
        )
        for rank, step in sorted(view.rank_steps.items()):
            steps.add_metric([*self._values, str(rank)], step)
        yield steps
        yield from self._gpu_gauges([gpu for gpu in view.gpus if gpu.worker == view.position])

    def _gauges(self, *gauges: tuple[str, str, float | None]) -> Iterator[Metric]:
        for name, help_text, value in gauges:
            if value is not None:
                family = GaugeMetricFamily(name, help_text, labels=self._names)
                family.add_metric(self._values, value)
                yield family

    def _gpu_gauges(self, gpus: Sequence[GpuReading]) -> Iterator[Metric]:
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
            for gpu in gpus:
                if (figure := getattr(gpu, field_name)) is not None:
                    family.add_metric([*self._values, str(gpu.index), gpu.uuid], figure)
            if family.samples:
                yield family
