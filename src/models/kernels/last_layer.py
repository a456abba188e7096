"""BERT's last layer, computed only at the positions that are read: [CLS], and masked tokens in pre-training.

Attention needs the keys and values of all positions. The query, the output projection and the feed-forward, 10 of the
layer's 12 matrix products, are needed only at positions whose output is read. Outputs and gradients equal those of the
whole layer up to rounding.
"""

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.bert.modeling_bert import BertLayer, eager_attention_forward


class PartialBertLayer(BertLayer):
    """A BERT layer whose output has some positions only: shape (rows, positions, hidden).

    Attributes:
        positions: where to compute the output, int64 of shape (rows, positions); None is [CLS] alone.
    """

    positions: torch.Tensor | None = None

    def forward(  # type: ignore[override]
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *_args: object,
        **_kwargs: object,
    ) -> torch.Tensor:
        attention = self.attention.self
        if self.positions is None:
            states = hidden_states[:, :1]
        else:
            states = hidden_states.gather(1, self.positions[..., None].expand(-1, -1, hidden_states.shape[-1]))

        def split_heads(projected: torch.Tensor) -> torch.Tensor:
            return projected.view(*projected.shape[:-1], -1, attention.attention_head_size).transpose(1, 2)

        attend = ALL_ATTENTION_FUNCTIONS.get_interface(attention.config._attn_implementation, eager_attention_forward)
        context, _ = attend(
            attention,
            split_heads(attention.query(states)),
            split_heads(attention.key(hidden_states)),
            split_heads(attention.value(hidden_states)),
            # an encoder's mask is the same for all queries
            None if attention_mask is None else attention_mask[:, :, :1],
            dropout=attention.dropout.p if self.training else 0.0,
            scaling=attention.scaling,
        )
        context = context.reshape(*states.shape[:-1], -1)
        output: torch.Tensor = self.feed_forward_chunk(self.attention.output(context, states))
        return output


def use_partial_last_layer(network: nn.Module) -> bool:
    """Makes BERT's last layer a `PartialBertLayer`, in place. Parameters and their names stay the same.

    With 6 layers and n tokens a row, it saves 1 - 1/n of about 14% of the work.

    Returns:
        Whether it was done. Networks of other families are left unchanged.
    """
    encoder = getattr(getattr(network, "bert", None), "encoder", None)
    layers = getattr(encoder, "layer", None)
    if not layers or type(layers[-1]) is not BertLayer or layers[-1].is_decoder:
        return False
    layers[-1].__class__ = PartialBertLayer
    return True
