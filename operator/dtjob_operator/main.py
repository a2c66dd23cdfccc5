"""`python -m dtjob_operator.main`: the operator's process."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import structlog
from kubernetes.aio.config import ConfigException

from dtjob_accounting.process import PldProcess
from dtjob_operator import logs
from dtjob_operator.cluster import Cluster, credentials
from dtjob_operator.guard import Unguarded
from dtjob_operator.health import HealthServer
from dtjob_operator.metrics import Metrics
from dtjob_operator.operate import Operator, Options

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_DEFAULT_NAMESPACE = "dtjob-system"


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dtjob_operator.main",
        description="The dtjob operator. It uses the pod's own account, or what KUBECONFIG names.",
    )
    parser.add_argument(
        "--namespace",
        default=os.environ.get("DTJOB_OPERATOR_NAMESPACE") or _own_namespace(),
        help="the operator's own namespace (default: the pod's, else %(default)s)",
    )
    parser.add_argument(
        "--port", type=int, default=8080, help="of probes and metrics (default: %(default)s)"
    )
    parser.add_argument(
        "--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"]
    )
    return parser.parse_args(arguments)


def _own_namespace() -> str:
    try:
        return _NAMESPACE_FILE.read_text(encoding="ascii").strip()
    except OSError:
        return _DEFAULT_NAMESPACE


async def _serve(options: argparse.Namespace) -> int:
    log = structlog.get_logger("main")
    metrics = Metrics()
    try:
        cluster = Cluster(await credentials(), metrics.observe_request)
    except ConfigException as error:
        log.error(
            "no cluster: run in a pod with a ServiceAccount, or name a file by KUBECONFIG",
            error=str(error),
        )
        return 2
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    with PldProcess() as process:
        operator = Operator(cluster, process, metrics, Options(namespace=options.namespace))
        health = HealthServer(metrics, operator.trouble)
        try:
            try:
                await health.start(options.port)
            except OSError as error:
                log.error(f"port {options.port} can't be used; choose another by --port: {error}")
                return 2
            await _run_until(stopped, operator)
        except Unguarded as error:
            log.critical("ledgers are not protected; the operator stops", error=str(error))
            return 1
        finally:
            await health.stop()
            await operator.close()
            await cluster.close()
    log.info("stopped")
    return 0


async def _run_until(stopped: asyncio.Event, operator: Operator) -> None:
    """Run until told to stop; what is under way then is finished."""
    running = asyncio.create_task(operator.run())
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGTERM; returns the exit code: 1 unguarded ledgers, 2 bad configuration."""
    options = _options(arguments)
    logs.configure(options.log_level)
    return asyncio.run(_serve(options))


if __name__ == "__main__":
    sys.exit(main())
