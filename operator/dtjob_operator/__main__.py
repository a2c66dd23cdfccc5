"""`python -m dtjob_operator`: the operator's process."""

from __future__ import annotations

import os
import signal

if __name__ == "__main__":
    # The kernel drops a signal for which PID 1 of a container has no handler, and what is imported
    # below takes seconds.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

import argparse
import asyncio
import contextlib
import re
import socket
import sys
import uuid
from collections.abc import Coroutine
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import structlog
from kubernetes.aio.config import ConfigException

from dtjob_accounting.process import PldProcess
from dtjob_operator.kube.api_server import credentials
from dtjob_operator.kube.client import KubeClient
from dtjob_operator.kube.election import Candidate, Superseded
from dtjob_operator.kube.guard import Unguarded
from dtjob_operator.run import json_logs
from dtjob_operator.run.health import Condition, HealthServer
from dtjob_operator.run.leadership import Leadership
from dtjob_operator.run.metrics import Metrics
from dtjob_operator.run.operate import Operator, Options
from dtjob_operator.terms.settings import Enforcement

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_DEFAULT_NAMESPACE = "dtjob-system"
# The API server takes JSON of 10,000 levels. One job like that must not keep lists and watches of
# all jobs from being read; it takes half of a thread's 8 MiB of stack.
_LEVELS = 50_000
_STOPPED, _UNGUARDED, _MISCONFIGURED, _SUPERSEDED = 0, 1, 2, 3


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dtjob_operator",
        description="The dtjob operator. It uses the pod's own account, or what KUBECONFIG names.",
    )
    parser.add_argument(
        "--namespace",
        default=os.environ.get("DTJOB_OPERATOR_NAMESPACE") or _own_namespace(),
        help="the operator's own namespace (default: the pod's, else %(default)s)",
    )
    parser.add_argument(
        "--watch-namespace",
        type=_namespace,
        action="append",
        default=[],
        metavar="NAMESPACE",
        help="whose jobs are looked after; repeatable (default: those of all namespaces)",
    )
    parser.add_argument(
        "--monitoring-namespace",
        type=_namespace,
        action="append",
        default=[],
        metavar="NAMESPACE",
        help="whose pods may read the workers' metrics, besides the operator's own; repeatable",
    )
    parser.add_argument(
        "--api-server-cidr",
        type=_network,
        action="append",
        default=[],
        metavar="CIDR",
        help="where workers reach the API server, its Service's address included; repeatable "
        "(default: by EndpointSlice and Service kubernetes of namespace default)",
    )
    parser.add_argument(
        "--network-policy-enforcement",
        choices=[str(each) for each in Enforcement],
        default=str(Enforcement.UNKNOWN),
        help="whether the cluster's network enforces NetworkPolicies, which nothing else shows; "
        "jobs say so in their status (default: %(default)s)",
    )
    parser.add_argument(
        "--port", type=int, default=8080, help="of probes and metrics (default: %(default)s)"
    )
    parser.add_argument(
        "--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"]
    )
    return parser.parse_args(arguments)


def _namespace(text: str) -> str:
    if not re.fullmatch("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", text):
        raise argparse.ArgumentTypeError(f"{text!r} can't be the name of a namespace")
    return text


def _network(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no network such as 10.0.0.0/24 or 192.0.2.7/32: {error}"
        ) from None


def _own_namespace() -> str:
    try:
        return _NAMESPACE_FILE.read_text(encoding="ascii").strip()
    except OSError:
        return _DEFAULT_NAMESPACE


async def _serve(options: argparse.Namespace) -> int:
    log = structlog.get_logger("main")
    metrics = Metrics()
    try:
        client = KubeClient(await credentials(), metrics.observe_request)
    except ConfigException as error:
        log.error(
            "no cluster: run in a pod with a ServiceAccount, or name a file by KUBECONFIG",
            error=str(error),
        )
        return _MISCONFIGURED
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    candidate = Candidate(client, options.namespace, f"{socket.gethostname()}_{uuid.uuid4()}")
    client.may_write = candidate.holds
    metrics.leader.set_function(lambda: float(candidate.holds()))
    leadership = Leadership(candidate)
    with PldProcess() as process:
        chosen = Options(
            namespace=options.namespace,
            watch_namespaces=tuple(dict.fromkeys(options.watch_namespace)),
            monitoring_namespaces=tuple(options.monitoring_namespace),
            api_server_cidrs=tuple(options.api_server_cidr),
            enforcement=Enforcement(options.network_policy_enforcement),
        )
        operator = Operator(client, process, metrics, chosen)
        health = HealthServer(
            metrics,
            lambda: Condition(not (still := operator.standstill()), still or "ok"),
            lambda: leadership.readiness(operator.trouble, operator.closed),
        )
        try:
            try:
                await health.start(options.port)
            except OSError as error:
                log.error(f"port {options.port} can't be used; choose another by --port: {error}")
                return _MISCONFIGURED
            await _run_until(stopped, leadership.run(operator.run))
        except Unguarded as error:
            log.critical("ledgers are not protected; the operator stops", error=str(error))
            return _UNGUARDED
        except Superseded as error:
            log.warning("another operator leads; this one ends", cause=str(error))
            # As by a kill: whatever is under way is the other's by now.
            os._exit(_SUPERSEDED)
        finally:
            await health.stop()
            await operator.close()
            await client.close()
    log.info("stopped")
    return _STOPPED


async def _run_until(stopped: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Work until `stopped` is set; what is under way then is finished."""
    running = asyncio.create_task(work)
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


def main(arguments: list[str] | None = None) -> int:
    """Run until SIGTERM; returns the exit code: 1 unguarded ledgers, 2 bad configuration.

    A process whose Lease another operator has ends with 3, and does not return.
    """
    options = _options(arguments)
    sys.setrecursionlimit(_LEVELS)
    json_logs.configure(options.log_level)
    return asyncio.run(_serve(options))


if __name__ == "__main__":
    sys.exit(main())
