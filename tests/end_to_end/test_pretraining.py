"""Pre-training through the real command: from nothing to a model that `transformers` and a fine-tuning take."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertForPreTraining

from tests.processes import ranks, run, wait

Run = Callable[..., tuple[int, str, str]]
_RUN = Path("lightning_logs/version_0")
_NEW = "{hidden_size: 16, layers: 1, heads: 2, vocab_size: 100}"
_CONFIG = "{trainer: {callbacks: [{class_path: src.callbacks.last_checkpoint.LastCheckpoint, "
_CONFIG += "init_args: {every_n_train_steps: 3}}]}}"


def _checkpoint(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def _figures(log: Path) -> pd.DataFrame:
    frame = pd.read_csv(log)
    return frame.drop(columns=[name for name in frame if name.endswith("_per_s")])


def test_from_fit_to_a_fine_tuned_classifier(
    run_cli: Run, tiny_pretraining: list[str], tiny_options: list[str]
) -> None:
    options = ["--trainer.max_epochs=4", "--model.learning_rate=1e-2", "--model.attention_dropout=0"]
    status, out, err = run_cli("fit", *tiny_pretraining, *options)
    assert status == 0, err
    assert "python -m src export --ckpt_path lightning_logs/version_0/checkpoints/best.ckpt" in out
    log = pd.read_csv(_RUN / "metrics.csv")
    losses = log["val/mlm_loss"].dropna()
    assert len(losses) == 4
    assert losses.iloc[-1] < losses.iloc[0] < 4.0, "it learns: a guess among the 86 tokens of the vocabulary costs 4.45"
    np.testing.assert_allclose(np.exp(losses), log["val/perplexity"].dropna(), rtol=1e-5)
    for name in ("mlm_accuracy", "nsp_accuracy"):
        assert log[f"val/{name}"].dropna().between(0, 1).all()
        assert log[f"train/{name}"].dropna().between(0, 1).all()
    assert (log["train/tokens_per_s"].dropna() > 0).all()

    status, out, err = run_cli("validate", "--ckpt_path=best")
    assert status == 0, err
    figures = json.loads((_RUN / "validate.json").read_text())
    assert figures["mlm_loss"] == pytest.approx(losses.min(), abs=1e-5)
    assert figures["n"] > 100
    status, _, err = run_cli("test", "--ckpt_path=best")
    assert status == 1
    assert "BertPretrainer has no rows to test on: `validate` evaluates it" in err

    status, out, err = run_cli("export", "--ckpt_path=best", "--output=my-bert")
    assert status == 0, err
    weights = _checkpoint(_RUN / "checkpoints/best.ckpt")["state_dict"]
    for kind in (BertForPreTraining, AutoModelForMaskedLM):
        network, report = kind.from_pretrained("my-bert", output_loading_info=True)
        assert not report["missing_keys"]
        for name, weight in network.state_dict().items():
            assert torch.equal(weight, weights[f"model.{name}"]), name
        assert network.config.attention_probs_dropout_prob == 0.1, "the model's own, not that of this training"
    assert "perplexity" in Path("my-bert/README.md").read_text()
    assert AutoTokenizer.from_pretrained("my-bert").model_max_length == 128

    options = [option for option in tiny_options if "model_name_or_path" not in option]
    status, out, err = run_cli("fit", *options, "--model.model_name_or_path=my-bert", "--trainer.max_steps=0")
    assert status == 0, err
    status, _, err = run_cli("predict", f"--ckpt_path={_RUN}/checkpoints/best.ckpt", "--input=-", "--output=-")
    assert status == 1
    assert "is no checkpoint of a BertClassifier" in err


def test_a_classifier_is_not_judged_by_what_was_read(
    run_cli: Run, tiny_pretraining: list[str], tiny_options: list[str], reviews_csv: Path
) -> None:
    corpus = f"--data.dataset={reviews_csv}"
    Path("finetune.yaml").write_text(
        f"data: {{class_path: ImdbDataModule, init_args: {{dataset: {reviews_csv}, val_size: 24, test_size: 24}}}}"
    )
    finetune = [option for option in tiny_options if "model_name_or_path" not in option]
    for number, held_out in enumerate(([], ["--data.held_out=[finetune.yaml]"])):
        status, out, err = run_cli("fit", *tiny_pretraining, corpus, *held_out, "--trainer.max_steps=1")
        assert status == 0, err
        last = f"lightning_logs/version_{2 * number}/checkpoints/last.ckpt"
        assert run_cli("export", f"--ckpt_path={last}", f"--output=bert{number}")[0] == 0
        status, _, err = run_cli("fit", *finetune, f"--model.model_name_or_path=bert{number}", "--trainer.max_steps=1")
        if held_out:
            assert status == 0, err
            assert "48 left out" in out
            assert run_cli("export", "--ckpt_path=last", "--output=classifier")[0] == 0
            read = [np.load(f"{folder}/pretraining_texts.npy") for folder in ("bert1", "classifier")]
            np.testing.assert_array_equal(*read, "a fine-tuning of the fine-tuned model has to know it too")
        else:
            assert status == 1
            assert "were read in the pre-training of 'bert0': pre-train with this config in data.held_out" in err
            Path("lightning_logs/version_1").mkdir()  # so that numbers are as in the other case


def test_from_nothing_with_a_tokenizer_of_its_own(run_cli: Run, tiny_pretraining: list[str]) -> None:
    options = [option for option in tiny_pretraining if "model_name_or_path" not in option]
    status, _, err = run_cli("fit", *options, f"--model.from_scratch={_NEW}", "--trainer.max_epochs=1")
    assert status == 0, err
    assert run_cli("export", "--ckpt_path=last", "--output=small")[0] == 0
    network = BertForPreTraining.from_pretrained("small")
    tokenizer = AutoTokenizer.from_pretrained("small")
    assert (network.config.hidden_size, network.config.num_hidden_layers) == (16, 1)
    assert network.config.vocab_size == len(tokenizer) <= 100
    assert tokenizer.unk_token_id not in tokenizer("a wonderful film .")["input_ids"]


def test_the_logged_learning_rate_is_the_encoders(run_cli: Run, tiny_pretraining: list[str]) -> None:
    rates = ["--model.learning_rate=1e-3", "--model.head_learning_rate=1e-2", "--model.schedule=constant"]
    steps = ["--model.warmup_ratio=0", "--trainer.max_steps=2", "--trainer.log_every_n_steps=1"]
    status, _, err = run_cli("fit", *tiny_pretraining, *rates, *steps)
    assert status == 0, err
    assert pd.read_csv(_RUN / "metrics.csv")["lr"].dropna().tolist() == pytest.approx([1e-3] * 2)


def test_without_next_sentence_there_is_one_task(run_cli: Run, tiny_pretraining: list[str]) -> None:
    before = _pooler(tiny_pretraining)
    status, _, err = run_cli("fit", *tiny_pretraining, "--data.next_sentence=false", "--trainer.max_epochs=1")
    assert status == 0, err
    assert not [name for name in pd.read_csv(_RUN / "metrics.csv") if "nsp" in name]
    after = _checkpoint(_RUN / "checkpoints/last.ckpt")["state_dict"]
    for name, weight in before.items():
        assert torch.equal(after[f"model.{name}"], weight), name


def _pooler(options: list[str]) -> dict[str, torch.Tensor]:
    folder = next(option for option in options if "model_name_or_path" in option).partition("=")[2]
    weights = BertForPreTraining.from_pretrained(folder).state_dict()
    return {name: weight for name, weight in weights.items() if "pooler" in name}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hook", "count", "workers", "start"),
    [
        ("on_train_batch_start", 6, 0, []),
        ("on_validation_start", 1, 2, []),
        ("save", 3, 0, [f"--model.from_scratch={_NEW}"]),
    ],
)
def test_killed_and_resumed_is_bit_identical(
    hook: str, count: int, workers: int, start: list[str], tiny_pretraining: list[str], tmp_path: Path
) -> None:
    (tmp_path / "last.yaml").write_text(_CONFIG)
    options = [f"--config={tmp_path}/last.yaml", *tiny_pretraining, *start, "--trainer.max_epochs=2"]
    options += [f"--data.num_workers={workers}", "--trainer.log_every_n_steps=1"]
    whole = [*options, f"--trainer.default_root_dir={tmp_path / 'whole'}"]
    status, output = run(["fit", *whole], tmp_path / "log")
    assert status == 0, output
    kill = ["--trainer.callbacks+=tests.end_to_end.killing.KillAt", f"--trainer.callbacks.hook={hook}"]
    status, output = run(["fit", *options, *kill, f"--trainer.callbacks.count={count}"], tmp_path / "killed")
    assert status == -signal.SIGKILL, output
    status, output = run(["fit", *options, "--ckpt_path=last"], tmp_path / "resumed")
    assert status == 0, output
    ours, theirs = (_checkpoint(root / _RUN / "checkpoints/last.ckpt") for root in (tmp_path, tmp_path / "whole"))
    assert ours["global_step"] == theirs["global_step"]
    for name, weight in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][name], weight), name
    logs = [_figures(root / _RUN / "metrics.csv") for root in (tmp_path, tmp_path / "whole")]
    pd.testing.assert_frame_equal(*(log.reindex(sorted(log.columns), axis=1) for log in logs), check_exact=True)


@pytest.mark.slow
def test_two_ranks_compute_what_one_does(tiny_pretraining: list[str], tmp_path: Path) -> None:
    """With a step, at the end of the epoch, in which the second rank has no row."""
    options = ["fit", *tiny_pretraining, "--model.hidden_dropout=0", "--model.attention_dropout=0"]
    options += ["--trainer.max_epochs=1", "--trainer.gradient_clip_val=null", "--data.train_size=13"]
    options += ["--model.learning_rate=1e-2"]
    strategy = ["lightning.pytorch.strategies.DDPStrategy", "gloo", "0:00:30"]
    names = ("strategy", "strategy.process_group_backend", "strategy.timeout")
    ddp = [f"--trainer.{name}={value}" for name, value in zip(names, strategy, strict=True)]
    (tmp_path / "two").mkdir()
    status, output = run([*options, f"--trainer.default_root_dir={tmp_path / 'one'}"], tmp_path / "log")
    assert status == 0, output
    two = [*ddp, "--trainer.devices=2", f"--trainer.default_root_dir={tmp_path / 'two'}", "--data.batch_size=8"]
    processes = ranks([*options, *two], 2, tmp_path)
    assert [wait(process) for process in processes] == [0, 0], (tmp_path / "rank0.log").read_text()
    ours, theirs = (_checkpoint(tmp_path / name / _RUN / "checkpoints/last.ckpt") for name in ("two", "one"))
    assert "Prepared 33 sequences" in output, "two steps of 16, and one of a single row"
    assert ours["global_step"] == theirs["global_step"] == 3
    for name, weight in theirs["state_dict"].items():
        torch.testing.assert_close(ours["state_dict"][name], weight, atol=1e-4, rtol=0, msg=name)
    logs = [_figures(tmp_path / name / _RUN / "metrics.csv") for name in ("two", "one")]
    for name in (name for name in logs[0] if "loss" in name or "accuracy" in name or "norm" in name):
        np.testing.assert_allclose(*(log[name].dropna() for log in logs), atol=1e-4, err_msg=name)
