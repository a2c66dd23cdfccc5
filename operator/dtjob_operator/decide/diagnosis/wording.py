"""Kubernetes' own messages without what repeats: the cause, for a condition that people read."""

from __future__ import annotations

import re

_PULL_PREAMBLE = re.compile(
    r"Back-off pulling image \"[^\"]*\"(?:: )?|ErrImagePull(?:: )?|rpc error: code = \w+ desc = "
    r"|failed to pull and unpack image \"[^\"]*\": |failed to resolve reference \"[^\"]*\": "
)
_PREEMPTION = re.compile(r"[.,]? *(?:no new claims to deallocate[.,] *)?(?:preemption: .*)?$")
_MOUNT_PREAMBLE = re.compile(
    r"(?:MountVolume|AttachVolume)\.\w+(?: initialization)? failed for volume (\"[^\"]+\") ?:"
)


def pull(message: str, image: str) -> str:
    """Why an image was not pulled; the kubelet and the runtime name it once each on the way."""
    return _PULL_PREAMBLE.sub("", message).removeprefix(f"{image}: ").rstrip(". ")


def scheduling(message: str) -> str:
    """Why no node takes a pod, without the futile search for pods to evict."""
    return _PREEMPTION.sub("", message).rstrip(". ")


def mount(message: str) -> str:
    """Why a volume is not there."""
    return _MOUNT_PREAMBLE.sub(r"volume \1:", message).rstrip(". ")
