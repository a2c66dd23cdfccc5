"""The digits job as a user runs it: `kubectl apply` to Succeeded, and what is left of it."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain

import pytest
from ruamel.yaml import YAML

from demo.install import ROOT
from dtjob_operator.terms.names import FIELD_MANAGER
from tests.support.clusters.api_reader import Manifest
from tests.support.clusters.installed import Installed
from tests.support.clusters.kube import Kubectl, wait_for
from tests.support.jobs.pod_jobs import Course, Job, version_now, watched

pytestmark = [pytest.mark.cluster, pytest.mark.pods, pytest.mark.timeout(900)]

CHILDREN = (
    *("statefulset", "service", "networkpolicy", "poddisruptionbudget"),
    *("serviceaccount", "rolebinding"),
)
OF_PODS = ("statefulsets", "services", "networkpolicies", "poddisruptionbudgets")
EVERYTHING = (*CHILDREN, "dtjob", "privacyledger", "pvc", "events")
SLOW_CLUSTER = {"Unschedulable", "ClaimUnbound", "MountFailed"}
"""Of Warnings that are right where a scheduler or a volume is many seconds late."""


@dataclass(frozen=True)
class Trained:
    """The digits job after its end, and what was seen of it while it ran."""

    job: Job
    course: Course
    ended: Manifest
    children: dict[str, Manifest]
    pods: list[Manifest]
    columns_while_running: dict[str, str]


def digits_job(image: str) -> Manifest:
    """examples/digits.yaml, as it is but for the image."""
    manifest: Manifest = YAML(typ="safe").load(ROOT / "examples" / "digits.yaml")
    manifest["spec"]["image"] = image
    return manifest


def columns(kubectl: Kubectl) -> dict[str, str]:
    """What `kubectl get dtjobs` shows of the only job."""
    header, line = kubectl("get", "dtjobs").splitlines()
    starts = [header.index(name) for name in header.split()]
    ends = [*starts[1:], None]
    return {
        name: line[start:end].strip()
        for name, start, end in zip(header.split(), starts, ends, strict=True)
    }


@contextmanager
def table_watched(kubectl: Kubectl) -> Iterator[list[str]]:
    """The lines that `kubectl get dtjobs --watch` prints meanwhile."""
    lines: list[str] = []
    ended = threading.Event()
    argv = [str(kubectl.program), f"--kubeconfig={kubectl.kubeconfig}"]
    argv += [f"--namespace={kubectl.namespace}", "get", "dtjobs", "--watch"]
    running: list[subprocess.Popen[str]] = []

    def follow() -> None:
        while not ended.wait(0.2):
            with subprocess.Popen(
                argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            ) as process:
                running.append(process)
                for line in process.stdout or ():
                    lines.append(line)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield lines
    finally:
        ended.set()
        while thread.is_alive():
            for process in list(running):
                process.kill()
            thread.join(0.05)


def first_running(lines: list[str]) -> dict[str, str]:
    """The first columns of a line of the running job with all its workers and its progress.

    Those up to EPSILON are never empty in such a line.
    """
    header = next((line.split() for line in lines if line.startswith("NAME")), [])
    for cells in (line.split() for line in list(lines)):
        if cells[1:4] == ["Running", "Training", "2/2"] and cells[4].endswith("%"):
            return dict(zip(header[:6], cells, strict=False))
    return {}


@pytest.fixture(scope="module")
def trained(installed: Installed, new_namespace: Callable[[], Kubectl]) -> Trained:
    """The digits job, run once for all tests here."""
    kubectl = new_namespace()
    since = version_now(kubectl)
    with table_watched(kubectl) as lines:
        job = Job.apply(installed, kubectl, digits_job(installed.worker_image))
        with watched(job, since) as course:
            # It trains for seconds only: its children are looked at while torch is imported.
            job.until("its start", lambda: job.phase() in ("Starting", "Running"), 300)
            children = {}
            for kind in CHILDREN:
                name = "dtjob-worker" if kind in ("serviceaccount", "rolebinding") else job.child
                found = kubectl.get(kind, name)
                assert found is not None, kind
                children[kind] = found
            pods = job.until("both pods", lambda: two(kubectl.list("pods")), 120)
            job.until_succeeded()
            wait_for("no pods", lambda: not kubectl.list("pods"), 120)
            job.until("READY is empty", lambda: columns(kubectl)["READY"] == "", 120)
            job.until("nothing is left", lambda: not any(map(kubectl.list, OF_PODS)), 120)
            job.until("the watch tells so", lambda: course.phases()[-1:] == ["Succeeded"], 120)
            shown = first_running(lines)
    assert shown, lines
    return Trained(job, course, job.stored(), children, pods, shown)


def two(pods: list[Manifest]) -> list[Manifest] | None:
    """Both pods, or None."""
    return pods if len(pods) == 2 else None


def test_its_phases_come_in_order(trained: Trained) -> None:
    assert trained.course.phases() == ["Starting", "Running", "Succeeded"]


def test_its_conditions_say_how_it_ended(trained: Trained) -> None:
    conditions = {each["type"]: each for each in trained.ended["status"]["conditions"]}
    told = {kind: (each["status"], each["reason"]) for kind, each in conditions.items()}
    assert told["Accepted"] == ("True", "Planned")
    assert told["Running"] == ("False", "Finished")
    assert told["Succeeded"] == ("True", "Completed")
    assert "336 of 336 steps" in conditions["Succeeded"]["message"]
    assert "Failed" not in told
    for each in conditions.values():
        assert each["observedGeneration"] == 1
        assert each["lastTransitionTime"]


def test_describe_tells_its_course(trained: Trained) -> None:
    described = trained.job.kubectl("describe", "dtjob", "digits")
    events = described[described.index("Events:") :]
    for reason in ("Training", "Completed"):
        assert reason in events
    warnings = {reason for kind, reason in trained.job.events() if kind == "Warning"}
    assert warnings <= SLOW_CLUSTER, described


def test_the_model_is_good_and_private(trained: Trained) -> None:
    """Over 200 fresh keys accuracy was 0.9458, deviation 0.0062, least 0.9306: false alarm 1e-6."""
    status, account = trained.ended["status"], trained.job.ledger_status()
    assert float(status["result"]["evaluation"]["accuracy"]) >= 0.915
    assert (status["progress"]["step"], account["charged"]) == (336, 336)
    assert status["privacy"]["drawsCharged"] == 336
    spent = Decimal(status["privacy"]["epsilonSpent"])
    assert 7 < spent <= Decimal(status["privacy"]["epsilonGuaranteed"]) <= 8
    trained.course.assert_monotone()


def test_its_columns(trained: Trained) -> None:
    running, ended = trained.columns_while_running, columns(trained.job.kubectl)
    assert list(ended) == (
        ["NAME", "PHASE", "REASON", "READY", "PROGRESS", "EPSILON", "GPU", "ETA", "RESTARTS", "AGE"]
    )
    assert (running["PHASE"], running["READY"]) == ("Running", "2/2")
    assert running["EPSILON"].endswith("/8")
    assert (ended["PHASE"], ended["REASON"]) == ("Succeeded", "Completed")
    assert (ended["PROGRESS"], ended["RESTARTS"]) == ("100%", "0")
    assert 7 < float(ended["EPSILON"].removesuffix("/8")) <= 8


def test_its_children_are_as_specified(trained: Trained) -> None:
    job, children = trained.job, trained.children
    for kind, child in children.items():
        owners = [each["uid"] for each in child["metadata"].get("ownerReferences", [])]
        shared = kind in ("serviceaccount", "rolebinding")
        assert owners == ([] if shared else [job.uid]), kind
    stateful_set, service = children["statefulset"]["spec"], children["service"]["spec"]
    assert (stateful_set["replicas"], stateful_set["podManagementPolicy"]) == (1, "Parallel")
    assert stateful_set["updateStrategy"]["type"] == "OnDelete"
    assert set(stateful_set["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)
    assert children["rolebinding"]["roleRef"]["name"] == "dtjob-worker"
    assert sorted(pod["metadata"]["name"] for pod in trained.pods) == (
        [job.pod_name(0), job.pod_name(1)]
    )
    for pod in trained.pods:
        assert pod["metadata"]["labels"]["dtjob.dev/job-uid"] == job.uid
        assert pod["spec"]["serviceAccountName"] == "dtjob-worker"
        assert pod["spec"]["containers"][0]["image"] == job.installed.worker_image
    ledger = job.ledger()
    assert "ownerReferences" not in ledger["metadata"]
    assert (ledger["spec"]["jobUID"], ledger["spec"]["statefulSet"]) == (job.uid, job.child)


def test_it_ran_where_only_restricted_pods_may(trained: Trained) -> None:
    kubectl = trained.job.kubectl
    image = trained.job.installed.worker_image
    refusal = kubectl("run", "unrestricted", f"--image={image}", fails=True)
    assert "violates PodSecurity" in refusal


def test_after_success_only_what_was_paid_for_is_left(trained: Trained) -> None:
    job = trained.job
    for kind in ("pods", *OF_PODS):
        assert job.kubectl.list(kind) == []
    claims = [claim["metadata"]["name"] for claim in job.kubectl.list("pvc")]
    assert claims == [job.claim]


def test_a_restart_of_the_operator_writes_nothing(trained: Trained) -> None:
    kubectl, installed = trained.job.kubectl, trained.job.installed
    before = wait_for("no more writes", lambda: settled(kubectl), 120)
    installed.stop_operator()
    installed.start_operator()
    assert looked_after(installed)
    assert written(kubectl) == before


Written = dict[tuple[str, str, str], list[Manifest]]


def written(kubectl: Kubectl) -> Written:
    """What the operator wrote and when, by object of a namespace."""
    found: Written = {}
    objects = (kubectl.list(kind, managed_fields=True) for kind in EVERYTHING)
    for each in chain.from_iterable(objects):
        metadata = each["metadata"]
        fields = metadata.get("managedFields", [])
        if own := [entry for entry in fields if entry["manager"] == FIELD_MANAGER]:
            found[each["kind"], metadata["name"], metadata["uid"]] = own
    return found


def settled(kubectl: Kubectl) -> Written | None:
    """What the operator wrote, if that is the same three seconds later."""
    before = written(kubectl)
    time.sleep(3)
    return before if before and written(kubectl) == before else None


def looked_after(installed: Installed) -> bool:
    """Whether the operator, once started, has looked at every job that there was."""

    def figures(pod: Manifest) -> dict[str, float]:
        name = pod["metadata"]["name"]
        path = f"/api/v1/namespaces/dtjob-system/pods/{name}:8080/proxy/metrics"
        lines = installed.system("get", "--raw", path).splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def done() -> bool:
        leads = [each for each in map(figures, installed.operator_pods()) if each["dtjob_leader"]]
        # Every job is in the queue before the first one is taken out of it.
        return any(
            each['dtjob_reconciles_total{result="ok"}'] > 0 == each["dtjob_queue_depth"]
            for each in leads
        )

    return wait_for("the operator has looked at every job", done, 120)


def test_its_pods_never_train_again(trained: Trained) -> None:
    """Made anew by hand while no operator sees it, they read the ledger and hold."""
    job, kubectl = trained.job, trained.job.kubectl
    before = job.ledger()
    with job.installed.without_operator():
        kubectl.apply(*(remade(trained.children[kind]) for kind in ("service", "statefulset")))

        def holds() -> bool:
            logs = kubectl("logs", job.pod_name(0), "--ignore-errors")
            return '"finished"' in logs

        job.until("a pod", lambda: kubectl.get("pod", job.pod_name(0)), 120)
        job.until("it runs", lambda: job.pod(0)["status"].get("phase") == "Running", 120)
        job.until("it holds", holds, 180)
        logs = kubectl("logs", job.pod_name(0))
        assert "attempt begins" not in logs
        assert "ranks started" not in logs
    kinds = ("statefulsets", "pods", "services")
    wait_for("nothing is left", lambda: not any(map(kubectl.list, kinds)), 180)
    assert job.ledger() == before
    assert final(job.stored()) == final(trained.ended)


def remade(child: Manifest) -> Manifest:
    """An object as somebody makes it again who kept it."""
    kept = ("name", "labels", "annotations", "ownerReferences")
    metadata = {field: child["metadata"][field] for field in kept if field in child["metadata"]}
    remade = {field: value for field, value in child.items() if field != "status"}
    return remade | {"metadata": metadata}


def final(job: Manifest) -> Manifest:
    """What never changes again of a terminal status: all but how many pods are left."""
    return {key: job["status"][key] for key in job["status"] if key not in ("workers", "display")}
