"""One reconciliation after another: what is refused, fails or is put back blocks nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from dtjob_operator.kube.api_errors import ApiError, Conflict, NotFound, Unavailable
from dtjob_operator.run import applier
from dtjob_operator.terms import kinds
from dtjob_operator.terms.kinds import Json
from dtjob_operator.terms.settings import Settings
from tests.support.worlds.fake_cluster import KEY, Shell
from tests.support.worlds.world import CHILD

WEBHOOK = 'Internal error occurred: failed calling webhook "policy.example.org"'
REFUSED = ApiError.of(403, "Forbidden", "exceeded quota: few")


def play(scenario: Callable[[Shell], Awaitable[None]]) -> Shell:
    async def played() -> Shell:
        shell = Shell()
        await scenario(shell)
        return shell

    return asyncio.run(played())


def of_set(shell: Shell) -> Json:
    """The coordinator's StatefulSet."""
    return shell.cluster.objects["StatefulSet", "research", CHILD]


def refuse(shell: Shell, verb: str, kind: str, error: ApiError) -> None:
    shell.cluster.fails = lambda asked, of: error if (asked, of) == (verb, kind) else None


def test_a_job_comes_to_rest() -> None:
    shell = play(Shell.settle)
    assert shell.running()[0] == "WaitingForWorkers"
    assert of_set(shell)["spec"]["replicas"] == 1
    assert shell.trials.applied == {}


@pytest.mark.parametrize("code", [0, 403, 500, 503])
@pytest.mark.parametrize("verb", ["create", "list"])
def test_events_that_can_not_be_told_or_listed_keep_nothing_from_being_done(
    verb: str, code: int
) -> None:
    async def scenario(shell: Shell) -> None:
        refuse(shell, verb, "Event", ApiError.of(code, "", "no"))
        await shell.settle()
        assert shell.running()[0] == "WaitingForWorkers"
        assert of_set(shell)["spec"]["replicas"] == 1

    play(scenario)


def test_a_child_that_the_api_server_fails_at_is_told_of_when_it_fails_again() -> None:
    async def scenario(shell: Shell) -> None:
        await shell.reconciler(KEY)  # the ledger
        refuse(shell, "create", "StatefulSet", ApiError.of(500, "InternalError", WEBHOOK))
        pauses = [await shell.reconciler(KEY)]
        assert shell.running()[0] == "WaitingForWorkers"
        assert not shell.trials.rejections, "it may have been a moment's weakness"
        pauses += [await shell.reconciler(KEY) for _ in range(2)]
        reason, message = shell.running()
        assert reason == "PodsRefused"
        assert WEBHOOK in message
        assert pauses == sorted(pauses)  # type: ignore[type-var]

        shell.cluster.fails = lambda _verb, _kind: None
        await shell.settle()
        assert shell.running()[0] == "WaitingForWorkers"

    play(scenario)


def test_a_failure_that_passes_is_not_told() -> None:
    async def scenario(shell: Shell) -> None:
        await shell.reconciler(KEY)
        refuse(shell, "create", "StatefulSet", ApiError.of(500, "InternalError", WEBHOOK))
        await shell.reconciler(KEY)
        shell.cluster.fails = lambda _verb, _kind: None
        await shell.settle()
        assert shell.running()[0] == "WaitingForWorkers"
        assert shell.trials.rejections == {}
        assert shell.trials.failed == set()

    play(scenario)


@pytest.mark.parametrize("code", [0, 429, 503])
def test_an_outage_is_waited_for(code: int) -> None:
    async def scenario(shell: Shell) -> None:
        await shell.reconciler(KEY)
        refuse(shell, "create", "StatefulSet", ApiError.of(code, "", "away"))
        for _ in range(3):
            with pytest.raises(Unavailable):
                await shell.reconciler(KEY)
        assert not shell.trials.rejections

    play(scenario)


def test_a_refusal_of_what_is_no_longer_wanted_is_forgotten() -> None:
    async def scenario(shell: Shell) -> None:
        await shell.settle()
        scaled = of_set(shell) | {"spec": of_set(shell)["spec"] | {"replicas": 3}}
        shell.see(scaled)
        refuse(shell, "apply", "StatefulSet", REFUSED)
        for _ in range(2):
            await shell.reconciler(KEY)
        assert shell.running()[0] == "PodsRefused"
        shell.see(of_set(shell) | {"spec": of_set(shell)["spec"] | {"replicas": 1}})
        await shell.reconciler(KEY)
        assert shell.running()[0] == "WaitingForWorkers"

    play(scenario)


def test_what_is_invalid_is_not_tried_again_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """No quota is raised for it: it stays so until the job, the operator or a policy changes."""
    invalid = ApiError.of(422, "Invalid", 'StatefulSet.apps "x" is invalid: spec.nope')

    async def scenario(shell: Shell) -> None:
        await shell.reconciler(KEY)
        refuse(shell, "create", "StatefulSet", invalid)
        pauses = [await shell.reconciler(KEY) for _ in range(10)]
        assert shell.cluster.count("create", kinds.STATEFUL_SET) == 1
        assert shell.running()[0] == "PodsRefused"
        assert (pauses[-1] or 0) >= Settings().probe_seconds, "as often as any obstacle"
        monkeypatch.setattr(applier, "_INVALID_SECONDS", -1.0)
        shell.trials.invalid.clear()
        for _ in range(2):
            await shell.reconciler(KEY)
        assert shell.cluster.count("create", kinds.STATEFUL_SET) == 3, "after a while it is"

    play(scenario)


@pytest.mark.parametrize("kind", ["Service", "NetworkPolicy", "PodDisruptionBudget"])
@pytest.mark.parametrize("verb", ["create", "apply"])
def test_no_pod_is_made_without_what_is_invalid(kind: str, verb: str) -> None:
    """However often it is looked at: what pods need comes before their StatefulSets."""
    invalid = ApiError.of(422, "Invalid", "none but the platform team's")

    async def scenario(shell: Shell) -> None:
        if verb == "apply":
            await shell.settle()
            for name in (CHILD, f"{CHILD}-w"):
                gone = shell.cluster.objects.pop(("StatefulSet", "research", name), None)
                if gone is not None:
                    gone["metadata"]["resourceVersion"] = "999"
                    shell.stores[kinds.STATEFUL_SET].remove(gone)
            stored = shell.cluster.objects[kind, "research", CHILD]
            shell.see(stored | {"spec": {}})
        refuse(shell, verb, kind, invalid)
        for _ in range(10):
            await shell.reconciler(KEY)
        assert not [key for key in shell.cluster.objects if key[0] == "StatefulSet"]
        assert shell.running()[0] == "PodsRefused"

    play(scenario)


def test_what_is_refused_keeps_no_job_from_coming_to_rest() -> None:
    async def scenario(shell: Shell) -> None:
        await shell.settle()
        stored = shell.cluster.objects["NetworkPolicy", "research", CHILD]
        shell.see(stored | {"spec": {}})
        refuse(shell, "apply", "NetworkPolicy", REFUSED)
        job = shell.cluster.objects["DistributedTrainingJob", *KEY]
        metadata = job["metadata"] | {"generation": 2}
        shell.see(job | {"metadata": metadata, "spec": job["spec"] | {"suspend": True}})
        for _ in range(4):
            await shell.reconciler(KEY)
        ledger = shell.cluster.objects["PrivacyLedger", "research", CHILD]
        assert ledger["spec"]["run"]["state"] == "Drain"
        assert of_set(shell)["spec"]["replicas"] == 0

    play(scenario)


def test_an_order_that_is_refused_is_shown_once_no_newer_one_is_found() -> None:
    """One of the same generation may have been written by an operator before this one."""
    denied = ApiError.of(422, "Invalid", "no orders today")

    async def scenario(shell: Shell) -> None:
        await shell.settle()
        job = shell.cluster.objects["DistributedTrainingJob", *KEY]
        metadata = job["metadata"] | {"generation": 2}
        shell.see(job | {"metadata": metadata, "spec": job["spec"] | {"suspend": True}})
        refuse(shell, "apply", "PrivacyLedger", denied)
        before = shell.cluster.count("get", kinds.LEDGER)
        with pytest.raises(Conflict):
            await shell.reconciler(KEY)
        assert shell.cluster.count("get", kinds.LEDGER) == before + 1
        assert not shell.trials.rejections
        for _ in range(3):
            await shell.reconciler(KEY)
        assert shell.cluster.count("apply", kinds.LEDGER) == 2
        assert "no orders today" in str(shell.job["status"]["conditions"])

    play(scenario)


@pytest.mark.parametrize("how", ["gone", "another", "being deleted"])
def test_no_ledger_is_made_for_a_job_that_is_gone(how: str) -> None:
    """Nobody could delete it; and the watch may say late what became of the job."""

    async def scenario(shell: Shell) -> None:
        key = ("DistributedTrainingJob", *KEY)
        metadata = shell.cluster.objects[key]["metadata"]
        if how == "gone":
            del shell.cluster.objects[key]
        else:
            change = {"uid": "other"} if how == "another" else {"deletionTimestamp": "now"}
            shell.cluster.objects[key] = shell.job | {"metadata": metadata | change}
        with pytest.raises((Conflict, NotFound)):
            await shell.reconciler(KEY)
        assert shell.cluster.count("create", kinds.LEDGER) == 0

    play(scenario)


def test_pauses_have_an_end() -> None:
    async def scenario(shell: Shell) -> None:
        refuse(shell, "apply", "ServiceAccount", REFUSED)
        await shell.reconciler(KEY)
        shell.trials.steps = 5000
        assert await shell.reconciler(KEY) == applier._LONGEST_PAUSE_SECONDS

    play(scenario)


def test_what_another_hand_puts_back_is_applied_at_the_pace_of_the_pauses() -> None:
    """However often the job is looked at meanwhile, as after each report."""

    def policy(obj: Json) -> None:
        if (obj["kind"], obj["metadata"]["name"]) == ("StatefulSet", CHILD):
            obj["spec"]["replicas"] = 3

    async def scenario(shell: Shell) -> None:
        shell.cluster.mutate = policy
        for _ in range(3):
            await shell.reconciler(KEY)
        shell.trials.steps = 20
        shell.trials.paused_until = 0.0
        await shell.reconciler(KEY)
        before, told = shell.cluster.count("apply", kinds.STATEFUL_SET), shell.cluster.version
        for _ in range(20):
            pause = await shell.reconciler(KEY)
        assert shell.cluster.count("apply", kinds.STATEFUL_SET) == before
        assert pause is not None
        assert 10 < pause <= applier._LONGEST_PAUSE_SECONDS
        assert shell.cluster.version == told

        shell.trials.paused_until = 0.0
        await shell.reconciler(KEY)
        assert shell.cluster.count("apply", kinds.STATEFUL_SET) == before + 1

    play(scenario)


def test_a_change_is_repaired_at_once_also_during_a_pause() -> None:
    async def scenario(shell: Shell) -> None:
        await shell.settle()
        shell.trials.steps = 20
        for replicas in (0, 2):
            before = shell.cluster.count("apply", kinds.STATEFUL_SET)
            shell.see(of_set(shell) | {"spec": of_set(shell)["spec"] | {"replicas": replicas}})
            await shell.reconciler(KEY)
            assert shell.cluster.count("apply", kinds.STATEFUL_SET) == before + 1
            assert of_set(shell)["spec"]["replicas"] == 1

    play(scenario)


def test_events_whose_status_could_not_be_written_are_not_told_twice() -> None:
    """The job was changed meanwhile: the status is written at the next try."""

    async def scenario(shell: Shell) -> None:
        await shell.settle()
        shell.unguarded = "a test says so"
        refuse(shell, "update_status", "DistributedTrainingJob", ApiError.of(409, "Conflict", "no"))
        for _ in range(3):
            with pytest.raises(Conflict):
                await shell.reconciler(KEY)
        assert shell.cluster.count("create", kinds.EVENT) == 1
        shell.cluster.fails = lambda _verb, _kind: None
        await shell.settle()
        assert shell.cluster.count("create", kinds.EVENT) == 1
        assert shell.memory.recorded == set()

    play(scenario)


def test_what_is_there_already_is_taken_over_or_left_alone() -> None:
    """No watch reports what has no label of the job's: that it is there shows when it is made."""

    async def scenario(shell: Shell) -> None:
        await shell.settle()
        own = shell.cluster.objects["Service", "research", CHILD]
        bare = own | {"metadata": own["metadata"] | {"labels": {}}}
        shell.stores[kinds.SERVICE].remove(shell.cluster.put(bare))
        before = shell.cluster.count("create", kinds.SERVICE)
        await shell.reconciler(KEY)
        assert shell.trials.taken == {("Service", CHILD)}
        await shell.settle()
        assert shell.cluster.count("create", kinds.SERVICE) == before + 1
        found = shell.cluster.objects["Service", "research", CHILD]
        assert found["metadata"]["labels"] == own["metadata"]["labels"]
        assert found["metadata"]["uid"] == own["metadata"]["uid"]
        assert shell.trials.taken == set()

        theirs = {"apiVersion": "v1", "kind": "Service", "spec": {}}
        metadata = {"namespace": "research", "name": CHILD, "uid": "theirs"}
        shell.stores[kinds.SERVICE].remove(shell.cluster.put(theirs | {"metadata": metadata}))
        await shell.settle()
        assert shell.running()[0] == "NameConflict"
        assert shell.cluster.objects["Service", "research", CHILD]["spec"] == {}

    play(scenario)


def test_an_order_that_was_given_already_is_no_refusal() -> None:
    """By an operator before this one, or by a write whose answer was lost: a watch will say so."""

    async def scenario(shell: Shell) -> None:
        await shell.settle()
        job = shell.job
        shell.see(job | {"spec": job["spec"] | {"suspend": True}})
        words = "spec.run changes only with a new generation"
        refuse(shell, "apply", "PrivacyLedger", ApiError.of(422, "Invalid", words))
        with pytest.raises(Conflict):
            await shell.reconciler(KEY)
        assert shell.trials.rejections == {}
        assert shell.trials.invalid == {}
        shell.cluster.fails = lambda _asked, _of: None
        await shell.settle()
        ledger = shell.cluster.objects["PrivacyLedger", "research", CHILD]
        assert ledger["spec"]["run"]["state"] == "Drain"

    play(scenario)
