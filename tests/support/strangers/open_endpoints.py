"""A worker's two HTTP listeners in a process of their own.

`python open_endpoints.py PATIENCE SECRET PORT PORT`
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from dtjob_api.wire.gang import Directive, Hello, LogPart
from dtjob_serving import doors
from dtjob_trainer.gang import endpoints
from dtjob_trainer.identity.credentials import RunSecret
from dtjob_trainer.identity.proof import Speaker
from dtjob_trainer.process import logs


async def answer(hello: Hello, _speaker: Speaker) -> Directive:
    if hello.known == 7:
        await asyncio.sleep(1.0)
    return Directive(revision=7)


async def keep(_part: LogPart) -> None:
    """Nothing is kept."""


async def main(secret: Path, shown: int, hello: int) -> None:
    log = logs.own_logger(sys.stderr)
    everybody = endpoints.shown(
        ready=lambda: True,
        report=lambda: {"step": 1},
        registry=CollectorRegistry(auto_describe=False),
        log=log,
    )
    gang = endpoints.Hellos(RunSecret(secret.read_bytes()), answer, keep, log)
    for door, port in ((everybody, shown), (gang.doors, hello)):
        await doors.serve(door, doors.listen("127.0.0.1", port))
    print(os.getpid(), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    logs.quieten_libraries()
    doors.PATIENCE_SECONDS = float(sys.argv[1])
    asyncio.run(main(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
