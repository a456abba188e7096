"""Masked language modelling: which tokens are masked, and what replaces them."""

import numpy as np
import torch
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerBase


class Masking:
    """Masks a row as Hugging Face's collator does, from a generator of the row's own.

    The collator draws for a whole batch from one generator: what is masked would depend on the batch's other rows, on
    the number of ranks and workers, and on where a resumed run began.

    Args:
        mask_rate: probability of each token, but for special ones, to be guessed. Of those, 80% become [MASK], 10% a
            random token, 10% stay as they are (Devlin et al. 2019, section 3.1).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, mask_rate: float) -> None:
        self._collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=mask_rate)
        self._special = torch.tensor(sorted(tokenizer.all_special_ids))

    def mask(self, rng: np.random.Generator, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """`ids` with some of them masked, and their labels (IGNORED_LABEL elsewhere); both int64 of shape (tokens,)."""
        inputs = torch.tensor([ids])
        self._collator.generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        inputs, labels = self._collator.torch_mask_tokens(inputs, torch.isin(inputs, self._special))
        return inputs[0], labels[0]
