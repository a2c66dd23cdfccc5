"""The digest of a rank's environment, by which a run knows under which one it has tried a task.

A model may be built by a variable of the manifest, of a ConfigMap or of a Secret. The ledger has
the digest, and many may read that: so it is keyed by bytes that only the checkpoint volume has.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path

from dtjob_api.wire.well_known import CONFIG_VARIABLE
from dtjob_trainer.ledger import durable

_KEY = "environment.key"
_KEY_BYTES = 32
#: What differs between pods, terminals and attempts while the task stays what it is. Of our own
#: configuration the digest of a task has by itself what the task gets.
_NOT_THE_TASKS = frozenset(
    {
        CONFIG_VARIABLE,
        "HOSTNAME",
        "_",
        "COLUMNS",
        "LINES",
        "OLDPWD",
        "PWD",
        "SHLVL",
        "TERM",
        "WINDOWID",
        "XDG_SESSION_ID",
    }
)
_NOT_THE_TASKS_PREFIXES = ("KUBERNETES_", "SSH_")


def digest(state_dir: Path) -> str | None:
    """HMAC-SHA256 of the variables that may be the task's, in hexadecimal; None without a key.

    Parameters
    ----------
    state_dir
        The folder of the run on its checkpoint volume. The key is made there once.
    """
    try:
        key = _key(state_dir)
    except OSError:
        return None
    given = {
        name: value
        for name, value in os.environ.items()
        if name not in _NOT_THE_TASKS and not name.startswith(_NOT_THE_TASKS_PREFIXES)
    }
    text = json.dumps(given, sort_keys=True).encode()
    return hmac.new(key, text, hashlib.sha256).hexdigest()


def _key(state_dir: Path) -> bytes:
    """The run's key; a new one where there is none, or what is there was torn by a crash."""
    path = state_dir / _KEY
    with contextlib.suppress(FileNotFoundError):
        key = path.read_bytes()
        if len(key) == _KEY_BYTES:
            return key
    key = secrets.token_bytes(_KEY_BYTES)
    durable.make_folder(state_dir)
    draft = path.with_name(f".{_KEY}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(key)
    os.replace(draft, path)
    return key
