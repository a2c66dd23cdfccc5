"""What lies on the volume of a local run, or why that is not known and what to put right."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from dtjob_api.ledger.privacy_ledger import PrivacyLedger, VolumeRecord
from dtjob_api.reasons import Reason
from dtjob_cli.errors import CommandError, ExitCode, then
from dtjob_cli.runs.run_directory import RunDirectory
from dtjob_trainer.ledger import durable, recovery
from dtjob_trainer.ledger.checkpoint import CheckpointStore
from dtjob_trainer.ledger.journal import JournalUnreadable, NoSuchNumber
from dtjob_trainer.ledger.recovery import VolumeState
from dtjob_trainer.ledger.volume import read_volume

_UNKNOWN = (
    "It is not known whether more was spent than the ledger knows of, so no epsilon can be stated."
)


def state(run: RunDirectory, ledger: PrivacyLedger, again: str) -> VolumeState:
    """Return what lies on the volume of `run`; all of it is the run's own.

    Parameters
    ----------
    ledger
        Of the run, in any version.
    again
        The command by which a user goes on once it is put right.

    Raises
    ------
    CommandError
        If it can't be read, or is another job's.
    """
    with _unreadable_explained(run, again):
        volume = read_volume(_store(run, ledger))
    for wrong in recovery.foreign(ledger, volume):
        raise CommandError(
            ExitCode.REFUSED,
            Reason.CHECKPOINT_LOST,
            f"{wrong}. {_UNKNOWN}",
            f"Put this run's own files back into {run.state}/, and take the other job's out, "
            f"{then(again)}",
        )
    return volume


def check_known(run: RunDirectory, ledger: PrivacyLedger, volume: VolumeState, again: str) -> None:
    """Refuse a volume with a folder of an attempt that the ledger does not know (rule 11).

    Parameters
    ----------
    ledger
        Read after the volume: an attempt that begins is in it before it has a folder.

    Raises
    ------
    CommandError
        Where a start would be refused as `PrivacyStateLost` for it.
    """
    for wrong in recovery.ahead(ledger, volume):
        raise CommandError(
            ExitCode.REFUSED,
            Reason.PRIVACY_STATE_LOST,
            f"{wrong}. {_UNKNOWN}",
            f"Put the ledger's newest version back into {run.ledger}/, or, where that folder is "
            f"not this run's, take it away or give it its name back, {then(again)}",
        )


def check_complete(
    run: RunDirectory, ledger: PrivacyLedger, volume: VolumeState, again: str
) -> None:
    """Refuse a volume that lacks what the ledger has leased (rule 11).

    Parameters
    ----------
    ledger
        Read before the volume: a lease is in it before the journal has it.

    Raises
    ------
    CommandError
        Where a start would be refused as `CheckpointLost` for it.
    """
    for wrong in recovery.volume_behind(ledger, volume):
        raise CommandError(
            ExitCode.REFUSED,
            Reason.CHECKPOINT_LOST,
            f"{wrong}. {_UNKNOWN}",
            f"Put {run.state}/ back where it was, or from a copy, {then(again)}\nWithout a copy "
            "the model is lost, and only the ledger is left of this run, true only if no newer "
            "version of it was ever written: dtjob report - < "
            f"{shlex.quote(str(max(run.versions)))}",
        )


def vouched(
    run: RunDirectory, ledger: PrivacyLedger, volume: VolumeState, again: str
) -> VolumeRecord | None:
    """Return what the volume proves to have been spent; None for an empty one.

    Raises
    ------
    As `state`.
    """
    with _unreadable_explained(run, again):
        return recovery.vouched(volume, _store(run, ledger).newest_whole())


def _store(run: RunDirectory, ledger: PrivacyLedger) -> CheckpointStore:
    return CheckpointStore(run.state, ledger.spec.job_uid, ledger.spec.plan, keep=1)


@contextmanager
def _unreadable_explained(run: RunDirectory, again: str) -> Iterator[None]:
    try:
        yield
    except NoSuchNumber as error:
        raise CommandError(
            ExitCode.REFUSED,
            "JournalUnreadable",
            f"{error}. {_UNKNOWN}",
            f"Take {error.path} away, or, where somebody has renamed it, give it its name back, "
            f"{then(again)}",
        ) from None
    except JournalUnreadable as error:
        raise CommandError(
            ExitCode.REFUSED,
            "JournalUnreadable",
            f"{error}. {_UNKNOWN}",
            f"Put {error.path} back from a copy, {then(again)}\nWithout a copy count this run as "
            "spent in full. So does a start that finds it so, where the ledger knows no lease of "
            "that attempt.",
        ) from None
    except OSError as error:
        raise CommandError(
            ExitCode.REFUSED,
            Reason.STORAGE_UNUSABLE,
            f"{error.filename or run.state}: {durable.why(error)}. {_UNKNOWN}",
            f"Make all of {run.state}/ readable for user {os.getuid()}, or put it back from a "
            f"copy, {then(again)}",
        ) from None
