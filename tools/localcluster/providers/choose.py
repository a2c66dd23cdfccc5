"""Choosing a provider."""

from __future__ import annotations

from enum import StrEnum

from rich.console import Console

from localcluster.base import project
from localcluster.base.errors import CannotRunHere
from localcluster.base.progress import Progress
from localcluster.providers.existing import ExistingProvider
from localcluster.providers.kind import KindProvider
from localcluster.providers.local import LocalProvider
from localcluster.providers.protocol import Provider


class Choice(StrEnum):
    """What a person can ask for."""

    AUTO = "auto"
    EXISTING = "existing"
    KIND = "kind"
    LOCAL = "local"


_REASONS = {
    "existing": f"{project.KUBECONFIG_VARIABLE} is set",
    "kind": "kind and a container engine are here",
    "local": "root and Kubernetes' binaries, or Go to build them, are here",
}


def provider(name: str, choice: Choice, progress: Progress) -> Provider:
    """Return the provider that was asked for, or the first that can work here.

    Parameters
    ----------
    name
        The cluster's name.
    choice
        A kind of provider, or AUTO.
    progress
        Where to say which was chosen, and why.

    Raises
    ------
    CannotRunHere
        If none can work, with the reason of each.
    """
    candidates: list[Provider] = [
        ExistingProvider(name, progress),
        KindProvider(name, progress),
        LocalProvider(name, progress),
    ]
    if choice is not Choice.AUTO:
        candidates = [each for each in candidates if each.kind == choice]
    obstacles = []
    for candidate in candidates:
        obstacle = candidate.obstacle()
        if obstacle is None:
            progress.say(f"provider {candidate.kind}: {_REASONS[candidate.kind]}")
            return candidate
        obstacles.append(f"{candidate.kind}: {obstacle}")
    raise CannotRunHere("no cluster can run here: " + "; ".join(obstacles))


def obstacle(choice: Choice = Choice.AUTO) -> str | None:
    """Return why this machine can have no cluster of `choice`, or None if it can.

    With LOCAL, the reason may also be that the provider which AUTO takes is another one.
    """
    try:
        chosen = provider("any", Choice.AUTO, Progress(Console(quiet=True)))
    except CannotRunHere as error:
        return str(error)
    if choice in (Choice.AUTO, chosen.kind):
        return None
    return f"the cluster here comes from provider {chosen.kind}"
