"""The linear probe: a head fitted by logistic regression before training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from src.models.heads import linear_probe
from src.models.kernels.last_layer import use_partial_last_layer
from src.models.tasks.multi_label import MultiLabel
from src.models.tasks.single_label import SingleLabel
from src.system.errors import UserError
from tests.models.families import save_distilbert, save_roberta

Run = Callable[..., tuple[int, str, str]]


def _batches(n: int = 3) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "input_ids": torch.randint(5, 60, (8, 12 - i), generator=generator),
            "attention_mask": torch.ones(8, 12 - i, dtype=torch.int64),
            "labels": torch.randint(3, (8,), generator=generator),
        }
        for i in range(n)
    ]


def test_logistic_regression_equals_sklearns() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 5, generator=generator).double(), torch.randint(3, (60,), generator=generator)
    weight, bias = linear_probe.logistic_regression(x, 3, 0.05, lambda logits: functional.cross_entropy(logits, y))
    theirs = LogisticRegression(C=1 / (2 * 0.05 * len(x)), tol=1e-10, max_iter=1000).fit(x.numpy(), y.numpy())
    torch.testing.assert_close(weight, torch.from_numpy(theirs.coef_), atol=1e-5, rtol=0)
    # a constant on all biases changes nothing
    torch.testing.assert_close(bias - bias.mean(), torch.from_numpy(theirs.intercept_), atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_sets_the_head_of_any_family_and_nothing_else(family: str, tiny_bert: Path, tmp_path: Path) -> None:
    folder = tiny_bert
    if family != "bert":
        folder = save_roberta(tmp_path) if family == "roberta" else save_distilbert(tmp_path, tiny_bert / "vocab.txt")
    options = {"num_labels": 3, "ignore_mismatched_sizes": True}  # those two have a head over two labels
    network: Any = AutoModelForSequenceClassification.from_pretrained(folder, **options)
    use_partial_last_layer(network)
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    share = linear_probe.probe(network, _batches(), SingleLabel(["a", "b", "c"]))
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    head = {"roberta": "classifier.out_proj"}.get(family, "classifier")
    assert changed == {f"{head}.weight", f"{head}.bias"}
    assert network.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())

    network.eval()
    with torch.no_grad():
        right = [
            network(input_ids=b["input_ids"], attention_mask=b["attention_mask"]).logits.argmax(dim=1) == b["labels"]
            for b in _batches()
        ]
    assert share == pytest.approx(float(torch.cat(right).double().mean())), "dropout is off in the probe"


def test_each_of_several_labels_has_a_regression_of_its_own(tiny_bert: Path) -> None:
    network: Any = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=3)
    batches = [
        batch | {"labels": torch.tensor([[1, 0, 1], [0, 0, 1], [1, 1, 0], [0, 1, 0]] * 2)} for batch in _batches()
    ]
    linear_probe.probe(network, batches, MultiLabel(["a", "b", "c"]))
    vectors = []
    handle = network.classifier.register_forward_pre_hook(lambda _, inputs: vectors.append(inputs[0]))
    with torch.no_grad():
        for batch in batches:
            network.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    handle.remove()
    x, labels = torch.cat(vectors).numpy(), torch.cat([batch["labels"] for batch in batches]).numpy()
    for k in range(3):
        theirs = LogisticRegression(C=1 / (2 * 0.1 * len(x)), tol=1e-10, max_iter=1000).fit(x, labels[:, k])
        np.testing.assert_allclose(network.classifier.weight[k].detach(), theirs.coef_[0], atol=1e-4)


class First(lightning.Callback):
    """Keeps the head's weights from before the first step."""

    head: torch.Tensor

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        First.head = pl_module.model.classifier.weight.detach().clone()


def test_fit_starts_with_the_probe_for_every_seed_but_not_when_resumed(
    run_cli: Run, tiny_options: list[str], tmp_path: Path
) -> None:
    options = [*tiny_options, "--model.linear_probe=true", f"--trainer.callbacks+={__name__}.First"]
    heads = []
    for seed in (1, 2):
        status, out, err = run_cli("fit", *options, f"--seed_everything={seed}", "--trainer.max_epochs=1")
        assert status == 0, err
        assert out.count("Linear probe: right about ") == 1
        heads.append(First.head)
    torch.testing.assert_close(heads[0], heads[1], atol=1e-5, rtol=0)

    last = tmp_path / "lightning_logs" / "version_1" / "checkpoints" / "last.ckpt"
    trained = torch.load(last, weights_only=True)["state_dict"]["model.classifier.weight"]
    status, out, err = run_cli("fit", f"--ckpt_path={last}", "--trainer.max_epochs=2")
    assert status == 0, err
    assert "Linear probe" not in out
    assert torch.equal(First.head, trained)


def test_learning_rate_finder_runs_before_it(run_cli: Run, tiny_options: list[str]) -> None:
    finder = "--trainer.callbacks+=lightning.pytorch.callbacks.LearningRateFinder"
    search = [finder, "--trainer.callbacks.num_training_steps=6", "--trainer.callbacks.early_stop_threshold=null"]
    probe = [f"--trainer.callbacks+={__name__}.First", "--model.linear_probe=true", "--trainer.max_steps=0"]
    status, out, err = run_cli("fit", *tiny_options, *search, *probe)
    assert status == 0, err
    assert out.count("Linear probe: right about ") == 1


def test_heads_without_one_vector_per_review_are_refused(tiny_bert: Path) -> None:
    network: Any = AutoModelForTokenClassification.from_pretrained(tiny_bert, num_labels=3)
    with pytest.raises(
        UserError, match=r"^model.linear_probe needs a linear head .* that reads one vector per review, "
    ):
        linear_probe.probe(network, _batches(), SingleLabel(["a", "b", "c"]))
    network.classifier = torch.nn.Linear(32, 3, bias=False)
    with pytest.raises(UserError, match=r"model type 'bert' does not have: set it to false$"):
        linear_probe.probe(network, _batches(), SingleLabel(["a", "b", "c"]))
