"""One pod that is played: a stand-in worker, and the status that a kubelet would report of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

import aiohttp
from kubernetes import client
from kubernetes.config.incluster_config import InClusterConfigLoader

from dtjob_api.model import timestamp
from dtjob_api.wire import positions
from dtjob_api.wire.exit_codes import WorkerExit
from dtjob_api.wire.well_known import CONFIG_VARIABLE, READINESS_PATH
from dtjob_api.wire.worker_config import LedgerRef, WorkerConfig
from dtjob_trainer.ledger.backend import Ledger
from dtjob_trainer.ledger.kubernetes_ledger import KubernetesLedger
from dtjob_trainer.process import logs
from dtjob_trainer.process.listening import ConfigurationError
from standin.api import Api, ApiError, Json
from standin.mounts import ACCOUNT, Mounts
from standin.threads import Life, MortalLedger
from standin.worker import StandIn

_PROBE_SECONDS = 0.2
_BACK_OFF_SECONDS, _LONGEST_BACK_OFF_SECONDS = 10.0, 300.0
_KILLED = 137


class PlayedPod:
    """One pod, from its binding to its end.

    Parameters
    ----------
    address
        Its own of 127/8.
    address_of
        The address of any pod of its namespace, which stands in for DNS.
    folder
        Of the player.
    """

    def __init__(
        self, api: Api, pod: Json, address: str, address_of: Callable[[str], str], folder: Path
    ) -> None:
        metadata = pod["metadata"]
        self._api, self._pod = api, pod
        self._name, self._namespace = metadata["name"], metadata["namespace"]
        self._address, self._address_of = address, address_of
        self._mounts = Mounts(api, pod, folder)
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        self._log = folder / "logs" / f"{self._namespace}.{self._name}.log"
        self._started, self._restarts = _now(), 0
        self._worker: StandIn | None = None
        self._left = asyncio.Event()
        self._code = 0
        self._stopping = False
        self._last: Json = {}

    @property
    def uid(self) -> str:
        """The pod's."""
        uid: str = self._pod["metadata"]["uid"]
        return uid

    async def run(self) -> None:
        """Play it until it has stopped as it was told; cancelled, it is gone without a report."""
        await self._mounts.make()
        renewing = asyncio.create_task(self._mounts.renew())
        try:
            with self._log.open("a") as log:
                while not self._stopping:
                    code = await self._container(log)
                    if not self._stopping:
                        await self._crashed(code)
            await self._delete()
        finally:
            renewing.cancel()
            self._mounts.remove()

    def terminate(self, grace: float) -> None:
        """SIGTERM now, and SIGKILL after the grace period."""
        if not self._stopping:
            self._stopping = True
            if self._worker is None:
                self._leave(0)
                return
            self._worker.terminate()
            asyncio.get_running_loop().call_later(grace, self._leave, _KILLED)

    def _leave(self, code: int) -> None:
        self._code = code
        self._left.set()

    async def _container(self, log: TextIO) -> int:
        """Run one worker to its end; its exit code."""
        life, loop = Life(), asyncio.get_running_loop()
        self._left.clear()
        self._code, self._started = 0, _now()
        config = self._config()

        def leave(code: int) -> None:
            loop.call_soon_threadsafe(self._leave, code)

        position = positions.position_of(str(config.proof.stateful_set), self._name)
        if position is None:  # a set that somebody scaled by hand; its supervisor starts nothing
            log.write(json.dumps({"message": "no worker's name"}) + "\n")
            return WorkerExit.CONFIGURATION
        self._worker = StandIn(
            config,
            position,
            logs.own_logger(log, component="supervisor", worker=position),
            leave=leave,
            ledgers=lambda reference: MortalLedger(self._ledger(reference), life),
            host=self._address,
        )
        running = asyncio.create_task(self._worker.run())
        left = asyncio.create_task(self._left.wait())
        probing = asyncio.create_task(self._probe(config.http_port))
        try:
            await asyncio.wait({running, left}, return_when=asyncio.FIRST_COMPLETED)
            return running.result() if running.done() else self._code
        except (ConfigurationError, OSError) as error:
            log.write(json.dumps({"message": "can't start", "detail": str(error)}) + "\n")
            return WorkerExit.CONFIGURATION
        finally:
            life.end()
            self._worker = None
            for task in (probing, left, running):
                task.cancel()
            await asyncio.gather(probing, left, running, return_exceptions=True)
            log.flush()

    def _config(self) -> WorkerConfig:
        """The worker's configuration as a kubelet sets it, with the places of this machine."""
        (container,) = self._pod["spec"]["containers"]
        variables = {each["name"]: each.get("value", "") for each in container.get("env", ())}
        config = json.loads(variables[CONFIG_VARIABLE].replace("$$(", "$("))
        task = config["training"]
        coordinator = config["coordinatorHost"].partition(".")[0]
        config = self._mounts.translated(config) | {"training": task}
        config["coordinatorHost"] = self._address_of(coordinator)
        return WorkerConfig.model_validate(config)

    def _ledger(self, reference: LedgerRef) -> Ledger:
        return KubernetesLedger(str(reference.namespace), str(reference.name), self._as_pod)

    def _as_pod(self) -> client.ApiClient:
        server = urlsplit(self._api.address)
        place = {
            "KUBERNETES_SERVICE_HOST": str(server.hostname),
            "KUBERNETES_SERVICE_PORT": str(server.port or 443),
        }
        settings = client.Configuration()
        InClusterConfigLoader(
            token_filename=self._mounts.here(f"{ACCOUNT}/token"),
            cert_filename=self._mounts.here(f"{ACCOUNT}/ca.crt"),
            environ=place,
        ).load_and_set(settings)
        settings.retries = False  # each answer is judged by who asks
        return client.ApiClient(settings)

    async def _probe(self, port: int) -> None:
        """Report the pod running, and ready as soon as the worker says so.

        One after the other: a worker is ready within moments, and the later word must win.
        """
        await self._report(ready=False)
        async with aiohttp.ClientSession() as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    async with session.get(
                        f"http://{self._address}:{port}{READINESS_PATH}"
                    ) as response:
                        if response.ok:
                            break
                await asyncio.sleep(_PROBE_SECONDS)
        await self._report(ready=True)

    async def _crashed(self, code: int) -> None:
        """Report the end of a container, and wait until the next is due."""
        ended: Json = {"exitCode": code, "reason": "Error" if code else "Completed"}
        ended |= {"startedAt": self._started, "finishedAt": _now()}
        lines = self._log.read_text().splitlines()
        if code and lines:
            ended["message"] = lines[-1][-2048:]
        self._last = {"terminated": ended}
        pause = _BACK_OFF_SECONDS * 2 ** (self._restarts - 1) if self._restarts else 0.0
        if pause:
            await self._report(ready=False, waiting="CrashLoopBackOff")
        self._left.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(pause, _LONGEST_BACK_OFF_SECONDS)):
                await self._left.wait()
        self._restarts += 1

    async def _report(self, *, ready: bool, waiting: str | None = None) -> None:
        (container,) = self._pod["spec"]["containers"]
        running = {"running": {"startedAt": self._started}}
        at = {"lastTransitionTime": _now()}
        readiness = {"status": "True" if ready else "False"} | at
        status: Json = {
            "phase": "Running",
            "startTime": self._pod["metadata"]["creationTimestamp"],
            "hostIP": self._address,
            "podIP": self._address,
            "podIPs": [{"ip": self._address}],
            "conditions": [
                {"type": "Initialized", "status": "True"} | at,
                {"type": "ContainersReady"} | readiness,
                {"type": "Ready"} | readiness,
            ],
            "containerStatuses": [
                {
                    "name": container["name"],
                    "image": container["image"],
                    "imageID": "",
                    "containerID": f"standin://{self.uid}/{self._restarts}",
                    "ready": ready,
                    "started": waiting is None,
                    "restartCount": self._restarts,
                    "state": {"waiting": {"reason": waiting}} if waiting else running,
                    "lastState": self._last,
                }
            ],
        }
        await self._ask("PATCH", f"{self._path}/status", {"status": status})

    async def _delete(self) -> None:
        preconditions = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
        await self._ask("DELETE", self._path, preconditions)

    async def _ask(self, method: str, path: str, body: Json) -> None:
        """Ask until the API server answers; what is gone needs no report."""
        while True:
            try:
                await self._api.request(method, path, body)
            except ApiError as error:
                if error.status in (404, 409, 422):
                    return
            except (aiohttp.ClientError, TimeoutError, OSError):
                pass
            else:
                return
            await asyncio.sleep(_PROBE_SECONDS)

    @property
    def _path(self) -> str:
        return f"/api/v1/namespaces/{self._namespace}/pods/{self._name}"


def _now() -> str:
    return timestamp(datetime.now(UTC))
