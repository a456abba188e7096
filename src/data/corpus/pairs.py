"""Next-sentence prediction: a chunk as two segments that follow each other, or with the second of another review."""

from dataclasses import dataclass

import numpy as np

FOLLOWS, ELSEWHERE = 0, 1
"""Labels as in `BertForPreTraining`: 0, segment B follows A; 1, it is of another review."""


@dataclass(frozen=True)
class Pair:
    """Two segments of token ids, and whether the second follows the first."""

    first: list[int]
    second: list[int]
    label: int


def draw_pair(
    rng: np.random.Generator,
    chunk: tuple[list[int], list[int]],
    other: tuple[list[int], list[int]],
    label: int,
    room: int,
) -> Pair:
    """Parts a chunk where a sentence ends; where `label` says so, the second part is the end of another chunk.

    That begins where a sentence does, and where its length comes nearest to that of the chunk's own second part: so
    both kinds are whole sentences up to a chunk's end, of like lengths, and neither length nor place tells them apart.
    Both segments are cut to `room` tokens as in BERT: from the longer one, from its front or its back (Devlin et al.
    2019, appendix A.2, and `truncate_seq_pair` of its code).

    Args:
        rng: draws the parting and the cuts.
        chunk, other: token ids, and the numbers of tokens after which a sentence ends.
        label: FOLLOWS or ELSEWHERE.
        room: tokens that the two segments may have together.
    """
    ids, ends = chunk
    middle = ends[int(rng.integers(len(ends) - 1))]  # not after the last one
    first, second = ids[:middle], ids[middle:]
    if label == ELSEWHERE:
        other_ids, other_ends = other
        start = min(other_ends[:-1], key=lambda end: abs(len(other_ids) - end - len(second)))
        second = other_ids[start:]
    return Pair(*_cut(rng, first, second, room), label)


def _cut(rng: np.random.Generator, first: list[int], second: list[int], room: int) -> tuple[list[int], list[int]]:
    excess = len(first) + len(second) - room
    if excess <= 0:
        return first, second
    # as many as to make them equal come from the longer one, the rest from both in turn
    surplus = min(excess, abs(len(first) - len(second)))
    shares = [(excess - surplus) // 2, (excess - surplus + 1) // 2]
    shares[0 if len(first) > len(second) else 1] += surplus
    return _shorten(rng, first, shares[0]), _shorten(rng, second, shares[1])


def _shorten(rng: np.random.Generator, segment: list[int], n: int) -> list[int]:
    front = int(rng.binomial(n, 0.5))
    return segment[front : len(segment) - (n - front)]
