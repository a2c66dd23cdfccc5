"""What the API server says of what it refuses, in words alone, and what would help.

Kubernetes promises none of these words. They are those of 1.37.2, tried in whole clusters; of
1.32.13 the API server alone was tried.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from dtjob_api.job.workers import GPU_RESOURCE
from dtjob_operator.decide.obstacles.remedies.invalid_fields import invalid_fields_remedy

_EVENT = re.compile(
    r"create (?P<kind>Claim|Pod) .*? failed error: (?P<claim>failed to create PVC \S+: )?"
)
_MISSING_ACCOUNT = re.compile(r"serviceaccounts? \"(?P<name>[^\"]+)\" not found", re.IGNORECASE)
_FAILED_QUOTA = "failed quota"
_WEBHOOK = re.compile(r"admission webhook \S+ denied the request")
_RULE = "Change the admission rule that refuses it, or what it asks for in a new job"
_EXCEEDED = re.compile(r"exceeded quota: \S+, requested: (?P<figures>\S+), used: ")
_LIMIT_RANGE = re.compile(
    r"(?:(?:minimum|maximum) (\S+) usage|(\S+) max limit to request ratio) per \w+ is"
    # A default of the LimitRange is the only limit that the job's own rules have not seen.
    r"|must be (?:less than or )?equal to (\S+) limit"
)
#: What helps whatever is refused, by what Kubernetes itself says.
_REMEDIES = (
    (
        r"status unknown for quota",
        "The controller manager has not counted yet what that ResourceQuota allows: it passes by "
        "itself",
    ),
    (
        r"Operation cannot be fulfilled on resourcequotas",
        "Others were counted in that ResourceQuota at the same moment: it passes by itself",
    ),
    (
        r"insufficient quota to (?:consume|match)",
        "Make a ResourceQuota that grants it: nobody has it without one in this cluster",
    ),
    (
        r"failed calling webhook",
        "Repair what answers for that webhook. Only where that is gone for good, delete its "
        "configuration, and with it what it guards",
    ),
    (
        r"because it is being terminated",
        "The namespace is being deleted, and with it this job and the ledger of what it has spent: "
        "keep a copy of that (kubectl get privacyledgers -o yaml) as long as it is there",
    ),
)
#: What helps with what the policy operator-writes refuses of the operator's own writes.
_REMEDIES_OF_CHILDREN = (
    (r"the dtjob operator makes nothing of a job in", "Make the job in another namespace"),
    (
        r"ValidatingAdmissionPolicy 'operator-writes\.dtjob\.dev'",
        "The operator asks for no such thing itself: whatever put it there, a webhook, a policy or "
        "a person, has to take that field back",
    ),
)
#: What helps with a worker's pod and claim.
_REMEDIES_OF_PODS = (
    (
        r"(?P<kind>PriorityClass|RuntimeClass) (?:with name )?\"?(?P<name>[^\s\"]+)\"? "
        r"(?:was|not) found",
        "Create {kind} {name}, or change the policy of the cluster that gives it to the workers: a "
        "job names none",
    ),
    (
        r"because service account \S+ does not reference that",
        "List it in that ServiceAccount, or take the annotation "
        "kubernetes.io/enforce-mountable-secrets off it",
    ),
    (
        r"^pvc \S+ is being deleted",
        "That claim goes once no pod uses it, with all that is on its volume: if the job has spent "
        "draws, first set the reclaim policy of its PersistentVolume to Retain",
    ),
    (
        r"violates PodSecurity",
        "Worker pods meet the level restricted; what spec.workers.template adds does not, or a "
        "policy of the cluster asks for more",
    ),
)


@dataclass(frozen=True)
class RejectionEvent:
    """What an Event of the StatefulSet controller says.

    Attributes
    ----------
    is_of_claim
        Whether a claim is refused, and not the pod that it is for.
    cause
        Why, without the names that the controller puts before it.
    """

    is_of_claim: bool
    cause: str

    @classmethod
    def read(cls, message: str) -> RejectionEvent:
        """Take a message apart. A claim's rejection is repeated as one of its pod.

        What is refused is read before the cause only: a webhook may say what it likes in that.
        """
        preamble = _EVENT.match(message)
        if preamble is None:
            return cls(False, message)
        is_of_claim = preamble["kind"] == "Claim" or preamble["claim"] is not None
        return cls(is_of_claim, message[preamble.end() :])


def missing_account(cause: str) -> str | None:
    """The ServiceAccount that does not exist."""
    match = _MISSING_ACCOUNT.search(cause)
    return match["name"] if match and not _is_from_webhook(cause) else None


def remedy_of_child(cause: str) -> str:
    """What would help a child that the operator applies. What is invalid stays so at every try."""
    from_webhook = _is_from_webhook(cause)
    found = None if from_webhook else _listed(cause, _REMEDIES + _REMEDIES_OF_CHILDREN)
    if found is None and not from_webhook and (invalid := invalid_fields_remedy(cause)):
        return invalid
    found = found or "Raise the quota, or repair the policy or webhook that stands in its way"
    return f"{found}; it is tried again"


def remedy(rejection: RejectionEvent) -> str:
    """What would help a worker's pod or claim."""
    cause = rejection.cause
    if _is_from_webhook(cause):
        return _RULE
    if found := _listed(cause, _REMEDIES + _REMEDIES_OF_PODS):
        return found
    if exceeded := _EXCEEDED.search(cause):
        figures = exceeded["figures"].split(",")
        fields = _fields((each.partition("=")[0] for each in figures), rejection)
        lower = fields if rejection.is_of_claim else ["spec.workers.replicas", *fields]
        if not lower:
            return "Raise the ResourceQuota, or delete claims that nobody needs"
        return f"Raise the ResourceQuota, or lower {_either(lower)} in a new job"
    if _FAILED_QUOTA in cause:
        return "Say in spec.workers.resources of a new job what the ResourceQuota asks for"
    if broken := _LIMIT_RANGE.findall(cause):
        fields = _fields(("".join(resources) for resources in broken), rejection)
        return f"Change the LimitRange, or {_either(fields or ['what it asks for'])} in a new job"
    return invalid_fields_remedy(cause) or _RULE


def _is_from_webhook(cause: str) -> bool:
    """Whether the words are a webhook's, which may say what it likes."""
    return _WEBHOOK.search(cause) is not None


def _listed(cause: str, remedies: Iterable[tuple[str, str]]) -> str | None:
    found = ((re.search(pattern, cause), text) for pattern, text in remedies)
    return next((text.format(**match.groupdict()) for match, text in found if match), None)


def _fields(resources: Iterable[str], rejection: RejectionEvent) -> list[str]:
    """The fields of a job that say how much of the resources a worker takes, each once."""
    fields = (_field(each, rejection) for each in resources)
    return list(dict.fromkeys(field for field in fields if field))


def _field(resource: str, rejection: RejectionEvent) -> str | None:
    """None where it is no amount but a number of objects: each worker is a pod."""
    if resource == "pods" or resource.startswith("count/"):
        return None
    if rejection.is_of_claim:
        is_amount = resource.rpartition("/")[2] in ("storage", "requests.storage")
        return "spec.storage.checkpoints.size" if is_amount else None
    if resource.removeprefix("requests.") == GPU_RESOURCE:
        return "spec.workers.gpusPerWorker"
    return "spec.workers.resources"


def _either(fields: list[str]) -> str:
    *others, last = fields
    return f"{', '.join(others)} or {last}" if others else last
