"""Tasks and models that can't be trained, in pods of the real trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.clusters.installed import Installed
from tests.support.clusters.kube import Kubectl
from tests.support.jobs.bad_jobs import CASES, Watched, all_watched

pytestmark = [pytest.mark.cluster, pytest.mark.pods, pytest.mark.timeout(900)]

OURS = [case for case in CASES if case.get("trains")]
by_name = pytest.mark.parametrize("name", [case["name"] for case in OURS])

_PATIENCE_SECONDS = 600  # for imports of torch on two busy cores


@pytest.fixture(scope="module")
def seen(
    installed: Installed, new_namespace: Callable[[], Kubectl]
) -> Iterator[dict[str, Watched]]:
    """All jobs, once each has said what is wrong, or has had time enough."""
    task = "dtjob_trainer.tasks.digits:task"
    with all_watched(OURS, installed, new_namespace, task, _PATIENCE_SECONDS) as watched:
        yield watched


@pytest.mark.alone
def test_all_are_watched(seen: dict[str, Watched]) -> None:
    """When each was told is judged below."""
    assert [name for name, each in seen.items() if not each.job] == []


@by_name
def test_a_condition_says_what_where_and_the_remedy(seen: dict[str, Watched], name: str) -> None:
    seen[name].assert_reported()


@by_name
def test_it_is_reported_in_time(seen: dict[str, Watched], name: str) -> None:
    seen[name].assert_reported_in_time()
