"""Reviews as Markdown that shows them as they are, whatever they hold."""

import re
from collections.abc import Sequence

_MOST_CHARACTERS = 400

# ASCII punctuation with a meaning in Markdown or HTML; as character references it has none
_SPECIAL = re.compile(r"[!\"#&()*+./:<=>@\[\\\]^_`{|}~-]")

_LINE_BREAK = re.compile(r"<br\s*/?>")


def review_list(
    rows: Sequence[int],
    labels: Sequence[str],
    predictions: Sequence[str],
    probabilities: Sequence[float],
    texts: Sequence[str],
) -> str:
    """Each review below a line with its row number in the source, its class, the predicted one and its probability.

    Not a table: TensorBoard makes the columns beside a long text so narrow that it breaks words in them.

    Texts and names of classes are not trusted: TensorBoard turns Markdown into HTML, so a review could otherwise
    put a link or a picture from anywhere on the page. (It strips scripts itself; other readers may not.)
    """
    entries = [
        f"**row {row}**: label **{escape(label)}**, predicted **{escape(prediction)}** with {probability:.4f}\n\n"
        f"> {escape(shorten(text))}"
        for row, label, prediction, probability, text in zip(
            rows, labels, predictions, probabilities, texts, strict=True
        )
    ]
    return "\n\n".join(entries) or "None."


def shorten(text: str) -> str:
    """The start of a text, in one line of a few hundred characters; IMDb's line breaks are HTML's."""
    line = " ".join(_LINE_BREAK.sub(" ", text).split())
    return line if len(line) <= _MOST_CHARACTERS else line[: _MOST_CHARACTERS - 1].rstrip() + "…"


def escape(text: str) -> str:
    """`text` with everything that Markdown or HTML could understand written as character references.

    Backslashes would not do: Markdown takes them before some characters only. Control and formatting characters,
    which cannot be seen and can reverse the direction of a line, are left out.
    """
    seen = "".join(character for character in text if character.isprintable() or character.isspace())
    return _SPECIAL.sub(lambda match: f"&#{ord(match[0])};", " ".join(seen.split()))
