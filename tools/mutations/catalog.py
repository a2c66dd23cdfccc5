"""The mutations that can be made by a program: `catalog.toml`, beside docs/design/mutations.md."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

CATALOG = Path(__file__).with_name("catalog.toml")


class NotApplicable(Exception):
    """A mutation can't be made: the code is no longer what it was written for."""


@dataclass(frozen=True)
class Mutation:
    """One change of the code that breaks a rule.

    Attributes
    ----------
    row
        The words of its row in docs/design/mutations.md; a row may have several mutations.
    file
        What is changed, from the root of the checkout.
    before, after
        The text, which the file has once, and what stands in its place.
    tests
        `path::name` of what must fail; a parametrised test fails with one of its cases.
    """

    row: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]

    def of(self, text: str) -> str:
        """Return the text of its file with the mutation made.

        Raises
        ------
        NotApplicable
            `before` is not in it, or is there more than once, or what results is no Python.
        """
        if (found := text.count(self.before)) != 1:
            raise NotApplicable(f"{self.file} has {found} times, not once: {self.before.strip()}")
        mutated = text.replace(self.before, self.after)
        if self.file.endswith(".py"):
            try:
                compile(mutated, self.file, "exec")
            except SyntaxError as error:
                raise NotApplicable(f"{self.file} would be no Python: {error}") from error
        return mutated


def read(path: Path = CATALOG) -> list[Mutation]:
    """Return all mutations in their order.

    Raises
    ------
    ValueError
        One of them has not exactly the fields that it needs, or changes nothing.
    """
    tables = tomllib.loads(path.read_text())["mutation"]
    return [_mutation(table) for table in tables]


def _mutation(table: dict[str, str | list[str]]) -> Mutation:
    wanted = {field.name for field in fields(Mutation)}
    if table.keys() != wanted:
        raise ValueError(f"a mutation has the fields {sorted(wanted)}, not {sorted(table)}")
    mutation = Mutation(**{**table, "tests": tuple(table["tests"])})  # type: ignore[arg-type]
    if mutation.before == mutation.after or not mutation.tests:
        raise ValueError(f"{mutation.row}: it changes nothing, or no test is to tell it")
    return mutation


def inapplicable(mutations: Sequence[Mutation], root: Path) -> list[str]:
    """Say which mutations can't be made in the checkout at `root`, and why."""
    why = []
    for mutation in mutations:
        try:
            mutation.of((root / mutation.file).read_text())
        except (NotApplicable, OSError) as error:
            why.append(f"{mutation.row}: {error}")
    return why
