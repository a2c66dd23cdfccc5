"""Which slot of a draw becomes padding."""

from __future__ import annotations

import torch

from dtjob_trainer.mechanism.watch.exchange import chosen_micro_batch, chosen_row

KEY = bytes(range(32))


def test_each_micro_batch_and_each_record_comes_in_its_turn() -> None:
    """Of 1,000 draws none of 4 fails to come but with probability 1e-124; the key is fixed."""
    assert {chosen_micro_batch(KEY, draw, 4) for draw in range(1000)} == {0, 1, 2, 3}
    mask = torch.tensor([False, True, False, True, True])
    assert {chosen_row(KEY, draw, mask) for draw in range(1000)} == {1, 3, 4}


def test_without_a_record_it_is_any_row() -> None:
    rows = {chosen_row(KEY, draw, torch.zeros(3, dtype=torch.bool)) for draw in range(1000)}
    assert rows == {0, 1, 2}
