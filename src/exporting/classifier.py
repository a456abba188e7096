"""A fine-tuned classifier as a Hugging Face folder, with ONNX files if asked for, all of them checked."""

import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from src.exporting.model_card import Agreement, write_card
from src.inference.classifier import Network, flat, means, onnx_network, pad, probabilities, torch_network
from src.models.archive import Archive, network_in
from src.models.folder import WEIGHTS, read_folder, read_network, save_folder
from src.runs.reading import Checkpoint
from src.system.errors import UserError

_N_REVIEWS = 100
_TOLERANCE_FOLDER = 1e-5
_TOLERANCE_ONNX = 1e-4


def export_classifier(folder: Path, name: str, options: Any, checkpoint: Checkpoint) -> list[str]:
    """Writes everything into `folder`, checks it against the checkpoint, and returns lines that say so.

    Args:
        folder: to write to.
        name: of the model.
        options: of the command: `onnx`, `int8`, `reviews`, `text_column`.
        checkpoint: of a `BertClassifier`.

    Raises:
        UserError: a file does not give the checkpoint's probabilities.
    """
    archive = Archive.of(checkpoint)
    network = network_in(checkpoint, archive)
    texts, reviews = _reviews(options, archive)
    agreements = _write(folder, options, archive, network, texts)
    write_card(folder, name, archive, checkpoint.content, checkpoint.path, agreements, reviews)
    said = [
        f"{agreement.file}: same label as the checkpoint on {agreement.same_label} of {agreement.n} reviews, "
        f"probabilities differ by {agreement.difference:.1e} at most"
        for agreement in agreements
    ]
    return [*said, f"Compared on {reviews}"]


def _write(folder: Path, options: Any, archive: Archive, network: PreTrainedModel, texts: list[str]) -> list[Agreement]:
    """Writes and checks everything but the card."""
    save_folder(folder, archive, network)
    written = read_folder(folder)
    tokens = archive.encoder.encode(texts)
    _check_settings(archive, written, texts, tokens)
    plain = _plain_network(read_network(folder, written))
    onnx, int8 = folder / "model.onnx", folder / "model_int8.onnx"
    if options.onnx or options.int8:
        from src.exporting.onnx import write_int8, write_onnx

        write_onnx(network, onnx)
    if options.int8:
        write_int8(onnx, int8, network)
        if not options.onnx:
            onnx.unlink()
    expected = _probabilities(torch_network(network), tokens)
    agreements = [_compare(WEIGHTS, expected, _probabilities(plain, tokens), _TOLERANCE_FOLDER)]
    if options.onnx:
        agreements.append(_compare(onnx.name, expected, _probabilities(onnx_network(onnx), tokens), _TOLERANCE_ONNX))
    if options.int8:
        # how far it is off is for the card; what it may cost is for the user to say
        agreements.append(_compare(int8.name, expected, _probabilities(onnx_network(int8), tokens), 1.0))
    return agreements


# ---- checking ------------------------------------------------------------------------------------------------------


def _plain_network(network: PreTrainedModel) -> Network:
    """The network just as `transformers` runs it, without what makes `src.inference.classifier` fast."""

    @torch.inference_mode()
    def run(input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        inputs = {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(attention_mask)}
        logits: np.ndarray = network(**inputs).logits.numpy()
        return logits

    return run


def _probabilities(network: Network, texts: list[list[list[int]]]) -> np.ndarray:
    """In batches of 8 in the given order, so that short texts stand beside long ones and padding is checked too."""
    windows, text = flat(texts)
    batches = [windows[i : i + 8] for i in range(0, len(windows), 8)]
    # 0 is as good as any id, since the mask hides it
    return probabilities(means(np.concatenate([network(*pad(batch, 0)) for batch in batches]), text))


def _compare(file: str, expected: np.ndarray, found: np.ndarray, tolerance: float) -> Agreement:
    difference = float(np.abs(expected - found).max())
    if not difference <= tolerance:  # NaN too
        raise UserError(f"the export failed its check: {file} gives probabilities that differ by {difference:.1e}")
    same = int((expected.argmax(1) == found.argmax(1)).sum())
    return Agreement(file, len(expected), same, difference)


def _check_settings(archive: Archive, written: Archive, texts: list[str], tokens: list[list[list[int]]]) -> None:
    """Raises UserError where what was written cuts or names otherwise; by `transformers` too, if it can cut so."""
    same = written.labels == archive.labels and written.encoder.encode(texts) == tokens
    if archive.encoder.truncation in ("head", "tail"):
        cut = written.encoder.tokenizer(texts, truncation=True)["input_ids"]
        same = same and [[window] for window in cut] == tokens
    if not same:
        raise UserError("the export failed its check: its tokenizer or its labels differ from the checkpoint's")


def _reviews(options: Any, archive: Archive) -> tuple[list[str], str]:
    """Texts to check on, and what they are."""
    if options.reviews:
        from src.inference.inputs import ReviewFile, Row

        rows = ReviewFile(options.reviews, None, options.text_column).rows()
        texts = list(islice((row.text for row in rows if isinstance(row, Row) and row.text.strip()), _N_REVIEWS))
        if not texts:
            raise UserError(f"there is no review in {options.reviews}")
        return texts, f"the first {len(texts)} reviews of {Path(options.reviews).name}"
    if texts := _prepared_texts(archive.prepared):
        return texts, f"{len(texts)} reviews of its own, those of validation first"
    print(
        "The reviews it was trained with are not in the cache: checking on generated texts (--reviews FILE: on yours)",
        file=sys.stderr,
    )
    return _generated(archive), f"{_N_REVIEWS} texts of random words"


def _prepared_texts(key: str) -> list[str]:
    """Reviews of validation, then of training, as they were prepared for the run, if they are still on this machine."""
    texts: list[str] = []
    if not key:
        return texts
    import datasets

    from src.data.cache import cache_dir

    for split in ("val", "train"):
        try:
            rows = datasets.load_from_disk(str(cache_dir() / key / split))
            texts += rows["text"][: _N_REVIEWS - len(texts)]
        except (OSError, KeyError, ValueError):  # not there, or prepared by another version
            continue
    return texts


def _generated(archive: Archive) -> list[str]:
    """Words of the vocabulary, from 1 to one and a half times the length that the model takes."""
    words: Sequence[str] = sorted(word for word in archive.encoder.tokenizer.get_vocab() if word.isalpha()) or ["a"]
    draw = np.random.default_rng(0)
    lengths = draw.integers(1, archive.encoder.max_length * 3 // 2, size=_N_REVIEWS)
    return [" ".join(draw.choice(words, size=length)) for length in lengths]
