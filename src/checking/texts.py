"""What can be wrong with the texts of a data set, whatever reads them: missing, repeated, or labelled in two ways."""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

SHINGLE = 3
"""Words of a shingle. A character of Chinese or Japanese, which put no space between words, counts as a word."""
NEAR = 0.8
"""Two texts are nearly the same if they share this part of the distinct shingles that either has (Jaccard)."""
# 16 bands of 4: of two texts that are as near as NEAR, all but 2 in 10,000 agree in a band
_BANDS, _ROWS_A_BAND = 16, 4
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|\w+")


@dataclass(frozen=True)
class Repeat:
    """A text that is, or nearly is, an earlier one.

    Attributes:
        text, earlier: their places.
    """

    text: int
    earlier: int


def repeated(hashes: np.ndarray) -> list[Repeat]:
    """The texts that are equal to an earlier one, given their hashes; `earlier` is the first of them."""
    _, first, of_text = np.unique(hashes, return_index=True, return_inverse=True)
    earlier = first[of_text]
    return [Repeat(int(i), int(earlier[i])) for i in np.flatnonzero(earlier != np.arange(len(hashes)))]


def nearly_repeated(texts: Sequence[str]) -> Iterator[Repeat | None]:
    """The texts that are nearly the same as an earlier one, by MinHash over shingles of words; then compared exactly.

    Yields None after each text that is only read, so that a caller can show progress. Texts that are equal should be
    left out: they are found faster by their hashes.

    Args:
        texts: without equal ones.
    """
    shingles = _Shingles(texts)
    signatures = np.zeros((len(texts), _BANDS * _ROWS_A_BAND), dtype=np.uint32)
    # multiply-shift hashing: the top 32 bits of an odd multiple plus an offset
    multiples, offsets = np.random.default_rng(0).integers(0, 2**64, (2, signatures.shape[1], 1), dtype=np.uint64)
    for i in range(len(texts)):
        if len(found := shingles.of(i)):
            signatures[i] = ((found * (multiples | np.uint64(1)) + offsets) >> np.uint64(32)).min(axis=1)
        yield None
    worded = np.flatnonzero(signatures.any(axis=1))
    earlier: dict[int, int] = {}
    for band in np.split(signatures[worded] * (multiples[:, 0] | np.uint64(1)), _BANDS, axis=1):
        key = band.sum(axis=1)  # texts that agree in it by chance are told apart below
        order = np.argsort(key, kind="stable")
        for bucket in np.split(worded[order], np.flatnonzero(np.diff(key[order])) + 1):
            # with the first alone: a text that many share, such as a form letter, makes buckets of thousands
            for i in bucket[1:].tolist():
                first = int(bucket[0])
                if earlier.get(i, i) > first and shingles.overlap(i, first) >= NEAR:
                    earlier[i] = first
    yield from (Repeat(text, earlier[text]) for text in sorted(earlier))


class _Shingles:
    """The shingles of texts, each as 64 bits. Words are numbered as they come, so that none depends on the process."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.numbers: dict[str, int] = {}
        self._kept = functools.lru_cache(maxsize=1000)(self.of)

    def of(self, i: int) -> np.ndarray:
        """Those of a text, distinct and sorted: uint64 of shape (shingles,)."""
        words = [self.numbers.setdefault(word, len(self.numbers) + 1) for word in _WORD.findall(self.texts[i].lower())]
        if not words:
            return np.empty(0, dtype=np.uint64)
        row = np.asarray(words + [0] * (SHINGLE - len(words)), dtype=np.uint64)
        mixed = np.zeros(len(row) - SHINGLE + 1, dtype=np.uint64)
        for k in range(SHINGLE):  # splitmix64's constants
            mixed = (mixed ^ row[k : k + len(mixed)]) * np.uint64(0xBF58476D1CE4E5B9)
            mixed ^= mixed >> np.uint64(31)
            mixed *= np.uint64(0x94D049BB133111EB)
            mixed ^= mixed >> np.uint64(29)
        return np.unique(mixed)

    def overlap(self, i: int, j: int) -> float:
        """The Jaccard similarity of two texts' shingles."""
        one, other = self._kept(i), self._kept(j)
        common = len(np.intersect1d(one, other, assume_unique=True))
        return common / (len(one) + len(other) - common)
