"""From `kubectl apply` of examples/digits.yaml to its result, on a warm cluster.

    PYTHONPATH=tools .venv/bin/python benchmarks/e2e.py [--runs 3] [--name NAME]

Builds and installs dtjob from this checkout first; that is not measured. Then for each run, in a
namespace of its own:

1. Seconds to the first training step and to Succeeded, and what they were spent on.
2. Writes of the job's objects by writer and kind, until it was Running and until Succeeded: each
   version of each object that a watch reported, by what changed in its managedFields.
"""

from __future__ import annotations

import argparse
import json
import secrets
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from namespace_watch import Api, Json, Watcher

from demo import install
from dtjob_api.wire.positions import Role
from dtjob_api.wire.well_known import HTTP_PORT, REPORT_PATH
from dtjob_operator.terms.kinds import ROLE_LABEL
from localcluster.base.progress import Progress
from localcluster.cluster.instance import DEFAULT_NAME
from localcluster.providers import choose

_DEADLINE_SECONDS = 300
_RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
# Calibration, the cluster's work and imports.
_NOT_OURS = (
    ("apply", "the ledger is made"),
    ("the StatefulSets are made", "all containers run"),
    ("the supervisors import", "all have imported"),
)


@dataclass(frozen=True)
class Run:
    """One run's moments, in seconds since the apply, and its writes."""

    moments: dict[str, float]
    running: Counter[tuple[str, str]]
    succeeded: Counter[tuple[str, str]]


def measure(cluster: install.Cluster, api: Api, image: str) -> Run:
    """Apply the digits job in a new namespace and follow it to its end."""
    namespace = f"dtjob-benchmark-{secrets.token_hex(3)}"
    cluster.kubectl("create", "namespace", namespace)
    cluster.kubectl("label", "namespace", namespace, _RESTRICTED)
    time.sleep(2)  # the namespace's own account and ConfigMap are made meanwhile
    watcher = Watcher(api, namespace)
    watcher.start()
    # Another epsilon each time, since the operator remembers what it has calibrated.
    changes = {"/spec/image": image, "/spec/privacy/epsilon": 8 + secrets.randbelow(10**6) / 10**9}
    replaced = [{"op": "replace", "path": path, "value": new} for path, new in changes.items()]
    patch = {"target": {"kind": "DistributedTrainingJob"}, "patch": json.dumps(replaced)}
    settings: Json = {"namespace": namespace, "patches": [patch]}
    with install.overlay(install.ROOT / "examples", settings) as folder:
        started = time.time()
        cluster.kubectl("apply", f"--kustomize={folder}")
    try:
        moments = followed(watcher, api)
    finally:
        time.sleep(3)  # what is written after the end, such as the pods' last status
        cluster.kubectl("delete", "namespace", namespace, "--wait=false")
    ends = moments["Running"], moments["Succeeded"]
    counts = [
        Counter((w.writer, w.kind) for w in watcher.writes if w.at <= end and w.writer != "kubectl")
        for end in ends
    ]
    return Run({name: at - started for name, at in moments.items()}, *counts)


def followed(watcher: Watcher, api: Api) -> dict[str, float]:
    """The moments of a run, each when it was seen."""
    first_lease = wait(lambda: watcher.moment("PrivacyLedger", lambda o: _charged(o) > 0))
    first_step = wait(lambda: _has_stepped(watcher, api))
    succeeded = wait(lambda: watcher.moment("DistributedTrainingJob", _in_phase("Succeeded")))
    pods = watcher.logged("ready")
    imported = [_seconds(entry["timestamp"]) for entry in pods]
    moments = {
        "the ledger is made": watcher.moment("PrivacyLedger", lambda _: True),
        "the StatefulSets are made": watcher.moment("StatefulSet", lambda _: True),
        "all containers run": max(_container_starts(watcher)),
        "the supervisors import": max(_seconds(e["timestamp"]) - e["import_seconds"] for e in pods),
        "all have imported": max(imported),
        "the attempt begins": _seconds(watcher.logged("attempt begins")[0]["timestamp"]),
        "the first draws are leased": first_lease,
        "Running": watcher.moment("DistributedTrainingJob", _in_phase("Running")),
        "the first step is done": first_step,
        "the outcome is in the ledger": watcher.moment(
            "PrivacyLedger", lambda o: o.get("status", {}).get("outcome")
        ),
        "Succeeded": succeeded,
    }
    return {name: at for name, at in moments.items() if at is not None}


def _container_starts(watcher: Watcher) -> list[float]:
    """When each pod was first seen to run."""
    first: dict[str, float] = {}
    for write in watcher.writes:
        if write.kind == "Pod" and write.obj["status"].get("phase") == "Running":
            first.setdefault(write.obj["metadata"]["name"], write.at)
    return list(first.values())


def _charged(ledger: Json) -> int:
    return int(ledger.get("status", {}).get("charged", 0))


def _in_phase(phase: str) -> Callable[[Json], bool]:
    return lambda job: job.get("status", {}).get("phase") == phase


def _has_stepped(watcher: Watcher, api: Api) -> float | None:
    """Now, if the coordinator reports a step: asked through the API server."""
    pods = (write.obj["metadata"] for write in watcher.writes if write.kind == "Pod")
    coordinator = next(pod["name"] for pod in pods if pod["labels"][ROLE_LABEL] == Role.COORDINATOR)
    pod = f"/api/v1/namespaces/{watcher.namespace}/pods/{coordinator}"
    path = f"{pod}:{HTTP_PORT}/proxy{REPORT_PATH}"
    try:
        return time.time() if json.loads(api.get(path))["step"] > 0 else None
    except (ValueError, KeyError):
        return None


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


def wait(look: Callable[[], float | None]) -> float:
    """The first moment that `look` finds."""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise SystemExit("the job has not come as far in time; see kubectl describe dtjob")
        time.sleep(0.05)
    return found


def print_times(runs: list[Run]) -> None:
    """Medians: when each moment came, and the seconds since the one before it."""
    print("\n| moment | s since apply | s since the line above | whose |")
    print("|---|---|---|---|")
    whose = {
        "the ledger is made": "dtjob: calibration of the noise",
        "the StatefulSets are made": "dtjob",
        "all containers run": "Kubernetes: scheduler, volumes, containers",
        "the supervisors import": "Python and dtjob: start of the supervisors",
        "all have imported": "torch and opacus",
        "the attempt begins": "dtjob: the workers meet",
        "the first draws are leased": "dtjob: task, dry run, dataset, first checkpoint",
        "Running": "dtjob: the operator's status",
        "the first step is done": "dtjob, and asking for it through the API server",
        "the outcome is in the ledger": "dtjob: the training",
        "Succeeded": "dtjob: the operator's status",
    }
    before = "apply"
    for name, owner in whose.items():
        at = statistics.median(run.moments[name] for run in runs)
        step = statistics.median(run.moments[name] - run.moments.get(before, 0.0) for run in runs)
        print(f"| {name} | {at:.2f} | {step:.2f} | {owner} |")
        before = name
    own = [
        run.moments["the first step is done"]
        - sum(run.moments[name] - run.moments.get(previous, 0.0) for previous, name in _NOT_OURS)
        for run in runs
    ]
    first = [run.moments["the first step is done"] for run in runs]
    total = [run.moments["Succeeded"] for run in runs]
    print(
        f"\nfirst step: median {statistics.median(first):.1f} s of {len(runs)} runs ({_all(first)})"
    )
    print(f"of it dtjob's own part: median {statistics.median(own):.1f} s ({_all(own)})")
    print(f"Succeeded: median {statistics.median(total):.1f} s ({_all(total)})")


def _all(figures: list[float]) -> str:
    return ", ".join(f"{figure:.1f}" for figure in figures)


def print_writes(runs: list[Run]) -> None:
    """Medians of writes by writer and kind."""
    print("\n| writer | kind | writes until Running | until Succeeded |")
    print("|---|---|---|---|")
    keys = sorted({key for run in runs for key in run.succeeded})
    totals: dict[str, list[float]] = {}
    for writer, kind in keys:
        counts = [
            statistics.median(run.running[writer, kind] for run in runs),
            statistics.median(run.succeeded[writer, kind] for run in runs),
        ]
        print(f"| {writer} | {kind} | {counts[0]:g} | {counts[1]:g} |")
        totals[writer] = [a + b for a, b in zip(totals.get(writer, [0, 0]), counts, strict=True)]
    for writer, (running, succeeded) in totals.items():
        print(f"| **{writer}** | all | {running:g} | {succeeded:g} |")


def main() -> None:
    """Prepare the cluster, run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--name", default=DEFAULT_NAME, help="the cluster's name")
    options = parser.parse_args()
    progress = Progress()
    provider = choose.provider(options.name, choose.Choice.AUTO, progress)
    images = {name: install.build(provider, name) for name in ("operator", "trainer")}
    provider.up()
    cluster = install.Cluster.of(provider)
    image = install.install(cluster, images, progress)
    api = Api(cluster.kubeconfig)
    print("run 0 warms the node up and is not counted", file=sys.stderr)
    measure(cluster, api, image)
    runs = []
    for number in range(1, options.runs + 1):
        runs.append(measure(cluster, api, image))
        print(f"run {number}: {json.dumps(runs[-1].moments)}", file=sys.stderr)
    print_times(runs)
    print_writes(runs)


if __name__ == "__main__":
    main()
