"""The last layer computed at [CLS] only gives the same results as the whole layer."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification

from src.models.kernels.last_layer import PartialBertLayer, use_partial_last_layer
from tests.models.families import save_distilbert, save_roberta

_LENGTHS = (23, 1, 11, 17)


@pytest.fixture
def plain(tiny_bert: Path) -> BertForSequenceClassification:
    torch.manual_seed(1)
    return BertForSequenceClassification.from_pretrained(tiny_bert, num_labels=3)


def _batch(masked: bool) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    batch = {"input_ids": torch.randint(5, 40, (len(_LENGTHS), max(_LENGTHS)), generator=generator)}
    if masked:
        positions = torch.arange(max(_LENGTHS))
        batch["attention_mask"] = (positions < torch.tensor(_LENGTHS)[:, None]).long()
    return batch


def _forward_and_backward(model: nn.Module, masked: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    logits = model(**_batch(masked)).logits
    nn.functional.cross_entropy(logits, torch.tensor([0, 2, 1, 0])).backward()
    return logits.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("masked", [True, False], ids=["mask", "no mask"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_logits_and_gradients_are_those_of_the_whole_layer(
    plain: BertForSequenceClassification, masked: bool, attention: str, training: bool
) -> None:
    for module in plain.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # the two would draw different masks
    plain.set_attn_implementation(attention)
    plain.train(training)
    shortened = copy.deepcopy(plain)
    assert use_partial_last_layer(shortened)
    logits, gradients = _forward_and_backward(plain, masked)
    its_logits, its_gradients = _forward_and_backward(shortened, masked)
    torch.testing.assert_close(its_logits, logits, rtol=0, atol=1e-6)
    assert its_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(its_gradients[name], gradient, rtol=0, atol=1e-6, msg=name)


def test_masked_tokens_change_nothing(plain: BertForSequenceClassification) -> None:
    use_partial_last_layer(plain)
    plain.eval()
    batch = _batch(masked=True)
    other = batch | {"input_ids": torch.where(batch["attention_mask"] == 1, batch["input_ids"], 7)}
    assert not torch.equal(batch["input_ids"], other["input_ids"])
    with torch.no_grad():
        torch.testing.assert_close(plain(**batch).logits, plain(**other).logits, rtol=0, atol=1e-6)


def test_dropout_is_on_in_training(plain: BertForSequenceClassification) -> None:
    use_partial_last_layer(plain)
    last = plain.bert.encoder.layer[-1].train()
    states, masks = torch.randn(2, 9, 32), None
    assert not torch.equal(last(states, masks), last(states, masks))
    last.eval()
    assert torch.equal(last(states, masks), last(states, masks))
    assert last(states, masks).shape == (2, 1, 32)


def test_names_and_files_are_unchanged(plain: BertForSequenceClassification, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    use_partial_last_layer(plain)
    assert list(plain.state_dict()) == list(before)
    plain.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert not any(isinstance(module, PartialBertLayer) for module in loaded.modules())
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, before[name])


def test_only_the_last_layer_of_bert_is_changed(plain: BertForSequenceClassification) -> None:
    use_partial_last_layer(plain)
    assert [isinstance(layer, PartialBertLayer) for layer in plain.bert.encoder.layer] == [False, True]
    assert not use_partial_last_layer(plain), "done already"


@pytest.mark.parametrize("family", ["roberta", "distilbert"])
def test_other_families_are_unchanged(tiny_bert: Path, tmp_path: Path, family: str) -> None:
    folder = save_roberta(tmp_path) if family == "roberta" else save_distilbert(tmp_path, tiny_bert / "vocab.txt")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        before = model(**_batch(masked=True)).logits
        assert not use_partial_last_layer(model)
        assert torch.equal(model(**_batch(masked=True)).logits, before)
