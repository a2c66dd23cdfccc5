"""Coordinators that train nothing: each answers for its report, and takes its first lease.

They serve the addresses of their pods, which lead to this process. A report costs the operator what
it would cost of a real gang: a request every second while there is no rate, then one every five.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from aiohttp import web
from scale.api import Api, Json
from scale.course import Course

from dtjob_api.derive import child_name
from dtjob_api.ledger.privacy_ledger import (
    AttemptRecord,
    CheckpointRecord,
    Formats,
    LedgerStatus,
    PrivacyLedger,
    Provenance,
)
from dtjob_api.wire.well_known import HTTP_PORT, REPORT_PATH
from dtjob_api.wire.worker_report import WorkerReport, WorkerState
from dtjob_operator.terms import kinds
from dtjob_operator.terms.kinds import JOB_UID_LABEL, WORKER_ACCOUNT
from dtjob_trainer.ledger.lease import next_lease, with_lease

_IMAGE = "example.invalid/trainer:1"
_SAMPLES_PER_SECOND = 1000.0


class Coordinators:
    """The coordinators of all jobs of a course."""

    def __init__(self, api: Api, course: Course) -> None:
        self._api, self._course = api, course
        self._by_address: dict[str, str] = {}
        self._training: set[str] = set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Answer at every address meanwhile."""
        app = web.Application()
        app.router.add_get(REPORT_PATH, self._report)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "0.0.0.0", HTTP_PORT).start()
        try:
            yield
        finally:
            await runner.cleanup()

    async def begin(self, name: str) -> None:
        """Begin a job's attempt and lease its first draws, by two writes as a real one does."""
        pod = self._course.coordinators[name]
        uid = pod["metadata"]["labels"][JOB_UID_LABEL]
        token = await self._token(pod)
        stored = await self._api.get(
            kinds.LEDGER.path(self._course.namespace, child_name(name, uid))
        )
        now = datetime.now(UTC)
        ledger = PrivacyLedger.from_dict(stored)
        begun = ledger.status.model_copy(
            update={"attempt": 1, "attempts": [AttemptRecord(attempt=1, start=now)]}
        )
        stored = await self._write(stored, begun, token)
        ledger = PrivacyLedger.from_dict(stored)
        lease = next_lease(ledger, attempt=1, next_draw=0, step=0)
        assert lease is not None
        record = CheckpointRecord(
            step=0, charged=0, attempt=1, path="attempt-1/step-0.pt", sha256="0" * 64, time=now
        )
        provenance = Provenance(image=_IMAGE, formats=Formats(sampling=2, noise=2))
        leased = with_lease(ledger, lease, record, provenance)
        await self._write(stored, leased, token)
        self._training.add(uid)

    async def _write(self, ledger: Json, status: LedgerStatus, token: str) -> Json:
        metadata = ledger["metadata"]
        path = kinds.LEDGER.path(metadata["namespace"], metadata["name"])
        changed = ledger | {"status": status.to_dict()}
        return await self._api.put(f"{path}/status", changed, "coordinator", token)

    async def _token(self, pod: Json) -> str:
        """What the kubelet would project into the pod."""
        metadata = pod["metadata"]
        bound = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": metadata["name"],
            "uid": metadata["uid"],
        }
        account = kinds.SERVICE_ACCOUNT.path(metadata["namespace"], WORKER_ACCOUNT)
        asked = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600, "boundObjectRef": bound},
        }
        answer = await self._api.post(f"{account}/token", asked)
        token: str = answer["status"]["token"]
        return token

    async def _report(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        address = request.transport.get_extra_info("sockname")[0]
        uid = self._uid_at(address)
        if uid is None:
            return web.Response(status=503)
        trains = uid in self._training
        report = WorkerReport(
            job_uid=uid,
            attempt=1 if trains else 0,
            generation=1,
            workers=self._course.workers,
            state=WorkerState.RUNNING if trains else WorkerState.STARTING,
            samples_per_second=_SAMPLES_PER_SECOND if trains else None,
            heartbeat=datetime.now(UTC),
        )
        return web.Response(text=json.dumps(report.to_json()), content_type="application/json")

    def _uid_at(self, address: str) -> str | None:
        if address not in self._by_address:
            for pod in self._course.coordinators.values():
                labels = pod["metadata"]["labels"]
                self._by_address[pod["status"]["podIP"]] = labels[JOB_UID_LABEL]
        return self._by_address.get(address)
