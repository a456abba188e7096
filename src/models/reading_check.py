"""Looks whether a network reads texts as this program gives them to it: padded on the right, up to a length."""

from itertools import cycle, islice

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

from src.data.tokenization import Encoder
from src.system.errors import UserError, one_line

_WORDS, _WIDTH = 3, 16  # tokens of a text, and of the batch that it is padded in: 0.1 s for bert-base
_ROUNDING = 1e-4  # relative; 5e-6 is usual


class _Embedded(Exception):  # noqa: N818  (it is no error)
    """The network has looked up its input in the tables."""


@torch.inference_mode()
def check_reading(network: PreTrainedModel, encoder: Encoder, name: str) -> None:
    """Compares the answer to a text alone with that to the same text padded, and embeds a text of the maximum length.

    The answer of a network that ignores the mask (FNet) or reads the last position (XLNet) depends on the batch.

    Args:
        network: in eval mode, on the CPU.
        encoder: what it is used with.
        name: of the network, for messages.

    Raises:
        UserError: the answers differ, or the network fails.
    """
    who = f"{name!r} (model type {network.config.model_type})"
    prefix, suffix = encoder.special_tokens()
    tokenizer = encoder.tokenizer
    words = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))

    def logits(*lengths: int) -> torch.Tensor:
        rows = [[*prefix, *islice(cycle(words), n - len(prefix) - len(suffix)), *suffix] for n in lengths]
        ids = pad_sequence([*map(torch.tensor, rows)], batch_first=True, padding_value=tokenizer.pad_token_id or 0)
        mask = pad_sequence([torch.ones(n, dtype=torch.int64) for n in lengths], batch_first=True)
        result: torch.Tensor = network(input_ids=ids, attention_mask=mask).logits
        return result

    length = min(_WORDS + len(prefix) + len(suffix), encoder.max_length - 1)
    try:
        alone, padded = logits(length)[0], logits(length, min(_WIDTH, encoder.max_length))[0]
    except Exception as error:  # a stranger's configuration may make any part of the network fail
        raise UserError(f"{who} cannot read a batch of texts: {one_line(error)[:300]}") from error
    if (padded - alone).abs().max() > _ROUNDING * alone.abs().max():  # False for NaN, which is found elsewhere
        raise UserError(
            f"{who} gives a text another answer when it is padded, so labels would depend on the batch: "
            "use a model of another type"
        )
    if encoder.max_length >= VERY_LARGE_INTEGER:  # neither tokenizer nor network states a limit
        return
    # the limit is in the tables, which come before the first product, so most of the work is left out
    handles = [part.register_forward_pre_hook(_stop) for part in network.modules() if isinstance(part, nn.Linear)]
    try:
        logits(encoder.max_length)
    except _Embedded:
        pass
    except Exception as error:  # as above
        raise UserError(f"{who} cannot read {encoder.max_length} tokens at once: {one_line(error)[:300]}") from error
    finally:
        for handle in handles:
            handle.remove()


def _stop(*_: object) -> None:
    raise _Embedded
