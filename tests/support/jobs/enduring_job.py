"""One slow job that goes through fault after fault, and how its processes are reached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from localcluster.providers.local import LocalProvider
from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.installed import Installed
from tests.support.clusters.kube import Kubectl
from tests.support.jobs.pod_jobs import Course, Job, watched

LEASE = 10
SECONDS_PER_STEP = 0.2


@dataclass(frozen=True)
class Enduring:
    """The job that goes through it all."""

    job: Job
    course: Course
    provider: LocalProvider

    @classmethod
    @contextmanager
    def through(
        cls, installed: Installed, kubectl: Kubectl, *manifests: Manifest
    ) -> Iterator[Self]:
        """Apply manifests, the last one a job's, which is watched to the end."""
        manifests[-1]["spec"]["checkpoint"] = {"everySteps": LEASE}
        job = Job.apply(installed, kubectl, *manifests)
        with watched(job) as course:
            yield cls(job, course, local(installed))
        kubectl("delete", "dtjob", job.name, "--wait=false")

    def training(self) -> int:
        """Wait until it takes its next lease; the attempt that trains."""
        return self.job.until_next_lease()


def local(installed: Installed) -> LocalProvider:
    """The way to the processes of pods."""
    provider = installed.cluster.provider
    assert isinstance(provider, LocalProvider)
    return provider
