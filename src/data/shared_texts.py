"""Texts that rows for training, validation and testing share: such rows say nothing about new texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from src.data.splits import USES, Subset

_ROWS_NAMED = 5


@dataclass(frozen=True)
class SharedTexts:
    """Rows of a subset whose texts are in an earlier subset too.

    Attributes:
        subset, earlier: "train", "val" or "test".
        count: of such rows.
        first: numbers in their split of the first of them.
    """

    subset: str
    earlier: str
    count: int
    first: Sequence[int]

    def __str__(self) -> str:
        named = ", ".join(f"{number:,}" for number in self.first) + (", …" if self.count > len(self.first) else "")
        return (
            f"{self.count:,} of the rows for {USES[self.subset]} are among those for {USES[self.earlier]} (row {named})"
        )


def shared_texts(subsets: Mapping[str, Subset], hashes: Mapping[str, np.ndarray]) -> list[SharedTexts]:
    """What validation shares with training, and testing with either; without those that share nothing.

    Args:
        subsets: "train", "val" and "test".
        hashes: of the texts of their rows, by `hash_texts`.
    """
    found = []
    for subset, earlier in (("val", "train"), ("test", "train"), ("test", "val")):
        rows = np.sort(subsets[subset].indices[np.isin(hashes[subset], hashes[earlier])])
        if len(rows):
            found.append(SharedTexts(subset, earlier, len(rows), rows[:_ROWS_NAMED].tolist()))
    return found
