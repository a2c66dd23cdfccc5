"""Having the node pull and unpack an image before any pod waits for it.

A first start of a pod whose image takes minutes to unpack runs into time limits of its own. The
kubelet is asked in the one way there is: by a pod, whose command need not exist.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

from localcluster import kubectl
from localcluster.errors import ClusterError

_LONGEST_PULL = 1800.0
_REFUSED = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")


def pull(program: Path, kubeconfig: Path, reference: str) -> None:
    """Return once the node has `reference`, unpacked.

    Raises
    ------
    ClusterError
        If the node can't pull it, in the kubelet's words.
    """
    name = f"preload-{hashlib.sha256(reference.encode()).hexdigest()[:10]}"
    container = {"name": "preload", "image": reference, "command": ["/preload-only"]}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
        },
    }

    def call(*arguments: str, stdin: str | None = None) -> str:
        done = kubectl.run(program, kubeconfig, "--namespace=default", *arguments, stdin=stdin)
        if done.returncode != 0:
            raise ClusterError(f"pulling {reference} failed: {done.stderr.strip()}")
        return done.stdout

    call("apply", "--filename=-", stdin=json.dumps(pod))
    try:
        deadline = time.monotonic() + _LONGEST_PULL
        while not pulled(json.loads(call("get", "pod", name, "--output=json")), reference):
            if time.monotonic() > deadline:
                raise ClusterError(f"pulling {reference} took over {_LONGEST_PULL:.0f} s")
            time.sleep(0.3)
    finally:
        call("delete", "pod", name, "--wait=false", "--ignore-not-found")


def pulled(pod: dict[str, dict[str, object]], reference: str) -> bool:
    """Whether the one container of `pod` came as far as having its image.

    Raises
    ------
    ClusterError
        If the kubelet gave up on the image.
    """
    statuses = pod["status"].get("containerStatuses")
    if not isinstance(statuses, list) or not statuses:
        return False
    waiting = statuses[0]["state"].get("waiting", {})
    if waiting.get("reason") in _REFUSED:
        raise ClusterError(f"the node can't pull {reference}: {waiting.get('message')}")
    return bool(statuses[0].get("imageID")) or "waiting" not in statuses[0]["state"]
