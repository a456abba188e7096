"""Looks at labelled texts before a training: what is in the rows, and what a linear probe already makes of them."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedModel

from src.checking.probe import FOLDS, doubted, out_of_sample, vectors_of
from src.checking.rows import MOST_ROWS, Rows, read_rows
from src.checking.texts import NEAR, SHINGLE, Repeat, nearly_repeated, repeated
from src.data.fingerprints import hash_texts
from src.data.imdb import ImdbDataModule
from src.data.tokenization import Encoder, token_ids
from src.models.kernels.last_layer import use_partial_last_layer
from src.models.metrics import wilson_interval
from src.models.origin import ClassifierOrigin
from src.models.reading_check import check_reading
from src.models.tasks.single_label import SingleLabel
from src.system.errors import UserError, one_line

# multiplications and additions that the probe may take: about a minute of 2 cores; a GPU does 50 times as many
_MOST_OPERATIONS = {"cpu": 2e13, "cuda": 1e15}
_LEAST_ROWS = 2 * FOLDS
_TEXTS_AT_ONCE = 200
_DOUBTED = 20
_NAMED = 5
_SHOWN = 100  # characters of a text

Part = tuple[dict[str, Any], list[str]]


def examine(data: ImdbDataModule, origin: ClassifierOrigin, device: torch.device) -> Iterator[Part]:
    """Part after part of the report: what goes into the file, and the lines that say it.

    Raises:
        UserError: the data set or the model cannot be read, or the model cannot be trained on these texts.
    """
    encoder = data.encoder
    names, subsets = read_rows(data)
    pretrained = origin.check_weights(encoder.tokenizer)
    assert pretrained is not None
    check_reading(pretrained, encoder, origin.name)
    yield _rows_part(data, names, subsets)
    yield _texts_part(subsets)
    yield _tokens_part(encoder, subsets)
    network, _ = origin.build(SingleLabel(names))
    network.eval().to(device)  # type: ignore[arg-type]
    use_partial_last_layer(network)
    yield _probe_part(encoder, network, names, subsets[0])


def _bar(total: int, what: str, unit: str) -> Any:
    terminal = sys.stderr.isatty()
    # in a log, a line every ten seconds is enough
    return tqdm(total=total, desc=what, unit=unit, leave=not terminal, mininterval=0.1 if terminal else 10)


# ---- rows and texts ----------------------------------------------------------------------------------------------


def _rows_part(data: ImdbDataModule, names: list[str], subsets: list[Rows]) -> Part:
    facts = {rows.use: rows.facts(names) for rows in subsets}
    lines = []
    for use, fact in facts.items():
        counts = [f"{one_line(name)} ({n:,})" for name, n in fact["labels"].items()]
        shown = ", ".join(counts[:20]) + (f" and {len(counts) - 20} more" if len(counts) > 20 else "")
        of = f"{fact['rows']:,} of {fact['rows_of_split']:,} of {fact['dataset']}, split {fact['split']!r}"
        lines.append(f"Rows for {use}: {of}: {shown}")
        for what, words in (("unknown_labels", "have no label of the training split"), ("empty_texts", "have no text")):
            if fact[what]["rows"]:
                lines.append(
                    f"  {fact[what]['rows']:,} rows {words}: {_listed(fact[what]['first'], fact[what]['rows'])}"
                )
    if longest := [rows for rows in subsets if len(rows.numbers) > MOST_ROWS]:
        lines.append(f"Of {', '.join(rows.use for rows in longest)} the texts of the first {MOST_ROWS:,} rows are read")
    counts_of_training = list(facts["training"]["labels"].values())
    balance = {"most_frequent_share": max(counts_of_training) / max(sum(counts_of_training), 1)}
    return {"dataset": data.source.dataset, "fingerprint": data.fingerprint, "rows": facts, **balance}, lines


def _texts_part(subsets: list[Rows]) -> Part:
    places = [(rows, i) for rows in subsets for i, text in enumerate(rows.texts) if text]  # training comes first
    texts = [rows.texts[i] for rows, i in places]
    hashes = hash_texts(texts)
    equal = repeated(hashes)
    again = {repeat.text for repeat in equal}
    distinct = [place for place in range(len(texts)) if place not in again]
    near = []
    with _bar(len(distinct), "Comparing texts", " texts") as bar:
        for found in nearly_repeated([texts[place] for place in distinct]):
            if found is None:
                bar.update()
            else:
                near.append(Repeat(distinct[found.text], distinct[found.earlier]))
    labels = np.asarray([rows.labels[i] for rows, i in places])
    differing = [each for each in equal if labels[each.text] != labels[each.earlier]]
    part: dict[str, list[dict[str, Any]]] = {}
    lines = []
    for key, words, repeats in (
        ("equal_texts", "Texts equal to an earlier one", equal),
        ("nearly_equal_texts", f"Texts that share {NEAR:.0%} of their {SHINGLE}-word sequences with another", near),
        ("equal_texts_with_other_labels", "Equal texts with different labels", differing),
    ):
        by_uses: dict[tuple[str, str], list[list[int]]] = {}
        for repeat in repeats:
            (rows, i), (earlier, j) = places[repeat.text], places[repeat.earlier]
            pair = [int(rows.numbers[i]), int(earlier.numbers[j])]
            by_uses.setdefault((rows.use, earlier.use), []).append(pair)
        part[key] = [
            {"rows_for": use, "among_rows_for": earlier_use, "rows": len(pairs), "first": sorted(pairs)[:_NAMED]}
            for (use, earlier_use), pairs in by_uses.items()
        ]
        lines.append(f"{words}: {len(repeats):,}" if repeats else f"{words}: none")
        for fact in part[key]:
            pairs = [f"{one} = {other}" for one, other in fact["first"]]
            of = f"{fact['rows_for']} in {fact['among_rows_for']}"
            lines.append(f"  {fact['rows']:,} of {of} (row = row): {_listed(pairs, fact['rows'])}")
    return part, lines


def _listed(first: list[Any], count: int) -> str:
    return ", ".join(map(str, first)) + (", …" if count > len(first) else "")


# ---- tokens ------------------------------------------------------------------------------------------------------


def _tokens_part(encoder: Encoder, subsets: list[Rows]) -> Part:
    room = encoder.max_length - sum(map(len, encoder.special_tokens()))
    facts, lines = {}, []
    with _bar(sum(len(rows.texts) for rows in subsets), "Counting tokens", " texts") as bar:
        for rows in subsets:
            lengths = []
            for i in range(0, len(rows.texts), _TEXTS_AT_ONCE):
                part = [text for text in rows.texts[i : i + _TEXTS_AT_ONCE] if text]
                lengths += [len(ids) for ids in token_ids(encoder.tokenizer, part)]
                bar.update(min(_TEXTS_AT_ONCE, len(rows.texts) - i))
            facts[rows.use] = _lengths(np.asarray(lengths or [0]), room, encoder)
    for use, fact in facts.items():
        if encoder.truncation == "windows":
            read = f"read in {fact['windows_a_text']:.2f} windows of at most {encoder.max_length} each"
        else:
            cut = f"{fact['longer']:.1%} of the texts and {fact['tokens_cut']:.1%} of the tokens"
            read = f"max_length {encoder.max_length} cuts {cut} ({encoder.truncation})"
        middle = f"median {fact['median']}, 95% at most {fact['p95']}, longest {fact['longest']:,}"
        lines.append(f"Tokens of a text for {use}: {middle}; {read}")
    return {"tokens": facts, "max_length": encoder.max_length, "truncation": encoder.truncation}, lines


def _lengths(lengths: np.ndarray, room: int, encoder: Encoder) -> dict[str, Any]:
    """Tokens of texts without special tokens, of which `room` are read at once."""
    windows = encoder.truncation == "windows"
    return {
        "median": int(np.median(lengths)),
        "p95": int(np.quantile(lengths, 0.95, method="higher")),
        "longest": int(lengths.max()),
        "longer": float((lengths > room).mean()),
        "tokens_cut": 0.0 if windows else float(np.maximum(lengths - room, 0).sum() / max(lengths.sum(), 1)),
        "windows_a_text": float(np.maximum(np.ceil(lengths / room), 1).mean()) if windows else 1.0,
    }


# ---- probe -------------------------------------------------------------------------------------------------------


def _probe_part(encoder: Encoder, network: PreTrainedModel, names: list[str], rows: Rows) -> Part:
    usable = [i for i, text in enumerate(rows.texts) if text and rows.labels[i] >= 0]
    tables = sum(part.weight.numel() for part in network.modules() if isinstance(part, nn.Embedding))
    multiplied = sum(weight.numel() for weight in network.parameters()) - tables
    most = _MOST_OPERATIONS[network.device.type] / (2 * multiplied)
    reviews: list[list[list[int]]] = []
    n_tokens = 0
    for i in range(0, len(usable), _TEXTS_AT_ONCE):
        for windows in encoder.encode([rows.texts[place] for place in usable[i : i + _TEXTS_AT_ONCE]]):
            n_tokens += sum(map(len, windows))
            if n_tokens <= most or len(reviews) < _LEAST_ROWS:
                reviews.append(windows)
        if n_tokens > most:
            break
    places = np.asarray(usable[: len(reviews)], dtype=np.int64)
    y = rows.labels[places]
    if np.sum(np.bincount(y, minlength=2) >= FOLDS) < 2:
        reason = f"fewer than two classes have {FOLDS} of the first {len(y)} rows for training"
        return {"probe": None, "likeliest_wrong_labels": []}, [f"No linear probe: {reason}"]
    try:
        with _bar(sum(map(len, reviews)), "Linear probe", " windows") as bar:
            x = vectors_of(network, reviews, int(encoder.tokenizer.pad_token_id or 0), bar.update)
    except UserError:  # it can be trained all the same
        reason = f"the head of model type {network.config.model_type!r} reads more than one vector of a text"
        return {"probe": None, "likeliest_wrong_labels": []}, [f"No linear probe: {reason}"]
    probabilities = out_of_sample(x, y, len(names))
    predicted = probabilities.argmax(axis=1)
    right, n = int((predicted == y).sum()), len(y)
    low, high = wilson_interval(right, n)
    share = np.bincount(y).max() / n
    probe = {"rows": n, "folds": FOLDS, "accuracy": right / n, "accuracy_low": low, "accuracy_high": high}
    lines = [
        f"Linear probe on the frozen encoder, {FOLDS} folds of {n:,} rows for training: accuracy {right / n:.4f} "
        f"(95% CI {low:.4f}–{high:.4f}, n={n}); the most frequent label alone has {share:.4f}. Training must beat both."
    ]
    doubts = [
        {
            "row": int(rows.numbers[places[k]]),
            "label": names[y[k]],
            "probability": float(probabilities[k, y[k]]),
            "predicted": names[predicted[k]],
            "text": rows.texts[places[k]],
        }
        for k in doubted(probabilities, y)[:_DOUBTED]
        if predicted[k] != y[k]
    ]
    lines.append("Likeliest wrong labels, of the rows for training (row: label, its probability by the probe; text):")
    lines += [_doubt_line(doubt) for doubt in doubts] or ["  none"]
    return {"probe": probe, "likeliest_wrong_labels": doubts}, lines


def _doubt_line(doubt: Mapping[str, Any]) -> str:
    text = one_line(doubt["text"])
    shown = text if len(text) <= _SHOWN else text[: _SHOWN - 1].rstrip() + "…"
    return f"  {doubt['row']:,}: {one_line(doubt['label'])}, {doubt['probability']:.4f}; {shown}"
