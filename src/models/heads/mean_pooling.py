"""A top layer that begins as the mean over a review's tokens, in BERT's own architecture.

A classifier on BERT reads the vector of [CLS]. Where pre-training has not made that vector mean anything (sentence
encoders are trained on the mean over the tokens), fine-tuning first has to gather the review there, and with few labels
it hardly does. Here the top layer is set so that [CLS] becomes norm(norm(4 · mean + cls)), of the mean over all tokens
of the layer below and its vector of [CLS]: its queries are zero, so that attention is spread evenly; values and output
are a multiple of the identity; the feed-forward adds nothing. The pooler passes on the tanh of it. Training may then
change all of that.

It is a new beginning for the top layer, as in Zhang et al. 2021, section 5, but with weights that mean something in
place of random ones. Shapes and names stay as they are, so whatever reads a `BertForSequenceClassification` reads it.
"""

from typing import Any, Literal

import torch
from torch import nn

Pooling = Literal["cls", "mean"]

_MEAN_OVER_CLS = 4.0
"""Factor on the mean beside the vector of [CLS], which the layer's residual connection adds."""


@torch.no_grad()
def begin_as_mean(network: Any) -> None:
    """Sets the top layer and the pooler of a `BertForSequenceClassification`, in place."""
    layer, pooler = network.bert.encoder.layer[-1], network.bert.pooler
    attention = layer.attention
    _set(attention.self.query, 0.0)
    _set(attention.self.value, 1.0)
    _set(attention.output.dense, _MEAN_OVER_CLS)
    _set(layer.output.dense, 0.0)
    _set(pooler.dense, 1.0)
    for norm in (attention.output.LayerNorm, layer.output.LayerNorm):
        norm.weight.fill_(1.0)
        norm.bias.zero_()


def _set(linear: nn.Linear, factor: float) -> None:
    """Makes it a multiple of the identity, without a bias."""
    nn.init.eye_(linear.weight).mul_(factor)
    linear.bias.zero_()
