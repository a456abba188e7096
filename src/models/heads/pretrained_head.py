"""The head that a pretrained model brings: kept if it has the classes of the data, matched by name; else made anew."""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from src.system.errors import printable


def output_layer(network: PreTrainedModel) -> tuple[str, nn.Linear]:
    """The last linear layer above the encoder, which has one output per label whatever a family calls it; its name too.

    Raises:
        LookupError: there is none.
    """
    encoder = set(network.base_model.modules()) - {network}  # CamemBERT's comes after its head
    layers = [
        (name, part) for name, part in network.named_modules() if isinstance(part, nn.Linear) and part not in encoder
    ]
    if not layers or layers[-1][1].out_features != network.config.num_labels:
        raise LookupError("no linear layer has an output per label")
    return layers[-1]


@torch.no_grad()
def match_head(
    network: PreTrainedModel, lacking: Collection[str], before: Mapping[int, str], labels: Sequence[str], name: str
) -> str:
    """Brings the rows of the output layer into the order of `labels`, or draws new ones; returns which, in words.

    A head whose classes have no names (LABEL_0 …) fits classes that are called 0, 1 … only. Which of its classes would
    be which of other names, nobody knows.

    Args:
        network: with the pretrained weights.
        lacking: names of the weights that the pretrained model did not have, which are new already.
        before: the classes of the pretrained head, by number.
        labels: the classes of the data.
        name: of the pretrained model.
    """
    try:
        place, layer = output_layer(network)
    except LookupError:
        return f"Head: that of {name}, whose classes could not be matched by name"
    nameless = all(label == f"LABEL_{i}" for i, label in before.items())
    number = {str(i if nameless else label): i for i, label in before.items()}
    missing = any(f"{place}.{weight}" in lacking for weight, _ in layer.named_parameters())
    if not missing and sorted(before) == list(range(len(labels))) and number.keys() == set(labels):
        rows = [number[label] for label in labels]
        for parameter in layer.parameters():
            parameter.copy_(parameter[rows].clone())
        return f"Head: kept from {name}, its classes matched by name"
    if not missing:
        for parameter in layer.parameters():
            parameter._is_hf_initialized = False  # type: ignore[attr-defined]  # else it is left as it is
        network._init_weights(layer)
    if not nameless:
        return (
            f"Head: new, since that of {name} has the classes {printable(', '.join(map(str, before.values())))[:200]}"
        )
    return f"Head: new, since {name} has none " + ("for these classes" if missing else "whose classes have names")
