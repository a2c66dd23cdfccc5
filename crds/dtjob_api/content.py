"""What makes two jobs the same work: of one that has succeeded, another spends nothing again."""

from __future__ import annotations

import hashlib
import json

from dtjob_api.job.arguments import too_large
from dtjob_api.job.distributed_training_job import JobSpec
from dtjob_api.ledger.privacy_ledger import Content

FORMAT = 1
"""Changes with what is hashed, or how; a digest of another format is never compared."""


def content(spec: JobSpec) -> Content | None:
    """The digest of a job's training, privacy and data.

    What has its default is left out, so that a default of a later version changes no digest. Image,
    workers and all else by which the same work is done otherwise do not count. None where the
    task's arguments are larger than a cluster takes: they may be deeper than anything can follow.
    """
    if too_large(spec.training.args) is not None:
        return None
    counts = {
        "training": spec.training.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        "privacy": spec.privacy.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        "data": spec.storage.data.to_dict() if spec.storage.data else None,
    }
    text = json.dumps(counts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return Content(format=FORMAT, sha256=hashlib.sha256(text.encode()).hexdigest())
