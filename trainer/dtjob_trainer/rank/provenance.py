"""By what an attempt makes its draws, as its rank 0 puts it into the ledger (rule 14)."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dtjob_api.ledger.privacy_ledger import MAX_VERSION_LENGTH, Formats, Provenance, Versions
from dtjob_api.wire.worker_config import WorkerConfig
from dtjob_trainer.mechanism.formats import NOISE_FORMAT, SAMPLING_FORMAT
from dtjob_trainer.task import task_root
from dtjob_trainer.usercode import imported, sources

if TYPE_CHECKING:
    import torch

_UNKNOWN_VERSION = "unknown"
# Where the models of many tasks come from.
_MODELS = ("torchvision", "transformers", "peft")


def of_attempt(config: WorkerConfig, device: torch.device, rows: int) -> Provenance:
    """Image, formats and versions, and the digest of the task that has been loaded.

    Parameters
    ----------
    device, rows
        Where the task is tried, and P, the rows of a micro-batch: kernels are chosen by both.
    """
    known = Provenance(
        image=config.job.image,
        formats=Formats(sampling=SAMPLING_FORMAT, noise=NOISE_FORMAT),
        versions=Versions(
            python=platform.python_version(),
            dtjob=_version("dtjob"),
            torch=_version("torch"),
            opacus=_version("opacus"),
            numpy=_version("numpy"),
            **{name: _version(name) for name in _MODELS if name in sys.modules},
        ),
    )
    return known.model_copy(update={"task_digest": _task_digest(known, config, device, rows)})


def _task_digest(
    known: Provenance, config: WorkerConfig, device: torch.device, rows: int
) -> str | None:
    training = config.training
    root = task_root(training.entrypoint)
    if root is None:
        return None
    places = [root, *(place for place in imported.others() if not place.is_relative_to(root))]
    own = [sources.digest(place, config.data_dir) for place in places]
    if None in own:
        return None
    tried = {
        **known.to_dict(),
        "entrypoint": training.entrypoint,
        "args": training.args,
        "sources": own,
        "installed": _installed(),
        "device": _kind(device),
        "rows": rows,
    }
    return f"sha256:{hashlib.sha256(json.dumps(tried, sort_keys=True).encode()).hexdigest()}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)[:MAX_VERSION_LENGTH]
    except importlib.metadata.PackageNotFoundError:
        return _UNKNOWN_VERSION


def _installed() -> list[str]:
    """Name and version of each package, as pip's records are named: the task may use any."""
    return sorted({path.name for place in sys.path for path in Path(place).glob("*.dist-info")})


def _kind(device: torch.device) -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"
