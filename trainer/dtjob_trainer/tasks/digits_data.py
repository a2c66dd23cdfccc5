"""scikit-learn's 1,797 handwritten digits, split once and for all.

`digits_train.txt` holds the 1,437 private ids, one per line: the first of
`torch.randperm(1797)` under a generator seeded 0. The other 360 are the public test data. The
set is ordered by writer, so a split without shuffling tests on other writers than it trains on.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Pixels = npt.NDArray[np.float32]
    Labels = npt.NDArray[np.int64]

IMAGES, TRAIN, CLASSES, SIDE = 1797, 1437, 10, 8
_LEVELS = 16


class Digits:
    """Images float32[n, 8, 8] in 0 .. 1 with labels int64[n], as a map-style data set."""

    def __init__(self, pixels: Pixels, labels: Labels) -> None:
        self.pixels = pixels
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        return {"pixels": self.pixels[index], "label": self.labels[index]}


def train_ids() -> list[int]:
    """Return the ids of the private images, in the order of the split."""
    text = resources.files(__package__).joinpath("digits_train.txt").read_text(encoding="ascii")
    return [int(line) for line in text.split()]


def split() -> tuple[Digits, Digits]:
    """Return (private training images, public test images)."""
    import numpy as np
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = (bunch.images / _LEVELS).astype(np.float32)
    labels = bunch.target.astype(np.int64)
    train = np.asarray(train_ids())
    test = np.setdiff1d(np.arange(IMAGES), train)
    return Digits(pixels[train], labels[train]), Digits(pixels[test], labels[test])
