"""The operator's own port in a process of its own, with so many bytes of figures at least.

`python open_health.py PATIENCE PORT BYTES`
"""

from __future__ import annotations

import asyncio
import os
import sys

from dtjob_operator.run import json_logs
from dtjob_operator.run.health import Condition, HealthServer
from dtjob_operator.run.metrics import Metrics
from dtjob_serving import doors


async def main(port: int, size: int) -> None:
    metrics = Metrics()
    metrics.reconciles.labels("x" * size)
    await HealthServer(metrics, Condition, Condition).start(port)
    print(os.getpid(), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    json_logs.configure("INFO")
    doors.PATIENCE_SECONDS = float(sys.argv[1])
    asyncio.run(main(int(sys.argv[2]), int(sys.argv[3])))
