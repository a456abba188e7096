"""The vectors of a sentence encoder: the mean over the tokens of its last layer."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from src.data.tokenization import Encoder
from src.inference.classifier import pad
from src.models.kernels.few_widths import few_widths
from src.models.origin import ClassifierOrigin
from src.models.reading_check import check_reading
from src.system.processor import multiplies_bf16

_WINDOWS_A_BATCH = 16


def read_texts(
    texts: Sequence[str],
    sentences: Sequence[Sequence[str]],
    encoder: Encoder,
    origin: ClassifierOrigin,
    device: torch.device,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The vectors of texts, of shape (texts, size), and those of the sentences of each class.

    Raises:
        UserError: the pretrained model cannot be read, or cannot read texts as a classifier must.
    """
    pretrained = origin.check_weights(encoder.tokenizer)
    assert pretrained is not None
    check_reading(pretrained, encoder, origin.name)
    network: Any = pretrained.base_model.eval().to(device)
    pad_token_id = encoder.tokenizer.pad_token_id
    told = [sentence_vectors(network, encoder.encode(each), pad_token_id) for each in sentences]
    tokens = encoder.encode(texts)
    terminal = sys.stderr.isatty()
    interval = 0.1 if terminal else 10  # in a log, a line every ten seconds is enough
    total = sum(map(len, tokens))
    with tqdm(total=total, desc="Reading", unit=" windows", leave=not terminal, mininterval=interval) as bar:
        return sentence_vectors(network, tokens, pad_token_id, bar.update), told


@torch.inference_mode()
def sentence_vectors(
    network: PreTrainedModel,
    texts: Sequence[list[list[int]]],
    pad_token_id: int,
    report: Callable[[int], object] = lambda _windows: None,
) -> np.ndarray:
    """Float64 of shape (texts, size): the mean over the tokens of all windows of a text.

    Args:
        network: an encoder on its device, in eval mode. On a CPU with instructions for bf16 it computes in bf16.
        texts: the token ids of the windows of each.
        pad_token_id: of the tokenizer.
        report: called with the number of windows of each batch, when it has been read.
    """
    windows = [(i, window) for i, text in enumerate(texts) for window in text]
    windows.sort(key=lambda each: -len(each[1]))
    longest = len(windows[0][1])
    sums = np.zeros((len(texts), network.config.hidden_size))
    in_bf16 = network.device.type == "cpu" and multiplies_bf16()
    for start in range(0, len(windows), _WINDOWS_A_BATCH):
        batch = windows[start : start + _WINDOWS_A_BATCH]
        padded = pad([window for _, window in batch], pad_token_id)
        more = ((0, 0), (0, few_widths(padded[0].shape[1], longest) - padded[0].shape[1]))
        ids, mask = (torch.from_numpy(np.pad(each, more)).to(network.device) for each in padded)
        with torch.autocast(network.device.type, torch.bfloat16, enabled=in_bf16):
            hidden = network(input_ids=ids, attention_mask=mask).last_hidden_state
        np.add.at(sums, [i for i, _ in batch], (hidden.double() * mask[..., None]).sum(dim=1).cpu().numpy())
        report(len(batch))
    tokens = [sum(map(len, text)) for text in texts]
    return np.asarray(sums / np.array(tokens)[:, None])
