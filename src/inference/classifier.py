"""A fine-tuned classifier, ready to be asked: from a checkpoint, an exported folder, or an ONNX file in one.

    from src.inference.classifier import load
    classifier = load("best.ckpt")
    classifier.logits(["What a film.", "Two hours lost."])  # float32 of shape (2, labels)

Lightning is not imported.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from src.data.tokens import Encoder
from src.models.archive import Archive, network_in
from src.models.folder import WEIGHTS, read_folder, read_network
from src.system.errors import UserError, one_line

Network = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Token ids and their mask, both int64 of shape (rows, tokens), to logits, float32 of shape (rows, labels)."""


@dataclass(frozen=True)
class Classifier:
    """Texts to logits.

    Attributes:
        network: what computes, with PyTorch or ONNX Runtime.
        encoder: texts to token ids, as in training.
        labels: names of the classes, in the order of the logits.
        files: what it was read from.
    """

    network: Network
    encoder: Encoder
    labels: list[str]
    files: list[Path]

    def logits(self, texts: Sequence[str], batch_size: int = 8) -> np.ndarray:
        """Float32 of shape (texts, labels), in the order of `texts`."""
        return self.logits_of_tokens(self.encoder.encode(texts), batch_size)

    def logits_of_tokens(
        self,
        texts: Sequence[list[list[int]]],
        batch_size: int = 8,
        done: Callable[[int], None] = lambda _texts: None,
    ) -> np.ndarray:
        """The same for encoded texts, each in one window or several; `done` is told how many a batch has finished.

        Batches are of like length, so that hardly any padding is computed: 1.01 times the tokens there are for 512
        reviews at batch size 8, in place of 1.26 in the given order (IMDb cut at 256 tokens).
        """
        windows, text = flat(texts)
        left = np.bincount(text, minlength=len(texts))
        logits = np.empty((len(windows), len(self.labels)), dtype=np.float32)
        order = sorted(range(len(windows)), key=lambda row: -len(windows[row]))
        pad_token_id = self.encoder.tokenizer.pad_token_id or 0
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            logits[rows] = self.network(*pad([windows[row] for row in rows], pad_token_id))
            read, n_read = np.unique(text[rows], return_counts=True)
            left[read] -= n_read
            done(int((left[read] == 0).sum()))
        return means(logits, text)


def flat(texts: Sequence[list[list[int]]]) -> tuple[list[list[int]], np.ndarray]:
    """The windows of all texts, and the number of the text that each belongs to, which each have one or more."""
    windows = [window for text in texts for window in text]
    return windows, np.repeat(np.arange(len(texts)), [len(text) for text in texts])


def means(logits: np.ndarray, text: np.ndarray) -> np.ndarray:
    """The mean of the logits of each text's windows, float32 of shape (texts, labels); `text` as `flat` gives it."""
    counts = np.bincount(text)
    sums = np.zeros((len(counts), logits.shape[1]))
    np.add.at(sums, text, logits)
    return np.asarray(sums / counts[:, None], dtype=np.float32)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, in float64 so that each row adds up to 1."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    result: np.ndarray = shifted / shifted.sum(axis=-1, keepdims=True)
    return result


def load(path: str | Path) -> Classifier:
    """The classifier of a checkpoint, of an exported folder (its safetensors), or of an .onnx file in such a folder.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return _load_folder(path)
    if path.suffix == ".onnx":
        return _load_onnx(path)
    return _load_checkpoint(path)


def torch_network(network: Any) -> Network:
    """A classifier of `transformers` as a `Network`: on the GPU if there is one, its last layer at [CLS] only.

    The weights are shared with `network`; its last layer is changed in place, as `last_layer` says.
    """
    from src.models.kernels.last_layer import compute_last_layer_at_cls_only

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.eval().to(device)
    compute_last_layer_at_cls_only(network)

    @torch.inference_mode()
    def run(input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        logits = network(**{name: torch.from_numpy(array).to(device) for name, array in inputs.items()}).logits
        result: np.ndarray = logits.float().cpu().numpy()
        return result

    return run


def onnx_network(path: Path) -> Network:
    """An ONNX file of `src.exporting.onnx` as a `Network`, on the CPU.

    Raises:
        UserError: ONNX Runtime is not installed, or cannot read the file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("an .onnx file needs ONNX Runtime: pip install -c constraints.txt -e '.[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # its warnings are of graph optimisations
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # a class of its own for every status code
        raise UserError(f"{path} cannot be read as an ONNX model: {one_line(error)[:300]}") from error

    def run(input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        logits: np.ndarray = session.run(["logits"], {"input_ids": input_ids, "attention_mask": attention_mask})[0]
        return logits

    return run


def _load_checkpoint(path: Path) -> Classifier:
    from src.runs.reading import read_checkpoint

    checkpoint = read_checkpoint(path)
    archive = Archive.of(checkpoint)
    network = torch_network(network_in(checkpoint, archive))
    return Classifier(network, archive.encoder, archive.labels, [path])


def _load_folder(folder: Path) -> Classifier:
    archive = read_folder(folder)
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder} has no {WEIGHTS}; to run an ONNX file in it, name that file")
    network = torch_network(read_network(folder, archive))
    return Classifier(network, archive.encoder, archive.labels, [folder / WEIGHTS, *_settings(folder)])


def _load_onnx(path: Path) -> Classifier:
    if not path.is_file():
        raise UserError(f"there is no ONNX file {path}")
    archive = read_folder(path.parent)
    return Classifier(onnx_network(path), archive.encoder, archive.labels, [path, *_settings(path.parent)])


def _settings(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"))


def pad(rows: Sequence[list[int]], pad_token_id: int) -> tuple[np.ndarray, np.ndarray]:
    """A batch of token ids as `Network` takes it, as wide as its longest row."""
    width = max(map(len, rows))
    input_ids = np.full((len(rows), width), pad_token_id, dtype=np.int64)
    attention_mask = np.zeros((len(rows), width), dtype=np.int64)
    for i, row in enumerate(rows):
        input_ids[i, : len(row)] = row
        attention_mask[i, : len(row)] = 1
    return input_ids, attention_mask
