"""Which words of a text speak for its label, and which against it.

What is explained is a score, a sum of logits (`Task.contrast`): of the best label against the second, or of the
likeliest of several labels. The weight of a word is its part in that score, in units of the logits.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import torch

from src.data.tokenization import Encoder
from src.inference.classifier import probabilities
from src.models.tasks.task import Task

# Chinese and Japanese have no spaces: a character is a word. What else is long is cut, as a text of Thai.
_WITHOUT_SPACES = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_WITHOUT_SPACES}]|[^\s{_WITHOUT_SPACES}]{{1,40}}")


@dataclass(frozen=True)
class Words:
    """A text, its words, and where the model reads them.

    Attributes:
        text: not empty.
        spans: start and end of each word.
        windows: token ids of each window that the model reads.
        word_of: of each token of each window, the number of its word; -1 for a special token.
    """

    text: str
    spans: list[tuple[int, int]]
    windows: list[list[int]]
    word_of: list[list[int]]

    @classmethod
    def of(cls, text: str, encoder: Encoder) -> "Words":
        """The words of a text."""
        spans = [found.span() for found in _WORD.finditer(text)] or [(0, len(text))]
        ends = [end for _, end in spans]
        word_of = [
            [-1 if place is None else min(bisect_right(ends, place[0]), len(ends) - 1) for place in window]
            for window in encoder.places(text)
        ]
        return cls(text, spans, encoder.encode([text])[0], word_of)

    def read(self, window: int) -> list[int]:
        """The numbers of the words of which a window has a token, in order."""
        return [word for word in dict.fromkeys(self.word_of[window]) if word >= 0]

    def groups(self, most: int) -> list[tuple[int, list[int]]]:
        """Neighbouring words with their window, as few together as make about `most` groups in all."""
        read = [self.read(k) for k in range(len(self.windows))]
        size = max(1, math.ceil(sum(map(len, read)) / most))
        return [(k, words[i : i + size]) for k, words in enumerate(read) for i in range(0, len(words), size)]

    def without(self, window: int, words: Sequence[int]) -> list[int]:
        """The tokens of a window but for those of some words."""
        tokens = zip(self.windows[window], self.word_of[window], strict=True)
        return [token for token, word in tokens if word not in words]


def weights_by_leaving_out(
    words: Words, groups: Sequence[tuple[int, list[int]]], logits: np.ndarray, task: Task
) -> np.ndarray:
    """How much the score falls without a word, of shape (words,); NaN for those that are not read.

    Args:
        groups: words that are left out together, which share the fall equally.
        logits: of the text's windows, then of those `without` each group; shape (windows + groups, labels).
    """
    n = len(words.windows)
    scores = logits @ task.contrast(torch.from_numpy(logits[:n].mean(axis=0))).numpy()
    weights = np.full(len(words.spans), np.nan)
    for (window, together), score in zip(groups, scores[n:], strict=True):
        fall = (scores[window] - score) / n
        weights[together] = np.nan_to_num(weights[together]) + fall / len(together)
    return weights


def explanation(words: Words, weights: np.ndarray, logits: np.ndarray, task: Task) -> dict[str, Any]:
    """What JSON says of a text: its prediction, its pieces with their weights, and its windows.

    Args:
        weights: of the words; NaN for those that the model does not read.
        logits: of the text's windows.
    """
    of_text = logits.mean(axis=0, dtype=np.float64)
    factors = task.contrast(torch.from_numpy(of_text)).tolist()
    starts = [0, *(start for start, _ in words.spans[1:]), len(words.text)]
    return {
        "text": words.text,
        **_prediction(of_text, task),
        "for": task.labels[factors.index(1)],
        "against": task.labels[factors.index(-1)] if -1 in factors else None,
        "pieces": [
            {"text": words.text[start:end], "weight": None if np.isnan(weight) else float(weight)}
            for (start, end), weight in zip(pairwise(starts), weights, strict=True)
        ],
        "windows": [{"text": _text_of(words, k), **_prediction(logits[k], task)} for k in range(len(words.windows))],
    }


def _prediction(logits: np.ndarray, task: Task) -> dict[str, Any]:
    row = probabilities(logits[None], task)[0].tolist()
    answer = dict(zip(task.answer_fields, task.answer(row), strict=True))
    return {**answer, "probabilities": dict(zip(task.labels, row, strict=True))}


def _text_of(words: Words, window: int) -> str:
    """What a window reads of the text, with … where it leaves something out."""
    runs = groupby(enumerate(words.read(window)), key=lambda pair: pair[1] - pair[0])
    parts = [[word for _, word in run] for _, run in runs]
    return " … ".join(words.text[words.spans[run[0]][0] : words.spans[run[-1]][1]] for run in parts)
