"""What scheduler, provisioner, kubelet and container runtime say of a pod, in words alone.

Kubernetes promises none of these words. They are those of 1.37.2, tried in whole clusters; no
scheduler or kubelet of another version was tried.
"""

from __future__ import annotations

import re

CLUSTER_CERTIFICATES = "kube-root-ca.crt"
"""The ConfigMap that the controller manager puts into every namespace."""

_PREEMPTION = re.compile(r"[.,]? *(?:no new claims to deallocate[.,] *)?(?:preemption: .*)?$")
_MISSING_CLAIM = re.compile(
    r"persistentvolumeclaim \"(?P<name>[^\"]+)\" (?:not found|is being deleted)", re.IGNORECASE
)
_IMMEDIATE = "unbound immediate PersistentVolumeClaims"
_MISSING_CLASS = re.compile(
    r"storageclass(?:es)?\.storage\.k8s\.io \"(?P<name>[^\"]+)\" not found", re.IGNORECASE
)
_PULL_PREAMBLE = re.compile(
    r"Back-off pulling image \"[^\"]*\"(?:: )?|ErrImagePull(?:: )?|rpc error: code = \w+ desc = "
    r"|failed to pull and unpack image \"[^\"]*\": |failed to resolve reference \"[^\"]*\": "
)
# The kubelet's own limit, its container runtime, and a connection that broke off.
_BROKEN_PULL = re.compile(
    r"pull QPS exceeded|context (?:deadline exceeded|canceled)|handshake timeout"
    r"|connection reset|unexpected EOF"
)
_UNREACHABLE = re.compile(
    r"no such host|server misbehaving|name resolution|network is unreachable|no route to host"
    r"|i/o timeout"
)
_MISSING_PULL_SECRETS = re.compile(r"pull secrets \((?P<names>[^)]+)\)")
_MOUNT_PREAMBLE = re.compile(
    r"(?:MountVolume|AttachVolume)\.\w+(?: initialization)? failed for volume (\"[^\"]+\") ?:"
)
_MISSING_CONFIGURATION = re.compile(
    r"(?:secrets?|configmaps?) \"(?P<name>[^\"]+)\" not found"
    r"|couldn't find key|non-existent (?:config|secret) key",
    re.IGNORECASE,
)
_NOT_SYNCED = re.compile(
    r"failed to sync \w+ cache|not yet been read|not registered|is forbidden|host IP unknown"
)
_MISSING_EXECUTABLE = re.compile(
    r"executable file not found|exec: .*(?:no such file or directory|permission denied)"
)

_TOO_LITTLE_MEMORY = re.compile(
    r"OOM-killed|memory limit (?:\S+ )?too low|cannot allocate memory|minimum memory limit"
    r"|memory allocation failed|^MemoryError",
    re.IGNORECASE,
)


def scheduling_cause(message: str) -> str:
    """Why no node takes a pod, without the futile search for pods to evict."""
    return _PREEMPTION.sub("", message).rstrip(". ")


def has_cordoned_nodes(message: str) -> bool:
    """Whether the scheduler passed over nodes that are marked unschedulable, as by a drain."""
    return "node(s) were unschedulable" in message


def missing_claim(message: str) -> str | None:
    """The claim that the scheduler misses, or finds about to be deleted."""
    match = _MISSING_CLAIM.search(message)
    return match["name"] if match else None


def has_unbound_immediate_claims(message: str) -> bool:
    """Whether the scheduler waits for claims to be bound, and has looked at no node."""
    return _IMMEDIATE in message


def waits_for_volumes(message: str) -> bool:
    """Whether the scheduler waits for volumes, of whatever binding mode."""
    return _IMMEDIATE in message or "find available persistent volumes to bind" in message


def missing_storage_class(message: str) -> str | None:
    """The StorageClass that the provisioner misses."""
    match = _MISSING_CLASS.search(message)
    return match["name"] if match else None


def pull_cause(message: str, image: str) -> str:
    """Why an image was not pulled; kubelet and runtime repeat its name before that."""
    return _PULL_PREAMBLE.sub("", message).removeprefix(f"{image}: ").rstrip(". ")


def is_broken_pull(message: str) -> bool:
    """Whether a pull broke off, so that the next one may succeed."""
    return _BROKEN_PULL.search(message) is not None


def is_unreachable(message: str) -> bool:
    """Whether the node did not find the registry's host, or no way to it."""
    return _UNREACHABLE.search(message) is not None


def is_connection_refused(message: str) -> bool:
    """Whether nothing listens where the registry should."""
    return "connection refused" in message


def is_access_denied(message: str) -> bool:
    """Whether the registry refuses the credentials, or wants some."""
    return "unauthorized" in message.lower() or "denied" in message.lower()


def missing_pull_secrets(message: str) -> str | None:
    """The pull secrets that the kubelet did not find."""
    match = _MISSING_PULL_SECRETS.search(message)
    return match["names"] if match else None


def mount_cause(message: str) -> str:
    """Why a volume was not mounted."""
    return _MOUNT_PREAMBLE.sub(r"volume \1:", message).rstrip(". ")


def lacks_configuration(message: str) -> bool:
    """Whether a Secret, a ConfigMap or a key in one is missing that a user has to make."""
    matches = _MISSING_CONFIGURATION.finditer(message)
    return any(match["name"] != CLUSTER_CERTIFICATES for match in matches)


def lacks_cluster_certificates(message: str) -> bool:
    """Whether the cluster's own certificates are missing."""
    return CLUSTER_CERTIFICATES in message


def is_not_synced(message: str) -> bool:
    """Whether something exists, but has not reached the kubelet yet."""
    return _NOT_SYNCED.search(message) is not None


def lacks_executable(message: str) -> bool:
    """Whether the image has no such program, or none that can be run."""
    return _MISSING_EXECUTABLE.search(message) is not None


def lacks_memory(message: str) -> bool:
    """Whether a container has too little memory to be started at all."""
    return _TOO_LITTLE_MEMORY.search(message) is not None


def has_too_long_arguments(message: str) -> bool:
    """Whether the kernel refuses a program for the size of its arguments and variables."""
    return "argument list too long" in message.lower()


def runs_as_root(message: str) -> bool:
    """Whether the image's user is root, or may be."""
    return "runAsNonRoot" in message


def has_bad_sub_path(message: str) -> bool:
    """Whether a subPath of a volume can't be mounted."""
    return "subpath" in message.lower()
