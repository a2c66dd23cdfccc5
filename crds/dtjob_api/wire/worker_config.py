"""WorkerConfig: the whole configuration of a worker's supervisor.

A file in a local run, an environment variable in a pod. Privacy plan and run policy are not in it:
the ledger is the truth, and workers read them there.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, model_validator

from dtjob_api.job.log_retention import Logs
from dtjob_api.job.privacy import Telemetry
from dtjob_api.job.training import Training
from dtjob_api.model import Model


class JobIdentity(Model):
    """The job that the worker belongs to."""

    namespace: str
    name: str
    uid: str
    image: str


class LedgerKind(StrEnum):
    """Where a ledger is kept."""

    FILE = "File"
    KUBERNETES = "Kubernetes"


class LedgerRef(Model):
    """The job's ledger: a folder, or a PrivacyLedger object."""

    kind: LedgerKind
    path: str | None = None
    """File: the folder of the ledger's versions."""
    namespace: str | None = None
    name: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> LedgerRef:
        if self.kind is LedgerKind.FILE and not self.path:
            raise ValueError("ledger.path: required where ledger.kind is File")
        if self.kind is LedgerKind.KUBERNETES and not (self.namespace and self.name):
            raise ValueError(
                "ledger.namespace and ledger.name: required where ledger.kind is Kubernetes"
            )
        return self


class ProofKind(StrEnum):
    """By what a worker is known to the coordinator."""

    TOKEN = "Token"  # noqa: S105
    SECRET = "Secret"  # noqa: S105


class GangProof(Model):
    """Proves that a hello comes from a worker of this gang."""

    kind: ProofKind
    path: str
    """Token: the file of the pod's projected token, which its kubelet renews; it is read again for
    each hello. Secret: a file with the secret of the run, which its user alone can read."""
    audience: str | None = None
    """Token: whom the token is made for."""
    stateful_set: str | None = None
    """Token: the coordinator's StatefulSet, from whose name those of all workers' pods follow
    (`dtjob_api.wire.positions`)."""

    @model_validator(mode="after")
    def _complete(self) -> GangProof:
        if self.kind is ProofKind.TOKEN and not (self.audience and self.stateful_set):
            raise ValueError(
                "proof.audience and proof.statefulSet: required where proof.kind is Token"
            )
        return self


Port = Annotated[int, Field(ge=0, le=65535)]


class WorkerConfig(Model):
    """Configuration of one worker's supervisor.

    Equal in all pods of a job; on one machine each worker has its own `http_port`.
    The coordinator alone listens on `coordinator_port` and `store_port`.
    """

    job: JobIdentity
    training: Training
    telemetry: Telemetry = Telemetry.COVERED_BY_EPSILON
    processes_per_worker: Annotated[int, Field(ge=1)] = 1
    gpus_per_worker: Annotated[int, Field(ge=0)] = 0
    ledger: LedgerRef
    state_dir: str
    """Folder of the checkpoint volume; the coordinator alone uses it."""
    data_dir: str | None = None
    """Folder of the private data, where the job has a data volume."""
    keep: Annotated[int, Field(ge=1)] = 2
    """Checkpoints kept."""
    log_bytes: Annotated[int, Field(ge=1)] = Logs().max_bytes
    """What the logs of all ranks and attempts take together on the checkpoint volume."""
    coordinator_host: str
    """Address under which every worker reaches the coordinator."""
    coordinator_port: Port
    """Port on which the coordinator receives the hellos."""
    store_port: Port
    """Port by which the other workers' ranks reach the store on the coordinator's loopback."""
    proof: GangProof
    http_port: Port
    """Port of this worker's probes, report and metrics: what is shown to everybody."""
    stays_after_outcome: bool = False
    """Stay alive quietly after an outcome: a pod that exited would be started again."""

    @property
    def ranks(self) -> int:
        """Rank processes of this worker."""
        return self.gpus_per_worker or self.processes_per_worker
