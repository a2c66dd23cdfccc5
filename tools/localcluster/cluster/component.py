"""One long-running process of a cluster."""

from __future__ import annotations

import signal
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Component:
    """A process that the cluster's daemon starts, and starts again when it ends.

    Parameters
    ----------
    name
        Its name in messages and of its log.
    argv
        The command line.
    ready
        Tells whether it serves; the daemon starts what comes next when it does. Always true for a
        process that nothing waits for.
    ended_by
        The signal that ends it where it is to be held.
    environment
        Variables in addition to the daemon's own.
    """

    name: str
    argv: list[str]
    ready: Callable[[], bool] = field(default=lambda: True)
    ended_by: signal.Signals = signal.SIGTERM
    environment: dict[str, str] = field(default_factory=dict)


def answers(url: str, authority: Path | None = None) -> Callable[[], bool]:
    """Return a check that tells whether `url` answers 200.

    Parameters
    ----------
    url
        An http or https URL of this cluster.
    authority
        PEM file of the authority that an https server's certificate must come from.
    """

    def check() -> bool:
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if authority is not None:
            context = ssl.create_default_context(cafile=str(authority))
            handlers.append(urllib.request.HTTPSHandler(context=context))
        try:
            with urllib.request.build_opener(*handlers).open(url, timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError, ssl.SSLError):
            return False

    return check
