"""How far the workers' network is closed, as far as that can be known.

No API shows whether anything enforces a NetworkPolicy: only the platform team can say.
"""

from __future__ import annotations

from dataclasses import dataclass

from dtjob_api.job.distributed_training_job import DistributedTrainingJob
from dtjob_api.reasons import Reason
from dtjob_operator.decide.builders.network_policy import api_server_endpoints
from dtjob_operator.decide.drift import differs
from dtjob_operator.decide.obstacles.not_created import rejected_children
from dtjob_operator.decide.obstacles.unlabelled import outside_the_policy
from dtjob_operator.terms import kinds, names
from dtjob_operator.terms.decision import Finding
from dtjob_operator.terms.kinds import Json
from dtjob_operator.terms.observed import Observed, has_addresses
from dtjob_operator.terms.settings import Enforcement, Settings

_APPLIED_AFTER = frozenset(
    {kinds.DISRUPTION_BUDGET.name, kinds.LEDGER.name, kinds.STATEFUL_SET.name}
)
_LISTENERS = "the listeners of gloo and NCCL, which ask for no proof"
_BY_ENFORCEMENT = {
    Enforcement.ENFORCED: "and this cluster's network enforces it, as its operators say",
    Enforcement.UNKNOWN: (
        "and nothing tells whether this cluster's network enforces it: where it does not, every "
        f"pod reaches {_LISTENERS}. Who runs the cluster can say so by the operator's flag "
        "--network-policy-enforcement"
    ),
    Enforcement.NONE: (
        "but this cluster's network enforces none, as its operators say: every pod reaches "
        f"{_LISTENERS}. Use a network plugin that enforces NetworkPolicies, then change the "
        "operator's flag --network-policy-enforcement"
    ),
}
_VERDICTS: dict[Enforcement, tuple[bool | None, Reason]] = {
    Enforcement.ENFORCED: (True, Reason.POLICY_ENFORCED),
    Enforcement.UNKNOWN: (None, Reason.ENFORCEMENT_UNKNOWN),
    Enforcement.NONE: (False, Reason.POLICY_NOT_ENFORCED),
}


@dataclass(frozen=True)
class Restriction:
    """What the condition `NetworkRestricted` says: True, False or (None) Unknown."""

    status: bool | None
    reason: Reason
    message: str


def restriction(
    observed: Observed,
    job: DistributedTrainingJob,
    wanted: Json | None,
    obstacle: Finding | None,
    settings: Settings,
) -> Restriction:
    """Whether nothing but the job's own traffic reaches its workers or leaves them.

    Parameters
    ----------
    wanted
        The job's NetworkPolicy; None where it asks for none.
    obstacle
        Why nothing is made or repaired for this job; None where it is.
    """
    if wanted is None:
        return Restriction(
            False,
            Reason.POLICY_NONE,
            "spec.network.policy is None: no NetworkPolicy is made, and every pod that other "
            f"policies let through reaches {_LISTENERS}",
        )
    name, stored = names.child_name(job), observed.network_policy
    if stored is None or not names.is_ours(stored, job) or differs(stored, wanted):
        message = f"NetworkPolicy {name} is not there as it should be{_applied(observed, obstacle)}"
        return Restriction(False, Reason.CREATING_RESOURCES, message)
    if (found := outside_the_policy(observed, job)) is not None:
        return Restriction(False, found.reason, found.message)
    message = f"NetworkPolicy {name} is there, {_BY_ENFORCEMENT[settings.enforcement]}"
    if not (has_addresses(observed.api_server) or settings.api_server_cidrs):
        (anywhere,) = api_server_endpoints(observed.api_server, settings)
        ports = ", ".join(map(str, anywhere.ports))
        # Also where nothing enforces it: whoever mends that would not learn of this.
        message = (
            "the operator can't learn the API server's address, so that the workers' policy lets "
            f"them connect to TCP ports {ports} of every address. {_learnt_by(settings)} "
            f"--api-server-cidr. {message}"
        )
        if settings.enforcement is not Enforcement.NONE:
            return Restriction(False, Reason.API_SERVER_ADDRESS_UNKNOWN, message)
    return Restriction(*_VERDICTS[settings.enforcement], message)


def _learnt_by(settings: Settings) -> str:
    """What would help, but for the flag's name."""
    if settings.watch_namespaces:
        return "It looks at no other namespaces than --watch-namespace names: give it"
    return (
        "Allow the operator to read EndpointSlice and Service kubernetes of namespace default, or "
        "give it"
    )


def _applied(observed: Observed, obstacle: Finding | None) -> str:
    """Whether the policy is applied now, or what has to come first."""
    before = (each for each in observed.rejections if each.kind not in _APPLIED_AFTER)
    if found := obstacle or next(rejected_children(before), None):
        return f", and it is not applied yet: {found.message}"
    stored = observed.network_policy
    if stored is not None and "deletionTimestamp" in stored["metadata"]:
        return ", since it is being deleted; it is applied once it has gone"
    if observed.ledger is None and observed.privacy_plan is None:
        return "; it is applied as soon as the privacy plan is fixed"
    return "; it is applied"
