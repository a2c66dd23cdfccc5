"""All families of the zoo."""

from __future__ import annotations

from tests.support.zoo import (
    adapters,
    attention,
    convolutions,
    hugging_face,
    misused,
    noisy,
    plain,
    recurrent,
    refused,
    rows_that_meet,
    vision,
)
from tests.support.zoo.entry import Entry

ZOO: tuple[Entry, ...] = (
    *plain.ENTRIES,
    *convolutions.ENTRIES,
    *recurrent.ENTRIES,
    *attention.ENTRIES,
    *noisy.ENTRIES,
    *hugging_face.ENTRIES,
    *vision.ENTRIES,
    *adapters.ENTRIES,
    *rows_that_meet.ENTRIES,
    *refused.ENTRIES,
    *misused.ENTRIES,
)
ACCEPTED = tuple(entry for entry in ZOO if not entry.refused)
REFUSED = tuple(entry for entry in ZOO if entry.refused)
