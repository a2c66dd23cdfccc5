"""Where a worker in a pod finds its configuration, and where it is asked.

Constants alone: a supervisor imports them before anything that takes time.
"""

from __future__ import annotations

CONFIG_VARIABLE = "DTJOB_WORKER_CONFIG"
"""The variable that holds a supervisor's WorkerConfig, as JSON."""
HTTP_PORT = 8080
"""Port of a pod's probes, report and metrics."""
STORE_PORT = 29500
HELLO_PORT = 29501
"""Ports of the coordinator's pod: the way to the store, and the hellos."""
LIVENESS_PATH = "/healthz"
READINESS_PATH = "/readyz"
REPORT_PATH = "/report"
