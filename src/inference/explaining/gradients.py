"""Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365) on the embeddings of tokens, by captum.

The path goes from the text with every token masked to the text itself. The weights of all words add up to the
difference of the two scores, but for the error of the integral, which more steps make smaller.
"""

from typing import NamedTuple

import numpy as np
import torch
from captum.attr import LayerIntegratedGradients
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from src.inference.classifier import pad
from src.inference.explaining.words import Words

GAP = 0.02
"""The most that weights may miss the difference of the scores by, as a share of it."""
_STEPS = (16, 32, 64, 128, 256, 512)
_WINDOWS_AT_ONCE = 8
_BATCH_SIZE = 16


class Weights(NamedTuple):
    """The weights of a text's words.

    Attributes:
        words: of shape (words,); NaN for those that are not read.
        difference: between the score of the text and that of the text with every token masked.
        gap: what their sum lacks of it, as a share of it.
        steps: of the integral.
    """

    words: np.ndarray
    difference: float
    gap: float
    steps: int


def integrated_gradients(
    network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, words: Words, factors: torch.Tensor
) -> Weights:
    """The weight of each word in the score that `factors` make of the logits; more steps until the gap is small.

    Args:
        network: a classifier in eval mode, on any device.
        factors: of shape (labels,).
    """
    for steps in _STEPS:
        weights = np.full(len(words.spans), np.nan)
        missing = total = 0.0
        for start in range(0, len(words.windows), _WINDOWS_AT_ONCE):
            some = slice(start, start + _WINDOWS_AT_ONCE)
            tokens, delta = _of_windows(network, tokenizer, words.windows[some], words.word_of[some], factors, steps)
            for of_window, word_of in zip(tokens, words.word_of[some], strict=True):
                for weight, word in zip(of_window, word_of, strict=False):  # padding comes last
                    if word >= 0:
                        weights[word] = np.nan_to_num(weights[word]) + weight / len(words.windows)
            total += float(tokens.sum()) / len(words.windows)
            missing += delta / len(words.windows)
        difference = total - missing
        gap = abs(missing / difference) if difference else float(missing != 0)
        if gap <= GAP:
            break
    return Weights(weights, difference, gap, steps)


def _of_windows(
    network: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    windows: list[list[int]],
    word_of: list[list[int]],
    factors: torch.Tensor,
    steps: int,
) -> tuple[np.ndarray, float]:
    """The weight of each token, of shape (windows, tokens), and by how much their sum is too large."""
    ids, mask = (torch.from_numpy(array).to(network.device) for array in pad(windows, tokenizer.pad_token_id or 0))
    known = (tokenizer.mask_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id, 0)
    blank = next(i for i in known if i is not None)
    masked = ids.clone()
    for row, words in zip(masked, word_of, strict=True):
        row[: len(words)][torch.tensor(words, device=ids.device) >= 0] = blank

    def score(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = network(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits.float() @ factors.to(logits.device, torch.float32)

    found, delta = LayerIntegratedGradients(score, network.get_input_embeddings()).attribute(
        ids,
        baselines=masked,
        additional_forward_args=(mask,),
        n_steps=steps,
        internal_batch_size=max(_BATCH_SIZE, len(ids)),
        return_convergence_delta=True,
    )
    return found.sum(dim=-1).detach().double().cpu().numpy(), float(delta.sum())
