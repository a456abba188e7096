"""Next-sentence prediction: a chunk as two segments, the second of which may come from another review."""

import numpy as np

from src.data.corpus.chunks import Tokens

FOLLOWS, ELSEWHERE = 0, 1
"""Labels as in `BertForPreTraining`: 0 if segment B follows segment A, 1 if it comes from another review."""

Chunk = tuple[Tokens, list[int]]
"""Token ids, and the numbers of tokens after which a sentence ends."""


def draw_pair(rng: np.random.Generator, chunk: Chunk, other: Chunk, label: int, room: int) -> tuple[Tokens, Tokens]:
    """Splits a chunk at the end of a sentence. With ELSEWHERE, the second segment is the end of `other` instead.

    That end starts at a sentence, where its length is nearest to that of the replaced segment. So segments of both
    labels are whole sentences up to the end of a chunk and have similar lengths, and neither gives the label away.

    Both are then cut to `room` tokens as in BERT: the longer one first, at its start or its end (Devlin et al. 2019,
    appendix A.2, and `truncate_seq_pair` of its code).

    Args:
        rng: draws where to split and where to cut.
        label: FOLLOWS or ELSEWHERE.
        room: tokens for the two segments together.
    """
    ids, ends = chunk
    middle = ends[int(rng.integers(len(ends) - 1))]  # not after the last sentence
    first, second = ids[:middle], ids[middle:]
    if label == ELSEWHERE:
        other_ids, other_ends = other
        start = min(other_ends[:-1], key=lambda end: abs(len(other_ids) - end - len(second)))
        second = other_ids[start:]
    excess = len(first) + len(second) - room
    if excess <= 0:
        return first, second
    # the longer one is cut to the length of the other, then both alike
    surplus = min(excess, abs(len(first) - len(second)))
    shares = [(excess - surplus) // 2, (excess - surplus + 1) // 2]
    shares[0 if len(first) > len(second) else 1] += surplus
    return _shorten(rng, first, shares[0]), _shorten(rng, second, shares[1])


def _shorten(rng: np.random.Generator, segment: Tokens, n: int) -> Tokens:
    """Without `n` tokens, each of which is taken from the start or the end."""
    front = int(rng.binomial(n, 0.5))
    return segment[front : len(segment) - (n - front)]
