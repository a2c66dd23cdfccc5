"""GPU figures: absent without a GPU, sane with one."""

from __future__ import annotations

import pytest

from dtjob_exporter.nvml import GpuCollector
from dtjob_trainer.worker.telemetry import gpu_fields, summarise_gpus


def test_without_a_driver_figures_are_absent_not_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pynvml.nvmlInit", _no_driver)
    assert GpuCollector().read() == []
    assert summarise_gpus([]) is None


def _no_driver() -> None:
    import pynvml

    raise pynvml.NVMLError_LibraryNotFound


@pytest.mark.gpu
def test_figures_of_a_real_gpu() -> None:
    figures = GpuCollector().read()
    assert figures
    for gpu in figures:
        assert gpu.memory_total_bytes
        assert 0 <= (gpu.memory_used_bytes or 0) <= gpu.memory_total_bytes
    summary = summarise_gpus(gpu_fields(figures, position=0))
    assert summary is not None
    assert summary.count == len(figures)
