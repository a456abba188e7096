"""The main job from the command line to its files."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.processes import run
from tests.synthetic import synthetic_reviews

Run = Callable[..., tuple[int, str, str]]


def test_fit_then_test_writes_one_run_directory(run_cli: Run, tiny_options: list[str], tmp_path: Path) -> None:
    status, out, _ = run_cli("fit", *tiny_options, "--trainer.max_epochs=2")
    assert status == 0
    run = tmp_path / "lightning_logs" / "version_0"
    assert {"config.yaml", "metrics.csv", "checkpoints"} <= {path.name for path in run.iterdir()}
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert "Best validation accuracy: " in out
    assert "python -m src test --ckpt_path lightning_logs/version_0/checkpoints/best.ckpt" in out

    before = {path.name: path.read_bytes() for path in (run / "config.yaml", run / "metrics.csv")}
    status, out, _ = run_cli("test", "--ckpt_path", "best")
    assert status == 0
    figures = json.loads((run / "test.json").read_text())
    assert figures["n"] == 24
    assert f"Accuracy: {figures['accuracy']:.4f} (95% CI {figures['accuracy_low']:.4f}" in out
    assert {"loss", "f1", "auroc", "mcc", "ece"} <= figures.keys()
    assert before == {path.name: path.read_bytes() for path in (run / "config.yaml", run / "metrics.csv")}
    assert [path.name for path in run.parent.iterdir()] == ["version_0"]


def test_log_has_a_row_for_each_epoch(tiny_checkpoint: Path) -> None:
    log = pd.read_csv(tiny_checkpoint.parents[1] / "metrics.csv")
    names = {"train/loss", "train/accuracy", "val/loss", "val/accuracy", "lr", "train/grad_norm"}
    assert names | {"train/reviews_per_s", "train/padding_waste"} <= set(log.columns)
    assert len(log["val/accuracy"].dropna()) == 6
    assert log["val/accuracy"].max() > 0.9  # it learns
    assert log["lr"].dropna().is_monotonic_decreasing


@pytest.mark.parametrize("size", [240, 193])
def test_more_rows_than_there_are_is_one_line(run_cli: Run, tiny_options: list[str], size: int) -> None:
    status, _, err = run_cli("fit", *tiny_options, f"--data.train_size={size}")
    assert status == 1
    assert err.strip().splitlines()[-1].startswith(f"error: data.train_size is {size}, but only 192 ")


def test_fit_without_validation_rows_keeps_the_last_checkpoint(run_cli: Run, tiny_options: list[str]) -> None:
    status, out, _ = run_cli("fit", *tiny_options, "--data.val_size=0", "--trainer.max_epochs=1")
    assert status == 0
    assert "the last: lightning_logs/version_0/checkpoints/last.ckpt" in out
    status, out, _ = run_cli("test", "--ckpt_path", "last")
    assert status == 0
    assert ", n=24)" in out


def test_a_run_that_stops_early_says_why(run_cli: Run, tiny_options: list[str]) -> None:
    stop = ["--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping", "--trainer.callbacks.monitor=val/loss"]
    patience = ["--trainer.callbacks.patience=1", "--trainer.callbacks.min_delta=10", "--trainer.max_epochs=5"]
    status, out, err = run_cli("fit", *tiny_options, *stop, *patience)
    assert status == 0, err
    said = "Ended early:     after step 12, by EarlyStopping: Monitored metric val/loss did not improve in the last 1 "
    assert said in out
    status, out, _ = run_cli("fit", *tiny_options, *stop, "--trainer.max_epochs=1")
    assert status == 0
    assert "Ended early" not in out


@pytest.mark.parametrize("command", ["validate", "test", "predict", "export"])
def test_weights_that_are_not_numbers_give_no_result(
    command: str, run_cli: Run, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(tiny_checkpoint.parents[1], tmp_path / "lightning_logs" / "version_0")
    best = run / "checkpoints" / "best.ckpt"
    content = torch.load(best, weights_only=True)
    content["state_dict"]["model.classifier.bias"].fill_(float("nan"))
    torch.save(content, best)
    Path("in.csv").write_text("text\ngreat\n")
    files = {"predict": ["--input=in.csv", "--output=out.csv"], "export": ["--output=out"]}
    status, out, err = run_cli(command, f"--ckpt_path={best}", *files.get(command, []))
    assert status == 1
    assert err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in err
    assert "Accuracy" not in out
    assert not Path("out").exists()
    assert not Path("out.csv").exists() or Path("out.csv").read_text().count("\n") == 1, "more than its header"
    assert not [file for name in ("test.json", "validate.json") if (file := run / name).exists()]


def test_a_training_that_diverges_ends_in_one_line_and_saves_nothing_of_it(
    run_cli: Run, tiny_options: list[str]
) -> None:
    options = [*tiny_options, "--model.learning_rate=1e30", "--trainer.max_epochs=3", "--trainer.log_every_n_steps=1"]
    status, out, err = run_cli("fit", *options)
    assert (status, err.count("\n")) == (1, 1)
    assert re.match(r"error: the training loss is (nan|inf) after step \d+ \(lr 9.44e\+29, train/grad_norm nan\)", err)
    assert "Best" not in out
    for file in Path("lightning_logs").rglob("*.ckpt"):
        weights = torch.load(file, weights_only=True)["state_dict"]
        assert all(weight.isfinite().all() for weight in weights.values())


def test_another_logger_leaves_the_run_in_one_directory(run_cli: Run, tiny_options: list[str]) -> None:
    status, out, err = run_cli("fit", *tiny_options, "--trainer.logger=false", "--trainer.max_epochs=1")
    assert status == 0, err
    assert f"; written to {Path('lightning_logs/version_0').absolute()}\n" in out
    assert "tensorboard" not in out, "there is nothing that it could show"
    found = sorted(str(path) for path in Path().rglob("*") if path.is_file())
    names = ("checkpoints/best.ckpt", "checkpoints/last.ckpt", "config.yaml")
    assert found == [f"lightning_logs/version_0/{name}" for name in names]
    status, _, err = run_cli("test", "--ckpt_path", "best")
    assert status == 0, err
    assert Path("lightning_logs/version_0/test.json").is_file()


def test_without_an_interval_the_log_has_a_row_an_epoch(run_cli: Run, tiny_options: list[str]) -> None:
    status, _, err = run_cli("fit", *tiny_options, "--trainer.log_every_n_steps=0", "--trainer.max_epochs=2")
    assert status == 0, err
    log = pd.read_csv("lightning_logs/version_0/metrics.csv")
    assert list(log.dropna(subset="train/loss").step) == [5, 11]


def test_overfit_batches_are_the_same_in_every_epoch(run_cli: Run, tiny_options: list[str]) -> None:
    options = ["--trainer.overfit_batches=1", "--trainer.max_epochs=3", "--model.hidden_dropout=0"]
    options += ["--model.attention_dropout=0", "--model.learning_rate=1e-12", "--trainer.log_every_n_steps=1"]
    status, _, err = run_cli("fit", *tiny_options, *options)
    assert status == 0, err
    losses = pd.read_csv("lightning_logs/version_0/metrics.csv")["train/loss"].dropna()
    assert len(losses) == 3
    assert losses.max() - losses.min() < 1e-6


def test_another_progress_bar_takes_the_place_of_ours(run_cli: Run, tiny_options: list[str]) -> None:
    bar = "--trainer.callbacks+=lightning.pytorch.callbacks.TQDMProgressBar"
    status, out, err = run_cli("fit", *tiny_options, bar, "--trainer.max_epochs=1")
    assert status == 0, err
    assert "Epoch 0: 100%" in out


def test_a_profiler_says_what_it_found(tiny_options: list[str], tmp_path: Path) -> None:
    options = ["--trainer.profiler=simple", "--trainer.max_epochs=1"]
    status, output = run(["fit", *tiny_options, *options], tmp_path / "log")
    assert status == 0, output
    assert "Profiler Report" in output


def test_values_are_clipped_in_mixed_precision(run_cli: Run, tiny_options: list[str]) -> None:
    """AdamW is fused, which Lightning's own clipping of values refuses there."""
    options = ["--trainer.precision=bf16-mixed", "--trainer.gradient_clip_algorithm=value"]
    status, _, err = run_cli("fit", *tiny_options, *options, "--trainer.max_epochs=1")
    assert status == 0, err


def test_fit_starts_from_an_exported_classifier_with_other_labels(
    run_cli: Run, tiny_options: list[str], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    status, _, err = run_cli("export", "--ckpt_path", str(tiny_checkpoint), "--output", str(tmp_path / "exported"))
    assert status == 0, err
    stars = synthetic_reviews(120).assign(label=[str(i % 5) for i in range(120)])
    stars.to_csv(tmp_path / "stars.csv", index=False)
    options = [f"--model.model_name_or_path={tmp_path / 'exported'}", f"--data.dataset={tmp_path / 'stars.csv'}"]
    status, out, err = run_cli("fit", *tiny_options, *options, "--trainer.max_epochs=1")
    assert status == 0, err
    assert "Best validation accuracy" in out


def test_lightnings_learning_rate_finder_says_what_it_found(tiny_options: list[str], tmp_path: Path) -> None:
    finder = ["--trainer.callbacks+=lightning.pytorch.callbacks.LearningRateFinder"]
    options = ["--trainer.max_steps=0", "--trainer.callbacks.num_training_steps=40", "--data.train_size=192"]
    status, output = run(["fit", *tiny_options, "--data.batch_size=4", *finder, *options], tmp_path / "log")
    assert status == 0, output
    assert "Learning rate set to" in output
    assert "No step was taken" in output
