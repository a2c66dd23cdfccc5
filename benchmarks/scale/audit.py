"""Writes by who asked for them, as the API server's audit log has them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OPERATOR = "dtjob operator"
# Asked for by POST, and nothing is stored.
_QUESTIONS = {
    "serviceaccounts/token",
    "tokenreviews",
    "subjectaccessreviews",
    "selfsubjectaccessreviews",
    "selfsubjectrulesreviews",
}
_LEASE, _FAILURE = "leases", 400


@dataclass(frozen=True)
class Write:
    """One request that was to change something.

    Attributes
    ----------
    writer
        The client by its user agent; of the controller manager, the controller.
    resource
        With its subresource, as in `pods/status`.
    status
        Of the answer.
    """

    writer: str
    verb: str
    resource: str
    name: str
    status: int


class AuditLog:
    """What is written into the log from when it is made on.

    Parameters
    ----------
    operator
        The user name of the operator's account.
    """

    def __init__(self, path: Path, operator: str) -> None:
        self._path = path
        self._file = path.open()
        self._file.seek(0, 2)
        self._operator = operator
        self._rest = ""

    def take(self) -> list[Write]:
        """Writes since the last call; Leases and dry runs are none.

        Raises
        ------
        RuntimeError
            The API server has begun another file: what is in that would be missing.
        """
        found = list(self._new())
        if self._path.stat().st_ino != os.fstat(self._file.fileno()).st_ino:
            raise RuntimeError(f"{self._path} was rotated: raise --audit-log-maxsize")
        return found

    def _new(self) -> Iterator[Write]:
        for line in self._file:
            self._rest += line
            if not line.endswith("\n"):
                return
            event, self._rest = json.loads(self._rest), ""
            ref = event.get("objectRef") or {}
            resource = "/".join(filter(None, (ref.get("resource"), ref.get("subresource"))))
            if resource in {_LEASE, *_QUESTIONS} or "dryRun=All" in event["requestURI"]:
                continue
            status = event.get("responseStatus", {}).get("code", 0)
            yield Write(self._writer(event), event["verb"], resource, ref.get("name", ""), status)

    def _writer(self, event: dict[str, Any]) -> str:
        if event["user"]["username"] == self._operator:
            return OPERATOR
        agent = str(event.get("userAgent", "?"))
        program, _, rest = agent.partition("/")
        of_controller = rest.rpartition("/system:serviceaccount:kube-system:")[2]
        return f"{program}: {of_controller}" if of_controller != rest else program


def per_job(writes: list[Write], jobs: int) -> dict[str, dict[str, float]]:
    """Successful writes a job by writer, then by verb and resource."""
    counts = Counter(
        (write.writer, f"{write.verb} {write.resource}")
        for write in writes
        if write.status < _FAILURE
    )
    found: dict[str, dict[str, float]] = {}
    for (writer, what), count in sorted(counts.items(), key=lambda each: (each[0][0], -each[1])):
        found.setdefault(writer, {})[what] = round(count / jobs, 2)
    return found


def refused(writes: list[Write]) -> dict[str, int]:
    """How many writes were refused, by writer, verb, resource and status."""
    counts = Counter(
        f"{write.writer}: {write.verb} {write.resource} {write.status}"
        for write in writes
        if write.status >= _FAILURE
    )
    return dict(counts.most_common())


def of_operator(writes: list[Write]) -> list[Write]:
    """The operator's successful ones."""
    return [write for write in writes if write.writer == OPERATOR and write.status < _FAILURE]
