"""Mean pooling in an encoder's own architecture: initialises it so that the head reads the mean over a text's tokens.

A classifier on BERT reads the vector of [CLS]. Sentence encoders are trained on the mean over the tokens instead, so
their [CLS] says little about a review, and with few labels fine-tuning hardly changes that.

Here the top layer starts as norm(norm(4 · mean + cls)), where `mean` is over all tokens of the layer below and `cls` is
its vector of [CLS]. The queries are zero, so attention is uniform; values and output projection are multiples of the
identity; the feed-forward adds nothing. The head's first layer passes this on through its tanh; before a ReLU or a
GELU, which would drop half of it, it is drawn anew. Training may then change all of it.

Re-initialising top layers is known to help (Zhang et al. 2021, section 5), there with random weights. Shapes and names
stay the same, so the result is an ordinary network of its family. ModernBERT has mean pooling of its own, by its
configuration. In other families attention does not become uniform by its queries alone (relative positions in DeBERTa
and MPNet), or the top layer is shared with those below (ALBERT).
"""

from typing import Literal

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from src.system.errors import UserError

Pooling = Literal["cls", "mean"]

_MEAN_OVER_CLS = 4.0
"""Weight of the mean relative to the vector of [CLS], which the residual connection adds."""

_BERT_LAYER = (
    *("attention.self.query", "attention.self.value", "attention.output.dense", "output.dense"),
    *("attention.output.LayerNorm", "output.LayerNorm"),
)
_DISTILBERT_LAYER = (
    *("attention.q_lin", "attention.v_lin", "attention.out_lin", "ffn.lin2"),
    *("sa_layer_norm", "output_layer_norm"),
)
_ROBERTA = ("encoder.layer", _BERT_LAYER, "classifier.dense", True)
_FAMILIES = {
    "bert": ("encoder.layer", _BERT_LAYER, "bert.pooler.dense", True),
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert", "data2vec-text"), _ROBERTA),
    "electra": ("encoder.layer", _BERT_LAYER, "classifier.dense", False),
    "distilbert": ("transformer.layer", _DISTILBERT_LAYER, "pre_classifier", False),
}
"""By model type: the encoder's layers, the parts of one, the head's first layer, and whether that is before a tanh."""


def check_mean(config: PretrainedConfig, name: str) -> None:
    """Raises UserError if networks of this configuration cannot begin with mean pooling.

    Args:
        config: of the network.
        name: of the pretrained model.
    """
    if config.model_type not in _FAMILIES and not hasattr(config, "classifier_pooling"):
        known = ", ".join((*_FAMILIES, "modernbert"))
        raise UserError(
            f"model.pooling=mean is for the model types {known}, but that of {name!r} is {config.model_type!r}: use cls"
        )


@torch.no_grad()
def begin_as_mean(network: PreTrainedModel) -> None:
    """Initialises the top layer and the head's first layer for mean pooling, in place."""
    config = network.config
    if config.model_type not in _FAMILIES:
        config.classifier_pooling = "mean"
        return
    layers, parts, head, before_tanh = _FAMILIES[config.model_type]
    top = network.base_model.get_submodule(layers)[-1]  # type: ignore[index]
    query, value, output, feed_forward, *norms = (top.get_submodule(part) for part in parts)
    _set_identity(query, 0.0)
    _set_identity(value, 1.0)
    _set_identity(output, _MEAN_OVER_CLS)
    _set_identity(feed_forward, 0.0)
    for norm in norms:
        assert isinstance(norm, nn.LayerNorm)
        norm.reset_parameters()
    first = network.get_submodule(head)
    _set_identity(first, 1.0)
    if not before_tanh:
        nn.init.normal_(first.weight, std=config.initializer_range)  # type: ignore[arg-type]


def _set_identity(linear: nn.Module, factor: float) -> None:
    """Sets the weight to `factor` times the identity, and the bias to 0."""
    assert isinstance(linear, nn.Linear)
    nn.init.eye_(linear.weight).mul_(factor)
    linear.bias.zero_()
