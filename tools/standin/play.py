"""`python -m standin.play`: plays every worker pod that asks for it, in this one process.

It makes Nodes that no machine stands behind. A pod whose node selector names their label is bound
to one of them, and run there: its worker is a stand-in with an address of its own of 127/8, so
that an operator on this machine reaches it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import itertools
import os
import signal
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dtjob_trainer.process import logs
from standin.api import Api, ApiError, Json
from standin.node import LABEL, Node
from standin.pod import PlayedPod

_PODS = "/api/v1/pods"
_SELECTOR = "dtjob.dev/job-uid"
_DEFAULT_GRACE_SECONDS = 30
# Each coordinator follows its ledger in a thread of the common executor, and writes from another.
_THREADS = 4096


class Player:
    """All pods of one label.

    Parameters
    ----------
    label
        The value of the label `LABEL` that pods select their node by.
    nodes
        How many Nodes there are.
    folder
        Where volumes, tokens and logs lie.
    """

    def __init__(self, api: Api, label: str, nodes: int, folder: Path) -> None:
        self._api, self._label, self._folder = api, label, folder
        self._nodes = [Node(api, f"standin-{label}-{number}", label) for number in range(nodes)]
        self._next = itertools.cycle(self._nodes)
        self._played: dict[str, PlayedPod] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._addresses: dict[tuple[str, str], str] = {}
        # Players side by side have networks of their own.
        self._network = ipaddress.ip_address(f"127.{128 + zlib.crc32(label.encode()) % 127}.0.1")

    async def run(self) -> None:
        """Play until cancelled; the Nodes go with the player."""
        for node in self._nodes:
            await node.create()
        beating = [asyncio.create_task(node.keep_alive()) for node in self._nodes]
        print(f"ready: pods with the node selector {LABEL}: {self._label}", flush=True)
        try:
            await self._follow()
        finally:
            for task in [*self._tasks.values(), *beating]:
                task.cancel()
            await asyncio.gather(*self._tasks.values(), *beating, return_exceptions=True)
            for node in self._nodes:
                await node.delete()

    async def _follow(self) -> None:
        listed: set[str] = set()
        async for event, pod in self._api.follow(_PODS, _SELECTOR):
            if event == "LISTED" and not pod:
                for uid in self._played.keys() - listed:
                    self._gone(uid)
                listed = set()
            elif event == "DELETED":
                self._gone(pod["metadata"]["uid"])
            else:
                if event == "LISTED":  # not what a watch reports: it may be gone by the next list
                    listed.add(pod["metadata"]["uid"])
                await self._changed(pod)

    async def _changed(self, pod: Json) -> None:
        metadata, spec = pod["metadata"], pod["spec"]
        if spec.get("nodeSelector", {}).get(LABEL) != self._label:
            return
        if "nodeName" not in spec:
            if "deletionTimestamp" not in metadata:
                await self._bind(pod)
            return
        uid = metadata["uid"]
        if uid not in self._played and pod.get("status", {}).get("phase") == "Pending":
            self._begin(pod)
        if "deletionTimestamp" in metadata and (played := self._played.get(uid)):
            played.terminate(metadata.get("deletionGracePeriodSeconds", _DEFAULT_GRACE_SECONDS))

    async def _bind(self, pod: Json) -> None:
        metadata = pod["metadata"]
        target = {"apiVersion": "v1", "kind": "Node", "name": next(self._next).name}
        binding = {"apiVersion": "v1", "kind": "Binding", "target": target}
        binding["metadata"] = {"name": metadata["name"], "uid": metadata["uid"]}
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/binding"
        with contextlib.suppress(ApiError):  # gone, or bound by now
            await self._api.request("POST", path, binding)

    def _begin(self, pod: Json) -> None:
        metadata, namespace = pod["metadata"], pod["metadata"]["namespace"]

        def address_of(name: str) -> str:
            return self._address(namespace, name)

        address = address_of(metadata["name"])
        played = PlayedPod(self._api, pod, address, address_of, self._folder)
        self._played[played.uid] = played
        task = asyncio.create_task(played.run())
        task.add_done_callback(self._ended)
        self._tasks[played.uid] = task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logs.own_logger(sys.stderr).error("a pod could not be played", detail=repr(error))

    def _gone(self, uid: str) -> None:
        self._played.pop(uid, None)
        if (task := self._tasks.pop(uid, None)) is not None:
            task.cancel()

    def _address(self, namespace: str, name: str) -> str:
        number = self._addresses.setdefault((namespace, name), str(self._network))
        if number == str(self._network):
            self._network += 1
        return number


async def _main(options: argparse.Namespace) -> None:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    loop.set_default_executor(ThreadPoolExecutor(_THREADS))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    api = Api(options.kubeconfig)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await Player(api, options.label, options.nodes, options.folder).run()
    finally:
        await api.close()


def main() -> None:
    """Play until told to stop."""
    parser = argparse.ArgumentParser(prog="standin.play", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--label", default="standin", help=f"the pods' value of {LABEL}")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--folder", type=Path, required=True, help="volumes, tokens and logs")
    options = parser.parse_args()
    logs.quieten_libraries()
    # The keys of the cluster's tokens are the same, whoever asks for them.
    os.environ["KUBECONFIG"] = str(options.kubeconfig)
    asyncio.run(_main(options))


if __name__ == "__main__":
    main()
    # Threads of workers that were cut off may still wait for an answer.
    os._exit(0)
