"""Training, evaluation, memory: this project beside the Hugging Face Trainer, in one run.

    python -m benchmarks.speed.training                      # 248 reviews, 3 repeats: about 55 minutes on 2 cores
    python -m benchmarks.speed.training --quick              # a smoke run, which writes no results
    python -m benchmarks.speed.training --reviews 1000 --repeats 5

Real reviews, the quickstart's weights. Each figure comes from a process of its own that runs what a user would run:
`benchmarks/peers/tutorial.py` (A), `benchmarks/peers/expert.py` (B) and `python -m src` (ours), each one epoch over
the same rows, alternating, in reverse order every second time. What is finished is kept in build/bench, so that a
program that was stopped goes on; measurements of other code or other settings are not mixed in.

248 reviews are 31 batches: as many as the Trainer sorts by length at a time when it trains on 1,000.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import (
    RESULTS,
    WORK,
    Finished,
    Progress,
    append_line,
    ours,
    provenance,
    quickstart_inputs,
    read_lines,
    run_process,
    signature,
    write_section,
)
from benchmarks.speed.training_page import DEFINITIONS, figures, render
from benchmarks.speed.training_variants import SHORT_RECIPE, VARIANTS, Variant

_PROBE = "--trainer.callbacks+=benchmarks.speed.lightning_probe.LightningProbe"
_PROFILER = "--trainer.profiler=benchmarks.speed.lightning_probe.PrepareProfiler"
_HELD_BACK = 500  # rows at the end of the shuffle, which `--data.test_size` takes


@dataclass(frozen=True)
class Task:
    """One process to measure: `variant` (or rows of the data set) in one repeat."""

    kind: str  # "train", or "rows": a few steps of a run on many or few rows
    variant: str
    repeat: int
    cost: float


def plan(repeats: int, reviews: int, row_counts: Sequence[int]) -> list[Task]:
    """All measurements, repeat by repeat; every second repeat the other way round, against drift of the machine."""
    tasks = []
    for repeat in range(repeats):
        part = [Task("train", name, repeat, 30 + v.seconds_a_review * reviews * 1.4) for name, v in VARIANTS.items()]
        part += [Task("rows", str(rows), repeat, 30) for rows in row_counts]
        tasks += part if repeat % 2 == 0 else part[::-1]
    return tasks


def train_command(variant: Variant, reviews: int, eval_reviews: int, directory: Path) -> list[str]:
    """One epoch over `reviews`, its runs in `directory`; a peer evaluates in the same process."""
    if variant.peer:
        model, dataset = quickstart_inputs()
        sizes = ["--reviews", str(reviews), "--eval_reviews", str(eval_reviews), "--held_back", str(_HELD_BACK)]
        place = ["--model", str(model), "--dataset", str(dataset), "--output_dir", str(directory)]
        return [sys.executable, "-m", variant.peer, *place, *sizes, "--epochs", "1"]
    return ours(
        "fit",
        "--config=configs/quickstart.yaml",
        *variant.options,
        f"--data.train_size={reviews}",
        f"--data.val_size={eval_reviews}",
        f"--data.test_size={_HELD_BACK}",
        "--trainer.max_epochs=1",
        f"--trainer.default_root_dir={directory}",
        _PROBE,
    )


def measure(command: list[str], log: Path, gemm_every: int = 0) -> tuple[dict[str, Any], Finished]:
    """Runs a command that has the probe: what that saw, and the process."""
    report = log.with_suffix(".json")
    report.unlink(missing_ok=True)
    process = run_process(command, log, BENCH_REPORT=str(report), BENCH_GEMM_EVERY=str(gemm_every))
    return json.loads(report.read_text()), process


class Bench:
    """Runs the measurements of one set of settings."""

    def __init__(self, settings: argparse.Namespace) -> None:
        self.settings = settings
        self.logs = WORK / "logs"

    def train(self, name: str, repeat: int, cached: bool) -> dict[str, Any]:
        """Trains and evaluates; a run before it, which is not measured, has filled the caches if there are none."""
        variant, s = VARIANTS[name], self.settings
        directory = WORK / "runs" / f"{name}-{repeat}-{self.settings.signature}"
        command = train_command(variant, s.reviews, s.eval_reviews, directory)
        log = self.logs / f"train-{name}-{repeat}.log"
        if not cached:
            run_process([*command, *variant.one_step], log.with_suffix(".warm.log"))
        report, process = measure(command, log, gemm_every=max(2, s.reviews // 8 // 8))
        row = {
            "max_rss_mib": process.max_rss_mib,
            "steps": report["steps"],
            "gemm": report["gemm"],
            "before_s": report["first_step_at"] - report["fit_at"] if report["fit_at"] else 0.0,
        }
        if not variant.peer:
            best = sorted(directory.glob("lightning_logs/version_*/checkpoints/best.ckpt"))[-1]
            report, _ = measure(ours("validate", f"--ckpt_path={best}"), log.with_suffix(".validate.log"))
        return row | {"evaluation_s": report["evaluation_s"], "evaluated": round(report["evaluated"])}

    def rows(self, rows: int, cached: bool) -> dict[str, Any]:
        """Ten steps with that many prepared rows in all: preparing a second time, and the peak memory."""
        command = ours(
            "fit",
            "--config=configs/quickstart.yaml",
            *SHORT_RECIPE,
            f"--data.train_size={rows - 200}",
            "--data.val_size=100",
            "--data.test_size=100",
            "--trainer.max_steps=10",
            "--trainer.limit_val_batches=1",
            f"--trainer.default_root_dir={WORK / 'runs' / f'rows-{self.settings.signature}'}",
            _PROBE,
            _PROFILER,
        )
        log = self.logs / f"rows-{rows}.log"
        first = None
        if not cached:
            report, _ = measure(command, log.with_suffix(".first.log"))
            first = report["prepare_s"]["prepare_data"]
        report, process = measure(command, log)
        return {"first_prepare_s": first, "prepare_s": report["prepare_s"], "max_rss_mib": process.max_rss_mib}


# ---- the program -----------------------------------------------------------------------------------------------------


def needed_flops(model: Path, dataset: Path, reviews: int) -> dict[str, float]:
    """Operations that an epoch of each variant needs on its real tokens."""
    import torch
    from datasets import disable_progress_bars, load_dataset
    from transformers import AutoConfig, AutoTokenizer

    from src.callbacks.throughput import training_flops
    from src.data.tokens import Encoder, Truncation

    disable_progress_bars()
    rows = load_dataset("csv", data_files=str(dataset), split="train", cache_dir=str(WORK / "cache" / "datasets"))
    texts = rows.filter(lambda source: source == "imdb", input_columns="source").shuffle(seed=42)["text"][:reviews]
    tokenizer, config = AutoTokenizer.from_pretrained(model), AutoConfig.from_pretrained(model)
    whole: tuple[int, Truncation] = (512, "head")
    read: dict[str, tuple[int, Truncation]] = {"A": whole, "B": whole, "same": whole}
    read |= {"short": (256, "head_tail"), "windows": (128, "windows")}
    flops = {}
    for name, (max_length, truncation) in read.items():
        encoded = Encoder(tokenizer, max_length, truncation).encode(texts)
        lengths = torch.tensor([len(window) for windows in encoded for window in windows])
        flops[name] = training_flops(config, lengths)
    return flops


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reviews", type=int, default=248, help="trained on, a multiple of 8 (default: 248)")
    parser.add_argument("--eval_reviews", type=int, default=500, help="evaluated (default: 500, as the tutorial does)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="16 reviews, once: shows that it works, writes no results")
    parser.add_argument("--fresh", action="store_true", help="forget finished measurements")
    settings = parser.parse_args(args)
    row_counts = [1000, 25_000]
    if settings.quick:
        settings.reviews, settings.eval_reviews, settings.repeats = 16, 8, 1
        row_counts = [216, 300]
    measured = {"reviews": settings.reviews, "eval": settings.eval_reviews}
    own = ("common.py", "speed/*probe.py", "speed/training.py", "speed/training_variants.py", "peers/*.py")
    settings.signature = signature(measured, *own)
    store = WORK / "training.jsonl"
    if settings.fresh:
        store.unlink(missing_ok=True)

    def finished() -> dict[tuple[str, str, int], dict[str, Any]]:
        lines = (line for line in read_lines(store) if line["signature"] == settings.signature)
        return {(line["kind"], line["variant"], line["repeat"]): line["row"] for line in lines}

    bench = Bench(settings)
    tasks = plan(settings.repeats, settings.reviews, row_counts)
    done = finished()
    todo = [task for task in tasks if (task.kind, task.variant, task.repeat) not in done]
    progress = Progress(task.cost for task in todo)
    # a smoke run does not fill the caches first
    warmed = {(task.kind, task.variant) for task in tasks} if settings.quick else set()
    for task in todo:
        progress.start(f"{task.kind} {task.variant}, repeat {task.repeat + 1} of {settings.repeats}")
        cached = (task.kind, task.variant) in warmed
        warmed.add((task.kind, task.variant))
        row = (
            bench.train(task.variant, task.repeat, cached)
            if task.kind == "train"
            else bench.rows(int(task.variant), cached)
        )
        append_line(store, {**vars(task), "signature": settings.signature, "row": row})
        progress.end(_brief(task, row, settings.reviews))

    done = finished()
    flops = needed_flops(*quickstart_inputs(), settings.reviews)
    repeats = range(settings.repeats)
    training = {
        name: [figures(done["train", name, r], flops[name], settings.reviews) for r in repeats] for name in VARIANTS
    }
    rows = {n: [done["rows", str(n), r] for r in repeats] for n in row_counts}
    titles = {name: variant.name for name, variant in VARIANTS.items()}
    command = shlex.join(["python", "-m", "benchmarks.speed.training", *(sys.argv[1:] if args is None else args)])
    sample = f"{settings.reviews} reviews, {settings.eval_reviews} evaluated, {settings.repeats} repeats."
    text = "\n\n".join(
        ["## Training, beside the Hugging Face Trainer", sample, render(titles, training, rows), DEFINITIONS]
    )
    text += "\n\n" + provenance(command)
    print("\n" + text)
    if not settings.quick:
        write_section(RESULTS, "bench", text)
        print(f"\nWritten to {RESULTS}")


def _brief(task: Task, row: dict[str, Any], reviews: int) -> str:
    if task.kind == "rows":
        return f"prepared in {sum(row['prepare_s'].values()):.2f} s, {row['max_rss_mib']:,.0f} MiB"
    seconds = sum(step[0] for step in row["steps"])
    rate = row["evaluated"] / row["evaluation_s"]
    return f"{reviews / seconds:.2f} reviews/s, evaluation {rate:.2f}"


if __name__ == "__main__":
    main()
