"""Mean pooling: a top layer initialised so that [CLS] is the mean over the tokens."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn.functional import layer_norm
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification

from src.models.heads.mean_pooling import begin_as_mean
from src.models.kernels.last_layer import use_partial_last_layer
from tests.models.families import family_config

Run = Callable[..., tuple[int, str, str]]

_LENGTHS = torch.tensor([23, 1, 11, 17])


def _batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 40, (len(_LENGTHS), 23), generator=torch.Generator().manual_seed(2))
    return {"input_ids": ids, "attention_mask": (torch.arange(23) < _LENGTHS[:, None]).long()}


@torch.no_grad()
def test_the_head_reads_the_mean_of_the_layer_below(tiny_bert: Path) -> None:
    network = BertForSequenceClassification.from_pretrained(tiny_bert).eval()
    before = copy.deepcopy(network.state_dict())
    begin_as_mean(network)
    batch = _batch()
    below = network.bert(**batch, output_hidden_states=True).hidden_states[-2]
    mask = batch["attention_mask"][..., None]
    mean = (below * mask).sum(dim=1) / mask.sum(dim=1)
    size = below.shape[-1:]
    read = layer_norm(layer_norm(4 * mean + below[:, 0], size, eps=1e-12), size, eps=1e-12).tanh()
    wanted = network.classifier(read)
    torch.testing.assert_close(network(**batch).logits, wanted, rtol=0, atol=1e-5)
    use_partial_last_layer(network)
    torch.testing.assert_close(network(**batch).logits, wanted, rtol=0, atol=1e-5)

    changed = {name for name, weight in network.state_dict().items() if not torch.equal(weight, before[name])}
    assert all(name.startswith(("bert.encoder.layer.1.", "bert.pooler.")) for name in changed)
    assert changed


def test_all_weights_of_the_layer_are_trained(tiny_bert: Path, run_cli: Run, tiny_options: list[str]) -> None:
    status, _, err = run_cli("fit", *tiny_options, "--model.pooling=mean", "--trainer.max_epochs=2")
    assert status == 0, err
    trained = torch.load("lightning_logs/version_0/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    network = BertForSequenceClassification.from_pretrained(tiny_bert)
    begin_as_mean(network)
    for name, weight in network.bert.encoder.layer[-1].state_dict().items():
        # a constant on all keys changes no softmax
        if name != "attention.self.key.bias":
            assert not torch.equal(trained[f"model.bert.encoder.layer.1.{name}"], weight), name
    status, out, err = run_cli("test", "--ckpt_path=last")
    assert status == 0, err
    assert "Accuracy: " in out


def test_a_run_resumes_with_the_pooling_it_began_with(run_cli: Run, tiny_options: list[str]) -> None:
    options = [*tiny_options, "--trainer.max_epochs=2"]
    assert run_cli("fit", *options, "--trainer.max_steps=6")[0] == 0
    last = "lightning_logs/version_0/checkpoints/last.ckpt"
    status, _, err = run_cli("fit", *options, "--model.pooling=mean", f"--ckpt_path={last}")
    assert status == 1
    assert err == "error: the run to resume began with model.pooling=cls: resume with that value\n"
    assert run_cli("fit", *options, f"--ckpt_path={last}")[0] == 0


@torch.no_grad()
@pytest.mark.parametrize("name", ["roberta", "xlm-roberta", "camembert", "data2vec-text", "electra", "distilbert"])
def test_other_families_read_the_mean_too(name: str) -> None:
    """Their top layer gives it, and their head's first layer passes on all of it."""
    network = AutoModelForSequenceClassification.from_config(family_config(name)).eval()
    begin_as_mean(network)
    batch = _batch()
    states = network.base_model(**batch, output_hidden_states=True).hidden_states
    below, top = states[-2], states[-1][:, 0]
    mask = batch["attention_mask"][..., None]
    mean = (below * mask).sum(dim=1) / mask.sum(dim=1)
    size = below.shape[-1:]
    torch.testing.assert_close(top, layer_norm(layer_norm(4 * mean + below[:, 0], size), size), rtol=0, atol=1e-4)
    first = network.pre_classifier if name == "distilbert" else network.classifier.dense
    assert torch.linalg.matrix_rank(first.weight) == len(first.weight)


@torch.no_grad()
def test_modernbert_takes_the_mean_by_its_configuration() -> None:
    network = AutoModelForSequenceClassification.from_config(family_config("modernbert")).eval()
    begin_as_mean(network)
    batch = _batch()
    last = network.base_model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    wanted = network.classifier(network.head((last * mask).sum(dim=1) / mask.sum(dim=1)))
    torch.testing.assert_close(network(**batch).logits, wanted, rtol=0, atol=1e-5)
