"""The ledger of a run on one machine: a folder of versions, published by `link(2)`.

Version n is the file `<n, ten digits>.json`, the whole PrivacyLedger. `link` fails where the
name exists, which is compare-and-swap without a lock that a stopped process could hold. Versions
are never pruned: a writer that slept through a thousand of them must still find its number taken.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from dtjob_api.ledger.ledger_rule import has_status
from dtjob_api.ledger.ledger_rules import breaches
from dtjob_api.ledger.privacy_ledger import LedgerSpec, LedgerStatus, PrivacyLedger
from dtjob_api.model import first_error
from dtjob_trainer.ledger import durable
from dtjob_trainer.ledger.backend import (
    AnswerLost,
    Conflict,
    LedgerMissing,
    LedgerRejected,
    LedgerUnreadable,
    Versioned,
)

_VERSION = re.compile(r"([0-9]{10})\.json")
_POLL_SECONDS = 0.1
_REMEDY = (
    "Nothing was changed. Put the file back from a copy of the volume; removing it would give "
    "draws that are already spent out again"
)


def is_version(name: str) -> bool:
    """Whether a file of that name is a version, and not one that was never published."""
    return _VERSION.fullmatch(name) is not None


class FileLedger:
    """A `Ledger` in a folder of a local file system.

    Parameters
    ----------
    path
        The folder; made by `create`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, ledger: PrivacyLedger) -> Versioned:
        """Publish the first version.

        Raises
        ------
        Conflict
            There is a ledger already: it is never reset.
        LedgerRejected, durable.VolumeFull, durable.VolumeUnusable
        """
        durable.make_folder(self.path)
        return self._publish(None, ledger, 1)

    def read(self) -> Versioned:
        """The newest version, checked against the one before it; see `Ledger.read`."""
        numbers = self._numbers()
        # A version's name may be visible before it is durable: its writer may have died
        # between the two, and what is decided on it must not outlive it.
        with self._readable():
            durable.sync_folder(self.path)
        if not numbers:
            raise LedgerMissing(
                f"there is no ledger in {self.path}. A run is never started without one; "
                "point to the folder of the run, or start a new run"
            )
        newest = numbers[-1]
        if missing := set(range(1, newest)).difference(numbers):
            gone = self._file(min(missing))
            raise LedgerUnreadable(f"ledger version {gone} is missing. {_REMEDY}")
        ledger = self._load(newest)
        previous = self._load(newest - 1) if newest > 1 else None
        if broken := breaches(previous, ledger):
            raise LedgerUnreadable(
                f"ledger version {self._file(newest)} contradicts what was written before it: "
                f"{'; '.join(broken)}. {_REMEDY}"
            )
        return Versioned(str(newest), ledger)

    def replace_status(self, versioned: Versioned, status: LedgerStatus) -> Versioned:
        """See `Ledger.replace_status`."""
        return self._replace(versioned, versioned.ledger.model_copy(update={"status": status}))

    def replace_spec(self, versioned: Versioned, spec: LedgerSpec) -> Versioned:
        """See `OperatorLedger.replace_spec`."""
        return self._replace(versioned, versioned.ledger.model_copy(update={"spec": spec}))

    def wait(self, version: str, timeout: float) -> Versioned | None:
        """See `Ledger.wait`; looks every 0.1 s.

        For the one file that comes next, since none is ever left out: listing the versions of a
        long run takes 40 ms.
        """
        deadline = time.monotonic() + timeout
        following = self._file(int(version) + 1)
        while True:
            with self._readable():
                is_absent = durable.is_absent(following)
            if not is_absent:
                return self.read()
            if (left := deadline - time.monotonic()) <= 0:
                with self._readable():
                    self.path.stat()
                return None
            time.sleep(min(_POLL_SECONDS, left))

    def _replace(self, versioned: Versioned, ledger: PrivacyLedger) -> Versioned:
        return self._publish(versioned.ledger, ledger, int(versioned.version) + 1)

    def _publish(self, old: PrivacyLedger | None, new: PrivacyLedger, number: int) -> Versioned:
        # model_copy does not validate: what is written is what a reader will accept.
        text = new.model_dump_json(by_alias=True, exclude_none=True)
        try:
            new = PrivacyLedger.from_json(text)
        except ValidationError as error:
            raise LedgerRejected(f"not a PrivacyLedger: {first_error(error)}") from error
        if broken := breaches(old, new):
            raise LedgerRejected("; ".join(broken))
        file = self._file(number)
        try:
            durable.create(file, text.encode() + b"\n")
        except FileExistsError as error:
            raise Conflict(f"{file} was written by somebody else") from error
        except durable.VolumeFull:
            raise
        except OSError as error:
            if self._may_be_there(file):  # linked by us, perhaps not durable; or by somebody else
                raise AnswerLost(f"{file}: {durable.why(error)}") from error
            raise LedgerRejected(
                f"{file} can't be written: {durable.why(error)}. Make the volume writable, then "
                "go on with --resume"
            ) from error
        return Versioned(str(number), new)

    def _load(self, number: int) -> PrivacyLedger:
        file = self._file(number)
        try:
            ledger = PrivacyLedger.from_json(durable.read(file))
        except ValidationError as error:
            raise LedgerUnreadable(
                f"ledger version {file} can't be read: {first_error(error)}. {_REMEDY}"
            ) from error
        except durable.NoFile as error:
            raise LedgerUnreadable(f"ledger version {error}. {_REMEDY}") from error
        except OSError as error:
            raise LedgerUnreadable(
                f"ledger version {file} can't be read: {durable.why(error)}. {_REMEDY}"
            ) from error
        if not has_status(ledger):
            # To the rules it is one that was just made anew, to which a backup may be given.
            raise LedgerUnreadable(f"ledger version {file} has no status. {_REMEDY}")
        return ledger

    def _numbers(self) -> list[int]:
        with self._readable():
            names = [entry.name for entry in self.path.iterdir()]
        return sorted(int(match.group(1)) for name in names if (match := _VERSION.fullmatch(name)))

    def _may_be_there(self, file: Path) -> bool:
        try:
            return not durable.is_absent(file)
        except OSError:
            return True

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise LedgerUnreadable(
                f"the ledger folder {self.path} can't be read: {durable.why(error)}. Point to the "
                "folder of the run, or make it readable"
            ) from error

    def _file(self, number: int) -> Path:
        return self.path / f"{number:010d}.json"
