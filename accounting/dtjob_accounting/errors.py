"""The one error of this package that a user of dtjob sees."""

from __future__ import annotations


class PlanError(ValueError):
    """A privacy plan that can't be made.

    Attributes
    ----------
    field
        Path of the field in the job's manifest, such as `spec.privacy.epsilon`.
    value
        What stands there.
    remedy
        What is wrong with it and what to do about it.
    """

    def __init__(self, field: str, value: object, remedy: str) -> None:
        self.field = field
        self.value = value
        self.remedy = remedy
        super().__init__(field, value, remedy)  # all three: errors cross process borders pickled

    def __str__(self) -> str:
        return f"{self.field}: Invalid value: {self.value}: {self.remedy}"
