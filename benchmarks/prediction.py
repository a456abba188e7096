"""Prediction on real reviews: this project's classifier, with PyTorch and int8 ONNX, beside `transformers.pipeline`.

    python -m benchmarks.prediction                          # 1,000 reviews, batch 8, 3 repeats
    python -m benchmarks.prediction --ckpt_path best.ckpt    # of your own model
    python -m benchmarks.prediction --quick                  # a smoke run, which writes no results

All read one folder that `python -m src export --onnx --int8` wrote, and the same texts; each measurement is a process
of its own, alternating. The time is from the texts to the labels, tokenising included, loading excluded, after a batch
to warm up. Without --ckpt_path, a model is trained for a few steps: the speed does not depend on what it has learnt.
"""

import argparse
import hashlib
import json
import shlex
import statistics
import sys
import time
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

VARIANTS = {
    "pipeline": "transformers.pipeline",
    "pytorch": "ours, PyTorch",
    "onnx": "ours, ONNX",
    "int8": "ours, int8 ONNX",
}
_BATCH_SIZE = 8
_OTHER_CUT = {
    "head_tail": "The pipeline keeps the head of a long review, ours both ends, as in training: so some labels differ.",
    "windows": "The pipeline reads the first window of a long review, ours all of them: so it takes longer, and some "
    "labels differ.",
}
_GOALS = {"pytorch": 1.8, "int8": 2.5}


def measure(name: str, folder: Path, texts: list[str]) -> dict[str, Any]:
    """Seconds for all texts, and the label of each, in this process."""
    warm, predict = texts[:_BATCH_SIZE], None
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

    predict(warm)
    started = time.perf_counter()
    labels = predict(texts)
    return {"seconds": time.perf_counter() - started, "labels": labels}


def find_model(name: str, folder: Path) -> Path:
    """The folder itself, or the ONNX file in it, the quantised one having int8 in its name."""
    if name == "pytorch":
        return folder
    files = sorted(path for path in folder.rglob("*.onnx") if ("int8" in path.name) == (name == "int8"))
    if not files:
        sys.exit(f"error: {folder} holds no {VARIANTS[name].removeprefix('ours, ')} file")
    return files[0]


def render(found: dict[str, list[dict[str, Any]]], n: int) -> str:
    """Reviews a second of each variant, the ratio to the pipeline within a repeat, and the share of equal labels."""
    base = found["pipeline"]
    rows = []
    for name, runs in found.items():
        speeds = [n / run["seconds"] for run in runs]
        ratios = [b["seconds"] / run["seconds"] for run, b in zip(runs, base, strict=True)]
        same = sum(a == b for a, b in zip(runs[0]["labels"], base[0]["labels"], strict=True)) / n
        speed = f"{statistics.median(speeds):.1f}"
        if len(speeds) > 1:
            speed += f" ({min(speeds):.1f} to {max(speeds):.1f})"
        ratio = statistics.median(ratios)
        goal = at_least(_GOALS[name], ratio, "×") if name in _GOALS else ""
        rows.append([VARIANTS[name], speed, f"{ratio:.2f}×", goal, f"{same:.1%}"])
    return markdown_table(["", "reviews/s", "against the pipeline", "goal", "same labels"], rows)


def read_texts(n: int) -> list[str]:
    """The first `n` of the quickstart's test rows and those before them, from the end of the shuffle."""
    import numpy as np
    import pandas as pd

    table = pd.read_csv(quickstart_inputs()[1])
    reviews = table[table["source"] == "imdb"]["text"].to_numpy()
    return [str(text) for text in reviews[np.random.default_rng(42).permutation(len(reviews))[-n:]]]


def _export(checkpoint: Path | None, folder: Path) -> None:
    if checkpoint is None:
        directory = WORK / "runs" / "prediction"
        sizes = ["--data.train_size=64", "--data.val_size=16", "--data.test_size=16", "--trainer.max_epochs=1"]
        cut = ["--data.max_length=256", "--data.truncation=head_tail"]  # windows read more than a peer does
        fit = ours("fit", "--config=configs/quickstart.yaml", *cut, *sizes, f"--trainer.default_root_dir={directory}")
        run_process(fit, WORK / "logs" / "prediction-fit.log")
        checkpoint = sorted(directory.glob("lightning_logs/version_*/checkpoints/best.ckpt"))[-1]
    export = ours("export", "--ckpt_path", str(checkpoint), "--output", str(folder), "--onnx", "--int8")
    run_process(export, WORK / "logs" / "prediction-export.log")


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt_path", type=Path, help="default: a model trained for a few steps")
    parser.add_argument("--reviews", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="32 reviews, once: shows that it works, writes no results")
    parser.add_argument("--fresh", action="store_true", help="forget finished measurements")
    parser.add_argument("--one", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(args)
    if given.quick:
        given.reviews, given.repeats = 32, 1
    if given.one:
        given.report.write_text(json.dumps(measure(given.one, given.folder, read_texts(given.reviews))))
        return

    content = given.ckpt_path and hashlib.sha256(given.ckpt_path.read_bytes()).hexdigest()
    mark = signature({"reviews": given.reviews, "checkpoint": content}, "common.py", "prediction.py")
    folder = WORK / "runs" / f"exported-{mark}"
    if not folder.is_dir():
        print("Exporting the model to measure", flush=True)
        _export(given.ckpt_path and given.ckpt_path.absolute(), folder)
    store = WORK / "prediction.jsonl"
    if given.fresh:
        store.unlink(missing_ok=True)

    def finished() -> dict[tuple[str, int], dict[str, Any]]:
        return {(row["variant"], row["repeat"]): row for row in read_lines(store) if row["signature"] == mark}

    tasks = [(name, r) for r in range(given.repeats) for name in list(VARIANTS)[:: 1 if r % 2 == 0 else -1]]
    todo = [task for task in tasks if task not in finished()]
    progress = Progress(10 + given.reviews / 10 for _ in todo)
    for name, repeat in todo:
        progress.start(f"{VARIANTS[name]}, repeat {repeat + 1} of {given.repeats}")
        report = WORK / "logs" / f"prediction-{name}.json"
        one = ["--one", name, "--folder", str(folder), "--report", str(report), "--reviews", str(given.reviews)]
        run_process([sys.executable, "-m", "benchmarks.prediction", *one], report.with_suffix(".log"))
        row = json.loads(report.read_text())
        append_line(store, {"signature": mark, "variant": name, "repeat": repeat, **row})
        progress.end(f"{given.reviews / row['seconds']:.1f} reviews/s")

    done = finished()
    table = render({name: [done[name, r] for r in range(given.repeats)] for name in VARIANTS}, given.reviews)
    command = shlex.join(["python", "-m", "benchmarks.prediction", *(sys.argv[1:] if args is None else args)])
    from src.models.folder import PREPROCESSING

    cut = json.loads((folder / PREPROCESSING).read_text())
    note = f"\n\n{_OTHER_CUT[cut['truncation']]}" if cut["truncation"] in _OTHER_CUT else ""
    text = f"""## Prediction, beside transformers.pipeline, {cut["max_length"]} tokens ({cut["truncation"]})

{given.reviews:,} real reviews, batches of {_BATCH_SIZE}, {given.repeats} repeats, medians; the ratio is within a
repeat. From texts to labels, tokenising included, loading excluded.

{table}{note}

{provenance(command)}"""
    print("\n" + text)
    if not given.quick:
        write_section(RESULTS, f"prediction-{cut['max_length']}", text)
        print(f"\nWritten to {RESULTS}")


if __name__ == "__main__":
    main()
