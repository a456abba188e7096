"""BertPretrainer gives the losses, gradients and logits of `BertForPreTraining`."""

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertForMaskedLM, BertForPreTraining

from src.models.kernels.last_layer import use_partial_last_layer
from src.models.pretrainer import BertPretrainer

_LENGTHS = (23, 9, 11, 17)


def _batch(pairs: bool = True) -> dict[str, torch.Tensor]:
    """Rows of different lengths, one of them without a masked token."""
    generator = torch.Generator().manual_seed(2)
    shape = (len(_LENGTHS), max(_LENGTHS))
    positions = torch.arange(max(_LENGTHS))
    mask = positions < torch.tensor(_LENGTHS)[:, None]
    ids = torch.randint(5, 40, shape, generator=generator)
    masked = (torch.rand(shape, generator=generator) < 0.3) & mask & (positions > 0)
    masked[1] = False
    return {
        "input_ids": ids,
        "attention_mask": mask.long(),
        "token_type_ids": (positions > 5).long().expand(shape) * pairs,
        "labels": torch.where(masked, torch.randint(5, 40, shape, generator=generator), -100),
        "next_sentence_label": torch.tensor([0, 1, 1, 0]),
    }


class _Trainer(SimpleNamespace):
    """The parts of a single-process Trainer that a training step uses."""

    def __init__(self, pairs: bool) -> None:
        corpus = SimpleNamespace(hashes=lambda: np.empty(0, dtype=np.uint64))
        options = {"next_sentence": pairs, "sequence_length": 16}
        data = SimpleNamespace(hparams=options, tokenizer=None, corpus=corpus)
        strategy = SimpleNamespace(reduce=lambda tensor, **_: tensor)
        super().__init__(datamodule=data, world_size=1, accumulate_grad_batches=1, strategy=strategy)


@pytest.fixture
def make(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], BertPretrainer]:
    def pretrainer(pairs: bool) -> BertPretrainer:
        module = BertPretrainer(str(tiny_bert), hidden_dropout=0.0, attention_dropout=0.0)
        monkeypatch.setattr(BertPretrainer, "trainer", _Trainer(pairs))
        monkeypatch.setattr(BertPretrainer, "log", lambda *_, **__: None)
        module.configure_model()
        return module

    return pretrainer


def _gradients(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("pairs", [True, False])
def test_loss_and_gradients_are_those_of_transformers(
    make: Callable[[bool], BertPretrainer], tiny_bert: Path, pairs: bool
) -> None:
    module, batch = make(pairs), _batch(pairs)
    kind: Any = BertForPreTraining if pairs else BertForMaskedLM
    reference = kind.from_pretrained(tiny_bert, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train()
    inputs = batch if pairs else {name: value for name, value in batch.items() if name != "next_sentence_label"}
    expected = reference(**inputs).loss
    expected.backward()
    loss = module.training_step(batch, 0)
    loss.backward()
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=0)
    found, wanted = _gradients(module.model), _gradients(reference)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=0, msg=name)


def test_heads_give_the_logits_of_transformers_at_the_chosen_positions(
    make: Callable[[bool], BertPretrainer], tiny_bert: Path
) -> None:
    module, batch = make(True), _batch()
    reference = BertForPreTraining.from_pretrained(tiny_bert).eval()
    module.model.eval()
    chosen = batch["labels"] != -100
    with torch.no_grad():
        tokens, answers = module(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"], chosen)
        expected = reference(**{name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")})
    torch.testing.assert_close(tokens, expected.prediction_logits[chosen], atol=1e-5, rtol=0)
    torch.testing.assert_close(answers, expected.seq_relationship_logits, atol=1e-5, rtol=0)


def test_a_batch_without_masked_tokens_has_the_loss_of_its_pairs_only(make: Callable[[bool], BertPretrainer]) -> None:
    module, batch = make(True), _batch()
    batch["labels"][:] = -100
    loss = module.training_step(batch, 0)
    loss.backward()
    answers = module(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"], batch["labels"] != -100)[1]
    expected = nn.functional.cross_entropy(answers, batch["next_sentence_label"])
    torch.testing.assert_close(loss, expected)


def test_vocabulary_head_is_computed_at_masked_positions_only(make: Callable[[bool], BertPretrainer]) -> None:
    module, batch = make(True), _batch()
    shapes = {}
    for name, part in (("head", module.model.cls.predictions), ("feed-forward", module.model.bert.encoder.layer[-1])):
        part.register_forward_hook(lambda _, __, output, name=name: shapes.update({name: tuple(output.shape[:-1])}))
    module.training_step(batch, 0)
    masked = (batch["labels"] != -100).sum(dim=1)
    assert shapes == {"head": (int(masked.sum()),), "feed-forward": (len(_LENGTHS), 1 + int(masked.max()))}


def test_names_of_weights_are_those_of_transformers(tiny_bert: Path) -> None:
    network = BertForPreTraining.from_pretrained(tiny_bert)
    names = list(copy.deepcopy(network).state_dict())
    use_partial_last_layer(network)
    assert list(network.state_dict()) == names
