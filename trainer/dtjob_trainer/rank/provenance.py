"""By what an attempt makes its draws, as its rank 0 puts it into the ledger (rule 14)."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dtjob_api.ledger.privacy_ledger import (
    MAX_PACKAGE_LENGTH,
    MAX_PACKAGES,
    MAX_VERSION_LENGTH,
    Formats,
    Provenance,
    Versions,
)
from dtjob_api.wire.worker_config import WorkerConfig
from dtjob_trainer.mechanism.formats import NOISE_FORMAT, SAMPLING_FORMAT
from dtjob_trainer.rank import environment
from dtjob_trainer.task import task_root
from dtjob_trainer.usercode import imported, sources

if TYPE_CHECKING:
    import torch

_UNKNOWN_VERSION = "unknown"


def of_attempt(config: WorkerConfig, device: torch.device, rows: int) -> Provenance:
    """Image, formats and versions, and the digest of the task that has been loaded.

    Parameters
    ----------
    device, rows
        Where the task is tried, and P, the rows of a micro-batch: kernels are chosen by both.
    """
    places = _places(config.training.entrypoint)
    known = Provenance(
        image=config.job.image,
        formats=Formats(sampling=SAMPLING_FORMAT, noise=NOISE_FORMAT),
        versions=Versions(
            python=platform.python_version(),
            dtjob=_version("dtjob"),
            torch=_version("torch"),
            opacus=_version("opacus"),
            numpy=_version("numpy"),
            packages=_packages(places),
        ),
    )
    digest = _task_digest(known, places, config, device, rows)
    return known.model_copy(update={"task_digest": digest})


def _places(entrypoint: str) -> list[Path]:
    """Where the task's own code lies; empty where that of its entrypoint isn't known."""
    root = task_root(entrypoint)
    if root is None:
        return []
    return [root, *(place for place in imported.others() if not place.is_relative_to(root))]


def _packages(places: list[Path]) -> list[str]:
    found = [
        f"{name}=={version}"
        for name, version in imported.packages(places).items()
        if name not in Versions.model_fields
    ]
    return [each for each in found if len(each) <= MAX_PACKAGE_LENGTH][:MAX_PACKAGES]


def _task_digest(
    known: Provenance, places: list[Path], config: WorkerConfig, device: torch.device, rows: int
) -> str | None:
    training = config.training
    own = [sources.digest(place, config.data_dir) for place in places]
    variables = environment.digest(Path(config.state_dir))
    if not own or None in own or variables is None:
        return None
    tried = {
        **known.to_dict(),
        "entrypoint": training.entrypoint,
        "args": training.args,
        "sources": own,
        "installed": _installed(),
        "environment": variables,
        "device": _kind(device),
        "rows": rows,
    }
    return f"sha256:{hashlib.sha256(json.dumps(tried, sort_keys=True).encode()).hexdigest()}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)[:MAX_VERSION_LENGTH]
    except importlib.metadata.PackageNotFoundError:
        return _UNKNOWN_VERSION


def _installed() -> list[tuple[str, str]]:
    """Each package that the task may use: name and version, and the digest of pip's record of it.

    A record has the digest of each file, so one that is installed anew with other files is seen
    where its version stays.
    """
    folders = {folder for place in sys.path for folder in Path(place).glob("*.dist-info")}
    return sorted((folder.name, _record(folder)) for folder in folders)


def _record(folder: Path) -> str:
    try:
        return hashlib.sha256((folder / "RECORD").read_bytes()).hexdigest()
    except OSError:
        return ""  # as packages of a distribution of Linux have none


def _kind(device: torch.device) -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"
