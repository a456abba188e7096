"""`python -m src export`: a checkpoint as a Hugging Face folder, with ONNX files if asked for, all of them checked."""

import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jsonargparse import ArgumentError, ArgumentParser

from src.errors import Interrupted, UsageError, UserError, tell
from src.signals import interrupted_by_signals

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from src.inference import Network
    from src.model_card import Agreement
    from src.models.archive import Archive

_N_REVIEWS = 100
_TOLERANCE_FOLDER = 1e-5
_TOLERANCE_ONNX = 1e-4

_DESCRIPTION = """\
Writes a checkpoint as a folder that `transformers.pipeline("text-classification", DIR)`, `predict --ckpt_path DIR` and
`fit --model.model_name_or_path DIR` take: weights as safetensors, the tokenizer with the length of the training, the
names of the labels, and a model card. Each file is checked against the checkpoint on 100 reviews before the folder
gets its name.
"""


def main(args: list[str]) -> int:
    """Runs `export ARGS` and returns its exit status."""
    try:
        options = _parse(args)
        with interrupted_by_signals():
            _export(options)
    except (UserError, Interrupted) as error:
        return tell(error)
    return 0


def _parse(args: list[str]) -> Any:
    parser = ArgumentParser(
        prog="python -m src export", description=_DESCRIPTION, exit_on_error=False, allow_abbrev=False
    )
    parser.add_argument(
        "--ckpt_path", required=True, help="a checkpoint: a file, or `best` or `last` of the newest run"
    )
    parser.add_argument("--output", required=True, help="the folder to make; it must not be there yet")
    parser.add_argument("--onnx", action="store_true", help="add model.onnx, in fp32")
    parser.add_argument(
        "--int8", action="store_true", help="add model_int8.onnx, four times smaller and faster, for ONNX Runtime"
    )
    parser.add_argument(
        "--reviews",
        help="a .csv, .tsv, .jsonl, .parquet or .txt file of reviews to check on; null takes validation rows of the "
        "training, or generated texts where those are gone",
    )
    parser.add_argument("--text_column", default="text", help="the column with the reviews")
    try:
        return parser.parse_args(args)
    except ArgumentError as error:
        raise UsageError(str(error)) from error


def _export(options: Any) -> None:
    output = Path(options.output).expanduser().absolute()
    if output.exists():
        raise UserError(f"{options.output} exists already: delete it or name another --output")
    if options.onnx or options.int8:
        from src.onnx_export import check_installed

        check_installed()
    from src.checkpoint_reading import read_checkpoint
    from src.models.archive import archive_in, network_in
    from src.runs import find_checkpoint

    path = find_checkpoint(options.ckpt_path, Path())
    checkpoint = read_checkpoint(path)
    # a checkpoint of another module will bring another kind of archive, and a writer of its own, in this place
    archive = archive_in(checkpoint, path)
    network = network_in(checkpoint, archive, path)
    texts, reviews = _reviews(options, checkpoint, archive)
    with _finished_or_not_at_all(output) as folder:
        agreements = _write(folder, options, archive, network, texts)
        from src.model_card import write_card

        write_card(folder, output.name, archive, checkpoint, path, agreements, reviews)
    for agreement in agreements:
        print(
            f"{agreement.file}: same label as the checkpoint on {agreement.same_label} of {agreement.n} reviews, "
            f"probabilities differ by {agreement.difference:.1e} at most"
        )
    print(f"Compared on {reviews}")
    print(f"Exported to {options.output}")


def _write(
    folder: Path, options: Any, archive: "Archive", network: "PreTrainedModel", texts: list[str]
) -> "list[Agreement]":
    """Writes and checks everything but the card."""
    from src.inference import onnx_network, torch_network
    from src.models.archive import WEIGHTS, read_folder, read_network, save_folder
    from src.onnx_export import write_int8, write_onnx

    save_folder(folder, archive, network)
    written = read_folder(folder)
    tokens = archive.encoder.encode(texts)
    _check_settings(archive, written, texts, tokens)
    plain = _plain_network(read_network(folder, written))
    onnx, int8 = folder / "model.onnx", folder / "model_int8.onnx"
    if options.onnx or options.int8:
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


def _plain_network(network: "PreTrainedModel") -> "Network":
    """The network just as `transformers` runs it, without what makes `src.inference` fast."""
    import torch

    @torch.inference_mode()
    def run(input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        inputs = {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(attention_mask)}
        logits: np.ndarray = network(**inputs).logits.numpy()
        return logits

    return run


def _probabilities(network: "Network", tokens: list[list[int]]) -> np.ndarray:
    """In batches of 8 in the given order, so that short texts stand beside long ones and padding is checked too."""
    from src.inference import pad, probabilities

    batches = [tokens[i : i + 8] for i in range(0, len(tokens), 8)]
    # 0 is as good as any id, since the mask hides it
    return probabilities(np.concatenate([network(*pad(batch, 0)) for batch in batches]))


def _compare(file: str, expected: np.ndarray, found: np.ndarray, tolerance: float) -> "Agreement":
    from src.model_card import Agreement

    difference = float(np.abs(expected - found).max())
    if not difference <= tolerance:  # NaN too
        raise UserError(f"the export failed its check: {file} gives probabilities that differ by {difference:.1e}")
    same = int((expected.argmax(1) == found.argmax(1)).sum())
    return Agreement(file, len(expected), same, difference)


def _check_settings(archive: "Archive", written: "Archive", texts: list[str], tokens: list[list[int]]) -> None:
    """Raises UserError where what was written cuts or names otherwise; by `transformers` too, if it can cut so."""
    same = written.labels == archive.labels and written.encoder.encode(texts) == tokens
    if archive.encoder.truncation != "head_tail":
        same = same and written.encoder.tokenizer(texts, truncation=True)["input_ids"] == tokens
    if not same:
        raise UserError("the export failed its check: its tokenizer or its labels differ from the checkpoint's")


def _reviews(options: Any, checkpoint: Mapping[str, Any], archive: "Archive") -> tuple[list[str], str]:
    """Texts to check on, and what they are."""
    if options.reviews:
        from src.review_files import ReviewFile, Row

        rows = ReviewFile(options.reviews, None, options.text_column).rows()
        texts = list(islice((row.text for row in rows if isinstance(row, Row) and row.text.strip()), _N_REVIEWS))
        if not texts:
            raise UserError(f"there is no review in {options.reviews}")
        return texts, f"the first {len(texts)} reviews of {Path(options.reviews).name}"
    if texts := _prepared_texts(checkpoint):
        return texts, f"{len(texts)} reviews of its own, those of validation first"
    print(
        "The reviews it was trained with are not in the cache: checking on generated texts (--reviews FILE: on yours)",
        file=sys.stderr,
    )
    return _generated(archive), f"{_N_REVIEWS} texts of random words"


def _prepared_texts(checkpoint: Mapping[str, Any]) -> list[str]:
    """Reviews of validation, then of training, as they were prepared for the run, if they are still on this machine."""
    # what the data module saved, whatever its class
    states = [value for value in checkpoint.values() if isinstance(value, dict) and {"key", "options"} <= value.keys()]
    texts: list[str] = []
    if not states:
        return texts
    import datasets

    from src.data.cache import cache_dir

    for split in ("val", "train"):
        try:
            rows = datasets.load_from_disk(str(cache_dir() / str(states[0]["key"]) / split))
            texts += rows["text"][: _N_REVIEWS - len(texts)]
        except (OSError, KeyError, ValueError):  # not there, or prepared by another version
            continue
    return texts


def _generated(archive: "Archive") -> list[str]:
    """Words of the vocabulary, from 1 to one and a half times the length that the model takes."""
    words: Sequence[str] = sorted(word for word in archive.encoder.tokenizer.get_vocab() if word.isalpha()) or ["a"]
    draw = np.random.default_rng(0)
    lengths = draw.integers(1, archive.encoder.max_length * 3 // 2, size=_N_REVIEWS)
    return [" ".join(draw.choice(words, size=length)) for length in lengths]


@contextmanager
def _finished_or_not_at_all(output: Path) -> Iterator[Path]:
    """A folder to write to, which becomes `output` at the end, and is removed if there is none."""
    unfinished = output.with_name(f".{output.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        unfinished.rename(output)
    except OSError as error:
        raise UserError(f"{output} could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
