"""`spec.storage`: the volumes of a job."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dtjob_api.model import Model, ObjectName, Quantity, rule, rules


class DataVolume(Model):
    """The private data, an existing claim, mounted read-only."""

    claim_name: ObjectName


class CheckpointVolume(Model):
    """The volume of checkpoints and privacy journal, one claim for each worker."""

    size: Annotated[
        Quantity,
        Field(
            json_schema_extra=rules(
                rule(
                    "type(self) == int ? self >= 1 : isQuantity(string(self)) "
                    "&& quantity(string(self)).isGreaterThan(quantity('0'))",
                    "must be a quantity greater than 0, such as 1Gi",
                )
            )
        ),
    ] = "1Gi"
    """Size of each claim; it may grow later."""

    storage_class_name: ObjectName | None = None
    """StorageClass of the claims; by default the cluster's default."""


class Storage(Model):
    """Where data comes from and checkpoints go."""

    data: DataVolume | None = None
    checkpoints: CheckpointVolume = CheckpointVolume()
