"""The SHA-256 of a file while it is written: a checkpoint is not read back to be hashed."""

from __future__ import annotations

import hashlib

from dtjob_trainer.ledger import durable


class Hashing:
    """Hashes what passes through to a file.

    Attributes
    ----------
    failure
        The file's error: a caller that writes through this may hide it behind its own.
    """

    def __init__(self, file: durable.Writer) -> None:
        self._file, self._digest = file, hashlib.sha256()
        self.failure: BaseException | None = None

    def write(self, data: bytes) -> int:
        """Hash and write; return how many bytes the file took."""
        self._digest.update(data)
        try:
            return self._file.write(data)
        except BaseException as error:
            self.failure = error
            raise

    def flush(self) -> None:
        """Flush the file."""
        self._file.flush()

    def hexdigest(self) -> str:
        """Return the SHA-256 of all that was written."""
        return self._digest.hexdigest()
