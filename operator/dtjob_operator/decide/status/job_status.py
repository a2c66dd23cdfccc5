"""The status of a job, whole: what its owner sees of it.

Of two figures that must not fall (epsilon, draws charged) the greater of the stored and the new
one is shown; a terminal status changes only in these and in the pods that are left.
"""

from __future__ import annotations

from datetime import datetime

from dtjob_api import shown
from dtjob_api.job.privacy import PrivacyMode
from dtjob_api.job.status import DisplayStatus, PrivacyStatus, ProgressStatus, WorkersStatus
from dtjob_api.ledger import ending
from dtjob_api.ledger.privacy_ledger import AttemptRecord, OutcomeState, PrivacyLedger
from dtjob_api.ledger.proven import may_lack_draws
from dtjob_api.model import timestamp
from dtjob_api.reasons import NO_FAILURE, ConditionType, Phase
from dtjob_operator.decide.obstacles.obstacle import Children
from dtjob_operator.decide.run_order import begins_in_order
from dtjob_operator.decide.situation import Situation
from dtjob_operator.decide.status.conditions import conditions
from dtjob_operator.decide.status.resizing import meets_anew
from dtjob_operator.read import coordinator_report
from dtjob_operator.read.status_conditions import condition, terminal
from dtjob_operator.terms import formatting, names
from dtjob_operator.terms.decision import Finding
from dtjob_operator.terms.kinds import Json
from dtjob_operator.terms.observed import Observed, Spent

_GIB = 2**30


def status(
    observed: Observed, situation: Situation, refusal: Finding | None, now: datetime
) -> Json:
    """The job's status as it should read now.

    Parameters
    ----------
    refusal
        Why the job is refused at admission, if it is.
    """
    stored, job, ledger = situation.stored, situation.job, situation.ledger
    new: Json = dict(stored)
    if job.metadata.generation is not None:
        new["observedGeneration"] = job.metadata.generation
    new["workers"] = _workers(situation)
    if job.spec.rerun:
        new["rerun"] = job.spec.rerun
    if ledger is not None:
        new["ledger"] = ledger.metadata.name
        new["privacy"] = _privacy(observed, situation, ledger)
    if not situation.finished:
        new["conditions"] = conditions(situation, refusal, now)
        new["phase"] = str(_phase(situation, refusal))
        new["gpu"] = _gpu(situation)
        if ledger is not None:
            new |= _course(situation, ledger, now)
        elif "progress" in stored:  # a job that does not train has no foreseeable end
            new["progress"] = _without(stored["progress"], "estimatedCompletionTime")
        if refusal is not None or situation.failure is not None:
            new["completionTime"] = timestamp(now)
    new["display"] = _display(new, now, _epsilon_column(new, observed, situation))
    return {field: value for field, value in new.items() if value is not None}


def _phase(situation: Situation, refusal: Finding | None) -> str:
    """Pending: no pods are made; Restarting: they are, and it has trained before."""
    if refusal is not None:
        return Phase.FAILED
    if situation.unreadable is not None:
        # Its pods are left as they are, and so is what is known of them.
        return str(situation.stored.get("phase") or Phase.PENDING)
    if (outcome := situation.outcome) is not None:
        return Phase.SUCCEEDED if outcome.state is OutcomeState.SUCCEEDED else Phase.FAILED
    if situation.ledger is None:
        return Phase.PENDING
    if situation.failure is not None:
        return Phase.FAILED
    if situation.at_rest:
        return Phase.SUSPENDING if situation.observed.pods else Phase.SUSPENDED
    if situation.children is Children.RELEASED:
        return Phase.PENDING
    if meets_anew(situation):
        return Phase.RESIZING
    if situation.training:
        return Phase.RUNNING
    if situation.children is Children.LEFT:
        return Phase.PENDING
    if begins_in_order(situation):
        return Phase.STARTING
    return Phase.RESTARTING if situation.may_have_spent else Phase.STARTING


def _workers(situation: Situation) -> Json:
    selector = ",".join(f"{key}={value}" for key, value in names.selector(situation.job).items())
    return WorkersStatus(
        desired=situation.target,
        replicas=0 if situation.outcome else len(situation.observed.pods),
        ready=situation.ready,
        selector=selector,
        generation=situation.ledger.spec.run.generation if situation.ledger else None,
    ).to_dict()


def _course(situation: Situation, ledger: PrivacyLedger, now: datetime) -> Json:
    """What moves while a job runs: progress, GPUs, checkpoint, attempts, times, result."""
    stored = situation.stored
    course: Json = {"progress": _progress(situation, ledger)}
    if not situation.observed.is_done_before:
        course |= {
            "attempts": ledger.status.attempt,
            "restarts": _restarts(stored, ledger),
            "startTime": stored.get("startTime") or timestamp(now),
        }
    if (record := ledger.status.checkpoint) is not None:
        course["checkpoint"] = {
            "step": record.step,
            "time": timestamp(record.time),
        }
        if path := shown.path(record.path):
            location = f"{names.claim_of(ledger.metadata.name)}:{path}"
            course["checkpoint"]["location"] = location[:1024]
    if (outcome := ledger.status.outcome) is not None:
        course["completionTime"] = timestamp(outcome.time)
        if (result := ending.result(ledger)) is not None:
            course["result"] = result
    return course


def _progress(situation: Situation, ledger: PrivacyLedger) -> Json:
    """Steps from the coordinator's report; without one, what is durable.

    A report that was missed leaves the figures as they were. Once it can't be read they are taken
    back: nothing vouches for them.
    """
    plan, report, before = ledger.spec.plan, situation.report, situation.stored.get("progress", {})
    running = situation.training and situation.outcome is None
    durable = ledger.status.checkpoint.step if ledger.status.checkpoint else 0
    if running and report is None and situation.unreadable_report:
        before = _without(before, "step", "samplesPerSecond", "estimatedCompletionTime")
    if running and report is not None:
        step = max(report.step, durable)
    elif running:
        step = max(before.get("step", 0), durable)
    else:
        step = durable
    step = min(step, plan.steps)
    rate = report.samples_per_second if running and report is not None else None
    progress: Json = {
        "step": step,
        "totalSteps": plan.steps,
        "percent": formatting.percent(step, plan.steps),
        "epoch": formatting.rounded(step * plan.batch_size / plan.dataset_size, 2),
        "samplesPerSecond": formatting.rounded(rate, 1) if rate else before.get("samplesPerSecond"),
        "evaluation": (report and coordinator_report.evaluation(report))
        or before.get("evaluation"),
        "heartbeatTime": timestamp(report.heartbeat)
        if report is not None and report.heartbeat is not None
        else before.get("heartbeatTime"),
    }
    if running and report is not None and report.estimated_completion is not None:
        progress["estimatedCompletionTime"] = timestamp(report.estimated_completion)
    elif running and report is None:
        progress["estimatedCompletionTime"] = before.get("estimatedCompletionTime")
    return ProgressStatus.model_validate(
        {key: value for key, value in progress.items() if value is not None}
    ).to_dict()


def _gpu(situation: Situation) -> Json | None:
    """The GPUs of a gang that trains; a report that was missed leaves the figures as they were."""
    if not situation.training or situation.outcome is not None:
        return None
    if situation.report is not None:
        return situation.report.gpu.to_dict() if situation.report.gpu else None
    if situation.unreadable_report:
        return None
    stored: Json | None = situation.stored.get("gpu")
    return stored


def _without(fields: Json, *dropped: str) -> Json:
    return {name: value for name, value in fields.items() if name not in dropped}


def _restarts(stored: Json, ledger: PrivacyLedger) -> int:
    """Attempts after a failure: those of the stored status, and those since in the ledger."""
    counted = stored.get("attempts", 0)
    new = [a for a in ledger.status.attempts if counted <= a.attempt < ledger.status.attempt]
    return int(stored.get("restarts", 0)) + sum(_failed(record) for record in new)


def _failed(record: AttemptRecord) -> bool:
    """Whether an attempt trained, or tried to, and failed."""
    return record.end is not None and record.reason not in NO_FAILURE


def _privacy(observed: Observed, situation: Situation, ledger: PrivacyLedger) -> Json:
    """Rule 13: epsilon is the operator's own, of the ledger's draws, and never goes down."""
    plan, before = ledger.spec.plan, situation.stored.get("privacy", {})
    charged = max(ledger.status.charged, before.get("drawsCharged", 0))
    if plan.mode is PrivacyMode.DISABLED:
        return {"drawsReserved": ledger.spec.reserved_draws, "drawsCharged": charged}
    spent = _later(observed.spent, before)
    return PrivacyStatus(
        epsilon_spent=spent.epsilon if spent else None,
        epsilon_draws=spent.draws if spent else None,
        epsilon_target=formatting.exact(plan.epsilon) if plan.epsilon else None,
        epsilon_guaranteed=formatting.rounded_up(plan.epsilon_guaranteed, 4)
        if plan.epsilon_guaranteed is not None
        else None,
        delta=formatting.exact(plan.delta) if plan.delta else None,
        noise_multiplier=formatting.rounded_down(plan.noise_multiplier, 4)
        if plan.noise_multiplier
        else None,
        sample_rate=formatting.rounded_up(plan.sample_rate, 6) if plan.sample_rate else None,
        draws_reserved=ledger.spec.reserved_draws,
        draws_charged=charged,
        accountant=f"{plan.accountant} ({plan.accountant_version})"[:64],
    ).to_dict()


def _later(computed: Spent | None, before: Json) -> Spent | None:
    """The newer figure, or the one before where that is greater: a bound of all its draws too."""
    text: str | None = before.get("epsilonSpent")
    if text is None or formatting.decimal(text) is None:
        return computed
    stored = Spent(text, before.get("epsilonDraws", 0))
    if computed is None:
        return stored
    greater = max(stored.epsilon, computed.epsilon, key=lambda each: formatting.decimal(each) or 0)
    return Spent(greater, max(stored.draws, computed.draws))


def _accounts_for_all_draws(situation: Situation) -> bool:
    """Rule 11: whether no draw can be hidden; before the end, only a ledger proves that."""
    if situation.ledger is None:
        return situation.finished
    return may_lack_draws(situation.ledger.status) is None


def _display(status: Json, now: datetime, epsilon: str | None) -> Json:
    """The printer columns."""
    workers, progress, gpu = status["workers"], status.get("progress"), status.get("gpu") or {}
    began, ended = status.get("startTime"), status.get("completionTime")
    eta = (progress or {}).get("estimatedCompletionTime")
    usage = gpu.get("utilizationPercent")
    used, total = gpu.get("memoryUsedBytes"), gpu.get("memoryTotalBytes")
    return DisplayStatus(
        reason=_reason(status),
        ready=None if ended else f"{workers['ready']}/{workers['desired']}",
        progress=f"{progress['percent']}%" if progress else None,
        epsilon=epsilon,
        gpu=f"{usage['mean']}%" if usage else None,
        memory=f"{used / _GIB:.0f}/{total / _GIB:.0f}Gi" if used is not None and total else None,
        eta=formatting.clock(datetime.fromisoformat(eta), now) if eta else None,
        duration=formatting.duration(datetime.fromisoformat(ended) - datetime.fromisoformat(began))
        if began and ended
        else None,
    ).to_dict()


def _reason(status: Json) -> str | None:
    """Why a job has ended; before, what it does or what keeps it from training."""
    found = terminal(status) or condition(status, ConditionType.RUNNING)
    return found["reason"] if found is not None else None


def _epsilon_column(status: Json, observed: Observed, situation: Situation) -> str | None:
    """Spent of promised, such as 2.31/8; both rounded up.

    A figure that may be too low is not shown, since the column has no room for the draws it is of:
    while that of all draws is computed a bound of it is, such as ≤2.4/8.
    """
    privacy: Json = status.get("privacy") or {}
    if not privacy:
        return None
    if situation.job.spec.privacy.mode is PrivacyMode.DISABLED:
        return str(PrivacyMode.DISABLED)
    promised = privacy.get("epsilonTarget")
    if promised is None and "epsilonGuaranteed" in privacy:
        promised = formatting.rounded_up(privacy["epsilonGuaranteed"], 2)
    shown = "?"
    if _accounts_for_all_draws(situation):
        shown = _spent(privacy, observed.spent_at_most)
    return f"{shown}/{promised}" if promised else shown


def _spent(privacy: Json, at_most: str | None) -> str:
    """Epsilon of all charged draws, or a bound of it; a question mark where there is neither."""
    spent, charged = privacy.get("epsilonSpent"), privacy.get("drawsCharged", 0)
    if privacy.get("epsilonDraws", 0) < charged:
        if at_most is None:
            return "?"
        greater = max(at_most, spent or "0", key=lambda each: formatting.decimal(each) or 0)
        return f"≤{formatting.rounded_up(greater, 2)}"
    return formatting.rounded_up(spent, 2) if spent is not None else "0"
