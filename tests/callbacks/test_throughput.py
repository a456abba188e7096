"""The floating-point operations that a training step needs."""

import torch
from transformers import BertConfig

from src.callbacks.throughput import training_flops
from src.models.classifier import BertClassifier
from src.models.pretrainer import BertPretrainer


def test_only_a_pretrainer_predicts_tokens() -> None:
    labels = torch.tensor([[-100, 5, 7], [-100, -100, 9]])
    assert BertPretrainer().count_masked_tokens({"labels": labels}) == 3
    assert BertClassifier().count_masked_tokens({"labels": torch.tensor([0, 1])}) == 0


def test_masked_tokens_add_the_head_over_the_vocabulary() -> None:
    config = BertConfig(hidden_size=8, num_hidden_layers=1, intermediate_size=32, vocab_size=100)
    plain = training_flops(config, torch.tensor([4, 2]))
    products, attention = 2 * (4 * 8**2 + 2 * 8 * 32) * 6, 4 * 8 * (4**2 + 2**2)
    assert plain == 3 * (products + attention)
    assert training_flops(config, torch.tensor([4, 2]), 3) == plain + 3 * 3 * 2 * (8**2 + 8 * 100)
