"""Export of a fine-tuned classifier: a Hugging Face folder and ONNX files, each checked against the checkpoint."""

import sys
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from src.data.tables import Row, Table
from src.exporting.classify_script import SCRIPT, probabilities_by_script, write_script
from src.exporting.model_card import Agreement, write_card
from src.exporting.onnx import check_family, write_int8, write_onnx
from src.inference.classifier import (
    Classifier,
    Network,
    bf16_network,
    mean_over_windows,
    onnx_network,
    pad,
    probabilities,
    torch_network,
)
from src.models.checkpoint_format import Archive, network_in
from src.models.exported_folder import WEIGHTS, read_folder, read_network, save_folder
from src.models.tasks.task import Task
from src.runs.checkpoint_reading import Checkpoint
from src.system.checksums import is_whole
from src.system.errors import UserError
from src.system.processor import multiplies_bf16

ONNX = "model.onnx"
INT8 = "model_int8.onnx"
IN_BF16 = f"{WEIGHTS}, in bf16 as `predict` computes on this CPU"
_N_REVIEWS = 100
# by how much a probability may differ; that of int8 is not checked, but printed and put on the card
_TOLERANCES = {WEIGHTS: 1e-5, ONNX: 1e-4, INT8: 1.0, IN_BF16: 1.0}


def export_classifier(
    folder: Path,
    name: str,
    checkpoint: Checkpoint,
    *,
    onnx: bool = False,
    int8: bool = False,
    calibrate: bool = False,
    reviews: str | None = None,
    text_column: str = "text",
    repository: str | None = None,
) -> list[str]:
    """Writes a classifier to `folder`, compares every file with the checkpoint, and returns a line on each.

    Args:
        folder: an empty folder.
        name: of the model, for the card.
        checkpoint: of a `BertClassifier`.
        onnx: adds `model.onnx`, and `classify.py`, which runs it.
        int8: adds `model_int8.onnx`, and `classify.py`.
        calibrate: divides the head by the temperature that is best on the validation rows of the training.
        reviews: file of reviews to compare on; None takes those of the training, or random words if they are gone.
        text_column: the column of `reviews` that has the text.
        repository: of the Hub that the folder will be uploaded to, for the card.

    Raises:
        UserError: a file does not give the checkpoint's probabilities, `reviews` cannot be read, or there are no
            rows to calibrate on.
    """
    archive = Archive.of(checkpoint)
    if onnx or int8:
        check_family(archive.config)
    network = network_in(checkpoint, archive)
    if reviews is not None:
        texts, compared_on = _texts_of_file(reviews, text_column)
    else:
        texts, compared_on = _texts_of_training(archive)
    tokens, pad_id = archive.encoder.encode(texts), archive.tokenizer.pad_token_id or 0
    # a network of its own, since `torch_network` changes the one it gets
    original = torch_network(network_in(checkpoint, archive))
    logits = _logits(original, tokens, pad_id)
    labels = _labels(probabilities(logits, archive.task), archive.task)
    calibration = None
    if calibrate:
        from src.exporting.calibration import calibrate_head

        on_gpu = torch.cuda.is_available()
        classifier = Classifier(original, archive.encoder, archive.task, [], on_gpu)
        calibration = calibrate_head(network, checkpoint, archive, classifier)
        logits = logits / calibration.divisors
    expected = probabilities(logits, archive.task)
    save_folder(folder, archive, network)
    written = read_folder(folder)
    _check_settings(archive, written, texts)
    if onnx or int8:
        write_onnx(network, archive.encoder, folder / ONNX)
    if int8:
        write_int8(folder / ONNX, folder / INT8, network)
        if not onnx:
            (folder / ONNX).unlink()
    networks = {WEIGHTS: _plain_network(read_network(folder, written))}
    task = archive.task
    if multiplies_bf16():
        networks[IN_BF16] = bf16_network(read_network(folder, written), archive.encoder.max_length)
    try:
        networks |= {file: onnx_network(folder / file, archive) for file in (ONNX, INT8) if (folder / file).is_file()}
        agreements = [
            _compare(file, expected, probabilities(_logits(run, tokens, pad_id), task), labels, task, _TOLERANCES[file])
            for file, run in networks.items()
        ]
        if onnx or int8:
            write_script(folder)
            found = probabilities_by_script(folder, texts, archive.encoder)
            agreements.append(_compare(SCRIPT, expected, found, labels, task, _TOLERANCES[ONNX if onnx else INT8]))
    except UserError as error:
        kind = archive.config.model_type
        raise UserError(f"the export of the model type {kind!r} failed its check: {error}") from error
    write_card(folder, name, checkpoint, archive, agreements, compared_on, calibration, repository)
    lines = [
        f"{a.file}: same label as the checkpoint on {a.same_label} of {a.n} reviews, "
        f"probabilities differ by {a.difference:.1e} at most"
        for a in agreements
    ]
    return [*(calibration.lines() if calibration else []), *lines, f"Compared on {compared_on}"]


# ---- checks --------------------------------------------------------------------------------------------------------


def _plain_network(network: PreTrainedModel) -> Network:
    """The network as `transformers` runs it, without what makes `torch_network` fast."""

    @torch.inference_mode()
    def run(input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        inputs = {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(attention_mask)}
        logits: np.ndarray = network(**inputs).logits.numpy()
        return logits

    return run


def _logits(network: Network, texts: list[list[list[int]]], pad_id: int) -> np.ndarray:
    """Of shape (texts, labels), in batches of 8 in the given order, so that most batches have padding."""
    windows = list(chain.from_iterable(texts))
    logits = [network(*pad(windows[i : i + 8], pad_id)) for i in range(0, len(windows), 8)]
    return mean_over_windows(np.concatenate(logits), [len(text) for text in texts])


def _labels(found: np.ndarray, task: Task) -> torch.Tensor:
    """The predicted labels of texts with these probabilities, of shape (texts, 1) or (texts, labels)."""
    return task.predicted(torch.from_numpy(found)).reshape(len(found), -1)


def _compare(
    file: str, expected: np.ndarray, found: np.ndarray, labels: torch.Tensor, task: Task, tolerance: float
) -> Agreement:
    """How the probabilities `found` agree with those that are expected, and with the labels of the checkpoint."""
    difference = float(np.abs(expected - found).max())
    if not difference <= tolerance:  # NaN too
        raise UserError(f"{file} gives probabilities that differ by {difference:.1e}")
    same_label = int((_labels(found, task) == labels).all(dim=1).sum())
    return Agreement(file, len(expected), same_label, difference)


def _check_settings(archive: Archive, written: Archive, texts: list[str]) -> None:
    """Raises UserError if the folder has other labels, or cuts texts otherwise; by `transformers` too, if it can."""
    tokens = archive.encoder.encode(texts)
    same = written.labels == archive.labels and written.task.settings == archive.task.settings
    same = same and written.encoder.encode(texts) == tokens
    if archive.encoder.truncation in ("head", "tail"):
        # a tokenizer with `</s>` among its words takes it for the token, where `Encoder` reads text
        special = archive.tokenizer.all_special_tokens
        plain = [i for i, text in enumerate(texts) if not any(token in text for token in special)]
        cut = written.encoder.tokenizer([texts[i] for i in plain], truncation=True)["input_ids"] if plain else []
        same = same and [[window] for window in cut] == [tokens[i] for i in plain]
    if not same:
        raise UserError("the export failed its check: its tokenizer or its labels differ from the checkpoint's")


# ---- texts to compare on -------------------------------------------------------------------------------------------


def _texts_of_file(reviews: str, text_column: str) -> tuple[list[str], str]:
    """The first texts of a file that are not empty, and what they are."""
    rows = Table(reviews, None, text_column).rows()
    texts = list(islice((row.text for row in rows if isinstance(row, Row) and row.text.strip()), _N_REVIEWS))
    if not texts:
        raise UserError(f"there is no review in {reviews}")
    return texts, f"the first {len(texts)} reviews of {Path(reviews).name}"


def _texts_of_training(archive: Archive) -> tuple[list[str], str]:
    """Validation texts, then training texts, if this machine's cache has them; else random words."""
    texts: list[str] = []
    if archive.prepared:
        from src.data.cache import Prepared, cache_dir

        prepared = Prepared(archive.prepared, cache_dir() / archive.prepared, found=True)
        for split in ("val", "train") if is_whole(prepared.folder) else ():
            with suppress(OSError, KeyError, ValueError):  # not in the cache, or prepared by another version
                texts += prepared.rows(split)["text"][: _N_REVIEWS - len(texts)]
    if texts:
        return texts, f"{len(texts)} reviews of its own validation and training data"
    print(
        "The training data are not in this machine's cache: comparing on random words. --reviews FILE names real ones.",
        file=sys.stderr,
    )
    words = sorted(word for word in archive.encoder.tokenizer.get_vocab() if word.isalpha()) or ["a"]
    draw = np.random.default_rng(0)
    # up to one and a half times the length that the model reads, so that some are cut
    lengths = draw.integers(1, archive.encoder.max_length * 3 // 2, size=_N_REVIEWS)
    return [" ".join(draw.choice(words, size=n)) for n in lengths], f"{_N_REVIEWS} texts of random words"
