"""Prediction speed with PyTorch, ONNX and int8 ONNX, beside `transformers.pipeline`.

    python -m benchmarks.speed.prediction                          # 1,000 reviews, batch 8, 3 repeats
    python -m benchmarks.speed.prediction --ckpt_path best.ckpt    # of your own model
    python -m benchmarks.speed.prediction --quick                  # a smoke run that writes no results

All variants read one folder, written by `python -m src export --onnx --int8`, and the same reviews, each measurement in
its own process. The time is from texts to labels after a warm-up batch, tokenising included, loading excluded. Without
--ckpt_path a model is trained for a few steps: speed does not depend on what it has learned.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.processes import WORK, ours, quickstart_inputs, run_process
from benchmarks.repeats import Row, arguments, measure_all, signature
from benchmarks.report import at_least, markdown_table, median_and_range, median_ratio, publish

VARIANTS = {
    "pipeline": "transformers.pipeline",
    "pytorch": "ours, PyTorch",
    "onnx": "ours, ONNX",
    "int8": "ours, int8 ONNX",
}
_BATCH_SIZE = 8
GOALS = {256: {"pytorch": 3, "int8": 4}, 512: {"pytorch": 4, "int8": 5}}
"""By the most tokens of a review: how many times as fast as the pipeline."""
_OTHER_CUT = {
    "head_tail": "The pipeline keeps the head of a long review, ours both ends, as in training: so some labels differ.",
    "windows": "The pipeline reads the first window of a long review, ours all of them: so ours takes longer, and some "
    "labels differ.",
}


def measure(name: str, folder: Path, texts: list[str]) -> Row:
    """Seconds for all texts, and the label of each, in this process."""
    if name == "pipeline":
        from transformers import pipeline

        classify = pipeline("text-classification", str(folder), batch_size=_BATCH_SIZE, truncation=True)

        def predict(rows: list[str]) -> list[str]:
            return [answer["label"] for answer in classify(rows)]
    else:
        from src.system.allocator import keep_freed_memory

        keep_freed_memory()
        from src.inference.classifier import load

        classifier = load(find_model(name, folder))

        def predict(rows: list[str]) -> list[str]:
            return [classifier.labels[i] for i in classifier.logits(rows, batch_size=_BATCH_SIZE).argmax(axis=-1)]

    predict(texts[:_BATCH_SIZE])
    started = time.perf_counter()
    labels = predict(texts)
    return {"seconds": time.perf_counter() - started, "labels": labels}


def find_model(name: str, folder: Path) -> Path:
    """The folder itself, or the ONNX file in it; the quantised one has int8 in its name."""
    if name == "pytorch":
        return folder
    files = sorted(path for path in folder.rglob("*.onnx") if ("int8" in path.name) == (name == "int8"))
    if not files:
        sys.exit(f"error: {folder} has no {VARIANTS[name].removeprefix('ours, ')} file")
    return files[0]


def render(found: Mapping[str, Sequence[Row]], n: int, goals: Mapping[str, float]) -> str:
    """Reviews a second of each variant, the ratio to the pipeline within a repeat, and the share of equal labels."""
    base = found["pipeline"]
    rows = []
    for name, runs in found.items():
        ratio = median_ratio([run["seconds"] for run in base], [run["seconds"] for run in runs])
        same = sum(a == b for a, b in zip(runs[0]["labels"], base[0]["labels"], strict=True)) / n
        speed = median_and_range([n / run["seconds"] for run in runs], "{:.1f}")
        goal = at_least(goals[name], ratio, "×") if name in goals else ""
        rows.append([VARIANTS[name], speed, f"{ratio:.2f}×", goal, f"{same:.1%}"])
    return markdown_table(["", "reviews/s", "against the pipeline", "goal", "same labels"], rows)


def read_texts(n: int) -> list[str]:
    """The last `n` reviews of the quickstart's shuffle: its test rows, and those before them."""
    import numpy as np
    import pandas as pd

    table = pd.read_csv(quickstart_inputs()[1])
    reviews = table[table["source"] == "imdb"]["text"].to_numpy()
    return [str(text) for text in reviews[np.random.default_rng(42).permutation(len(reviews))[-n:]]]


def export(checkpoint: Path | None, folder: Path) -> None:
    """Exports a checkpoint, or a model that is trained for a few steps, with its ONNX files."""
    where = ["--ckpt_path", str(checkpoint)]
    if checkpoint is None:
        directory = WORK / "runs" / "prediction"
        sizes = ["--data.train_size=64", "--data.val_size=16", "--data.test_size=16", "--trainer.max_epochs=1"]
        cut = ["--data.max_length=256", "--data.truncation=head_tail"]  # windows read more than a peer does
        root = f"--trainer.default_root_dir={directory}"
        fit = ours("fit", "--config=configs/quickstart.yaml", *cut, *sizes, root)
        run_process(fit, WORK / "logs" / "prediction-fit.log")
        where = ["--ckpt_path", str(sorted(directory.glob("lightning_logs/version_*/checkpoints/best.ckpt"))[-1])]
    command = ours("export", *where, "--output", str(folder), "--onnx", "--int8")
    run_process(command, WORK / "logs" / "prediction-export.log")


def main(args: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, reviews=1000)
    parser.add_argument("--ckpt_path", type=Path, help="default: a model trained for a few steps")
    parser.add_argument("--one", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(args)
    if given.quick:
        given.reviews, given.repeats = 32, 1
    if given.one:
        given.report.write_text(json.dumps(measure(given.one, given.folder, read_texts(given.reviews))))
        return

    content = hashlib.sha256(given.ckpt_path.read_bytes()).hexdigest()[:16] if given.ckpt_path else "few-steps"
    folder = WORK / "runs" / f"exported-{signature({'checkpoint': content})}"
    if not folder.is_dir():
        print("Exporting the model to measure", flush=True)
        export(given.ckpt_path and given.ckpt_path.absolute(), folder)

    def measure_apart(name: str, _repeat: int) -> Row:
        report = WORK / "logs" / f"prediction-{name}.json"
        one = ["--one", name, "--folder", str(folder), "--report", str(report), "--reviews", str(given.reviews)]
        run_process([sys.executable, "-m", "benchmarks.speed.prediction", *one], report.with_suffix(".log"))
        row: Row = json.loads(report.read_text())
        return row

    found = measure_all(
        "prediction",
        {"reviews": given.reviews, "checkpoint": content},
        VARIANTS,
        given.repeats,
        measure_apart,
        lambda row: f"{given.reviews / row['seconds']:.1f} reviews/s",
    )
    from src.models.exported_folder import PREPROCESSING

    cut = json.loads((folder / PREPROCESSING).read_text())
    body = f"""{given.reviews:,} real reviews, batches of {_BATCH_SIZE}, {given.repeats} repeats, medians; the ratio is
within a repeat. From texts to labels: tokenising included, loading excluded. {_OTHER_CUT.get(cut["truncation"], "")}

{render(found, given.reviews, GOALS.get(cut["max_length"], {}))}"""
    title = f"Prediction, beside transformers.pipeline, {cut['max_length']} tokens ({cut['truncation']})"
    section = None if given.quick else f"prediction-{cut['max_length']}"
    publish(title, body, "benchmarks.speed.prediction", args, section)


if __name__ == "__main__":
    main()
