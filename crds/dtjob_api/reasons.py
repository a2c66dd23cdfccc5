"""Condition types, phases and reasons: every word that a status uses, and what it means."""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """One word for people, derived from the conditions."""

    PENDING = "Pending"
    STARTING = "Starting"
    RUNNING = "Running"
    RESTARTING = "Restarting"
    RESIZING = "Resizing"
    SUSPENDING = "Suspending"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class ConditionType(StrEnum):
    """Types of `status.conditions`."""

    ACCEPTED = "Accepted"
    """The job can be run as it is written; its privacy plan is fixed."""

    RESOURCES_READY = "ResourcesReady"
    """Everything that the workers need exists in the cluster."""

    RENDEZVOUS_READY = "RendezvousReady"
    """All workers of the current generation have found one another."""

    RUNNING = "Running"
    """The gang executes steps."""

    CHECKPOINT_FRESH = "CheckpointFresh"
    """The newest durable checkpoint is as young as the plan promises."""

    NETWORK_RESTRICTED = "NetworkRestricted"
    """Nothing but the job's own traffic reaches its workers or leaves them."""

    SUSPENDED = "Suspended"
    """The job rests without pods; there once it was asked to."""

    RESIZED = "Resized"
    """The gang has as many workers as are asked for; there once another number was."""

    SUCCEEDED = "Succeeded"
    """The job has ended with a result; final once True."""

    FAILED = "Failed"
    """The job has ended without a result; final once True."""


class Reason(StrEnum):
    """Reasons of conditions, outcomes and attempts."""

    # Accepted
    PLANNED = "Planned"
    """The noise multiplier is fixed and the ledger is written."""
    PLANNING = "Planning"
    """The noise multiplier is being calibrated."""
    INVALID_SPEC = "InvalidSpec"
    """The operator can't read the job: it and the CustomResourceDefinitions differ in version."""
    ARGS_TOO_LARGE = "ArgsTooLarge"
    """The task's arguments are more than a worker can be handed."""
    PRIVACY_IMPOSSIBLE = "PrivacyImpossible"
    """No noise multiplier meets epsilon and delta at this sample rate and length."""

    # ResourcesReady
    RESOURCES_CREATED = "ResourcesCreated"
    """Children exist and their pods are ready."""
    CREATING_RESOURCES = "CreatingResources"
    """Children are being created, or their pods are starting."""
    NAME_CONFLICT = "NameConflict"
    """An object that is not this job's has the name of one of its children."""
    MADE_BY_OLDER_OPERATOR = "MadeByOlderOperator"
    """All workers are in one StatefulSet, as an older version made it; the job is left as it is."""
    LEDGERS_UNGUARDED = "LedgersUnguarded"
    """The API server no longer refuses to take back what ledgers hold; no work is begun."""
    LEDGER_MISSING = "LedgerMissing"
    """The job's ledger is gone; nothing runs until it is restored."""
    IMAGE_PULL_FAILED = "ImagePullFailed"
    """The image or its pull secret does not exist or cannot be read."""
    CLAIM_MISSING = "ClaimMissing"
    """A PersistentVolumeClaim that the spec names does not exist."""
    CLAIM_TERMINATING = "ClaimTerminating"
    """The checkpoint claim was deleted and goes with the last pod that uses it."""
    CLAIM_UNBOUND = "ClaimUnbound"
    """A claim finds no volume: unknown StorageClass, no capacity or a failing provisioner."""
    CONFIGURATION_MISSING = "ConfigurationMissing"
    """A Secret, ConfigMap or key that the spec names does not exist."""
    SERVICE_ACCOUNT_MISSING = "ServiceAccountMissing"
    """The ServiceAccount that the spec names does not exist."""
    SERVICE_ACCOUNT_REPLACED = "ServiceAccountReplaced"
    """The workers' ServiceAccount was made anew; pods with tokens of the old one are replaced."""
    MOUNT_FAILED = "MountFailed"
    """A volume cannot be mounted."""
    UNSCHEDULABLE = "Unschedulable"
    """No node has room for a worker or is allowed to take it."""
    NODE_LOST = "NodeLost"
    """The node of a worker is gone; its pod is deleted by force."""
    PODS_REFUSED = "PodsRefused"
    """Quota, Pod Security or another admission rule refuses the workers."""
    WORKER_NOT_STARTED = "WorkerNotStarted"
    """A kubelet can't start a worker's container; the message is its own."""
    WORKER_CRASHING = "WorkerCrashing"
    """A worker's container ends again and again before it can join; the message has its last
    words."""

    GANG_UNPROVABLE = "GangUnprovable"
    """The coordinator can't get the keys by which it knows its workers; the message names the
    right that is missing."""
    WORKER_UNLABELLED = "WorkerUnlabelled"
    """A worker's pod has lost the job's label, and with it StatefulSet and NetworkPolicy."""

    # RendezvousReady, Running
    WAITING_FOR_WORKERS = "WaitingForWorkers"
    """Not all workers have come up."""
    RENDEZVOUS_COMPLETE = "RendezvousComplete"
    """All workers are connected."""
    PREFLIGHT = "Preflight"
    """The task is imported, validated and run on synthetic data."""
    TRAINING = "Training"
    """Steps are executed."""
    RESTARTING = "Restarting"
    """A new attempt follows a failure."""
    FINISHED = "Finished"
    """The job has ended."""

    # Suspended, Running
    SUSPENDING = "Suspending"
    """The workers finish their step and save, then their pods leave."""
    SUSPENDED = "Suspended"
    """No pod is left; checkpoint, ledger and volume stay."""
    RESUMED = "Resumed"
    """The job was suspended and is so no more."""

    # Resized, Running
    RESIZING = "Resizing"
    """The workers meet anew in another number."""
    RESIZED = "Resized"
    """The gang has the number of workers that is asked for."""
    ADDING_WORKERS = "AddingWorkers"
    """More workers come up while the others train on."""
    WAITING_FOR_CHECKPOINT = "WaitingForCheckpoint"
    """The number changes after the next checkpoint."""
    WAITING_FOR_TRAINING = "WaitingForTraining"
    """The job does not train now; the number changes once it does, or when it is resumed."""
    RESIZE_FAILED = "ResizeFailed"
    """The gang could not start with that number and went back to the one before."""

    # CheckpointFresh
    CHECKPOINT_RECORDED = "CheckpointRecorded"
    """The ledger points to a durable checkpoint."""
    NO_CHECKPOINT_YET = "NoCheckpointYet"
    """The first checkpoint has not been written."""
    CHECKPOINT_STALE = "CheckpointStale"
    """No checkpoint has been written for several intervals."""

    # NetworkRestricted
    POLICY_ENFORCED = "PolicyEnforced"
    """The NetworkPolicy is there, and the platform team says that the network enforces it."""
    ENFORCEMENT_UNKNOWN = "EnforcementUnknown"
    """The NetworkPolicy is there; nobody has stated whether anything enforces it."""
    POLICY_NOT_ENFORCED = "PolicyNotEnforced"
    """The NetworkPolicy is there; the platform team says that nothing enforces it."""
    POLICY_NONE = "PolicyNone"
    """The spec asks for no NetworkPolicy."""
    API_SERVER_ADDRESS_UNKNOWN = "ApiServerAddressUnknown"
    """The NetworkPolicy opens the API server's usual ports to every address."""

    # Succeeded
    COMPLETED = "Completed"
    """All promised steps are done."""
    ALREADY_COMPLETED = "AlreadyCompleted"
    """An earlier job of this name has done the same work; nothing is run or spent again."""
    PRIVACY_BUDGET_EXHAUSTED = "PrivacyBudgetExhausted"
    """Crashes have used up the replay reserve; the last checkpoint is the result, and without a
    step there is none (Rule 12)."""

    # Failed: the task
    ENTRYPOINT_INVALID = "EntrypointInvalid"
    """The entrypoint does not import, is not callable, raises or returns no task."""
    TASK_INVALID = "TaskInvalid"
    """The task breaks its contract."""
    MODEL_REFUSED = "ModelRefused"
    """The model cannot be trained privately; the message names the module (Rule 21)."""
    EVALUATION_INVALID = "EvaluationInvalid"
    """The evaluation of the untrained model raises or returns no finite figures."""
    DRY_RUN_FAILED = "DryRunFailed"
    """The task raises on synthetic data; the error is shown in full."""
    TASK_FAILED = "TaskFailed"
    """The task raises on private data; only class and line are shown (Rule 20)."""
    DATASET_INVALID = "DatasetInvalid"
    """The dataset is empty, not map-style, or not the same on all ranks."""
    REPLICAS_DIVERGED = "ReplicasDiverged"
    """The ranks' parameters differ at a checkpoint (Rule 6)."""

    # Training refused, at a start or in its midst, until a person has put something right
    PRIVACY_STATE_LOST = "PrivacyStateLost"
    """The ledger is behind the journal or the checkpoint (Rule 11)."""
    CHECKPOINT_LOST = "CheckpointLost"
    """Draws are charged but no checkpoint can be read (Rule 11)."""
    CHECKPOINT_MISMATCH = "CheckpointMismatch"
    """The checkpoint was saved of another model than the task makes now."""
    GPU_MISSING = "GpuMissing"
    """A worker sees fewer GPUs than it was promised."""
    INTERFACE_MISSING = "InterfaceMissing"
    """A worker lacks the network interface that its environment names for collectives."""
    LEDGER_UNREADABLE = "LedgerUnreadable"
    """The ledger cannot be read; nothing is trained without it."""
    STORAGE_FULL = "StorageFull"
    """The checkpoint volume has no space."""
    STORAGE_UNUSABLE = "StorageUnusable"
    """The checkpoint volume can't be written or read: read-only, or another user's."""

    # Attempts: processes
    RANK_FAILED = "RankFailed"
    """A rank process ended with an exit code or a signal."""
    WORKER_LOST = "WorkerLost"
    """A worker stopped answering."""
    OUT_OF_MEMORY = "OutOfMemory"
    """A rank was killed for want of memory."""
    STALLED = "Stalled"
    """A step took longer than its attempt's patience, runPolicy.stallSeconds at least."""
    STOPPED = "Stopped"
    """The attempt was drained: stopped at a step boundary."""
    SUPERSEDED = "Superseded"
    """A newer attempt has taken over."""
    RESTARTS_EXHAUSTED = "RestartsExhausted"
    """More attempts have failed than runPolicy.maxRestarts allows."""
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    """The job has not ended within runPolicy.activeDeadlineSeconds."""
    START_DEADLINE_EXCEEDED = "StartDeadlineExceeded"
    """The workers have not begun to train within runPolicy.startDeadlineSeconds."""
    FAILURE_RULE = "FailureRule"
    """An attempt has failed in a way that a rule of runPolicy.rules ends the job for."""


def known(name: object) -> Reason | None:
    """The reason of that name, if there is one: others write reasons too, or other versions."""
    return next((reason for reason in Reason if reason == name), None)


ENDED_IN_ORDER = frozenset({Reason.STOPPED, Reason.COMPLETED, Reason.PRIVACY_BUDGET_EXHAUSTED})
"""Reasons of attempts that ended as asked."""
TRAINING_HELD = frozenset(
    {
        Reason.PRIVACY_STATE_LOST,
        Reason.CHECKPOINT_LOST,
        Reason.CHECKPOINT_MISMATCH,
        Reason.GPU_MISSING,
        Reason.INTERFACE_MISSING,
        Reason.LEDGER_UNREADABLE,
        Reason.STORAGE_FULL,
        Reason.STORAGE_UNUSABLE,
        # Once draws are charged; before, they are the job's outcome.
        Reason.ENTRYPOINT_INVALID,
        Reason.TASK_INVALID,
        Reason.MODEL_REFUSED,
        Reason.EVALUATION_INVALID,
        Reason.DRY_RUN_FAILED,
        Reason.TASK_FAILED,
        Reason.DATASET_INVALID,
    }
)
"""Reasons of attempts that would not train on what they found; they wait for a person."""
NO_FAILURE = ENDED_IN_ORDER | TRAINING_HELD
"""Reasons of attempts that count against no limit of restarts."""
