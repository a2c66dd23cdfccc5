"""Pytest plugin: tests of a cluster run two at a time, each worker on a cluster of its own.

An operator sees every namespace of its cluster, so two tests that run at once can't share one; and
they wait for most of their time. `-n auto` asks for two workers where this machine can have two
clusters, and otherwise says why there is one test at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from localcluster.base.errors import ClusterError
from localcluster.base.progress import Progress
from localcluster.cluster.instance import DEFAULT_NAME
from localcluster.providers import choose
from localcluster.providers.local import LocalProvider
from testing import together
from testing.tiers import Tier, chosen

AT_A_TIME = 2
_STARTED = "clusters"
"""In the folder of the session: what workers start."""
_ALONE = pytest.StashKey[str | None]()


def of_worker(config: pytest.Config) -> LocalProvider | None:
    """The cluster of this worker alone, not started; None where the session has no workers.

    It is removed at the end of the session, whatever becomes of the worker.

    Raises
    ------
    ClusterError
        If the cluster here is not one that this machine can have twice.
    """
    given: dict[str, Any] | None = getattr(config, "workerinput", None)
    folder = together.folder(config)
    if given is None or folder is None:
        return None
    if (reason := choose.obstacle(choose.Choice.LOCAL)) is not None:
        raise ClusterError(
            f"tests that run at once can't share a cluster: {reason}", "Leave out -n"
        )
    name = f"{DEFAULT_NAME}-{given['workerid']}"
    (folder / _STARTED).mkdir(exist_ok=True)
    (folder / _STARTED / name).touch()
    return LocalProvider(name, Progress())


class Removal:
    """The controller removes its workers' clusters: on Ctrl-C they are killed before they could."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[None]:
        """After xdist's own, by which the workers have ended."""
        try:
            return (yield)
        finally:
            if (folder := together.folder(session.config)) is not None:
                for noted in sorted(folder.glob(f"{_STARTED}/*")):
                    LocalProvider(noted.name, Progress()).down()


def _asks_for_a_cluster(config: pytest.Config) -> bool:
    return bool({Tier.CLUSTER, Tier.PODS} & set(chosen(config) or ()))


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """None leaves it to xdist, for tests of other tiers."""
    if not _asks_for_a_cluster(config):
        return None
    config.stash[_ALONE] = reason = choose.obstacle(choose.Choice.LOCAL)
    return AT_A_TIME if reason is None else 0


def pytest_report_header(config: pytest.Config) -> str | None:
    """Why there is one test at a time where two were asked for."""
    reason = config.stash.get(_ALONE, None)
    return None if reason is None else f"clusters: one test at a time: {reason}"


def pytest_configure(config: pytest.Config) -> None:
    if config.pluginmanager.hasplugin("xdist") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Removal(), "dtjob-clusters")
