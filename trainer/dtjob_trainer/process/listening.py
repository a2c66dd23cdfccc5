"""Where a worker listens; it waits for a port that its predecessor still has."""

from __future__ import annotations

import errno
import os
import socket
import time

from dtjob_serving import doors

_PORT_SECONDS = 15.0


class ConfigurationError(Exception):
    """This worker can't start as it is configured; the message names the remedy."""


def is_loopback(host: str) -> bool:
    """Whether a host is reached from this machine alone."""
    return host == "localhost" or host.startswith("127.")


def listen(host: str, port: int, name: str) -> socket.socket:
    """Listen on `port`; a predecessor that was just killed may hold it for a moment."""
    deadline = time.monotonic() + _PORT_SECONDS
    while True:
        try:
            return doors.listen(host, port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            raise ConfigurationError(
                f"{name} {port} on {host or 'all addresses'}: {os.strerror(error.errno or 0)}; "
                "choose another port or end the process that has it"
            ) from None
