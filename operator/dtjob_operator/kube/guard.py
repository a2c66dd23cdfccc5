"""Proof that the API server guards ledgers; without it the operator begins no work.

One canary ledger in the operator's own namespace has `charged: 1`, written once. Dry-run writes
that would lower or remove it must be refused in the words of the ledger's own rules. Nothing less
proves it: a dry-run create drops the status, and rules on transitions need a stored object.
"""

from __future__ import annotations

import asyncio

from dtjob_api.job.privacy import PrivacyMode
from dtjob_api.ledger.ledger_rules import (
    ATTEMPT_RISES_BY_ONE,
    CHARGED_NEVER_DECREASES,
    STATUS_NEVER_VANISHES,
)
from dtjob_api.ledger.privacy_ledger import LedgerSpec, Order, OrderState, PrivacyPlan
from dtjob_operator.kube.api_errors import AlreadyExists, ApiError, NotFound, Unavailable
from dtjob_operator.kube.client import KubeClient
from dtjob_operator.terms import kinds
from dtjob_operator.terms.kinds import Json
from dtjob_operator.terms.names import shared_labels

CANARY = "dtjob-canary"
WRITER_POLICY = "ledger-writer"
"""The admission policy on who may write ledgers; a refusal of its names it."""
_RULES = (CHARGED_NEVER_DECREASES, STATUS_NEVER_VANISHES, ATTEMPT_RISES_BY_ONE)
_ATTACKS: dict[str, Json] = {
    "lowers status.charged": {"status": {"charged": 0}},
    "removes status.charged": {"status": {"charged": None}},
    "removes status": {"status": None},
    "leaps in status.attempt": {"status": {"attempt": 1000}},
}
_POLICY_SECONDS = 10.0
_RETRY_SECONDS = 1.0
_TRIES_TO_FIND_KIND = 10


class Unguarded(Exception):
    """The API server does not keep the rules of ledgers; the message says what it let pass."""


async def prove(client: KubeClient, namespace: str) -> None:
    """Try each attack on the canary, without effect (Rules 10 and 11).

    Raises
    ------
    Unguarded
        A write passed, or was refused for another reason than the ledger's rules.
    ApiError
        The API server did not answer, or does not know ledgers (`NotFound`).
    """
    canary = await _canary(client, namespace)
    if canary.get("status", {}).get("charged", 0) < 1:
        spent: Json = {"charged": 1, "segments": [{"draws": 1, "image": "none"}]}
        await client.merge_patch(
            kinds.LEDGER, namespace, CANARY, {"status": spent}, subresource="status"
        )
    for what, patch in _ATTACKS.items():
        try:
            await client.merge_patch(
                kinds.LEDGER, namespace, CANARY, patch, subresource="status", dry_run=True
            )
        except (Unavailable, NotFound):
            raise
        except ApiError as error:
            if not any(rule in error.message for rule in _RULES):
                raise Unguarded(
                    f"a write that {what} of the ledger {namespace}/{CANARY} was refused, but not "
                    f"by the ledger's own rules, so they are not proven: {error.message}"
                ) from error
        else:
            raise Unguarded(
                f"the API server accepts a write that {what} of the ledger {namespace}/{CANARY}: "
                "what jobs have spent could be taken back. Install this release's "
                "CustomResourceDefinition of PrivacyLedger on Kubernetes 1.32 or newer"
            )


async def lapse(client: KubeClient, namespace: str) -> str | None:
    """Why the API server no longer guards ledgers; None while it does.

    One that has just started may not know of ledgers yet, so that they are looked for again.

    Raises
    ------
    ApiError
        It could not be tried.
    """
    for _ in range(_TRIES_TO_FIND_KIND):
        try:
            await prove(client, namespace)
        except Unguarded as error:
            return str(error)
        except NotFound as error:
            missing = error.message
        else:
            return None
        await asyncio.sleep(_RETRY_SECONDS)
    return (
        f"the API server knows no ledgers any more: {missing}. Install this release's "
        "CustomResourceDefinition of PrivacyLedger and put the ledgers back from a backup"
    )


async def policy_is_active(client: KubeClient, namespace: str) -> bool:
    """Whether `WRITER_POLICY` refuses to delete a ledger, tried in dry run.

    A policy that has just been installed takes some seconds to work, so several tries are made.
    Where it is not installed the rules of the ledger itself still hold (`prove`), but not who
    may write it.

    Raises
    ------
    ApiError
        It could not be tried.
    """
    canary = await client.get(kinds.LEDGER, namespace, CANARY)
    deadline = asyncio.get_running_loop().time() + _POLICY_SECONDS
    while True:
        failure: ApiError | None = None
        try:
            await client.delete(
                kinds.LEDGER, namespace, CANARY, canary["metadata"]["uid"], dry_run=True
            )
        except ApiError as error:
            if WRITER_POLICY in error.message:
                return True
            failure = error
        if asyncio.get_running_loop().time() >= deadline:
            break
        await asyncio.sleep(_RETRY_SECONDS)
    if failure is not None:
        raise failure
    return False


async def _canary(client: KubeClient, namespace: str) -> Json:
    try:
        return await client.get(kinds.LEDGER, namespace, CANARY)
    except NotFound as missing:
        try:
            return await client.create(_new_canary(namespace))
        except AlreadyExists:
            raise missing from None  # made this very moment: looked at again


def _new_canary(namespace: str) -> Json:
    plan = PrivacyPlan(
        mode=PrivacyMode.DISABLED,
        batch_size=1,
        dataset_size=1,
        steps=1,
        replay_reserve_steps=0,
        lease_steps=1,
        accountant_version="none",
    )
    spec = LedgerSpec(
        job_uid="none",
        job_name=CANARY,
        stateful_set=CANARY,
        plan=plan,
        reserved_draws=1,
        run=Order(generation=1, workers=1, state=OrderState.STOP),
    )
    return {
        "apiVersion": kinds.LEDGER.api_version,
        "kind": kinds.LEDGER.name,
        "metadata": {
            "name": CANARY,
            "namespace": namespace,
            "labels": shared_labels() | {"app.kubernetes.io/component": "guard"},
        },
        "spec": spec.to_dict(),
    }
