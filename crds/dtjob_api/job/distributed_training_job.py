"""DistributedTrainingJob: what a user asks for.

The sub-models live in a module for each part of the spec and are importable from here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from dtjob_api.job.autoscaling import Autoscaling
from dtjob_api.job.log_retention import Logs
from dtjob_api.job.network import Network, NetworkPolicyMode
from dtjob_api.job.privacy import Clipping, Privacy, PrivacyMode, PrivacyUnit, Telemetry
from dtjob_api.job.run_policy import RunPolicy
from dtjob_api.job.status import JobStatus
from dtjob_api.job.storage import CheckpointVolume, DataVolume, Storage
from dtjob_api.job.template import EnvVar, WorkerTemplate
from dtjob_api.job.training import (
    MAX_STEPS,
    Checkpoint,
    Evaluation,
    LearningRateSchedule,
    Optimizer,
    OptimizerName,
    ScheduleName,
    Strategy,
    Training,
)
from dtjob_api.job.workers import Resources, Workers
from dtjob_api.model import (
    API_VERSION,
    Image,
    Json,
    Model,
    ObjectMeta,
    ObjectName,
    list_map,
    rule,
    rules,
)

__all__ = [
    "Autoscaling",
    "Checkpoint",
    "CheckpointVolume",
    "Clipping",
    "DataVolume",
    "DistributedTrainingJob",
    "EnvVar",
    "Evaluation",
    "JobSpec",
    "LearningRateSchedule",
    "LocalObjectReference",
    "Logs",
    "Network",
    "NetworkPolicyMode",
    "Optimizer",
    "OptimizerName",
    "Privacy",
    "PrivacyMode",
    "PrivacyUnit",
    "Resources",
    "RunPolicy",
    "ScheduleName",
    "Storage",
    "Strategy",
    "Telemetry",
    "Training",
    "WorkerTemplate",
    "Workers",
]

MOST_RERUNS = 1_000_000
MAX_NAME_LENGTH = 40
"""Leaves room for the run's part and a role in a StatefulSet's name, which may have 52 characters:
Kubernetes puts it into a label, with a dash and ten more."""


class LocalObjectReference(Model):
    """The name of an object in the job's namespace."""

    name: ObjectName


def _privacy_is_optional_in_the_schema(schema: Json) -> None:
    """Lets a CEL rule, which can name the remedy, report a missing `privacy`."""
    schema["required"].remove("privacy")


_COUNTS = "self.training.epochs, self.training.batchSize, self.privacy.datasetSize"
_WARM_UP = "self.training.learningRateSchedule.warmupSteps"
_OUT_OF_BOUNDS = (
    # Their own rules say so; products of them would leave 64 bits.
    "[{}].exists(n, n < 0 || n > {})"
)


_HAS_UTILIZATION = (
    "has(self.autoscaling.metrics) && self.autoscaling.metrics.size() > 0 "
    "? self.autoscaling.metrics.exists(m, has(m.resource) && m.resource.name == '{0}' && "
    "m.resource.target.type == 'Utilization') : '{0}' == 'cpu'"
)


def _spec_schema(schema: Json) -> None:
    _privacy_is_optional_in_the_schema(schema)
    schema.update(
        rules(
            rule(
                "has(self.privacy)",
                "state epsilon, maxGradNorm and datasetSize, or say mode: Disabled and "
                "datasetSize to train without privacy",
                field=".privacy",
                reason="FieldValueRequired",
            ),
            rule(
                "!has(self.privacy) || self.training.batchSize <= self.privacy.datasetSize",
                "must not exceed privacy.datasetSize: a step draws from the dataset without "
                "repetition",
                field=".training.batchSize",
            ),
            rule(
                "!has(self.privacy) || !has(self.training.epochs) || "
                f"{_OUT_OF_BOUNDS.format(_COUNTS, MAX_STEPS)} || "
                "self.training.epochs * self.privacy.datasetSize <= "
                f"self.training.batchSize * {MAX_STEPS}",
                f"must give at most {MAX_STEPS} steps, "
                "ceil(training.epochs * privacy.datasetSize / training.batchSize); use fewer "
                "epochs",
                field=".training.epochs",
            ),
            rule(
                "!has(self.privacy) || !has(self.training.epochs) || "
                "!has(self.training.learningRateSchedule) || "
                f"{_OUT_OF_BOUNDS.format(f'{_COUNTS}, {_WARM_UP}', MAX_STEPS)} || "
                "self.training.learningRateSchedule.warmupSteps * self.training.batchSize < "
                "self.training.epochs * self.privacy.datasetSize",
                "must be less than the steps of the training, "
                "ceil(training.epochs * privacy.datasetSize / training.batchSize)",
                field=".training.learningRateSchedule.warmupSteps",
            ),
            *(
                rule(
                    f"!has(self.autoscaling) || !({_HAS_UTILIZATION.format(resource)}) || "
                    "[has(self.workers.resources.requests) && "
                    f"'{resource}' in self.workers.resources.requests, "
                    "has(self.workers.resources.limits) && "
                    f"'{resource}' in self.workers.resources.limits].exists(given, given)",
                    f"must request {resource}: spec.autoscaling holds its use at a percentage of "
                    "what is requested, and without metrics that of cpu",
                    field=".workers.resources",
                )
                for resource in ("cpu", "memory")
            ),
        )
    )


class JobSpec(Model):
    """Desired state of a job."""

    model_config = ConfigDict(json_schema_extra=_spec_schema)

    suspend: bool = False
    """Whether the job rests: without pods, its checkpoint, ledger and volume as they are. What is
    left of its lease is used when it goes on."""

    rerun: Annotated[
        int,
        Field(
            json_schema_extra=rules(
                rule(
                    f"self >= 0 && self <= {MOST_RERUNS}",
                    f"must be between 0 and {MOST_RERUNS}",
                )
            )
        ),
    ] = 0
    """Raised, it runs a job that has ended once more, from the beginning and with a ledger of its
    own: what it draws is spent anew."""

    image: Image
    """Trainer image."""

    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """When the image is pulled; by default Kubernetes' own choice from the tag."""

    image_pull_secrets: Annotated[
        list[LocalObjectReference], Field(max_length=16, json_schema_extra=list_map("name"))
    ] = Field(default_factory=list)
    """Secrets for the image's registry."""

    workers: Workers = Workers()
    autoscaling: Autoscaling | None = None
    """How a HorizontalPodAutoscaler chooses `workers.replicas`; without it nothing changes it but
    its user."""
    training: Training
    privacy: Privacy
    storage: Storage = Storage()
    network: Network = Network()
    checkpoint: Checkpoint = Checkpoint()
    logs: Logs = Logs()
    run_policy: RunPolicy = RunPolicy()


def _never_changes(path: str, expression: str | None = None) -> Json:
    same = expression or f"self.{path} == oldSelf.{path}"
    return rule(
        same,
        "never changes after the job is created: it is part of what was promised and paid for; "
        "create a new job instead",
        field="." + path,
    )


def _changes_while_suspended(path: str, *, optional: bool = False) -> Json:
    # Where it was just resumed the phase is an old word: pods may be there.
    suspended = (
        "oldSelf.spec.suspend && "
        "has(oldSelf.status) && has(oldSelf.status.phase) && oldSelf.status.phase == 'Suspended'"
    )
    same = f"self.{path} == oldSelf.{path}"
    if optional:
        same = f"has(self.{path}) == has(oldSelf.{path}) && (!has(self.{path}) || {same})"
    return rule(
        f"({suspended}) || ({same})",
        "changes only while the job is suspended and has no pods: set spec.suspend and wait for "
        "status.phase Suspended, or create a new job",
        field="." + path,
    )


_SAME_CLASS = (
    "has(self.spec.storage.checkpoints.storageClassName) == "
    "has(oldSelf.spec.storage.checkpoints.storageClassName) && "
    "(!has(self.spec.storage.checkpoints.storageClassName) || "
    "self.spec.storage.checkpoints.storageClassName == "
    "oldSelf.spec.storage.checkpoints.storageClassName)"
)
_SAME_DATA = (
    "has(self.spec.storage.data) == has(oldSelf.spec.storage.data) && "
    "(!has(self.spec.storage.data) || self.spec.storage.data == oldSelf.spec.storage.data)"
)
_SIZE = "quantity(string({}.spec.storage.checkpoints.size))"


class DistributedTrainingJob(Model):
    """A differentially private distributed training run."""

    # Transition rules stand at the root: below it, removing a field and writing it anew would
    # never be compared with the stored value.
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                f"self.metadata.name.size() <= {MAX_NAME_LENGTH}",
                f"must have at most {MAX_NAME_LENGTH} characters: the names of the job's pods "
                "and volumes are made from it",
                field=".metadata.name",
            ),
            rule(
                "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
                "must be a DNS label: lower-case letters, digits and inner hyphens, beginning "
                "with a letter",
                field=".metadata.name",
            ),
            _never_changes("spec.training"),
            _never_changes(
                "spec.privacy",
                "!has(oldSelf.spec.privacy) || (has(self.spec.privacy) && "
                "self.spec.privacy == oldSelf.spec.privacy)",
            ),
            _never_changes("spec.checkpoint"),
            _never_changes("spec.storage.data", _SAME_DATA),
            _never_changes("spec.storage.checkpoints.storageClassName", _SAME_CLASS),
            rule(
                f"!isQuantity(string(self.spec.storage.checkpoints.size)) || "
                f"{_SIZE.format('self')}.compareTo({_SIZE.format('oldSelf')}) >= 0",
                "a volume can grow but not shrink; give at least the present size",
                field=".spec.storage.checkpoints.size",
            ),
            rule(
                "self.spec.rerun == oldSelf.spec.rerun || (self.spec.rerun > oldSelf.spec.rerun && "
                "has(oldSelf.status) && has(oldSelf.status.phase) && "
                "oldSelf.status.phase in ['Succeeded', 'Failed'])",
                "only rises, and only once the job has ended: status.phase is Succeeded or Failed",
                field=".spec.rerun",
            ),
            _changes_while_suspended("spec.image"),
            _changes_while_suspended("spec.imagePullPolicy", optional=True),
            _changes_while_suspended("spec.imagePullSecrets", optional=True),
            _changes_while_suspended("spec.workers.gpusPerWorker"),
            _changes_while_suspended("spec.workers.processesPerWorker"),
            _changes_while_suspended("spec.workers.resources"),
            _changes_while_suspended("spec.workers.serviceAccountName", optional=True),
            _changes_while_suspended("spec.workers.template"),
            _changes_while_suspended("spec.logs"),
        )
    )

    api_version: Literal["dtjob.dev/v1alpha1"] = API_VERSION
    kind: Literal["DistributedTrainingJob"] = "DistributedTrainingJob"
    metadata: ObjectMeta
    spec: JobSpec
    status: JobStatus | None = None

    @classmethod
    def from_dict(cls, manifest: dict[str, Any]) -> DistributedTrainingJob:
        """The job of a manifest that `schema.validation` or the API server has admitted."""
        return cls.model_validate(manifest)
