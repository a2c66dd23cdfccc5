"""A manifest from a file to a validated job, with every problem in one message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.schema import manifest as manifest_file
from dtjob_api.schema.mistakes import mistakes
from dtjob_api.schema.validation import apply_defaults
from dtjob_cli.errors import BadInput

Manifest = dict[str, Any]


def read(path: Path) -> Manifest:
    """Return the manifest in `path`, defaults applied.

    Raises
    ------
    BadInput
        If there is no such file, it is no YAML, or the API server would refuse it.
    """
    manifest = load(path)
    if found := mistakes(manifest):
        problems = "\n".join(f"  {mistake}" for mistake in found)
        raise BadInput("InvalidManifest", f"{path} is not a valid job:\n{problems}")
    if manifest["kind"] != "DistributedTrainingJob":
        raise BadInput("NotAJob", f"{path} is a {manifest['kind']}, not a DistributedTrainingJob.")
    if not manifest["metadata"].get("name"):
        raise BadInput(
            "NameMissing",
            f"{path}: metadata.generateName makes names in a cluster only.",
            "Give the job a metadata.name.",
        )
    return apply_defaults(manifest)


def load(path: Path) -> Manifest:
    """Return the manifest in `path` as it stands there, unchecked.

    Raises
    ------
    BadInput
        If there is no such file or it is no YAML.
    """
    try:
        return manifest_file.load(path)
    except manifest_file.ManifestError as error:
        raise BadInput("UnreadableManifest", str(error)) from None


def job(manifest: Manifest, uid: str | None = None) -> DistributedTrainingJob:
    """Return the job of a validated manifest, with the `uid` that an API server would give."""
    if uid is None:
        return DistributedTrainingJob.model_validate(manifest)
    metadata = {**manifest["metadata"], "uid": uid}
    return DistributedTrainingJob.model_validate({**manifest, "metadata": metadata})
