"""What people order through the ledger; it arrives also while the leader waits for other things.

The operator gives an order (`spec.run`) and passes a changed `spec.runPolicy` on, and an
administrator raises a ledger that was behind its volume (`status.restored`). Each may be what a job
waits for; other writes are the workers' own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dtjob_api.ledger.policy_in_force import PolicyInForce
from dtjob_api.ledger.privacy_ledger import Order
from dtjob_trainer.ledger.backend import Ledger, LedgerError, Versioned
from dtjob_trainer.process.logs import Logger

#: One watch of the ledger; and how long to wait before another one where it failed.
_WATCH_SECONDS = 10.0
_PATIENCE_SECONDS = 2.0


class Orders:
    """Reads the ledger when asked, and watches it from then on.

    Parameters
    ----------
    changed
        Called when the ledger has changed.

    Attributes
    ----------
    order
        The newest order; None before the ledger was first read.
    policy
        The newest run policy.
    """

    def __init__(self, ledger: Ledger, changed: Callable[[], None], log: Logger) -> None:
        self._ledger, self._changed, self._log = ledger, changed, log
        self.order: Order | None = None
        self.policy = PolicyInForce()
        self._version = ""
        self._uid: str | None = None
        self._restored: int | None = None
        self._taken: tuple[Order | None, PolicyInForce, int | None] | None = None
        self._watching: asyncio.Task[None] | None = None

    async def read(self) -> Versioned:
        """The ledger as it is now. The orders in it are taken as known.

        Raises
        ------
        LedgerUnreadable
        """
        while True:
            known = self._version
            versioned = await asyncio.to_thread(self._ledger.read)
            if not self._is_overtaken(versioned, known):
                break
        self._hear(versioned)
        self.take()
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        return versioned

    @property
    def has_news(self) -> bool:
        """Whether an order or a policy came after the last `take`: nobody has decided on it."""
        return self._taken != self._newest

    def take(self) -> None:
        """Take the newest order as known."""
        self._taken = self._newest

    @property
    def _newest(self) -> tuple[Order | None, PolicyInForce, int | None]:
        return self.order, self.policy, self._restored

    def _hear(self, versioned: Versioned) -> None:
        ledger = versioned.ledger
        self._version, self.order = versioned.version, ledger.spec.run
        self.policy = ledger.spec.run_policy
        self._uid, self._restored = ledger.metadata.uid, ledger.status.restored

    def _is_overtaken(self, answer: Versioned, known: str) -> bool:
        """Whether an answer is older than what arrived while it was on its way.

        Read and watch ask at the same time, and the first answer may come last. `known` is the
        version when it was asked for. Where nothing arrived since, a ledger with an older order
        was put back from a copy, and counts. One that was made anew is another ledger, and may
        begin below the one that was lost.
        """
        ledger = answer.ledger
        if self._version == known or self.order is None or ledger.metadata.uid != self._uid:
            return False
        answered = ledger.spec.run.generation, ledger.status.restored or 0
        return answered < (self.order.generation, self._restored or 0)

    async def _watch(self) -> None:
        while True:
            known = self._version
            try:
                newer = await asyncio.to_thread(self._ledger.wait, known, _WATCH_SECONDS)
            except LedgerError:
                await asyncio.sleep(
                    _PATIENCE_SECONDS
                )  # whoever writes next meets it too, and decides
                continue
            except Exception as error:
                # Nobody waits for this task: if it ended, every later order would go unnoticed.
                self._log.error("watching the ledger failed", detail=f"{error!r}")
                await asyncio.sleep(_PATIENCE_SECONDS)
                continue
            if newer is not None and not self._is_overtaken(newer, known):
                self._hear(newer)
                self._changed()
