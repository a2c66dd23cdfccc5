"""A gang of stand-ins on this machine, each a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from dtjob_api.wire.well_known import REPORT_PATH
from tests.support.checkout import TOOLS
from tests.support.clusters.kube import wait_for
from tests.support.gangs.gang_run import GangRun


@dataclass
class PlayedRun(GangRun):
    """A `GangRun` whose workers are stand-ins, told to play `script`."""

    @classmethod
    def of(cls, folder: Path, script: dict[str, Any], **settings: Any) -> PlayedRun:
        """Start it; a ledger of a run before it in the folder is gone on with."""
        task = {"entrypoint": "standin.script:task", "args": script}
        run = cls(folder, task=task, **{"steps": 12, "reserve": 40, **settings})
        if not (folder / "ledger").exists():
            run.create_ledger()
        run.start()
        return run

    def start_worker(self, position: int) -> None:
        """Start one worker."""
        config = self.folder / f"config-{position}.json"
        config.write_text(self.config(position).model_dump_json())
        environment = {**os.environ, "PYTHONPATH": str(TOOLS)}
        # dtjob is compiled once, as in an image, and not at each start.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        command = [sys.executable, "-m", "standin", "--config", str(config)]
        with self.log(position).open("ab") as log:
            self.processes[position] = subprocess.Popen(
                [*command, "--position", str(position)],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=environment,
            )

    def ended(self) -> list[int]:
        """The exit codes, once all workers have ended."""
        return [self.processes[position].wait(60) for position in range(self.workers)]

    def get(self, path: str, position: int = 0) -> httpx.Response | None:
        """What a worker answers, None while it does not."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.http_port + position}{path}", timeout=2)
        except httpx.HTTPError:
            return None

    def until_step(self, step: int) -> dict[str, Any]:
        """The first report of that step or a later one."""

        def reached() -> dict[str, Any] | None:
            answer = self.get(REPORT_PATH)
            report: dict[str, Any] | None = answer.json() if answer else None
            return report if report and report["step"] >= step else None

        return wait_for(f"step {step}", reached, 30, every=0.02)

    def ledger_status(self) -> Any:
        """The ledger's status."""
        return self.ledger.read().ledger.status
