"""The measurement programs: the runs they plan, what they make of results, and that they go on where they were."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from benchmarks import common
from benchmarks.recipes.stats import pack, paired_difference, unpack
from benchmarks.speed import gpu, prediction, start, training, training_page
from benchmarks.speed.training_variants import VARIANTS


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
    assert [task.variant for task in tasks] == [
        *VARIANTS,
        "2000",
        "2000",
        *reversed(VARIANTS),
    ]
    # the machine at half its speed in the second repeat changes no ratio
    assert training_page.median_ratio([4.0, 2.0, 4.2], [1.0, 0.5, 1.0]) == 4.0


def _process(seconds: float, faults: int, before_s: float = 0.0) -> dict[str, Any]:
    return {
        "steps": [[seconds, faults]] * 4,
        "gemm": [1e11, 2e11, 1e11],
        "max_rss_mib": 1500.0,
        "before_s": before_s,
        "evaluated": 16,
        "evaluation_s": 2.0,
    }


def test_training_table() -> None:
    found = {}
    for name, seconds in {"A": 8.0, "same": 2.0, "B": 4.0, "short": 1.0}.items():
        found[name] = [training_page.figures(_process(seconds, 10), flops=3.2e11, reviews=32)] * 3
    found["windows"] = [training_page.figures(_process(2.0, 10, before_s=8.0), flops=3.2e11, reviews=32)] * 3
    assert found["short"][0]["share"] == pytest.approx(0.8)
    row = {"max_rss_mib": 1000.0, "prepare_s": {"prepare_data": 0.2, "setup": 0.1}, "first_prepare_s": None}
    titles = {name: variant.name for name, variant in VARIANTS.items()}
    table = training_page.render(titles, found, {2000: [row] * 3, 25_000: [row | {"max_rss_mib": 1050.0}] * 3})
    assert "| training, reviews/s | 1.00 (1.00 to 1.00) | 4.00 (4.00 to 4.00) | 2.00" in table
    assert "| training, A's recipe, against A | 4.00× | at least 3.4× |" in table
    assert "| training, A's recipe, against B | 2.00× |" in table
    assert "| training, 256 tokens, against A | 8.00× |" in table
    # a probe of 8 s and 2 epochs of 8 s, against 3 epochs of 32 s
    assert "the probe and 2 epochs, against A's 3 epochs | 0.25× | at most 1× |" in table
    assert "| preparing 25,000 reviews, second launch | 0.30 s |" in table
    assert "| peak memory, 25,000 reviews against 2,000 | 1.05× |" in table


def test_start_table_takes_the_ratio_within_a_pair() -> None:
    # the machine at half its speed in the last pair
    table = start.render({"A": [6.0, 7.0, 14.0], "same": [5.4, 7.7, 12.6]})
    assert "| A: Trainer, tutorial | 7.0 (6.0 to 14.0) |  |  |" in table
    assert "| ours, A's recipe | 7.7 (5.4 to 12.6) | 0.90× | at most 1× |" in table


def test_prediction_table() -> None:
    runs = {"pipeline": ["a", "b"], "pytorch": ["a", "b"], "int8": ["a", "a"]}
    speeds = {"pipeline": 4.0, "pytorch": 2.0, "int8": 1.0}
    found = {name: [{"seconds": speeds[name], "labels": labels}] * 3 for name, labels in runs.items()}
    table = prediction.render(found, 2)
    assert "| ours, PyTorch | 1.0 (1.0 to 1.0) | 2.00× | at least 1.8× | 100.0% |" in table
    assert "| ours, int8 ONNX | 2.0 (2.0 to 2.0) | 4.00× | at least 2.5× | 50.0% |" in table


def test_gpu_table_parts_steps_by_the_lengths_that_were_seen() -> None:
    assert gpu.by_novelty([512, 300, 300, 512, 120], [9.0, 0.2, 0.04, 0.05, 0.3]) == ([0.2, 0.3], [0.04, 0.05])
    row = {"rate": 50.0, "first": 9.0, "new": None, "seen": None, "wall": 30.0, "peak": 3000.0}
    rows = {name: [row, {**row, "rate": 100.0}] for name in gpu.VARIANTS} | {
        "ours, gpu.yaml": [{**row, "rate": 200.0, "new": 0.21, "seen": 0.04}] * 2
    }
    table = gpu.render(rows).splitlines()
    assert table[-1] == "| ours, gpu.yaml | 200 | 3.00× | 3.00× | 9.0 | 0.210 | 0.040 | 30 | 3,000 |"
    assert "| – | – |" in table[2]
