"""`python -m demo`: the digits job on a real cluster, or as local processes without one."""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import time
from functools import cache
from typing import Any

from rich.console import Console

from demo import background, install, job
from dtjob_cli import standard_streams
from localcluster.base.errors import CannotRunHere, ClusterError
from localcluster.base.paths import cache_folder
from localcluster.base.progress import Progress
from localcluster.cluster.instance import DEFAULT_NAME
from localcluster.providers import choose
from localcluster.providers.existing import ExistingProvider
from localcluster.providers.protocol import Provider

_WARM_SECONDS = 20.0
_JOB_SECONDS = 900.0
_INTERRUPTED = 130
LOCAL_RUN = [sys.executable, "-m", "dtjob_cli.main", "run", "examples/digits.yaml", "--workers=2"]


def main() -> int:
    """Show it; the exit code of the last run that was shown."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--where", choices=("auto", "local"), default="auto")
    options = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    try:
        if options.where == "local":
            console.print("DEMO=local: two processes on this machine, no cluster.\n")
            return _local_run()
        return _on_cluster_or_here(console)
    except KeyboardInterrupt:
        console.print("\ninterrupted; make demo goes on with what is built")
        return _INTERRUPTED


def _on_cluster_or_here(console: Console) -> int:
    try:
        return _on_cluster(choose.provider(DEFAULT_NAME, choose.Choice.AUTO, Progress()), console)
    except CannotRunHere as error:
        console.print(f"{error}\nSo the demo is a run of two local processes.\n", markup=False)
        return _local_run()
    except ClusterError as error:
        console.print(f"error: {error}", markup=False)
        return 1


@cache  # shown once, also where the cluster turns out to be impossible afterwards
def _local_run() -> int:
    running = subprocess.Popen(LOCAL_RUN, cwd=install.ROOT)
    interrupted = False
    while True:
        try:
            code = running.wait()
        except KeyboardInterrupt:
            interrupted = True  # it got the signal too; it stops in order and says how to go on
        else:
            break
    if interrupted and code != _INTERRUPTED:
        raise KeyboardInterrupt
    return code


def _on_cluster(provider: Provider, console: Console) -> int:
    images = _prepared(provider, console)
    progress = Progress()
    cluster = install.Cluster.of(provider)
    image = install.install(cluster, images, progress)
    namespace = job.apply(cluster, image)
    console.print(f"\n$ kubectl apply -k examples   (namespace {namespace}, image {image[:60]}…)\n")
    ended = _follow(cluster, namespace, console)
    _show_end(cluster, namespace, ended, console)
    return 0 if ended["status"]["phase"] == "Succeeded" else 1


def _prepared(provider: Provider, console: Console) -> background.Images:
    """Cluster and images; while a cold machine builds them, the local run has the screen.

    Packages are installed before: apt-get does one thing at a time.
    """
    provider.prepare()
    log = cache_folder() / "demo-build.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    work: list[background.Task] = []
    try:
        for each in (background.start_cluster, background.build_images):
            work.append(background.Task(each, provider.kind, log))
        if not _done_within(work, _WARM_SECONDS):
            console.print(
                "Cluster and images are not built yet on this machine; that goes on in the "
                f"background ({log}).\nMeanwhile the same job as two local processes:\n"
            )
            if _local_run() == _INTERRUPTED:
                raise KeyboardInterrupt
        with Progress().stage("building cluster and images", "demo build") as stage:
            while not _done_within(work, 1.0):
                stage.note = _last_line(log.read_text(encoding="utf-8", errors="replace"))
    finally:
        for task in work:
            task.end()
    return work[-1].images()


def _done_within(work: list[background.Task], seconds: float) -> bool:
    """Whether all of it is done; the first that fails raises."""
    deadline = time.monotonic() + seconds
    while [task for task in work if not task.done()]:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip()[:120] if lines else ""


def _follow(cluster: install.Cluster, namespace: str, console: Console) -> dict[str, Any]:
    """Print a line whenever there is something new to say."""
    began, printed, found = time.monotonic(), "", {}
    for found in job.states(cluster, namespace, _JOB_SECONDS):
        phase = found.get("status", {}).get("phase", "Pending")
        line = f"{phase:<10} {job.condition(found)}"
        if phase in ("Starting", "Running") and (now := job.report(cluster, namespace, found)):
            line = f"{phase:<10} {now.stage}"
            if now.step:
                percent = 100 * now.step // now.total_steps
                line = f"{phase:<10} step {now.step}/{now.total_steps} ({percent} %)"
                line += f"  epsilon {now.epsilon_spent or '-'}"
        if line != printed:
            console.print(f"{time.monotonic() - began:6.1f} s  {line}", markup=False)
            printed = line
    return found


def _show_end(
    cluster: install.Cluster, namespace: str, ended: dict[str, Any], console: Console
) -> None:
    where = f"--namespace={namespace}"
    for arguments in (["get", "dtjobs", where], ["describe", "dtjob", job.JOB, where]):
        console.print(f"\n$ kubectl {' '.join(arguments)}")
        text = cluster.kubectl(*arguments)
        if arguments[0] == "describe":
            text = _conditions_and_events(text)
        console.print(text.rstrip(), markup=False)
    console.print()
    ledger = f"{job.JOB}-{ended['metadata']['uid'][:8]}"
    found = cluster.kubectl("get", "privacyledger", ledger, where, "--output=json")
    subprocess.run(
        [sys.executable, "-m", "dtjob_cli.main", "report", "-"], input=found.encode(), check=False
    )
    console.print(
        f"\nLook around:   export KUBECONFIG={cluster.kubeconfig}\n"
        f"               {cluster.program} get all,dtjobs,privacyledgers {where}\n"
        f"Tear down:     {_tear_down(cluster, namespace)}"
    )


def _tear_down(cluster: install.Cluster, namespace: str) -> str:
    if cluster.provider.kind != ExistingProvider.kind:
        return "make demo-down"
    return (
        f"{cluster.program} delete namespace {namespace}   (the demo's job, ledger and claim)\n"
        f"               {cluster.program} delete -k deploy/kustomize/base --selector "
        "'app.kubernetes.io/component!=ledgers'   (dtjob, and with it every job of the cluster; "
        "the ledgers and what protects them stay: docs/cluster.md, Removing)"
    )


def _conditions_and_events(described: str) -> str:
    """The parts of `kubectl describe` that tell how the job went."""
    head, _, events = described.partition("\nEvents:")
    conditions = head.partition("\n  Conditions:")[2].splitlines()
    # A section ends where a line stands as far left as its title.
    section = list(itertools.takewhile(lambda line: line.startswith("    "), conditions[1:]))
    return "\n".join(["  Conditions:", *section, f"Events:{events}"])


if __name__ == "__main__":
    with standard_streams.prepared():
        sys.exit(main())
