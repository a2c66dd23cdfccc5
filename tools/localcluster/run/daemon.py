"""PID 1 of a cluster: starts its processes, starts again the ones that end, ends with all of them.

Run by `up` in PID, mount and network namespaces of its own as `python -m localcluster.run.daemon
NAME SLOT`. The kernel ends every process in the PID namespace, pods included, when this one ends,
whatever it ends of, and takes the mounts and interfaces along; so nothing depends on this module
ending well.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field

from localcluster.base.errors import ClusterError
from localcluster.base.files import write_atomically
from localcluster.base.paths import cache_folder
from localcluster.cluster.component import Component
from localcluster.cluster.instance import Instance
from localcluster.control import audit, certificates, controlplane, dns, metrics, volumes
from localcluster.networking import enforcer, interfaces
from localcluster.node import containerd, kubelet, view

_LINK_SECONDS = 120.0
_READY_SECONDS = 300.0
_RESTART_SECONDS = 1.0
_GRACE_SECONDS = 3.0


@dataclass
class _Child:
    component: Component
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    ended: str = ""
    not_before: float = field(default=0.0)


class Daemon:
    """The processes of one cluster and what keeps them running."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._children: dict[str, _Child] = {}
        self._stopping = False
        instance.logs.mkdir(parents=True, exist_ok=True)
        instance.holds.mkdir(exist_ok=True)

    def run(self) -> None:
        """Bring everything up, then keep it up until SIGTERM."""
        signal.signal(signal.SIGTERM, self._stop)
        try:
            self._bring_up()
            while not self._stopping:
                self._tend()
                time.sleep(0.2)
        finally:
            self._end_runtime()

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _bring_up(self) -> None:
        instance = self._instance
        interfaces.create_bridge(instance)
        interfaces.write_cni_config(instance, instance.folder / "cni")
        certificates.write_all(instance)
        audit.write_policy(instance)
        store = controlplane.etcd(instance)
        self._start(store)
        interfaces.await_machine(instance, _LINK_SECONDS)
        self._await(store)
        api_server = controlplane.api_server(instance)
        self._start(api_server)
        containerd.sweep(instance, instance.logs / "containerd.log")
        runtime = containerd.component(instance)
        self._start(runtime)
        self._await(runtime)
        containerd.import_pause()
        self._await(api_server)
        self._start(enforcer.component(instance))
        self._start(volumes.component(instance))
        self._start(controlplane.controller_manager(instance))
        self._start(controlplane.scheduler(instance))
        self._start(kubelet.component(instance))
        (instance.holds / metrics.NAME).touch()  # until somebody asks for it
        self._start(metrics.component(instance))
        names = dns.server(instance)
        self._start(names)
        self._await(names)

    def _start(self, component: Component) -> None:
        self._children[component.name] = _Child(component)
        self._tend()

    def _await(self, component: Component) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not component.ready():
            if self._stopping:
                raise SystemExit(0)
            if time.monotonic() > deadline:
                raise ClusterError(f"{component.name} is not ready after {_READY_SECONDS:.0f} s")
            self._tend()
            time.sleep(0.05)

    def _tend(self) -> None:
        """Collect what ended and start what should run; write the status where it changed."""
        changed = self._collect()
        now = time.monotonic()
        for child in self._children.values():
            held = (self._instance.holds / child.component.name).exists()
            if child.process is not None:
                if held:
                    child.process.terminate()
            elif not held and now >= child.not_before:
                self._spawn(child)
                changed = True
        if changed:
            self._write_status()

    def _spawn(self, child: _Child) -> None:
        log = self._instance.logs / f"{child.component.name}.log"
        with log.open("ab") as output:
            child.process = subprocess.Popen(
                child.component.argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | child.component.environment,
                start_new_session=True,
            )
        child.starts += 1

    def _collect(self) -> bool:
        """Reap our own processes and, as PID 1, the orphans of others."""
        changed = False
        for child in self._children.values():
            if child.process is not None and child.process.poll() is not None:
                child.ended = _in_words(child.process.returncode)
                child.process = None
                child.not_before = time.monotonic() + _RESTART_SECONDS
                changed = True
        ours = {child.process.pid for child in self._children.values() if child.process}
        while ended := _peek():
            if ended in ours:
                break  # ended since it was polled; the next round gets it
            os.waitpid(ended, 0)
        return changed

    def _write_status(self) -> None:
        status = {
            name: {
                "pid": child.process.pid if child.process else None,
                "starts": child.starts,
                "ended": child.ended,
            }
            for name, child in self._children.items()
        }
        write_atomically(self._instance.status_file, json.dumps(status, indent=1))

    def _end_runtime(self) -> None:
        """End containerd in good order, since its folder outlives the cluster.

        The kernel ends all others with this process, and what they wrote goes with them.
        """
        runtime = self._children.get("containerd")
        if runtime is not None and runtime.process is not None:
            runtime.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                runtime.process.wait(_GRACE_SECONDS)


def _peek() -> int:
    """Return the PID of an ended child that nobody has collected yet, or 0."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    return found.si_pid if found else 0


def _in_words(returncode: int) -> str:
    if returncode < 0:
        return f"ended by {signal.Signals(-returncode).name}"
    return f"ended with exit code {returncode}"


def main() -> None:
    """Run the cluster that the command line names."""
    instance = Instance(sys.argv[1], int(sys.argv[2]))
    spare = instance.folder / "view"
    spare.mkdir(exist_ok=True)
    try:
        view.make_private(cache_folder(), spare)
        Daemon(instance).run()
    except ClusterError as error:
        instance.failure_file.write_text(str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
