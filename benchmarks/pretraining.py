"""Pre-training: this project beside the Hugging Face Trainer with `BertForPreTraining`, in one run.

    python -m benchmarks.pretraining             # 960 sequences, 3 repeats: about 12 minutes on 2 cores
    python -m benchmarks.pretraining --quick     # a smoke run, which writes no results

Real reviews, the quickstart's weights, the same pairs of segments of at most 128 tokens on both sides, one epoch in
batches of 16, both tasks. Each figure comes from a process of its own; they alternate, in reverse order every second
time. Masks are drawn by each side itself, so the losses are compared as curves: the means over a sixth of the run.
"""

import argparse
import json
import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import (
    RESULTS,
    WORK,
    Progress,
    append_line,
    at_least,
    markdown_table,
    ours,
    provenance,
    quickstart_inputs,
    read_lines,
    run_process,
    signature,
    write_section,
)

_BATCH_SIZE = 16
_LENGTH = 128
_PARTS = 6
_GOAL = 2.0
VARIANTS = {
    "peer": "Trainer, BertForPreTraining",
    "same": "ours, its dropout",
    "quickstart": "ours, attention dropout 0",
}


def options(reviews: int, directory: Path) -> list[str]:
    """Of our command: one epoch over the sequences of so many reviews, with the peer's recipe."""
    return [
        "--config=configs/pretrain_quickstart.yaml",
        f"--data.train_size={reviews}",
        "--data.val_size=0",
        f"--data.batch_size={_BATCH_SIZE}",
        f"--data.sequence_length={_LENGTH}",
        "--model.learning_rate=3e-4",
        "--model.head_learning_rate=null",
        "--model.weight_decay=0.01",
        "--model.warmup_ratio=0.1",
        "--trainer.log_every_n_steps=1",
        f"--trainer.default_root_dir={directory}",
    ]


def write_rows(folder: Path, reviews: int) -> tuple[int, int]:
    """Our pairs of the first epoch as a data set for the peer, unmasked; how many, and their tokens."""
    import datasets
    import torch

    from src.data.cache import cache_dir
    from src.data.corpus.prepared import CorpusSelection, prepare_corpus
    from src.data.corpus.sequences import Sequences
    from src.data.held_out import held_out_of
    from src.data.sources import find_source
    from src.system.pretrained import load_tokenizer

    datasets.disable_progress_bars()
    model, dataset = quickstart_inputs()
    tokenizer = load_tokenizer(str(model))
    selection = CorpusSelection({"source": "imdb"}, "train", "text", reviews, 0, 42, _LENGTH, pairs=True)
    held_out = held_out_of(["configs/quickstart.yaml"])
    corpus = prepare_corpus(find_source(str(dataset), None, cache_dir()), selection, tokenizer, held_out)
    stored = corpus.rows("train")
    n = len(stored)
    drawn = Sequences(stored, tokenizer, _LENGTH, 0.15, pairs=True, seed=42).__getitems__([(0, i) for i in range(n)])
    rows = {
        "input_ids": [torch.where(row["labels"] == -100, row["input_ids"], row["labels"]).tolist() for row in drawn],
        "token_type_ids": [row["token_type_ids"].tolist() for row in drawn],
        "next_sentence_label": [row["next_sentence_label"] for row in drawn],
    }
    datasets.Dataset.from_dict(rows).save_to_disk(str(folder))
    return n, sum(map(len, rows["input_ids"]))


def measure(name: str, repeat: int, rows: Path, reviews: int, mark: str) -> dict[str, Any]:
    """Trains in a process of its own: seconds of each step, and its loss of both tasks."""
    directory = WORK / "runs" / f"pretraining-{name}-{repeat}-{mark}"
    log = WORK / "logs" / f"pretraining-{name}-{repeat}.log"
    report = log.with_suffix(".json")
    report.unlink(missing_ok=True)
    if name == "peer":
        model = str(quickstart_inputs()[0])
        command = [sys.executable, "-m", "benchmarks.peers.pretraining", "--model", model, "--rows", str(rows)]
        command += ["--output_dir", str(directory)]
    else:
        dropout = "null" if name == "same" else "0"
        probe = "--trainer.callbacks+=benchmarks.lightning_probe.LightningProbe"
        command = ours("fit", *options(reviews, directory), f"--model.attention_dropout={dropout}", probe)
    process = run_process(command, log, BENCH_REPORT=str(report))
    found = json.loads(report.read_text())
    return {
        "seconds": sum(step[0] for step in found["steps"]),
        "faults": statistics.median(step[1] for step in found["steps"]),
        "memory": process.max_rss_mib,
        "losses": _losses(name, directory),
    }


def _losses(name: str, directory: Path) -> list[float]:
    if name == "peer":
        history = json.loads((directory / "trainer_state.json").read_text())["log_history"]
        return [row["loss"] for row in history if "loss" in row]
    import pandas as pd

    log = pd.read_csv(sorted(directory.glob("lightning_logs/version_*/metrics.csv"))[-1])
    losses: list[float] = log["train/loss"].dropna().tolist()
    return losses


def render(found: dict[str, list[dict[str, Any]]], tokens: int) -> str:
    """The table, from the rows of each variant, repeat by repeat."""
    peer = [row["seconds"] for row in found["peer"]]
    lines = []
    for name, rows in found.items():
        seconds = [row["seconds"] for row in rows]
        ratio = statistics.median(p / s for p, s in zip(peer, seconds, strict=True))
        speeds = [tokens / s for s in seconds]
        speed = f"{statistics.median(speeds):,.0f} ({min(speeds):,.0f} to {max(speeds):,.0f})"
        memory, faults = (statistics.median(row[key] for row in rows) for key in ("memory", "faults"))
        goal = "" if name == "peer" else at_least(_GOAL, ratio, "×")
        lines.append([VARIANTS[name], speed, f"{ratio:.2f}×", goal, f"{memory:,.0f}", f"{faults:,.0f}"])
    header = ["", "tokens/s", "against the Trainer", "goal", "peak memory, MiB", "page faults a step"]
    curves = [[VARIANTS[name], *(f"{loss:.3f}" for loss in curve(rows))] for name, rows in found.items()]
    return (
        markdown_table(header, lines)
        + f"\n\nThe loss of both tasks, the mean over each {_PARTS}th of the run and over the repeats:\n\n"
        + markdown_table(["", *(f"{i + 1}/{_PARTS}" for i in range(_PARTS))], curves)
    )


def curve(rows: Sequence[dict[str, Any]]) -> list[float]:
    """Mean losses over each part of the run, over all repeats."""
    means = []
    for part in range(_PARTS):
        values: list[float] = []
        for row in rows:
            losses = row["losses"]
            values += losses[len(losses) * part // _PARTS : len(losses) * (part + 1) // _PARTS]
        means.append(statistics.fmean(values) if values else float("nan"))
    return means


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reviews", type=int, default=360, help="of which the sequences are (default: 360)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="24 reviews, once: shows that it works, writes no results")
    parser.add_argument("--fresh", action="store_true", help="forget finished measurements")
    given = parser.parse_args(args)
    if given.quick:
        given.reviews, given.repeats = 24, 1
    own = ("common.py", "probe.py", "lightning_probe.py", "pretraining.py", "peers/pretraining.py")
    mark = signature({"reviews": given.reviews}, *own)
    rows = WORK / "runs" / f"pairs-{mark}"
    n, tokens = write_rows(rows, given.reviews)
    store = WORK / "pretraining.jsonl"
    if given.fresh:
        store.unlink(missing_ok=True)

    def finished() -> dict[tuple[str, int], dict[str, Any]]:
        lines = (line for line in read_lines(store) if line["signature"] == mark)
        return {(line["variant"], line["repeat"]): line["row"] for line in lines}

    tasks = [(name, r) for r in range(given.repeats) for name in list(VARIANTS)[:: 1 if r % 2 == 0 else -1]]
    todo = [task for task in tasks if task not in finished()]
    progress = Progress(20 + n / (6 if name == "peer" else 12) for name, _ in todo)
    for name, repeat in todo:
        progress.start(f"{VARIANTS[name]}, repeat {repeat + 1} of {given.repeats}")
        row = measure(name, repeat, rows, given.reviews, mark)
        append_line(store, {"variant": name, "repeat": repeat, "signature": mark, "row": row})
        progress.end(f"{tokens / row['seconds']:,.0f} tokens/s, loss at the end {curve([row])[-1]:.3f}")

    done = finished()
    table = render({name: [done[name, r] for r in range(given.repeats)] for name in VARIANTS}, tokens)
    command = shlex.join(["python", "-m", "benchmarks.pretraining", *(sys.argv[1:] if args is None else args)])
    text = f"""## Pre-training, beside the Hugging Face Trainer

{n:,} sequences ({tokens:,} real tokens) of {given.reviews:,} reviews in batches of {_BATCH_SIZE}, {given.repeats}
repeats, medians; the ratio is within a repeat. Steps only: start-up is left out.

{table}

{provenance(command)}"""
    print("\n" + text)
    if not given.quick:
        write_section(RESULTS, "pretraining-speed", text)
        print(f"\nWritten to {RESULTS}")


if __name__ == "__main__":
    main()
