"""Whether the network interfaces that the environment names for collectives exist.

gloo and NCCL would report it late, in their own terms, and after the ranks had met.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from dtjob_api.reasons import Reason
from dtjob_trainer.ledger.recovery import TrainingHeld

_GLOO = "GLOO_SOCKET_IFNAME"
_NCCL = "NCCL_SOCKET_IFNAME"


def require(world_size: int, *, on_gpus: bool) -> None:
    """Refuse a variable that leaves the collectives of several ranks without an interface.

    Raises
    ------
    TrainingHeld
        Names the variable, its value and the interfaces that there are. Nothing of the task is
        wrong: another environment, or another node, cures it.
    """
    variable = _NCCL if on_gpus else _GLOO
    value = os.environ.get(variable, "")
    if world_size == 1 or not value:
        return
    existing = [name for _, name in socket.if_nameindex()]
    wrong = of_nccl(value, existing) if on_gpus else of_gloo(value, existing)
    if wrong is not None:
        raise TrainingHeld(
            Reason.INTERFACE_MISSING,
            f"the environment variable {variable} is {value!r}, but {wrong}; the interfaces of "
            f"this worker are {', '.join(existing)}. Correct it or leave it out: in the shell of a "
            "local run or in its manifest, in a cluster in spec.workers.template.env of a new job. "
            "Where other nodes have that interface, cordon this one and delete the pod",
        )


def of_gloo(value: str, existing: Sequence[str]) -> str | None:
    """What is wrong with gloo's list of names, each of which must exist; None if nothing is."""
    missing = [name for name in value.split(",") if name not in existing]
    return f"there is no interface {', '.join(map(repr, missing))}" if missing else None


def of_nccl(value: str, existing: Sequence[str]) -> str | None:
    """What is wrong with NCCL's list: of it any interface will do; None if there is one.

    `eth` means all whose names begin so, `=eth0` that name alone, `^docker` and `^=eth0`
    all others.
    """
    exclude = value.startswith("^")
    listed = value.removeprefix("^")
    exact = listed.startswith("=")
    # A port may follow a name; it does not concern the interface.
    names = [name.partition(":")[0] for name in listed.removeprefix("=").split(",") if name]

    def matches(interface: str) -> bool:
        return any(interface == n if exact else interface.startswith(n) for n in names)

    if any(matches(interface) is not exclude for interface in existing):
        return None
    return "it leaves out every interface" if exclude else "no interface matches it"
