"""BertClassifier, trained and tested through the command line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    DistilBertConfig,
    ModernBertConfig,
    PretrainedConfig,
)

from src.data.fingerprints import READ_TEXTS
from src.inference.classifier import load
from src.models.classifier import BertClassifier
from src.models.origin import ClassifierOrigin
from src.system.errors import UserError
from tests.conftest import write_reviews
from tests.models.families import save_distilbert, save_roberta
from tests.synthetic import synthetic_reviews

Run = Callable[..., tuple[int, str, str]]


class Probe(lightning.Callback):
    """Records the state of the network at the start of each training step."""

    seen: dict[str, Any]

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Two forward passes of one batch, the mode of every module, and the dropout probabilities."""
        with torch.no_grad():
            passes = [pl_module(batch["input_ids"], batch["attention_mask"]) for _ in range(2)]
        Probe.seen = {
            "step": trainer.global_step,
            "differ": not torch.equal(*passes),
            "in eval mode": [name for name, part in pl_module.model.named_modules() if not part.training],
            "dropout": {part.p for part in pl_module.modules() if isinstance(part, nn.Dropout)},
        }


def _fit(run_cli: Run, *options: str, epochs: int = 1) -> Path:
    """Trains, and returns the run's directory."""
    status, out, err = run_cli("fit", *options, f"--trainer.max_epochs={epochs}")
    assert status == 0, err
    line = next(line for line in out.splitlines() if line.startswith("Best checkpoint: "))
    return Path(line.removeprefix("Best checkpoint: ")).resolve().parents[1]


@pytest.mark.parametrize(
    ("options", "differ"),
    [
        ([], True),
        (["--model.hidden_dropout=0", "--model.attention_dropout=0.5"], True),
        (["--model.hidden_dropout=0", "--model.attention_dropout=0"], False),
    ],
    ids=["as the checkpoint says", "attention alone", "off"],
)
def test_dropout_is_on_in_training_unless_it_is_switched_off(
    run_cli: Run, tiny_options: list[str], options: list[str], differ: bool
) -> None:
    """`from_pretrained` returns a network in eval mode, which `fit` does not change (lightning #20105).

    The probe's last look comes after a validation within the epoch, which switches to eval mode and back.
    """
    probe = f"--trainer.callbacks+={__name__}.Probe"
    _fit(run_cli, *tiny_options, *options, probe, "--trainer.val_check_interval=3")
    assert Probe.seen["step"] == 5, "the last of the epoch"
    assert Probe.seen["in eval mode"] == []
    assert Probe.seen["differ"] is differ


@pytest.mark.parametrize("family", ["roberta", "distilbert"])
def test_other_families_work_end_to_end(
    run_cli: Run, tiny_options: list[str], tiny_bert: Path, tmp_path: Path, family: str
) -> None:
    folder = tmp_path / family
    folder.mkdir()
    if family == "roberta":
        save_roberta(folder)
    else:
        save_distilbert(folder, tiny_bert / "vocab.txt")
    options = [f"--model.model_name_or_path={folder}", "--data.max_length=128", "--data.train_size=160"]
    probe = [f"--trainer.callbacks+={__name__}.Probe", "--model.hidden_dropout=0.05", "--model.layer_decay=0.9"]
    run = _fit(run_cli, *tiny_options, *options, *probe, "--model.learning_rate=5e-3", epochs=5)
    assert 0.05 in Probe.seen["dropout"]
    status, _, err = run_cli("test", "--ckpt_path", "best")
    assert status == 0, err
    figures = json.loads((run / "test.json").read_text())
    assert figures["n"] == 24
    assert figures["accuracy"] > 0.6  # it learns its synthetic reviews

    status, _, err = run_cli("fit", *tiny_options, *options, "--data.max_length=129")
    assert status == 1
    assert err.startswith("error: data.max_length is 129")
    assert "takes at most 128 tokens" in err


def _network(checkpoint: Path, tiny_bert: Path) -> tuple[nn.Module, dict[str, Any]]:
    """A plain `transformers` network with the weights of a checkpoint, and the checkpoint's content."""
    content = torch.load(checkpoint, weights_only=True)
    names = content["classifier"]["labels"]
    network = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=len(names)).eval()
    network.load_state_dict({key.removeprefix("model."): value for key, value in content["state_dict"].items()})
    return network, content


def test_figures_of_a_test_are_those_of_scikit_learn(
    run_cli: Run, tiny_options: list[str], tiny_bert: Path, tmp_path: Path
) -> None:
    """Five classes, and a last batch that is smaller: metrics are means over rows, not over batches."""
    frame = synthetic_reviews(200).sample(frac=1, random_state=0, ignore_index=True)
    names = ["awful", "bad", "fair", "good", "great"]
    frame["label"] = [names[i % 5] for i in range(200)]
    file = write_reviews(tmp_path / "reviews.jsonl", frame)
    options = [f"--data.dataset={file}", "--data.test_size=41", "--data.batch_size=6", "--data.eval_batch_size=20"]
    run = _fit(run_cli, *tiny_options, *options, "--model.learning_rate=1e-2")
    status, out, err = run_cli("test", "--ckpt_path", "best")
    assert status == 0, err
    figures = json.loads((run / "test.json").read_text())

    network, content = _network(run / "checkpoints" / "best.ckpt", tiny_bert)
    assert content["classifier"]["labels"] == names
    tested = frame.iloc[np.random.default_rng(42).permutation(200)[-41:]]
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    with torch.no_grad():
        logits = torch.cat(
            [
                network(**tokenizer(text, truncation=True, max_length=64, return_tensors="pt")).logits
                for text in tested["text"]
            ]
        )
    labels = torch.tensor([names.index(label) for label in tested["label"]])
    predicted = logits.argmax(dim=1)
    assert figures["n"] == 41
    assert figures["loss"] == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), abs=1e-5)
    assert figures["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(labels, predicted), abs=1e-6)
    assert figures["f1"] == pytest.approx(sklearn_metrics.f1_score(labels, predicted, average="macro"), abs=1e-6)
    assert figures["mcc"] == pytest.approx(sklearn_metrics.matthews_corrcoef(labels, predicted), abs=1e-6)
    auroc = sklearn_metrics.roc_auc_score(
        labels, logits.softmax(dim=1).double().numpy(), multi_class="ovr", labels=range(5)
    )
    assert figures["auroc"] == pytest.approx(auroc, abs=1e-5)
    assert f"Accuracy: {figures['accuracy']:.4f} (95% CI " in out


def test_training_loss_of_an_epoch_is_the_mean_over_rows(
    run_cli: Run, tiny_options: list[str], tiny_bert: Path
) -> None:
    """With a learning rate near 0 the weights do not change, so it must equal the loss of all rows in one batch."""
    still = ["--model.learning_rate=1e-30", "--model.hidden_dropout=0", "--model.attention_dropout=0"]
    run = _fit(run_cli, *tiny_options, *still, "--data.batch_size=7", "--data.train_size=45")
    logged = pd.read_csv(run / "metrics.csv")["train/loss_epoch"].dropna().item()
    network, _ = _network(run / "checkpoints" / "best.ckpt", tiny_bert)
    frame = pd.read_csv(tiny_options[1].removeprefix("--data.dataset="))
    trained = frame.iloc[np.random.default_rng(42).permutation(240)[:45]]
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    batch = tokenizer(trained["text"].tolist(), truncation=True, max_length=64, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = network(**batch).logits
    labels = torch.tensor((trained["label"] == "pos").to_numpy().astype(int))
    assert logged == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), abs=1e-5)


class RemovesFolder(lightning.Callback):
    """Deletes the pretrained model when training starts."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        shutil.rmtree(self.folder)


def test_checkpoint_has_the_texts_read_although_the_pretrained_folder_is_deleted(
    run_cli: Run, tiny_options: list[str], tiny_bert: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "pretrained"
    shutil.copytree(tiny_bert, folder)
    np.save(folder / READ_TEXTS, np.arange(3, dtype=np.uint64))
    remove = [f"--trainer.callbacks+={__name__}.RemovesFolder", f"--trainer.callbacks.folder={folder}"]
    run = _fit(run_cli, *tiny_options, "--model.model_name_or_path=pretrained", *remove)
    assert not folder.exists()
    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["classifier"]["texts"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("config", "option", "names"),
    [
        (BertConfig(), "hidden_dropout", {"hidden_dropout_prob"}),
        (BertConfig(classifier_dropout=0.3), "hidden_dropout", {"hidden_dropout_prob", "classifier_dropout"}),
        (BertConfig(), "attention_dropout", {"attention_probs_dropout_prob"}),
        (DistilBertConfig(), "hidden_dropout", {"dropout", "seq_classif_dropout"}),
        (ModernBertConfig(), "hidden_dropout", {"embedding_dropout", "mlp_dropout", "classifier_dropout"}),
        (ModernBertConfig(), "attention_dropout", {"attention_dropout"}),
    ],
)
def test_dropout_is_set_under_the_names_of_the_family(config: PretrainedConfig, option: str, names: set[str]) -> None:
    assert ClassifierOrigin("a model", None, {option: 0.25}).dropout_changes(config) == dict.fromkeys(names, 0.25)
    with pytest.raises(UserError, match=f"model.{option} is set, but the model type '.*' has no such dropout"):
        ClassifierOrigin("a model", None, {option: 0.25}).dropout_changes(PretrainedConfig())


def test_labels_get_into_the_configuration(tiny_checkpoint: Path) -> None:
    config = torch.load(tiny_checkpoint, weights_only=True)["classifier"]["config"]
    assert config["id2label"] in ({0: "neg", 1: "pos"}, {"0": "neg", "1": "pos"})
    assert config["label2id"] == {"neg": 0, "pos": 1}


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("hidden_dropout", 1.0, "must be at least 0 and below 1"),
        ("attention_dropout", -0.1, "must be at least 0 and below 1"),
        ("warmup_ratio", 1.5, "must be at least 0 and below 1"),
        ("learning_rate", 0.0, "must be positive"),
        ("learning_rate", -1e-5, "must be positive"),
        ("layer_decay", 0.0, "must be positive"),
        ("weight_decay", -0.1, "must be 0 or more"),
        ("learning_rate", float("nan"), "must be positive"),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: float, words: str) -> None:
    with pytest.raises(UserError, match=rf"model\.{option} is .*; it {words}"):
        BertClassifier(**{option: value})


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
def test_torch_compile_changes_nothing_but_rounding(run_cli: Run, tiny_options: list[str]) -> None:
    options = ["--model.hidden_dropout=0", "--model.attention_dropout=0", "--data.group_by_length=true"]
    runs = [_fit(run_cli, *tiny_options, *options, f"--model.torch_compile={on}") for on in ("false", "true")]
    plain, compiled = (torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in runs)
    assert plain.keys() == compiled.keys()
    for name, weight in plain.items():
        torch.testing.assert_close(compiled[name], weight, atol=2e-4, rtol=0, msg=name)
    status, _, err = run_cli("export", "--ckpt_path=best", "--output=model")
    assert status == 0, err


def test_load_from_checkpoint_gives_the_classifier(tiny_checkpoint: Path) -> None:
    module = BertClassifier.load_from_checkpoint(tiny_checkpoint)
    texts = ["great film", "an awful, awful plot"]
    loaded = load(tiny_checkpoint)
    batch = loaded.encoder.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = module.eval()(batch["input_ids"], batch["attention_mask"])
    np.testing.assert_allclose(logits, loaded.logits(texts), atol=1e-6)


def test_sums_stay_exact_in_half_precision(run_cli: Run, tiny_options: list[str]) -> None:
    """In bfloat16, a sum over rows stops growing at 256."""
    sizes = ["--data.train_size=8", "--data.val_size=4000", "--data.test_size=0", "--data.max_length=8"]
    frame = synthetic_reviews(4100)
    frame.to_csv("many.csv", index=False)
    options = [*tiny_options, *sizes, "--data.dataset=many.csv", "--trainer.max_epochs=1", "--data.eval_batch_size=16"]
    assert run_cli("fit", *options)[0] == 0
    losses = []
    for precision in ("32-true", "bf16-true"):
        status, _, err = run_cli("validate", "--ckpt_path=best", f"--trainer.precision={precision}")
        assert status == 0, err
        losses.append(json.loads(Path("lightning_logs/version_0/validate.json").read_text())["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


def test_rows_are_counted_in_integers(run_cli: Run, tiny_options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, a count stops growing at 16.7 million."""
    seen = []
    monkeypatch.setattr(
        BertClassifier,
        "on_validation_end",
        lambda self: seen.append(self.eval_metrics["confusion_matrix"].confmat.dtype),
    )
    assert run_cli("fit", *tiny_options, "--trainer.max_epochs=1")[0] == 0
    assert seen == [torch.int64]
