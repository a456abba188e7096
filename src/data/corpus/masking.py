"""Masked language modelling: which tokens are masked, and what replaces them."""

import numpy as np
import torch
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerBase


class Masking:
    """Masks one sequence at a time, as Hugging Face's collator does, with a random generator for each.

    The collator itself draws for a whole batch from one generator. Masks would then depend on the other rows of the
    batch, on the number of ranks and workers, and on where a run was resumed.

    Args:
        mask_rate: probability of each token, except special ones, to be selected. Of the selected ones, 80% become
            [MASK], 10% a random token, and 10% stay as they are (Devlin et al. 2019, section 3.1).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, mask_rate: float) -> None:
        self._collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=mask_rate)
        self._special = torch.tensor(sorted(tokenizer.all_special_ids))

    def mask(self, rng: np.random.Generator, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """`ids` masked, and their labels (IGNORED_LABEL where not selected); both int64 of shape (tokens,)."""
        inputs = torch.tensor([ids])
        self._collator.generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        inputs, labels = self._collator.torch_mask_tokens(inputs, torch.isin(inputs, self._special))
        return inputs[0], labels[0]
