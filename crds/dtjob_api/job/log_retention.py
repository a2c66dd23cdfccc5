"""`spec.logs`: how much of what the ranks print outlives their pods."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dtjob_api.model import Model, rule, rules

MIB = 1 << 20


class Logs(Model):
    """Logs of the ranks that are kept beside the checkpoints."""

    max_mib: Annotated[
        int,
        Field(
            alias="maxMiB",
            json_schema_extra=rules(
                rule(
                    "self >= 1 && self <= 1024", "must be between 1 and 1024 MiB for the whole job"
                )
            ),
        ),
    ] = 20
    """MiB that all ranks of all attempts take together. The oldest attempts make room."""

    @property
    def max_bytes(self) -> int:
        """The same in bytes."""
        return self.max_mib * MIB
