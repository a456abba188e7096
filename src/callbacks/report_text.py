"""Formats reviews and the figures of classes as Markdown in which nothing of a text or a name is interpreted."""

import math
import re
from collections.abc import Sequence

from src.models.tasks.task import ClassFigures

_MOST_CHARACTERS = 400
_MOST_CLASSES = 100

# ASCII punctuation with a meaning in Markdown or HTML, which it loses as a character reference
_SPECIAL = re.compile(r"[!\"#&()*+./:<=>@\[\\\]^_`{|}~-]")

_LINE_BREAK = re.compile(r"<br\s*/?>")


def review_list(
    rows: Sequence[int],
    labels: Sequence[str],
    predictions: Sequence[str],
    probabilities: Sequence[float],
    texts: Sequence[str],
) -> str:
    """Lists reviews, each below its row number in the source, its label, the predicted label and its probability.

    It is not a table, because TensorBoard makes the columns beside a long text so narrow that words are broken.

    Texts and label names are not trusted. TensorBoard turns Markdown into HTML, so a review could otherwise put a link
    or a picture from anywhere on the page. TensorBoard strips scripts, but other readers of event files may not.
    """
    entries = [
        f"**row {row}**: label **{escape(label)}**, predicted **{escape(prediction)}** with {probability:.4f}\n\n"
        f"> {escape(shorten(text))}"
        for row, label, prediction, probability, text in zip(
            rows, labels, predictions, probabilities, texts, strict=True
        )
    ]
    return "\n\n".join(entries) or "None."


def class_list(names: Sequence[str]) -> str:
    """Lists the classes, each after its number. Names are not trusted: see `review_list`."""
    return "\n\n".join(f"**{i}**: {escape(name)}" for i, name in enumerate(names))


def class_table(classes: ClassFigures) -> str:
    """Precision, recall and F1 of each class, and its rows; of many classes, of those with the lowest F1."""
    names = list(classes)
    if len(names) > _MOST_CLASSES:
        known = [name for name in names if not math.isnan(classes[name]["f1"])]
        names = sorted(known, key=lambda name: classes[name]["f1"])[:_MOST_CLASSES]
    lines = ["| class | precision | recall | F1 | rows |", "|---|---|---|---|---|"]
    for name in names:
        figures = classes[name]
        shares = (figures[key] for key in ("precision", "recall", "f1"))
        cells = ("–" if math.isnan(share) else f"{share:.4f}" for share in shares)
        lines.append(f"| {escape(name)} | {' | '.join(cells)} | {figures['support']:,} |")
    return "\n".join(lines)


def shorten(text: str) -> str:
    """The first 400 characters of a text on one line; IMDb's HTML line breaks become spaces."""
    line = " ".join(_LINE_BREAK.sub(" ", text).split())
    return line if len(line) <= _MOST_CHARACTERS else line[: _MOST_CHARACTERS - 1].rstrip() + "…"


def escape(text: str) -> str:
    """`text` with all Markdown and HTML punctuation as character references, on one line.

    Backslashes would not do, since Markdown accepts them before some characters only. Control and formatting
    characters are removed: they are invisible and can reverse the direction of a line.
    """
    seen = "".join(character for character in text if character.isprintable() or character.isspace())
    return _SPECIAL.sub(lambda match: f"&#{ord(match[0])};", " ".join(seen.split()))
