"""Pre-training speed, beside the Hugging Face Trainer with `BertForPreTraining`.

    python -m benchmarks.speed.pretraining             # 960 sequences, 3 repeats: about 12 minutes on 2 cores
    python -m benchmarks.speed.pretraining --quick     # a smoke run that writes no results

Real reviews, the quickstart's weights, the same pairs of segments of at most 128 tokens on both sides, one epoch in
batches of 16, both tasks. Each figure comes from its own process. Each side draws its own masks, so losses are compared
as curves: means over a sixth of the run.
"""

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.processes import WORK, ours, quickstart_inputs, run_recorded
from benchmarks.repeats import Row, arguments, measure_all
from benchmarks.report import at_least, markdown_table, median_and_range, median_ratio, publish

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
    """Of `fit`: one epoch over the sequences of so many reviews, with the peer's recipe."""
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
    """Writes our pairs of the first epoch as a data set for the peer, unmasked; returns their number and tokens."""
    import datasets
    import torch

    from src.data.corpus.held_out import held_out_of
    from src.data.corpus.prepared_corpus import CorpusSelection, prepare_corpus
    from src.data.corpus.sequences import Sequences
    from src.data.sources import find_source
    from src.system.pretrained import load_tokenizer

    datasets.disable_progress_bars()
    model, dataset = quickstart_inputs()
    tokenizer = load_tokenizer(str(model))
    selection = CorpusSelection({"source": "imdb"}, "train", "text", reviews, 0, 42, _LENGTH, next_sentence=True)
    held_out = held_out_of(["configs/quickstart.yaml"])
    corpus = prepare_corpus(find_source(str(dataset), None), selection, tokenizer, held_out)
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


def measure(name: str, repeat: int, rows: Path, reviews: int) -> Row:
    """Trains in its own process: seconds of all steps, and the loss of both tasks in each."""
    directory = WORK / "runs" / f"pretraining-{name}-{repeat}"
    log = WORK / "logs" / f"pretraining-{name}-{repeat}.log"
    if name == "peer":
        model = str(quickstart_inputs()[0])
        command = [
            sys.executable,
            "-m",
            "benchmarks.peers.hf_trainer_pretraining",
            "--model",
            model,
            "--rows",
            str(rows),
        ]
        command += ["--output_dir", str(directory)]
    else:
        dropout = "null" if name == "same" else "0"
        probe = "--trainer.callbacks+=benchmarks.speed.recorder_callback.LightningProbe"
        command = ours("fit", *options(reviews, directory), f"--model.attention_dropout={dropout}", probe)
    report, process = run_recorded(command, log)
    return {
        "seconds": sum(step[0] for step in report["steps"]),
        "faults": statistics.median(step[1] for step in report["steps"]),
        "memory": process.max_rss_mib,
        "losses": _losses(name, directory),
    }


def _losses(name: str, directory: Path) -> list[float]:
    if name == "peer":
        history = json.loads((directory / "trainer_state.json").read_text())["log_history"]
        return [row["loss"] for row in history if "loss" in row]
    import pandas as pd

    from src.runs.directories import runs

    losses: list[float] = pd.read_csv(runs(directory)[0] / "metrics.csv")["train/loss"].dropna().tolist()
    return losses


def render(found: Mapping[str, Sequence[Row]], tokens: int) -> str:
    """The tables, from the rows of each variant, repeat by repeat."""
    peer = [row["seconds"] for row in found["peer"]]
    lines = []
    for name, rows in found.items():
        seconds = [row["seconds"] for row in rows]
        ratio = median_ratio(peer, seconds)
        speed = median_and_range([tokens / s for s in seconds], "{:,.0f}")
        memory, faults = (statistics.median(row[key] for row in rows) for key in ("memory", "faults"))
        goal = "" if name == "peer" else at_least(_GOAL, ratio, "×")
        lines.append([VARIANTS[name], speed, f"{ratio:.2f}×", goal, f"{memory:,.0f}", f"{faults:,.0f}"])
    header = ["", "tokens/s", "against the Trainer", "goal", "peak memory, MiB", "page faults a step"]
    curves = [[VARIANTS[name], *(f"{loss:.3f}" for loss in curve(rows))] for name, rows in found.items()]
    return (
        markdown_table(header, lines)
        + f"\n\nThe loss of both tasks: the mean over each {_PARTS}th of the run and over the repeats.\n\n"
        + markdown_table(["", *(f"{i + 1}/{_PARTS}" for i in range(_PARTS))], curves)
    )


def curve(rows: Sequence[Row]) -> list[float]:
    """Mean losses over each part of the run, over all repeats; NaN for a part without steps."""
    means = []
    for part in range(_PARTS):
        values: list[float] = []
        for losses in (row["losses"] for row in rows):
            values += losses[len(losses) * part // _PARTS : len(losses) * (part + 1) // _PARTS]
        means.append(statistics.fmean(values) if values else float("nan"))
    return means


def main(args: Sequence[str] | None = None) -> None:
    given = arguments(__doc__, reviews=360).parse_args(args)
    if given.quick:
        given.reviews, given.repeats = 24, 1
    rows = WORK / "runs" / f"pairs-{given.reviews}"
    n, tokens = write_rows(rows, given.reviews)
    found = measure_all(
        "pretraining",
        {"reviews": given.reviews},
        VARIANTS,
        given.repeats,
        lambda name, repeat: measure(name, repeat, rows, given.reviews),
        lambda row: f"{tokens / row['seconds']:,.0f} tokens/s, loss at the end {curve([row])[-1]:.3f}",
    )
    body = f"""{n:,} sequences ({tokens:,} real tokens) of {given.reviews:,} reviews in batches of {_BATCH_SIZE},
{given.repeats} repeats, medians; the ratio is within a repeat. Steps only: start-up is left out.

{render(found, tokens)}"""
    title = "Pre-training, beside the Hugging Face Trainer"
    publish(title, body, "benchmarks.speed.pretraining", args, None if given.quick else "pretraining-speed")


if __name__ == "__main__":
    main()
