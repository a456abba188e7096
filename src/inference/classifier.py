"""A fine-tuned classifier, ready for use: from a checkpoint, an exported folder, or an ONNX file in such a folder.

    from src.inference.classifier import load
    classifier = load("best.ckpt")
    classifier.logits(["What a film.", "Two hours lost."])  # float32 of shape (2, labels)

Lightning is not imported.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from src.data.tokenization import Encoder
from src.models.checkpoint_format import Archive, network_in
from src.models.exported_folder import WEIGHTS, read_folder, read_network
from src.models.kernels.few_widths import few_widths
from src.models.kernels.last_layer import use_partial_last_layer
from src.models.kernels.packed import PackedBert, is_supported, pack
from src.models.reading_check import check_reading
from src.models.tasks.task import Task
from src.runs.checkpoint_reading import read_checkpoint
from src.system.checksums import verify_checksums
from src.system.errors import UserError
from src.system.locations import expanded
from src.system.pretrained import reading
from src.system.processor import multiplies_bf16

_ONNX_TOKENS = 1024
"""Tokens of a call of ONNX Runtime, whose activations then fit the cache: 8 reviews of 512 tokens, one call for two of
them in place of one for all, are 1.25 times as fast in int8 and 1.13 times in fp32."""
Network = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Token ids and attention mask, both int64 of shape (rows, tokens), to logits, float32 of shape (rows, labels)."""


@dataclass(frozen=True)
class Classifier:
    """Texts to logits.

    Attributes:
        network: runs on PyTorch or ONNX Runtime.
        encoder: texts to token ids, as in training.
        task: what the logits mean.
        files: what it was read from.
        on_gpu: whether the network runs on a GPU.
    """

    network: Network
    encoder: Encoder
    task: Task
    files: list[Path]
    on_gpu: bool

    @property
    def labels(self) -> list[str]:
        """The names of the labels, in the order of the logits."""
        return self.task.labels

    def logits(self, texts: Sequence[str], batch_size: int = 8) -> np.ndarray:
        """Float32 of shape (texts, labels), in the order of `texts`."""
        return self.logits_of_tokens(self.encoder.encode(texts), batch_size)

    def logits_of_tokens(
        self,
        texts: Sequence[list[list[int]]],
        batch_size: int = 8,
        report: Callable[[int], None] = lambda _texts: None,
    ) -> np.ndarray:
        """The logits of encoded texts, each a list of windows; `report` gets the number of texts a batch has finished.

        Batches are of similar length, which saves padding: 1.01 times the tokens there are, in place of 1.26 in the
        given order (512 reviews of IMDb cut at 256 tokens, batch size 8).
        """
        windows = list(chain.from_iterable(texts))
        counts = [len(text) for text in texts]
        text_of_window = np.repeat(np.arange(len(texts)), counts)
        unread = np.array(counts)
        logits = np.empty((len(windows), len(self.labels)), dtype=np.float32)
        order = sorted(range(len(windows)), key=lambda i: -len(windows[i]))
        pad_token_id = self.encoder.tokenizer.pad_token_id or 0
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            logits[batch] = self.network(*pad([windows[i] for i in batch], pad_token_id))
            read, n_read = np.unique(text_of_window[batch], return_counts=True)
            unread[read] -= n_read
            report(int((unread[read] == 0).sum()))
        if not np.isfinite(logits).all():
            raise UserError("the model's scores are NaN or infinite: its weights are damaged, or its training diverged")
        return mean_over_windows(logits, counts)


def load(path: str | Path) -> Classifier:
    """The classifier of a checkpoint, of an exported folder (its safetensors), or of an .onnx file in such a folder.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    path = expanded(str(path))
    if path.suffix == ".onnx" and not path.is_dir():
        if not path.is_file():
            raise UserError(f"there is no ONNX file {path}")
        archive = read_folder(path.parent)
        network = onnx_network(path, archive)
        files = [path, *sorted(path.parent.glob("*.json"))]
    else:
        archive, pretrained = load_network(path)
        network = fastest_network(pretrained, archive.encoder.max_length)
        files = [path / WEIGHTS, *sorted(path.glob("*.json"))] if path.is_dir() else [path]
    on_gpu = torch.cuda.is_available() and path.suffix != ".onnx"
    return Classifier(network, archive.encoder, archive.task, files, on_gpu)


def load_network(path: Path) -> tuple[Archive, PreTrainedModel]:
    """The classifier of a checkpoint or of an exported folder, in fp32 and eval mode, as a network of `transformers`.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    if not path.is_dir():
        checkpoint = read_checkpoint(path)
        archive = Archive.of(checkpoint)
        return archive, network_in(checkpoint, archive)
    archive = read_folder(path)
    if not (path / WEIGHTS).is_file():
        raise UserError(f"{path} has no {WEIGHTS}; to run an ONNX file in it, name that file")
    network = read_network(path, archive)
    check_reading(network, archive.encoder, str(path))
    return archive, network


def fastest_network(network: PreTrainedModel, longest: int) -> Network:
    """A classifier of `transformers` as a `Network`.

    A BERT on a GPU is computed in bf16 and without padding, any network in bf16 on a CPU that `multiplies_bf16`, and
    others in fp32.

    Args:
        longest: the most tokens of a text.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not is_supported(network, device):
        in_bf16 = device.type == "cpu" and multiplies_bf16()
        return bf16_network(network, longest) if in_bf16 else torch_network(network)
    bert = PackedBert(network.eval().to(device), torch.bfloat16)  # type: ignore[arg-type]

    @torch.inference_mode()
    def run(input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        ids, lengths = (torch.from_numpy(array).to(device) for array in (input_ids, attention_mask.sum(axis=1)))
        logits: np.ndarray = bert(pack(ids, lengths, int(attention_mask.sum()))).cpu().numpy()
        return logits

    return run


def torch_network(network: PreTrainedModel) -> Network:
    """A classifier of `transformers` as a `Network`, on the GPU if there is one.

    `network` itself is changed: it moves to the GPU, and its last layer computes [CLS] only.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.eval().to(device)  # type: ignore[arg-type]
    use_partial_last_layer(network)

    @torch.inference_mode()
    def run(input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        ids, mask = (torch.from_numpy(array).to(device) for array in (input_ids, attention_mask))
        logits: np.ndarray = network(input_ids=ids, attention_mask=mask).logits.float().cpu().numpy()
        return logits

    return run


def bf16_network(network: PreTrainedModel, longest: int) -> Network:
    """As `torch_network`, on a CPU, with matrix products in bf16.

    Args:
        longest: the most tokens of a text.
    """
    for part in network.modules():
        if isinstance(part, nn.Linear):
            part.to(torch.bfloat16)  # autocast would round the weights for each batch
    in_fp32 = torch_network(network)

    def run(input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        width = input_ids.shape[1]
        padding = ((0, 0), (0, few_widths(width, longest) - width))
        with torch.autocast("cpu", torch.bfloat16):
            return in_fp32(np.pad(input_ids, padding), np.pad(attention_mask, padding))

    return run


def onnx_network(path: Path, archive: Archive) -> Network:
    """An exported ONNX file as a `Network`, on the CPU.

    Args:
        archive: what it belongs to.

    Raises:
        UserError: ONNX Runtime is not installed, cannot read or run the file, or it is of another kind of model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("an .onnx file needs ONNX Runtime: pip install -c constraints.txt -e '.[onnx]'") from error
    verify_checksums(path.parent, path.name)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # its warnings are of graph optimisations, and its errors are raised too
    with reading(f"the ONNX model {path}"):  # a class of errors of its own for every status code
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        rows = max(1, _ONNX_TOKENS // input_ids.shape[1])
        if len(input_ids) > rows:
            starts = range(0, len(input_ids), rows)
            return np.concatenate([run(input_ids[i : i + rows], attention_mask[i : i + rows]) for i in starts])
        with reading(f"the ONNX model {path}"):
            logits = session.run(["logits"], {"input_ids": input_ids, "attention_mask": attention_mask})[0]
        if not isinstance(logits, np.ndarray) or logits.shape != (len(input_ids), len(archive.labels)):
            raise UserError(
                f"the ONNX model {path} gives no {len(archive.labels)} logits for each text, one for each label"
            )
        return np.asarray(logits, dtype=np.float32)

    run(*pad(archive.encoder.encode(["a"])[0], 0))
    return run


def pad(rows: Sequence[list[int]], pad_token_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and attention mask of a batch, both int64 of shape (rows, tokens of the longest row)."""
    width = max(map(len, rows))
    input_ids = np.full((len(rows), width), pad_token_id, dtype=np.int64)
    attention_mask = np.zeros((len(rows), width), dtype=np.int64)
    for i, row in enumerate(rows):
        input_ids[i, : len(row)] = row
        attention_mask[i, : len(row)] = 1
    return input_ids, attention_mask


def mean_over_windows(logits: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """The mean of the logits of each text's windows, float32 of shape (texts, labels).

    Args:
        logits: of shape (windows, labels), the windows of a text one after the other.
        counts: windows of each text, 1 or more.
    """
    sizes = np.array(counts, dtype=np.int64)
    sums = np.add.reduceat(logits, sizes.cumsum() - sizes, axis=0, dtype=np.float64)
    return np.asarray(sums / sizes[:, None], dtype=np.float32)


def probabilities(logits: np.ndarray, task: Task) -> np.ndarray:
    """Of shape (texts, labels), in float64, so that those of classes of which one is right add up to 1."""
    result: np.ndarray = task.probabilities(torch.from_numpy(logits).double()).numpy()
    return result
