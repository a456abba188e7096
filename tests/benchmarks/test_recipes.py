"""The comparison of recipes: its plan of runs, the rows of its csv, and its tables."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from benchmarks import processes
from benchmarks.recipes import __main__ as recipes
from benchmarks.recipes import finetune, page
from benchmarks.recipes.stats import pack
from src.inference.classifier import load

_LIST = yaml.safe_load(recipes.LIST.read_text())


def test_recipes_that_are_named_elsewhere_are_in_the_list() -> None:
    pages = [processes.ROOT / "Makefile", *(processes.ROOT / "docs").rglob("*.md"), Path(recipes.__file__)]
    named = {
        name
        for page in pages
        for names in re.findall(r"--recipes ([a-z0-9_ -]+?) --", page.read_text())
        for name in names.split()
    }
    assert {"hf_trainer", "windows", "windows_soup"} <= named <= {*_LIST["recipes"], *_LIST["retired"]}


def test_every_measured_run_has_a_name_and_a_key_of_the_list() -> None:
    rows = finetune.read_rows(recipes.LIST.with_name("runs.csv"))
    runs = recipes.plan(_LIST["recipes"], _LIST["base"], [100, 1000, 5000], range(41, 63))
    keys = {run.key(split, 2000): run.recipe for run in runs for split in ("val", "test")}
    for row in rows:
        assert row["recipe"] in _LIST["retired"] or keys[row["key"]] == row["recipe"]
    assert {row["recipe"] for row in rows} >= set(_LIST["retired"])


def test_retired_recipes_are_shown_and_never_run(tmp_path: Path, capsys: Any) -> None:
    listed = {"base": [], "baseline": "mine", "recipes": {"mine": ["--x=1"], "other": ["--x=2"]}, "retired": ["gone"]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(listed))
    (run,) = recipes.plan(listed["recipes"], [], [100], [42], ["mine"])
    for name, key in [("mine", run.key("val", 400)), ("gone", "x"), ("of another list", "y")]:
        row = {**_rows(name, 100, 0.8)[0], "key": key, "split": "val"}
        finetune.append_row(tmp_path / "runs.csv", row)
    arguments = ["--list", str(tmp_path / "mine.yaml"), "--csv", str(tmp_path / "runs.csv"), "--eval_rows", "400"]
    for chosen, shown in [([], {"mine", "gone"}), (["--recipes", "gone"], {"gone"}), (["--recipes", "mine"], {"mine"})]:
        # `mine` is measured, so that only a retired recipe could be run here
        run_too = [] if chosen else ["--table"]
        recipes.main([*arguments, *chosen, *run_too, "--labels", "100", "--seeds", "1"])
        table = capsys.readouterr().out
        assert {name for name in ("mine", "gone", "of another list") if f"| {name} |" in table} == shown


def test_every_listed_recipe_is_parsed_by_the_command(run_cli: Any) -> None:
    assert _LIST["baseline"] in _LIST["recipes"]
    runs = recipes.plan(_LIST["recipes"], _LIST["base"], [100, 1000], [42, 43])
    assert len(runs) == len(_LIST["recipes"]) * 2 * 2
    assert len({run.key("val", 2000) for run in runs}) == len(runs)
    for options in {run.options for run in runs if not run.peer and run.seed == 42}:
        absolute = [option.replace("--config=", f"--config={processes.ROOT}/") for option in options]
        status, out, err = run_cli("fit", *absolute, "--print_config")
        assert status == 0, err
        printed = yaml.safe_load(out)
        for option in options:
            name, _, value = option.removeprefix("--").partition("=")
            group, _, key = name.partition(".")
            if group not in ("model", "data") or options[-1] != option:
                continue
            assert printed[group]["init_args"][key] == yaml.safe_load(value.replace("e-", ".0e-"))


def test_a_recipe_may_add_to_another() -> None:
    listed = {
        "a": {"options": ["--x=1"], "labels": {100: ["--epochs=8"]}},
        "b": {"like": "a", "options": ["--y=2"], "labels": {100: ["--epochs=9"]}},
    }
    few, many = recipes.plan(listed, ["--base"], [100, 1000], [42], ["b"])
    assert few.options == ("--base", "--x=1", "--epochs=8", "--y=2", "--epochs=9")
    assert many.options == ("--base", "--x=1", "--y=2")
    assert few.key("val", 500) != few.key("val", 2000)


def _rows(recipe: str, labels: int, share: float, device: str = "CPU") -> list[dict[str, str]]:
    rows = []
    for seed in (42, 43):
        correct = np.random.default_rng(seed).random(400) < share
        figures = {"accuracy": str(correct.mean()), "n": "400", "correct": pack(correct)}
        figures["device"] = device
        figures["curve"] = "[[10, 0.7], [20, 0.5], [30, 0.3]]"
        rows.append({"recipe": recipe, "labels": str(labels), "seed": str(seed), **figures})
    return rows


def test_recipes_table_ranks_and_compares(tmp_path: Path) -> None:
    rows = _rows("tutorial", 100, 0.6) + _rows("better", 100, 0.8) + _rows("tutorial", 1000, 0.85)
    table = page.render(rows, "tutorial").splitlines()
    assert [line.split(" | ")[:2] for line in table[2:]] == [
        ["| better", "100"],
        ["| tutorial", "100"],
        ["| tutorial", "1,000"],
    ]
    assert "| <0.001 | 400 | CPU |" in table[2]
    assert "| – | – | 400 | CPU |" in table[3]
    for plot in page.PLOTS.values():
        plot(rows, tmp_path / "plot.png")
        assert (tmp_path / "plot.png").stat().st_size > 1000


def test_recipes_table_names_the_devices() -> None:
    rows = _rows("tutorial", 100, 0.6) + _rows("better", 100, 0.8, device="Some GPU")
    assert page.render(rows, "tutorial").splitlines()[2].endswith("| <0.001 | 400 | Some GPU |")


def test_csv_is_whole_after_each_row(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    finetune.append_row(path, {"recipe": "a, b", "seed": 1})
    finetune.append_row(path, {"recipe": "c", "seed": 2})
    assert finetune.read_rows(path) == [{"recipe": "a, b", "seed": "1"}, {"recipe": "c", "seed": "2"}]


def test_correct_rows_are_in_the_datas_order(
    run_cli: Any, tiny_checkpoint: Path, reviews_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_ROWS", str(tmp_path / "rows.npy"))
    probe = "--trainer.callbacks+=benchmarks.recipes.correct_rows.CorrectRows"
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
    for module in (processes, finetune, recipes):
        monkeypatch.setattr(module, "WORK", tmp_path)
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
