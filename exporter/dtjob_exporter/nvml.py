"""GPU figures from NVML. Where there is no GPU they are absent, never zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pynvml


@dataclass(frozen=True)
class GpuFigures:
    """One GPU at one moment; a figure that this GPU does not offer is None."""

    index: int
    uuid: str
    name: str
    utilization_percent: int | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    temperature_celsius: int | None
    power_watts: float | None


class GpuCollector:
    """Reads the GPUs that this process can see; on a machine without NVML there are none."""

    def __init__(self) -> None:
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError:
            self._handles = []
        else:
            count = pynvml.nvmlDeviceGetCount()
            self._handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(count)]

    def read(self) -> list[GpuFigures]:
        """Figures of every GPU; a GPU that NVML lost in the meantime is left out."""
        figures = []
        for index, handle in enumerate(self._handles):
            try:
                figures.append(_read(index, handle))
            except pynvml.NVMLError:
                continue
        return figures


def _read(index: int, handle: object) -> GpuFigures:
    memory = _optional(pynvml.nvmlDeviceGetMemoryInfo, handle)
    power = _optional(pynvml.nvmlDeviceGetPowerUsage, handle)
    rates = _optional(pynvml.nvmlDeviceGetUtilizationRates, handle)
    return GpuFigures(
        index=index,
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        name=pynvml.nvmlDeviceGetName(handle),
        utilization_percent=rates.gpu if rates else None,
        memory_used_bytes=memory.used if memory else None,
        memory_total_bytes=memory.total if memory else None,
        temperature_celsius=_optional(
            pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU
        ),
        power_watts=power / 1000 if power is not None else None,
    )


def _optional(query: Callable[..., Any], *arguments: object) -> Any:
    """A figure, or None where this GPU does not support the query."""
    try:
        return query(*arguments)
    except pynvml.NVMLError_NotSupported:
        return None
