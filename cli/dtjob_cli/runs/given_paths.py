"""Paths that a command was given for what it passes to workers, refused before one is started."""

from __future__ import annotations

import sys
from pathlib import Path

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_cli.errors import BadInput


def require_data(job: DistributedTrainingJob, data: Path | None) -> None:
    """Refuse `--data` where nothing is, or none where the job has data.

    Raises
    ------
    BadInput
    """
    if data:
        require_text("--data", data)
    if data and not data.exists():
        raise BadInput("NoSuchData", f"--data {data}: there is nothing there.")
    if job.spec.storage.data and not data:
        raise BadInput(
            "DataMissing",
            f"spec.storage.data.claimName: {job.spec.storage.data.claim_name} is a claim in a "
            "cluster.",
            "Say with --data PATH what stands for it here.",
        )


def require_text(option: str, path: Path) -> None:
    """Refuse a path that can't be passed to the workers, whose configuration is JSON.

    Raises
    ------
    BadInput
    """
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        raise BadInput(
            "PathNotText",
            f"{option} {path.absolute()}: the name is no text in this system's encoding "
            f"({sys.getfilesystemencoding()}).",
            "Name or make another place, or set a locale of UTF-8, such as LC_ALL=C.UTF-8.",
        ) from None
