"""Who is there, and what all are to do: the state that the coordinator keeps for its gang.

Pure: the caller passes the time in. Every supervisor sends `Hello` in a loop (the
coordinator's too) and gets the current `Directive` back; there is no other traffic between
supervisors.
"""

from __future__ import annotations

from http import HTTPStatus

from dtjob_api.reasons import Reason
from dtjob_api.wire.exit_codes import WorkerExit
from dtjob_api.wire.gang import Action, Directive, End, EndKind, GpuReading, Hello
from dtjob_trainer.identity.proof import LEEWAY_SECONDS, HelloDenied, Speaker

#: Seconds between two hellos of a supervisor that has nothing new to say.
PING_SECONDS = 2.0
#: After this many missed hellos a supervisor is lost; after as many missed answers it kills its
#: ranks.
MISSED_PINGS = 3
#: Processes of one pod that are known to have been replaced.
_REMEMBERED = 1000


#: A gap between two reads counts as no more than this.
_LONGEST_SECONDS = 1.0


class AwakeClock:
    """Seconds that its reader itself has run for: the clock that measures silence.

    After a machine stood still its timers fire before the mail that waits is read: measured by
    the wall, everybody would have been silent. Whoever reads this clock at least twice a second
    counts such a gap as one second.
    """

    def __init__(self, now: float) -> None:
        self._last, self._awake = now, 0.0

    def read(self, now: float) -> float:
        """The seconds so far, at the caller's time `now`."""
        self._awake += min(now - self._last, _LONGEST_SECONDS)
        self._last = now
        return self._awake


class _Seat:
    """Who speaks for one position: the newest pod, and the newest of its supervisor's processes.

    A UID has no order, but tokens have: the API server makes none for a pod that it has not, and
    it has one pod of a name at a time. So each token of the old pod is older than any of the new
    one, also to a coordinator that has seen neither before. Where their times are so close that
    clocks might be wrong, who came later is the newer one, and whoever was replaced is denied
    from then on. A process names itself, and the oldest names are forgotten.
    """

    def __init__(self, speaker: Speaker, incarnation: str) -> None:
        self._pod, self._issued, self._incarnation = speaker.pod, speaker.issued, incarnation
        self._replaced_pods: set[str] = set()
        self._replaced: dict[str, None] = {}

    def take(self, speaker: Speaker, incarnation: str) -> str | None:
        """Take the seat from its holder; returns why not, if another is newer."""
        pod, later = speaker.pod, speaker.issued - self._issued
        if pod == self._pod:
            return self._take_as_process(speaker, incarnation)
        if later < -LEEWAY_SECONDS or (later <= LEEWAY_SECONDS and pod in self._replaced_pods):
            return f"pod {pod} was replaced by pod {self._pod}"
        self._replaced_pods.add(self._pod)
        self._replaced.clear()
        self._pod, self._issued, self._incarnation = pod, speaker.issued, incarnation
        return None

    def _take_as_process(self, speaker: Speaker, incarnation: str) -> str | None:
        if incarnation in self._replaced:
            return "its process was replaced by another"
        if incarnation != self._incarnation:
            self._replaced[self._incarnation] = None
            if len(self._replaced) > _REMEMBERED:
                del self._replaced[next(iter(self._replaced))]
        self._issued, self._incarnation = max(self._issued, speaker.issued), incarnation
        return None


class _Member:
    def __init__(self, hello: Hello, now: float) -> None:
        self.hello = hello
        self.last_seen = now


class Gang:
    """The members by position and the one directive for all."""

    def __init__(self) -> None:
        self.directive = Directive()
        self._members: dict[int, _Member] = {}
        self._seats: dict[int, _Seat] = {}

    def direct(
        self,
        action: Action,
        *,
        attempt: int = 0,
        workers: int = 0,
        exit_code: WorkerExit = WorkerExit.OK,
        store_key: str = "",
    ) -> None:
        """Replace the directive; supervisors learn of it with the answer they are waiting for."""
        self.directive = Directive(
            revision=self.directive.revision + 1,
            action=action,
            attempt=attempt,
            workers=workers,
            exit_code=exit_code,
            store_key=store_key,
        )

    def admit(self, hello: Hello, speaker: Speaker, workers: int) -> None:
        """Let a pod speak for a position below `workers`, or one that has spoken before.

        Raises
        ------
        HelloDenied
            There is no such worker, or another pod or process has taken its place.
        """
        position = hello.position
        if (seat := self._seats.get(position)) is not None:
            why = seat.take(speaker, hello.incarnation)
        elif not self.has_place(position, workers):
            why = f"the run has workers 0 to {workers - 1}"
        else:
            self._seats[position] = _Seat(speaker, hello.incarnation)
            why = None
        if why is not None:
            raise HelloDenied(HTTPStatus.FORBIDDEN, f"worker {position} is not admitted: {why}")

    def has_place(self, position: int, workers: int) -> bool:
        """Whether a position is below `workers`, or has spoken before."""
        return position in self._seats or 0 <= position < workers

    def hello(self, hello: Hello, now: float) -> None:
        """Note the hello of a supervisor; a new incarnation of one replaces the old."""
        self._members[hello.position] = _Member(hello, now)

    def absent(self, workers: int, now: float) -> list[int]:
        """Positions of `0..workers-1` that are not ready to start a new attempt."""
        return [
            position
            for position in range(workers)
            if (member := self._members.get(position)) is None
            or not member.hello.ready
            or member.hello.attempt != 0
            or now - member.last_seen > PING_SECONDS * MISSED_PINGS
        ]

    def ends(self, attempt: int, workers: int) -> list[End]:
        """Every end of `attempt` that its own workers reported, `0..workers-1`."""
        return [
            end
            for position, member in self._members.items()
            if position < workers and member.hello.attempt == attempt
            for end in member.hello.ends
        ]

    def lost(self, incarnations: dict[int, str], now: float) -> End | None:
        """The first member of a running attempt that is silent, or came back as another process."""
        for position, incarnation in sorted(incarnations.items()):
            member = self._members.get(position)
            if member is None or now - member.last_seen > PING_SECONDS * MISSED_PINGS:
                return _lost(f"worker {position} stopped answering")
            if member.hello.incarnation != incarnation:
                return _lost(f"worker {position} was restarted")
        return None

    def incarnations(self, workers: int) -> dict[int, str]:
        """The process identities of the members that an attempt starts with."""
        return {o: self._members[o].hello.incarnation for o in range(workers)}

    def running(self, attempt: int, workers: int) -> list[int]:
        """Positions of `0..workers-1` that still have processes of `attempt`."""
        return [
            position
            for position, member in self._members.items()
            if position < workers and member.hello.attempt == attempt
        ]

    def never_started(self, workers: int) -> list[int]:
        """Positions of `0..workers-1` that are about to leave and run nothing.

        One that is told to stop starts no more ranks, so nobody must wait for them.
        """
        return [
            position
            for position in range(workers)
            if (member := self._members.get(position)) is not None
            and member.hello.drain
            and member.hello.attempt == 0
        ]

    def wants_drain(self, workers: int) -> bool:
        """Whether any supervisor of `0..workers-1` was asked to stop (SIGTERM)."""
        return any(o < workers and member.hello.drain for o, member in self._members.items())

    def gpus(self) -> tuple[GpuReading, ...]:
        """GPU figures of all members, in order of position."""
        return tuple(gpu for _, m in sorted(self._members.items()) for gpu in m.hello.gpus)

    def present(self, now: float) -> set[int]:
        """Positions that sent a hello lately and are not about to leave."""
        lately = PING_SECONDS * MISSED_PINGS
        return {
            position
            for position, member in self._members.items()
            if now - member.last_seen <= lately and not member.hello.drain
        }


def _lost(message: str) -> End:
    return End(kind=EndKind.CRASHED, rank=None, reason=Reason.WORKER_LOST, message=message)
