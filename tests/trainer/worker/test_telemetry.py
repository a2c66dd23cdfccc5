"""What a worker shows is what it has been to the byte."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from dtjob_api.wire.gang import Hello
from dtjob_api.wire.worker_report import ReportedCheckpoint, WorkerReport, WorkerState
from dtjob_exporter.nvml import GpuFigures
from dtjob_trainer.gang.worker_view import CurrentView, WorkerView
from dtjob_trainer.worker import telemetry
from tests.support.checkout import ROOT

GPU = GpuFigures(0, "GPU-a", "H100", 91, 3 << 30, 80 << 30, 61, 412.6)
OTHER = replace(GPU, uuid="GPU-b", utilization_percent=94, memory_used_bytes=4 << 30)
HOT = replace(OTHER, temperature_celsius=63, power_watts=399.9)
DUMB = GpuFigures(1, "GPU-c", "H100", None, None, None, None, None)
TRAINING = WorkerView(
    position=0,
    report=WorkerReport(
        job_uid="5ac7f6f2",
        state=WorkerState.RUNNING,
        stage="training",
        generation=2,
        workers=2,
        attempt=3,
        restarts=1,
        total_steps=336,
        reserved_draws=366,
        charged=130,
        step=118,
        samples_per_second=2560.4,
        epsilon_spent="4.3112",
        evaluation={"step": 100, "accuracy": 0.9125, "loss": 1},
        checkpoint=ReportedCheckpoint(110, datetime(2026, 3, 1, 12, 0, 5, 7, tzinfo=UTC)),
        heartbeat=datetime(2026, 3, 1, 12, 0, 9, 654321, tzinfo=UTC),
    ),
    gpus=telemetry.gpu_fields([GPU], 0) + telemetry.gpu_fields([HOT], 1),
    rank_steps={1: 118, 0: 117},
)
WAITING = WorkerView(
    position=0,
    report=WorkerReport(
        attempt=0,
        job_uid="5ac7f6f2",
        state=WorkerState.WAITING,
        stage="waiting",
        reason="StorageFull",
        message='no room: "disk" é',
    ),
)


def test_a_report_is_what_it_has_been_to_the_byte() -> None:
    served = [
        json.dumps(telemetry.worker_report(view, 256).to_json(), separators=(",", ":"))
        for view in (TRAINING, WAITING)
    ]
    assert served == (ROOT / "tests/api/wire/reports.jsonl").read_text().splitlines()


def test_metrics_are_what_they_have_been_to_the_byte() -> None:
    registry = CollectorRegistry(auto_describe=False)
    labels = {"namespace": "a", "job": "digits", "worker": "0"}
    current = CurrentView(position=0, job_uid="5ac7f6f2")
    registry.register(telemetry.WorkerMetrics(current, labels))
    current.view = TRAINING
    stored = ROOT / "tests/trainer/worker/metrics.txt"
    assert generate_latest(registry).decode() == stored.read_text()


def test_gpus_in_a_hello_are_what_they_have_been_to_the_byte() -> None:
    gpus = telemetry.gpu_fields([replace(GPU, power_watts=400.0), DUMB], 1)
    hello = Hello(position=1, incarnation="a", ready=True, gpus=gpus)
    assert hello.model_dump_json() == (
        '{"position":1,"incarnation":"a","ready":true,"attempt":0,"ends":[],"drain":false,"gpus":['
        '{"worker":1,"index":0,"uuid":"GPU-a","name":"H100","utilization_percent":91,'
        '"memory_used_bytes":3221225472,"memory_total_bytes":85899345920,'
        '"temperature_celsius":61,"power_watts":400.0},'
        '{"worker":1,"index":1,"uuid":"GPU-c","name":"H100","utilization_percent":null,'
        '"memory_used_bytes":null,"memory_total_bytes":null,'
        '"temperature_celsius":null,"power_watts":null}],"known":-1}'
    )
    assert Hello.model_validate_json(hello.model_dump_json()) == hello
