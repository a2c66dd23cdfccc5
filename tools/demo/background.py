"""Cluster and images, made in processes of their own while something else is on the screen.

In processes and not in threads: one that has failed ends the other, which may wait for a builder.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

from rich.console import Console

from demo import install
from localcluster.base.errors import ClusterError
from localcluster.base.progress import Progress
from localcluster.cluster.instance import DEFAULT_NAME
from localcluster.images.built import BuiltImage
from localcluster.providers import choose
from localcluster.providers.protocol import Provider

_END_SECONDS = 15.0
_ENDING = (signal.SIGINT, signal.SIGTERM)
_SPAWN = multiprocessing.get_context("spawn")

Images = dict[str, BuiltImage]
Work = Callable[[Provider], Images]


def start_cluster(provider: Provider) -> Images:
    """Start the cluster."""
    provider.up()
    return {}


def build_images(provider: Provider) -> Images:
    """Build both images."""
    return {name: install.build(provider, name) for name in ("operator", "trainer")}


class Task:
    """Work on a cluster, begun at once.

    Parameters
    ----------
    work
        A function of a module, given a provider.
    kind
        The provider's kind.
    log
        Where it logs what it does.
    """

    def __init__(self, work: Work, kind: str, log: Path) -> None:
        self._answer, sending = _SPAWN.Pipe(duplex=False)
        arguments = (sending, work, kind, log)
        self._process = _SPAWN.Process(target=_do, args=arguments, daemon=True)
        self._process.start()
        sending.close()
        self._images: Images | None = None

    def done(self) -> bool:
        """Whether it has succeeded.

        Raises
        ------
        ClusterError
            It has failed.
        """
        if self._images is None and self._answer.poll():
            try:
                answer = self._answer.recv()
            except EOFError:
                self._process.join()
                raise ClusterError(
                    f"the demo's preparation ended with exit code {self._process.exitcode}"
                ) from None
            if isinstance(answer, ClusterError):
                raise answer
            self._images = answer
        return self._images is not None

    def images(self) -> Images:
        """What was built, once it is done."""
        return self._images or {}

    def end(self) -> None:
        """End it, and what it has started; nothing happens where it has ended."""
        self._process.terminate()
        self._process.join(_END_SECONDS)
        self._process.kill()
        self._process.join()


class _Stop:
    """A handler that ends the work once: nothing must come between what is being ended then."""

    def __init__(self) -> None:
        self._called = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        if not self._called:
            self._called = True
            raise KeyboardInterrupt


def _do(answer: Connection, work: Work, kind: str, log: Path) -> None:
    """Work until told to end, by Ctrl-C or the demo: whoever waits for a program ends it then."""
    stop = _Stop()
    for number in _ENDING:
        signal.signal(number, stop)
    try:
        answer.send(_outcome(work, kind, log))
    except (KeyboardInterrupt, BrokenPipeError):  # of a demo that is gone
        sys.exit(130)


def _outcome(work: Work, kind: str, log: Path) -> Images | ClusterError:
    with log.open("a", encoding="utf-8") as file:
        progress = Progress(Console(file=file, soft_wrap=True))
        try:
            return work(choose.provider(DEFAULT_NAME, choose.Choice(kind), progress))
        except ClusterError as error:
            return error
