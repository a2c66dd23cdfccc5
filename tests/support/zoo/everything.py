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
    *refused.ENTRIES,
    *misused.ENTRIES,
)
ACCEPTED = tuple(entry for entry in ZOO if not entry.refused)
REFUSED = tuple(entry for entry in ZOO if entry.refused)

#: What structure, splice and poison are to refuse.
NOT_YET = frozenset(
    {
        "asks_for_items",
        "bert_of_two_dimensions",
        "branch_on_values",
        "centred",
        "cut_to_longest",
        "depth_of_batch",
        "layer_drop",
        "llama_of_two_dimensions",
        "mixed_up",
        "mixed_up_at_times",
        "noise_of_all",
        "one_step_for_all",
        "only_some_rows",
        "over_the_batch",
        "own_generator",
        "packed",
        "through_numpy",
    }
)
