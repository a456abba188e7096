"""Mean pooling in BERT's own architecture: initialises the top layer so that [CLS] is the mean over a review's tokens.

A classifier on BERT reads the vector of [CLS]. Sentence encoders are trained on the mean over the tokens instead, so
their [CLS] says little about a review, and with few labels fine-tuning hardly changes that.

Here the top layer starts as norm(norm(4 · mean + cls)), where `mean` is over all tokens of the layer below and `cls` is
its vector of [CLS]. The queries are zero, so attention is uniform; values and output projection are multiples of the
identity; the feed-forward adds nothing. The pooler passes on the tanh. Training may then change all of it.

Re-initialising top layers is known to help (Zhang et al. 2021, section 5), there with random weights. Shapes and names
stay the same, so the result is an ordinary `BertForSequenceClassification`.
"""

from typing import Literal

import torch
from torch import nn
from transformers import BertForSequenceClassification
from transformers.models.bert.modeling_bert import BertLayer

Pooling = Literal["cls", "mean"]

_MEAN_OVER_CLS = 4.0
"""Weight of the mean relative to the vector of [CLS], which the residual connection adds."""


@torch.no_grad()
def begin_as_mean(network: BertForSequenceClassification) -> None:
    """Initialises the top layer and the pooler for mean pooling, in place."""
    layer, pooler = network.bert.encoder.layer[-1], network.bert.pooler
    assert isinstance(layer, BertLayer)
    assert pooler is not None
    attention = layer.attention
    _set_identity(attention.self.query, 0.0)
    _set_identity(attention.self.value, 1.0)
    _set_identity(attention.output.dense, _MEAN_OVER_CLS)
    _set_identity(layer.output.dense, 0.0)
    _set_identity(pooler.dense, 1.0)
    for norm in (attention.output.LayerNorm, layer.output.LayerNorm):
        norm.weight.fill_(1.0)
        norm.bias.zero_()


def _set_identity(linear: nn.Linear, factor: float) -> None:
    """Sets the weight to `factor` times the identity, and the bias to 0."""
    nn.init.eye_(linear.weight).mul_(factor)
    linear.bias.zero_()
