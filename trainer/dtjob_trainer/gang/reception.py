"""Where the coordinator answers its supervisors' hellos: each as soon as there is news for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from http import HTTPStatus

from dtjob_api.wire.gang import Action, Directive, Hello
from dtjob_trainer.gang.members import Gang
from dtjob_trainer.gang.orders import Orders
from dtjob_trainer.identity.proof import HelloDenied, Speaker

#: How long a hello waits for news.
_ANSWER_SECONDS = 2.0


class Reception:
    """Admits the workers of the newest order, and hands the gang's directive out.

    Parameters
    ----------
    received
        Called when the gang has a new hello.
    now
        The time by which others are silent.

    Attributes
    ----------
    informed
        Positions that know that all is done.
    """

    def __init__(
        self, gang: Gang, orders: Orders, received: Callable[[], None], now: Callable[[], float]
    ) -> None:
        self._gang, self._orders = gang, orders
        self._received, self._now = received, now
        self._news = asyncio.Condition()
        self.informed: set[int] = set()

    async def hello(self, hello: Hello, speaker: Speaker) -> Directive:
        """Answer one supervisor: at once if it doesn't know the directive, else when it changes.

        One that is to join waits here for the order that it does.

        Raises
        ------
        HelloDenied
            It speaks for no worker of this run, or the run is not known yet: it has to ask again.
        """
        is_in = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ANSWER_SECONDS), self._news:
                await self._news.wait_for(lambda: self._is_expected(hello) or self.is_done)
                self._admit(hello, speaker)
                is_in = True
                await self._news.wait_for(lambda: self._gang.directive.revision != hello.known)
        if not is_in and self._orders.order is None:
            raise HelloDenied(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "the ledger has not been read yet, which says how many workers there are",
            )
        if not is_in:
            self._admit(hello, speaker)  # which says why not
        if self.is_done:
            self.informed.add(hello.position)
            self._received()
        return self._gang.directive

    async def wake(self) -> None:
        """Have hellos that wait look whether there is news for them."""
        async with self._news:
            self._news.notify_all()

    @property
    def is_done(self) -> bool:
        """Whether the workers are sent home."""
        return self._gang.directive.action is Action.DONE

    def _is_expected(self, hello: Hello) -> bool:
        order = self._orders.order
        return order is not None and self._gang.has_place(hello.position, order.workers)

    def _admit(self, hello: Hello, speaker: Speaker) -> None:
        order = self._orders.order
        if order is None:
            return  # there was never a run: whoever asks is sent home
        self._gang.admit(hello, speaker, order.workers)
        self._gang.hello(hello, self._now())
        self._received()
