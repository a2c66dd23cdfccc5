"""The only file-system writes of the trainer that a crash must not tear.

Everything here keeps two promises that POSIX gives only to those who ask: a file's content is
on the disk before its name is (`fsync` of the file, then `rename` or `link`), and the name
is there before the function returns (`fsync` of the folder). Ledger, journal and checkpoints
use nothing else, so a test that stops at each call made through `os` here has stopped at
every point where a crash could leave them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"
_BLOCK_BYTES = 1 << 20
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
#: What a volume answers as often as it is asked: it is mounted read-only, another user's, no
#: folder, or has no hard links.
UNUSABLE = frozenset(
    {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EOPNOTSUPP, errno.ENOSYS}
)


class VolumeFull(OSError):
    """A write did not fit; what was there before is untouched.

    Parameters
    ----------
    path
        The file that was to be written.
    needed, free
        Bytes: the size of that file as far as it is known, and what its volume has free.
    why
        The operating system's own word, or what was being checked.
    """

    def __init__(self, path: Path, needed: int, free: int, why: str) -> None:
        super().__init__(
            errno.ENOSPC,
            f"no room on the volume of {path.parent}: {path.name} needs {needed} bytes, "
            f"{free} are free ({why}). The checkpoint and the ledger written before it are "
            "intact; enlarge the volume or free space on it, and the job can go on",
        )
        self.path, self.needed, self.free = path, needed, free


class VolumeUnusable(OSError):
    """A volume does not let this process read or write; what was there before is untouched.

    Parameters
    ----------
    path
        The file or folder that was asked for.
    number
        One of `UNUSABLE`, ENOENT where what was there before is gone, or any by which a volume
        does not say what is there, as EIO.
    """

    def __init__(self, path: Path, number: int) -> None:
        self.why = os.strerror(number)
        message = (
            f"the volume of {path} can't be used by user {os.getuid()}: {self.why}. The "
            "checkpoint and the ledger written before it are intact; mount it writable, with hard "
            "links, and let that user read and write all of it, and the job can go on"
        )
        if number == errno.ENOENT:
            message = (
                f"{path}: {self.why}. {missing(path)} was there before: mount it again, or put "
                "it back from a copy, and the job can go on. Without it the next attempt goes on "
                "only if neither the newest lease's journal nor the checkpoint was in it, and says "
                "so if not, before it leases any draw"
            )
        super().__init__(number, message, str(path))


class NoFile(Exception):
    """Where a file should be is something else, as a queue, on which a read may wait for ever."""


def why(error: OSError) -> str:
    """The system's own word for an error, also where `VolumeUnusable` says more around it."""
    return error.why if isinstance(error, VolumeUnusable) else str(error.strerror)


def missing(path: Path) -> Path:
    """What has to come back: the uppermost of `path` and its folders that is not there."""
    while not os.path.exists(path.parent):
        path = path.parent
    return path


class Writer:
    """A binary file being written, as `torch.save` needs one.

    Attributes
    ----------
    written
        Bytes so far.
    """

    def __init__(self, descriptor: int, path: Path, expected: int) -> None:
        self._descriptor, self._path, self._expected = descriptor, path, expected
        self.written = 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Write all of `data`; raises as `new_file`."""
        view = memoryview(data).cast("B")
        with refusals_named(self._path, max(self._expected, self.written + len(view))):
            rest = view
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        self.written += len(view)
        return len(view)

    def flush(self) -> None:
        """Nothing is buffered here; file-like objects have this method."""


@contextlib.contextmanager
def new_file(path: Path, *, replace: bool, expected: int = 0) -> Iterator[Writer]:
    """Write `path` so that it appears whole, or not at all.

    Parameters
    ----------
    path
        Its folder must exist.
    replace
        True: `rename` over what is there. False: `link`, which fails where the name exists,
        also between processes and on network file systems.
    expected
        Size in bytes if known, for the message when the volume is full.

    Raises
    ------
    FileExistsError
        `replace` is False and the name is taken.
    VolumeFull, VolumeUnusable
        Nothing was published; the temporary file is gone.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
    with still_there(path), refusals_named(path, expected):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        try:
            writer = Writer(descriptor, path, expected)
            yield writer
            with refusals_named(path, max(expected, writer.written)):
                os.fsync(descriptor)
            written = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        with still_there(path), refusals_named(path, max(expected, writer.written)):
            if replace:
                _rename(temporary, path, written)
            else:
                _link(temporary, path)
    except Exception:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if not replace:
        with refusals_named(temporary):
            os.unlink(temporary)
    sync_folder(path.parent)


def write_in_vain(path: Path, size: int) -> None:
    """Write `size` bytes to `path` and remove it: the volume takes them, or says why not.

    Parameters
    ----------
    path
        Nobody else's; what is there goes.

    Raises
    ------
    VolumeFull, VolumeUnusable
    """
    block = os.urandom(min(size, _BLOCK_BYTES))  # zeros may be compressed to nothing
    with new_file(path, replace=True, expected=size) as writer:
        while left := size - writer.written:
            writer.write(block[:left])
    with contextlib.suppress(OSError):
        remove(path)


def _rename(temporary: Path, path: Path, written: os.stat_result) -> None:
    """Rename, and believe the files rather than the answer, as `_link` does."""
    try:
        os.rename(temporary, path)
    except FileNotFoundError:
        if not path.exists() or not os.path.samestat(written, path.stat()):
            raise


def _link(temporary: Path, path: Path) -> None:
    """Link, and believe the files rather than the answer: NFS may repeat a lost one (link(2))."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        if not os.path.samefile(temporary, path):
            raise


def create(path: Path, data: bytes) -> None:
    """Publish `data` under a name that must be free; see `new_file`."""
    with new_file(path, replace=False, expected=len(data)) as file:
        file.write(data)


def append(path: Path, data: bytes) -> None:
    """Add `data` to an existing file; it is on the disk when this returns.

    A crash may leave any prefix of `data` at the end of the file, so readers need a mark of
    completeness at the end of each record.
    """
    with still_there(path), refusals_named(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        Writer(descriptor, path, os.fstat(descriptor).st_size + len(data)).write(data)
        with refusals_named(path, len(data)):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make `path` and its missing parents; their names are on the disk when this returns."""
    with refusals_named(path):
        if not path.parent.is_dir():
            make_folder(path.parent)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o755)
    sync_folder(path.parent)  # also when it existed: who made it may have died before this line


def sync_folder(path: Path) -> None:
    """Put the folder's names on the disk."""
    with refusals_named(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file that nothing points to any more; its absence is no error."""
    with contextlib.suppress(FileNotFoundError), refusals_named(path):
        os.unlink(path)


def free_bytes(folder: Path) -> int:
    """Bytes that an unprivileged process may still write on the volume of `folder`."""
    figures = os.statvfs(folder)
    return figures.f_bavail * figures.f_frsize


def is_absent(path: Path) -> bool:
    """Whether nothing has that name, and no folder above it leads nowhere.

    The only question after which something may be taken for not being there: `Path.exists` and
    the like also say no of what can't be looked at, and of a link to what is not mounted.

    Raises
    ------
    VolumeUnusable
        That can't be determined.
    """
    try:
        os.lstat(path)
    except FileNotFoundError:
        if path.parent == path or is_absent(path.parent):
            return True
        with known(path.parent):
            os.stat(path.parent)
        return True
    except OSError as error:
        raise _unknown(path, error) from error
    return False


def entries(folder: Path) -> list[Path]:
    """What lies in a folder that is not `is_absent`, in any order.

    Raises
    ------
    VolumeUnusable
    """
    with known(folder):
        return list(folder.iterdir())


def open_file(path: Path) -> BufferedReader:
    """Open a file for reading that is not `is_absent`.

    Raises
    ------
    NoFile, VolumeUnusable
    """
    with known(path):
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise NoFile(f"{path}: it is no regular file")
        return path.open("rb")


def size(path: Path) -> int:
    """Bytes of a file that is not `is_absent`.

    Raises
    ------
    VolumeUnusable
    """
    with known(path):
        return os.stat(path).st_size


def read(path: Path) -> bytes:
    """Read a file that is not `is_absent`.

    Raises
    ------
    NoFile, VolumeUnusable
    """
    with open_file(path) as file, known(path):
        return file.read()


@contextlib.contextmanager
def known(path: Path) -> Iterator[None]:
    """Refuse whatever keeps what is there from being known; that it is gone, too."""
    try:
        yield
    except OSError as error:
        raise _unknown(path, error) from error


def _unknown(path: Path, error: OSError) -> VolumeUnusable:
    return VolumeUnusable(path, error.errno or errno.EIO)


@contextlib.contextmanager
def still_there(path: Path) -> Iterator[None]:
    """Distinguish dtjob's own missing folder or file from one that a task asks for in vain.

    Only for a path that was seen there or is known to have been: what is missing is refused.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise VolumeUnusable(path, errno.ENOENT) from error


@contextlib.contextmanager
def refusals_named(path: Path, needed: int = 0) -> Iterator[None]:
    """Say of a volume that has no room, or lets nobody in, which it is and what to do."""
    try:
        yield
    except (VolumeFull, VolumeUnusable):
        raise
    except OSError as error:
        if error.errno in _NO_ROOM:
            why = os.strerror(error.errno)
            raise VolumeFull(path, needed, free_bytes(path.parent), why) from error
        if error.errno in UNUSABLE:
            raise VolumeUnusable(path, error.errno) from error
        raise
