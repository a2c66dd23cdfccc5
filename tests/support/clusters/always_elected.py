"""The operator's process as if it led, whoever leads: what two at a time would do.

Executed in place of `dtjob_operator/__main__.py`, with its arguments.
"""

from __future__ import annotations

import sys

from dtjob_operator import __main__
from dtjob_operator.kube.election import Candidate


class Always(Candidate):
    """Elected whenever it asks."""

    def holds(self) -> bool:
        """For ever."""
        return True

    async def try_to_lead(self) -> bool:
        """Ask nobody."""
        return True

    async def renew(self) -> None:
        """Renew nothing."""

    async def release(self) -> None:
        """Give nothing back."""


if __name__ == "__main__":
    __main__.Candidate = Always  # type: ignore[attr-defined]
    sys.exit(__main__.main())
