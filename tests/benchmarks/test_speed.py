"""The speed benchmarks: the processes they plan, what they make of results, and that they continue after a kill."""

import functools
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

from benchmarks import processes, repeats, report
from benchmarks.speed import gpu, gpu_checks, prediction, pretraining, recorder, start, training, training_page
from benchmarks.speed.training import VARIANTS
from src.models.kernels import packed
from src.models.kernels.cuda_graphs import GraphedSteps
from tests.models.kernels.test_packed import attention_of_each
from tests.processes import start as start_forked
from tests.processes import wait
from tests.synthetic import synthetic_reviews


def test_sections_are_replaced_and_the_rest_is_left(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_text("# Results\n\nabove\n<!-- a:begin -->\nold\n<!-- a:end -->\nbelow\n")
    report.write_section(page, "a", r"new \1")
    report.write_section(page, "b", "second")
    assert page.read_text() == (
        "# Results\n\nabove\n<!-- a:begin -->\nnew \\1\n<!-- a:end -->\nbelow\n\n"
        "<!-- b:begin -->\nsecond\n<!-- b:end -->\n"
    )


def test_a_section_is_written_only_where_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results.md")
    report.publish("Speed", "A table.", "benchmarks.x", ["--reviews", "a b"], None)
    assert not (tmp_path / "results.md").exists()
    assert "## Speed\n\nA table.\n\nCommand: `python -m benchmarks.x --reviews 'a b'`. " in capsys.readouterr().out
    report.publish("Speed", "A table.", "benchmarks.x", [], "speed")
    assert "<!-- speed:begin -->\n## Speed\n" in (tmp_path / "results.md").read_text()


def test_lines_survive_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    repeats.append_line(path, {"a": 1})
    with path.open("a") as stream:
        stream.write('{"a": 2, "b')
    repeats.append_line(path, {"a": 3})
    assert repeats.read_lines(path) == [{"a": 1}, {"a": 3}]


def test_failed_process_shows_its_last_lines(tmp_path: Path) -> None:
    with pytest.raises(processes.ProcessFailedError, match="no luck"):
        processes.run_process(["sh", "-c", "echo no luck; exit 3"], tmp_path / "log")
    done = processes.run_process(["sh", "-c", "test $BENCH_X = 1"], tmp_path / "log", BENCH_X="1")
    assert done.max_rss_mib > 0
    assert done.wall_s > 0


def test_variants_alternate_and_a_stopped_program_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "WORK", tmp_path)
    seen: list[tuple[str, int]] = []

    def measure(name: str, repeat: int) -> dict[str, Any]:
        if len(seen) == 5 and stops:
            raise KeyboardInterrupt
        seen.append((name, repeat))
        return {"was": name + str(repeat)}

    def run(**settings: int) -> dict[str, list[dict[str, Any]]]:
        return repeats.measure_all("x", settings, ["A", "ours"], 3, measure, lambda row: row["was"])

    stops = True
    with pytest.raises(KeyboardInterrupt):
        run(reviews=1)
    stops = False
    found = run(reviews=1)
    assert seen == [("A", 0), ("ours", 0), ("ours", 1), ("A", 1), ("A", 2), ("ours", 2)]
    assert [row["was"] for row in found["ours"]] == ["ours0", "ours1", "ours2"]
    run(reviews=2)
    assert len(seen) == 12, "measurements with other settings are not mixed in"
    found = repeats.measure_all("x", {}, ["A"], 3, measure, lambda row: row["was"], minutes=0)
    assert [row["was"] for row in found["A"]] == ["A0"]
    # the machine at half its speed in the second repeat changes no ratio
    assert report.median_ratio([4.0, 2.0, 4.2], [1.0, 0.5, 1.0]) == 4.0


def test_training_variants_are_recipes_of_the_list(tmp_path: Path) -> None:
    for name, variant in VARIANTS.items():
        command = " ".join(training.train_command(name, 16, 8, tmp_path))
        assert ("benchmarks.peers" in command) == ("Trainer" in variant.title)
        if "-m src fit" in command:
            cut = {"max_length": 512, "truncation": "head"}
            for option in command.split():
                key, _, value = option.removeprefix("--data.").partition("=")
                if key in cut:
                    cut[key] = type(cut[key])(value)
            assert cut == {"max_length": variant.max_length, "truncation": variant.truncation}


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
    titles = {name: variant.title for name, variant in VARIANTS.items()}
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
    seconds = {"A": [6.0, 7.0, 14.0], "same": [5.4, 7.7, 12.6]}
    table = start.render({name: [{"seconds": s} for s in found] for name, found in seconds.items()})
    assert "| A: Trainer, tutorial | 7.0 (6.0 to 14.0) |  |  |" in table
    assert "| ours, A's recipe | 7.7 (5.4 to 12.6) | 0.90× | at most 1× |" in table


def test_prediction_table() -> None:
    runs = {"pipeline": ["a", "b"], "pytorch": ["a", "b"], "int8": ["a", "a"]}
    speeds = {"pipeline": 4.0, "pytorch": 2.0, "int8": 1.0}
    found = {name: [{"seconds": speeds[name], "labels": labels}] * 3 for name, labels in runs.items()}
    table = prediction.render(found, 2)
    assert "| ours, PyTorch | 1.0 (1.0 to 1.0) | 2.00× | at least 1.8× | 100.0% |" in table
    assert "| ours, int8 ONNX | 2.0 (2.0 to 2.0) | 4.00× | at least 2.5× | 50.0% |" in table


def test_pretraining_table_has_the_loss_of_each_sixth() -> None:
    row = {
        "seconds": 4.0,
        "memory": 2000.0,
        "faults": 3,
        "losses": [6.0, 6.0, 5.0, 5.0, 4.0, 4.0, 3.0, 3.0, 2, 2, 1, 1],
    }
    table = pretraining.render({"peer": [row] * 2, "same": [{**row, "seconds": 1.0}] * 2}, 100)
    assert "| ours, its dropout | 100 (100 to 100) | 4.00× | at least 2.0× | 2,000 | 3 |" in table
    assert "| ours, its dropout | 6.000 | 5.000 | 4.000 | 3.000 | 2.000 | 1.000 |" in table


def test_gpu_table_has_the_ratio_within_a_repeat() -> None:
    def row(rate: float, **more: float) -> dict[str, float]:
        return {"training, reviews/s": rate, "first epoch, s": 9.0, "peak, MiB": 3000.0, **more}

    # the machine at half its speed in the last repeat
    rows = {name: [row(50.0), row(50.0), row(25.0)] for name in gpu.VARIANTS}
    more = {"share, %": 20.4, "evaluation, reviews/s": 4000.0, "prediction, reviews/s": 2500.0}
    rows[gpu.OURS] = [row(500.0, **more), row(510.0, **more), row(250.0, **more)]
    table = gpu.render(rows)
    ours = "| ours, gpu.yaml | 500 (250 to 510) | 20.4 (20.4 to 20.4) | 9.0 (9.0 to 9.0) | 3,000 (3,000 to 3,000) |"
    assert f"{ours} 10.00× | 10.00× | 10.00× |" in table
    assert "| A: Trainer, tutorial, fp32 | 50 (25 to 50) | – |" in table
    assert "| evaluation, reviews/s | 4,000 (4,000 to 4,000) |" in table


@pytest.fixture
def tiny_gpu_runs(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The processes of `benchmarks.speed.gpu` are forked, work in this folder, and read made-up reviews; the model."""

    def forked(command: list[str], log: Path, **environment: str) -> processes.Finished:
        assert command[:2] == [sys.executable, "-m"]
        log.parent.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        if status := wait(start_forked(command[3:], log, environment, command[2])):
            raise processes.ProcessFailedError(f"{status}: {log.read_text()[-2000:]}")
        return processes.Finished(started, time.monotonic() - started, 0.0)

    network = shutil.copytree(tiny_bert, tmp_path / "network")
    BertModel(BertConfig.from_pretrained(network, max_position_embeddings=512)).save_pretrained(network)
    tokenizer = AutoTokenizer.from_pretrained(network)
    tokenizer.model_max_length = 512
    tokenizer.save_pretrained(network)
    reviews = tmp_path / "reviews.csv"
    made = synthetic_reviews(1700)
    made.assign(source="imdb", label=(made.label == "pos").astype(int)).to_csv(reviews, index=False)
    for module in (gpu, gpu_checks, repeats):
        monkeypatch.setattr(module, "WORK", tmp_path)
    for module in (processes, gpu, gpu_checks):
        monkeypatch.setattr(module, "run_process", forked)
    monkeypatch.setattr(gpu, "quickstart_inputs", lambda: (network, reviews))
    monkeypatch.chdir(processes.ROOT)
    return str(network)


@pytest.mark.slow
def test_gpu_runs_as_one_command(tiny_gpu_runs: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """With networks so small that a CPU computes them; compiling and TF32 are left out."""
    expert = gpu.Variant([], gpu.VARIANTS["C: Trainer, expert, bf16"].peer)  # on a CPU, it refuses bf16
    monkeypatch.setattr(gpu, "VARIANTS", {"Trainer": expert, gpu.OURS: gpu.VARIANTS[gpu.OURS]})
    assert gpu.main(["--quick", "--model", tiny_gpu_runs]) == 0
    out = capsys.readouterr().out
    assert "no GPU" in out
    assert re.search(r"\| ours, gpu.yaml \| [\d,]+ ", out)
    assert re.search(r"\| evaluation, reviews/s \| [\d,]+ ", out)


@pytest.mark.slow
def test_gpu_check_of_a_killed_run_holds(tiny_gpu_runs: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(gpu_checks, "run", lambda *given: iter([gpu_checks.kill_and_resume(given[2])]))
    assert gpu.check(tiny_gpu_runs, 640, minutes=5) == 0
    assert "ok: killed after step 45, resumed: differences: none" in capsys.readouterr().out
    assert gpu.check(tiny_gpu_runs, 640, minutes=0) == 1


def test_gpu_checks_hold_without_a_graph(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "attention", attention_of_each)
    monkeypatch.setattr(GraphedSteps, "_capture", lambda self, n: functools.partial(self._run, n))
    texts = ["a good film " * n for n in range(1, 25)]
    steps = gpu_checks.batches(str(tiny_bert), texts, torch.device("cpu"))
    assert [len(step[0]) for step in steps] == [8, 8, 8]
    for _, holds, figures in (
        gpu_checks.seeds(str(tiny_bert), steps, compiled=False),
        gpu_checks.gradients(str(tiny_bert), steps),
        gpu_checks.graph_against_none(str(tiny_bert), steps),
    ):
        assert holds, figures


def test_a_recorder_tells_the_tokens_of_rows_and_waits_only_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_WAIT_AFTER", "1,2")
    seen = recorder.Recorder()
    assert seen.wait_after == [1, 2]
    for _ in range(2):
        seen.step_begins()
        seen.step_ends()
    assert len(seen.report["steps"]) == 2
