"""What would help a worker's container that can't be started, or ends as soon as it is."""

from __future__ import annotations

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.schema.quantity import parse_quantity
from dtjob_operator.decide.facts import is_restricted
from dtjob_operator.terms import metadata_addresses

# By these programs and modules are found; in dtjob's image the trainer is found without them.
_SEARCH_PATHS = frozenset({"PATH", "PYTHONPATH"})

# A supervisor takes 21 MB as soon as it is imported, before its ranks and torch.
_LEAST_MEMORY = 16 * 2**20

SHORTER_VARIABLES = (
    "Linux takes no variable of more than 128 KiB, and no more than a few MiB of all: put what is "
    "longer in spec.workers.template (env, envFrom) into a file, on a volume or in the image, in a "
    "new job"
)


def is_starved(job: DistributedTrainingJob) -> bool:
    """Whether no python could begin in what a worker may take, whatever the runtime says of it.

    Where its first process is killed for want of memory, containerd may say no more than that it
    "cannot start a stopped process".
    """
    limit = job.spec.workers.resources.limits.get("memory")
    return limit is not None and parse_quantity(str(limit)) < _LEAST_MEMORY


def more_memory(job: DistributedTrainingJob) -> str:
    """What helps a worker that has too little to start."""
    limit = job.spec.workers.resources.limits.get("memory")
    return (
        "Give the workers more memory in a new job, by spec.workers.resources.limits.memory"
        f"{f', which is {limit}' if limit is not None else ''}: torch alone takes some hundred MiB"
    )


def trainer_image(job: DistributedTrainingJob) -> str:
    """What helps where python, or the trainer, is not found: no image has it, or it is hidden."""
    template = job.spec.workers.template
    hiding = next((each.name for each in template.env if each.name in _SEARCH_PATHS), None)
    if hiding is None:
        return "spec.image is no trainer image: name dtjob's, or one built on it, in a new job"
    return (
        f"{hiding} of spec.workers.template.env hides it, or spec.image is no trainer image: in a "
        "new job leave that variable out, or name the image's own folders in it too"
    )


def metadata_remedy(message: str, job: DistributedTrainingJob) -> str:
    """What would help where somebody asked for credentials that the job's NetworkPolicy closes."""
    address = metadata_addresses.mentioned_in(message)
    if not is_restricted(job) or address is None:
        return ""
    return (
        ". The job's NetworkPolicy closes the metadata addresses to what runs in its pods: if that "
        f"needs one, name it in spec.network.egress, {{to: [{{ipBlock: {{cidr: {address}}}}}]}}, "
        "which may change at any time"
    )
