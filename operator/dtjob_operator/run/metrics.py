"""The operator's metrics, of itself and of its jobs."""

from __future__ import annotations

import math
from collections import Counter as Tally
from collections.abc import Callable, Collection, Iterable, Iterator, Sized
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily

from dtjob_api.reasons import Phase
from dtjob_operator.observe.scrape import ScrapeResult
from dtjob_operator.terms.kinds import ENDPOINT_SLICE, JOB_UID_LABEL, WATCHED, Json, Kind


class Metrics:
    """The operator's own registry."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.reconciles = Counter(
            "dtjob_reconciles",
            "Reconciliations by result: ok, retry (the cluster had moved on or did not answer), "
            "error.",
            ["result"],
            registry=self._registry,
        )
        self.reconcile_seconds = Histogram(
            "dtjob_reconcile_seconds",
            "Duration of a reconciliation.",
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
            registry=self._registry,
        )
        self._requests = Counter(
            "dtjob_api_requests",
            "Requests to the API server by verb, resource and HTTP status (0: no answer).",
            ["verb", "resource", "code"],
            registry=self._registry,
        )
        self._watch_restarts = Counter(
            "dtjob_event_stream_restarts",
            "Times that the stream of events on jobs ended and was started again.",
            registry=self._registry,
        )
        self._odd_objects = Counter(
            "dtjob_odd_objects",
            "Objects in the cluster that the operator could not make sense of and passed over.",
            ["resource"],
            registry=self._registry,
        )
        self._reports = Counter(
            "dtjob_report_requests",
            "Requests for a coordinator's report by result: ok, failed (no answer, or none that "
            "can be used).",
            ["result"],
            registry=self._registry,
        )
        self._unreadable_reports = Counter(
            "dtjob_unreadable_reports",
            "Times that a coordinator's report could not be read for so long that the job's "
            "figures were given up.",
            registry=self._registry,
        )
        self.leader = Gauge(
            "dtjob_leader",
            "Whether this operator leads and looks after jobs (1), or stands by (0).",
            registry=self._registry,
        )
        self.ledgers_guarded = Gauge(
            "dtjob_ledgers_guarded",
            "Whether the API server was seen to keep the rules of ledgers when it was last tried "
            "(1) or not (0: no work is begun); NaN before it was tried.",
            registry=self._registry,
        )
        self.ledgers_guarded.set(math.nan)
        self.policy_enforced = Gauge(
            "dtjob_ledger_policy_enforced",
            "Whether the admission policy ledger-writer was seen to work (1) or not (0); NaN "
            "before it was tried.",
            registry=self._registry,
        )
        self.policy_enforced.set(math.nan)
        for result in ("ok", "retry", "error"):
            self.reconciles.labels(result)
        for result in ("ok", "failed"):
            self._reports.labels(result)
        for kind in (*(selection.kind for selection in WATCHED), ENDPOINT_SLICE):
            self._odd_objects.labels(kind.plural)

    def observe_request(self, verb: str, kind: Kind, code: int) -> None:
        """Count a request to the API server."""
        self._requests.labels(verb, kind.plural, str(code)).inc()

    def count_odd_object(self, kind: Kind) -> None:
        """Count an object that was passed over."""
        self._odd_objects.labels(kind.plural).inc()

    def count_report(self, result: ScrapeResult) -> None:
        """Count a request for a coordinator's report, or that a job's figures are given up."""
        (self._unreadable_reports if result == "given up" else self._reports.labels(result)).inc()

    def count_restart(self) -> None:
        """Count a new start of the stream of events."""
        self._watch_restarts.inc()

    def show(self, state: State) -> None:
        """Expose what is computed at each scrape."""
        self._registry.register(state)

    def exposition(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self._registry)


@dataclass(frozen=True, eq=False)
class State:
    """What is read off the operator at each scrape.

    Attributes
    ----------
    jobs
        Of which the phases are counted.
    pods
        Of which those are counted whose job is gone.
    queue
        Of which the depth is shown.
    closed
        Returns the watched namespaces whose jobs are not looked after.
    """

    jobs: Iterable[Json]
    pods: Iterable[Json]
    queue: Sized
    closed: Callable[[], Collection[str]]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges, as a registry asks for them."""
        phases = Tally(job.get("status", {}).get("phase", Phase.PENDING.value) for job in self.jobs)
        jobs = GaugeMetricFamily("dtjob_jobs", "Jobs by phase.", labels=["phase"])
        for phase in Phase:
            jobs.add_metric([phase.value], phases[phase.value])
        yield jobs
        yield GaugeMetricFamily(
            "dtjob_queue_depth",
            "Jobs that wait to be reconciled or are being reconciled.",
            value=len(self.queue),
        )
        yield GaugeMetricFamily(
            "dtjob_closed_namespaces",
            "Namespaces of --watch-namespace whose jobs are not looked after, since the operator "
            "lacks a right there or they are gone; /readyz says why.",
            value=len(self.closed()),
        )
        yield GaugeMetricFamily(
            "dtjob_orphaned_pods",
            "Worker pods whose job is gone: for moments after a job is deleted, and for as long as "
            "they run after kubectl delete --cascade=orphan.",
            value=self._orphans(),
        )

    def _orphans(self) -> int:
        """Worker pods whose job is gone: nobody sees any more what they do."""
        known = {job["metadata"]["uid"] for job in self.jobs}
        return sum(pod["metadata"]["labels"][JOB_UID_LABEL] not in known for pod in self.pods)
