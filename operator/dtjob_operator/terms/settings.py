"""What the operator's owner may set that decisions depend on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Enforcement(StrEnum):
    """Whether the cluster's network enforces NetworkPolicies, which no API shows."""

    ENFORCED = "Enforced"
    NONE = "None"
    UNKNOWN = "Unknown"


@dataclass(frozen=True)
class Settings:
    """Times by which jobs are decided on, in seconds, and where the operator is.

    Attributes
    ----------
    telemetry_seconds
        Least time between two status patches that only carry new figures.
    probe_seconds
        How often a job that is not running is looked at without news of it.
    settle_seconds
        Age below which a pod's trouble is not reported: schedulers and provisioners complain
        about what the next second mends.
    operator_namespace
        From where workers are asked for their report.
    watch_namespaces
        Those whose jobs are looked after; empty: all.
    monitoring_namespaces
        From where workers' metrics may be read besides.
    api_server_cidrs
        Networks in which the platform team says the API server is; empty: as it says itself.
    enforcement
        What the platform team says of NetworkPolicies.
    """

    telemetry_seconds: float = 15.0
    probe_seconds: float = 5.0
    settle_seconds: float = 3.0
    operator_namespace: str = "dtjob-system"
    watch_namespaces: tuple[str, ...] = ()
    monitoring_namespaces: tuple[str, ...] = ()
    api_server_cidrs: tuple[str, ...] = ()
    enforcement: Enforcement = Enforcement.UNKNOWN
