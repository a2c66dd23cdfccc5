"""Which of several operators works: the one that holds the Lease.

As in client-go, but for what a leader does that can't renew (`run.leadership`). The Kubernetes
client's own election goes by the wall clock, gives nothing back at a stop and waits for a request
for as long as it takes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from dtjob_operator.kube.api_errors import AlreadyExists, Conflict, NotFound, Unavailable
from dtjob_operator.kube.client import KubeClient
from dtjob_operator.terms.kinds import LEASE, Json
from dtjob_operator.terms.names import shared_labels

NAME = "dtjob-operator"
LEASE_SECONDS = 15
"""For how long after its last change a Lease keeps others from leading."""
DEADLINE_SECONDS = 10.0
"""For how long after its last renewal the holder writes: by 5 s less than others wait."""
_ANSWER_SECONDS = 4.0
_MOST_TRANSITIONS = 2**31 - 1  # of the Lease's schema
# Who has not looked for so long does not know how long a Lease has been as it is: after an outage
# of the API server the one that led before renews it, and nothing has to be begun anew.
_BLIND_SECONDS = 6.0


def _seconds() -> float:
    """Seconds that go on while the machine sleeps, in which another may have taken the Lease."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Superseded(Exception):
    """Another may have led since the Lease was renewed; the message says who."""


class Candidate:
    """One operator before the Lease.

    Times are of this machine's own clock since its start alone: how old a Lease is goes by when a
    change of it was seen here, never by what is written in it.

    Parameters
    ----------
    namespace
        Where the Lease lies.
    identity
        Unlike that of any other process.
    clock
        Seconds that never go back.
    """

    def __init__(
        self,
        client: KubeClient,
        namespace: str,
        identity: str,
        clock: Callable[[], float] = _seconds,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._identity = identity
        self._clock = clock
        self._lease: Json | None = None
        self._is_current = False
        # What a Lease said when it was last seen: one that is deleted counts on.
        self._seen: Json = {}
        self._seen_at = self._looked_at = float("-inf")
        self._held_until = float("-inf")

    @property
    def holder(self) -> str | None:
        """Whose the Lease was when it was last seen; None where it was nobody's."""
        holder: str | None = self._seen.get("holderIdentity")
        return holder

    def holds(self) -> bool:
        """Whether the Lease was renewed within the deadline: nobody else leads."""
        return self._clock() < self._held_until

    async def try_to_lead(self) -> bool:
        """Take the Lease where it is free; returns whether it was taken.

        Raises
        ------
        ApiError
            It could not be read or written; it may have been taken all the same.
        """
        await self._read()
        if not self._is_free():
            return False
        try:
            await self._hold()
        except (AlreadyExists, Conflict, NotFound):
            return False  # another was faster
        return True

    async def renew(self) -> None:
        """Renew the Lease.

        Raises
        ------
        Superseded
            It is not the one that was held, or not ours any more.
        ApiError
            It could not be read or written; it may have been renewed all the same.
        """
        if not self._is_current:
            await self._read_own()
        try:
            await self._hold()
        except (Conflict, NotFound):
            # Somebody wrote to it, maybe no more than a note of his.
            await self._read_own()
            await self._hold()

    async def release(self) -> None:
        """Give the Lease back, so that another leads at once, where it is held.

        Raises
        ------
        ApiError
            It could not be written; others wait for `LEASE_SECONDS`.
        """
        if not self.holds() or self._lease is None:
            return
        self._held_until = float("-inf")
        spec = {k: v for k, v in self._seen.items() if k != "holderIdentity"}
        await self._answered(self._client.replace(self._lease | {"spec": spec}))

    def _is_free(self) -> bool:
        if self.holder in (None, self._identity):
            return True
        # Whatever it says itself, which a hand may have changed: all operators keep to this.
        return self._clock() >= self._seen_at + LEASE_SECONDS

    async def _read_own(self) -> None:
        await self._read()
        if self._lease is None:
            raise Superseded("the Lease was deleted")
        if self.holder != self._identity:
            raise Superseded(f"{self.holder or 'another, for a while,'} leads")

    async def _read(self) -> None:
        self._is_current = False
        try:
            lease = await self._answered(self._client.get(LEASE, self._namespace, NAME))
            self._see(lease, lease.get("spec") or {})
        except NotFound:
            self._see(None, self._seen)
        self._is_current = True

    async def _hold(self) -> None:
        began, self._is_current = self._clock(), False
        body = {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.name,
            "metadata": {"name": NAME, "namespace": self._namespace, "labels": _labels()},
        } | (self._lease or {})
        write = self._client.create if self._lease is None else self._client.replace
        written = await self._answered(write(body | {"spec": self._held()}))
        self._see(written, written["spec"])
        self._is_current = True
        self._held_until = began + DEADLINE_SECONDS

    def _held(self) -> Json:
        """The Lease as ours; its times are for people."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        is_own, before = self.holder == self._identity, self._seen.get("leaseTransitions", 0)
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": LEASE_SECONDS,
            "acquireTime": self._seen.get("acquireTime", now) if is_own else now,
            "renewTime": now,
            "leaseTransitions": before if is_own else min(before + 1, _MOST_TRANSITIONS),
        }

    def _see(self, lease: Json | None, spec: Json) -> None:
        now = self._clock()
        if spec != self._seen or now - self._looked_at > _BLIND_SECONDS:
            self._seen, self._seen_at = spec, now
        self._lease, self._looked_at = lease, now

    async def _answered(self, request: Awaitable[Json]) -> Json:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await request
        except TimeoutError as error:
            message = f"the API server has not answered about Lease {NAME} for {_ANSWER_SECONDS} s"
            raise Unavailable(0, "NoAnswer", message) from error


def _labels() -> dict[str, str]:
    return shared_labels() | {"app.kubernetes.io/component": "operator"}
