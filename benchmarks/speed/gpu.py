"""Training speed on one GPU, beside the Hugging Face Trainer.

    python -m benchmarks.speed.gpu                              # 1,200 reviews, 2 repeats: about 8 minutes
    python -m benchmarks.speed.gpu --model bert-base-uncased    # as published; otherwise random weights of that size

Real reviews, batches of 8, at most 512 tokens, one epoch, each in its own process, alternating. A step takes as long
with random weights as with pretrained ones, so no Hub is needed. The rate leaves out the first steps, in which CUDA's
libraries are loaded and the network is compiled.
"""

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.processes import WORK, ours, quickstart_inputs, run_process, run_recorded
from benchmarks.repeats import Row, arguments, measure_all
from benchmarks.report import markdown_table, median_ratio, publish

_FIRST_STEPS = 50
_EVALUATED = 64
_GPU = ["--config=configs/trainer/gpu.yaml"]

VARIANTS: dict[str, tuple[str | None, list[str]]] = {
    "A: Trainer, tutorial, fp32": ("benchmarks.peers.hf_trainer_tutorial", []),
    "ours, imdb.yaml, fp32": (None, []),
    "B: Trainer, expert, bf16": ("benchmarks.peers.hf_trainer_expert", ["--bf16"]),
    "ours, gpu.yaml, not compiled": (None, [*_GPU, "--model.torch_compile=false"]),
    "ours, gpu.yaml": (None, _GPU),
}

DEFINITIONS = f"""\
Batches of 8, at most 512 tokens. A pads every review to 512; B and gpu.yaml make batches of reviews of like length;
imdb.yaml pads to the longest of a batch in random order. *Training* is reviews over the time of the steps after the
first {_FIRST_STEPS}; *first steps* is the time of those, in which a network is compiled. *New length* is the median
time of a step whose batch has a length that no batch had before, *seen* of the others. *Whole command* has start-up,
{_EVALUATED} reviews evaluated, and for ours the checkpoints saved. *Peak* is the memory that PyTorch allocated on the
GPU, at most."""


def model_of_that_size() -> Path:
    """A folder with a network of bert-base-uncased's size and its vocabulary, random weights, made once."""
    folder = WORK / "bert-base-size"
    if not (folder / "config.json").is_file():
        from transformers import AutoTokenizer, BertConfig, BertModel

        tokenizer = AutoTokenizer.from_pretrained(quickstart_inputs()[0])
        tokenizer.model_max_length = 512
        tokenizer.save_pretrained(folder)
        BertModel(BertConfig()).save_pretrained(folder)
    return folder


def command(name: str, model: str, reviews: int, directory: Path) -> list[str]:
    """One epoch over `reviews`."""
    peer, options = VARIANTS[name]
    _, dataset = quickstart_inputs()
    if peer:
        sizes = ["--reviews", str(reviews), "--eval_reviews", str(_EVALUATED), "--epochs", "1"]
        place = ["--model", model, "--dataset", str(dataset), "--output_dir", str(directory)]
        return [sys.executable, "-m", peer, *place, *sizes, *options]
    return ours(
        "fit",
        "--config=configs/imdb.yaml",
        *options,
        f"--model.model_name_or_path={model}",
        f"--data.dataset={dataset}",
        "--data.revision=null",
        "--data.where={source: imdb}",
        f"--data.train_size={reviews}",
        f"--data.val_size={_EVALUATED}",
        "--data.test_size=500",
        "--trainer.devices=1",
        "--trainer.max_epochs=1",
        f"--trainer.default_root_dir={directory}",
        "--trainer.callbacks+=benchmarks.speed.recorder_callback.LightningProbe",
    )


def measure(name: str, repeat: int, model: str, reviews: int) -> Row:
    """Runs one variant."""
    slug = f"gpu-{list(VARIANTS).index(name)}-{repeat}"
    seen, process = run_recorded(command(name, model, reviews, WORK / "runs" / slug), WORK / "logs" / f"{slug}.log")
    seconds = [step[0] for step in seen["steps"]]
    first, rest = seconds[:_FIRST_STEPS], seconds[_FIRST_STEPS:]
    new, seen_before = by_novelty(seen["lengths"], seconds)
    return {
        "rate": 8 * len(rest) / sum(rest),
        "first": sum(first),
        "new": statistics.median(new) if new else None,
        "seen": statistics.median(seen_before) if seen_before else None,
        "wall": process.wall_s,
        "peak": seen["gpu_peak_mib"],
    }


def by_novelty(lengths: Sequence[int], seconds: Sequence[float]) -> tuple[list[float], list[float]]:
    """The times of steps whose batch's length is new, and of the others; not of the first, which loads libraries."""
    new: list[float] = []
    seen: list[float] = []
    for step, (length, time) in enumerate(zip(lengths, seconds, strict=False)):
        if step:
            (seen if length in lengths[:step] else new).append(time)
    return new, seen


def render(rows: Mapping[str, Sequence[Row]]) -> str:
    """The table; ratios are within a repeat."""

    def median(name: str, what: str, digits: int = 0) -> str:
        found = [row[what] for row in rows[name] if row[what] is not None]
        return f"{statistics.median(found):,.{digits}f}" if found else "–"

    def against(name: str, other: str) -> str:
        return f"{median_ratio([row['rate'] for row in rows[name]], [row['rate'] for row in rows[other]]):.2f}×"

    a, b = (name for name, (peer, _) in VARIANTS.items() if peer)
    header = ["", "training, reviews/s", "against A", "against B", "first steps, s"]
    header += ["new length, s", "seen, s", "whole command, s", "peak, MiB"]
    lines = [
        [
            name,
            median(name, "rate"),
            against(name, a),
            against(name, b),
            median(name, "first", 1),
            median(name, "new", 3),
            median(name, "seen", 3),
            median(name, "wall"),
            median(name, "peak"),
        ]
        for name in VARIANTS
    ]
    return markdown_table(header, lines)


def main(args: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, reviews=1200, repeats=2)
    parser.add_argument("--model", help="Hub id or folder (default: random weights of bert-base-uncased's size)")
    given = parser.parse_args(args)
    if given.quick:
        given.reviews, given.repeats = 480, 1
    import torch

    if not torch.cuda.is_available():
        sys.exit("error: PyTorch finds no GPU here")
    if given.reviews <= 8 * _FIRST_STEPS:
        parser.error(f"--reviews must be above {8 * _FIRST_STEPS}: the first {_FIRST_STEPS} steps are left out")
    model = given.model or str(model_of_that_size())
    # fills the caches: the peers' and ours
    for name in list(VARIANTS)[:3]:
        one_step = ["--max_steps", "1"] if VARIANTS[name][0] else ["--trainer.max_steps=1"]
        warm = command(name, model, given.reviews, WORK / "runs" / "gpu-warm")
        run_process([*warm, *one_step], WORK / "logs" / "gpu-warm.log")
    rows = measure_all(
        "gpu",
        {"reviews": given.reviews, "model": model, "gpu": torch.cuda.get_device_name()},
        VARIANTS,
        given.repeats,
        lambda name, repeat: measure(name, repeat, model, given.reviews),
        lambda row: f"{row['rate']:.0f} reviews/s",
    )
    weights = given.model or "random weights of bert-base-uncased's size"
    body = f"{torch.cuda.get_device_name()}, {weights}, {given.reviews:,} reviews, {given.repeats} repeats, medians."
    body += f"\n\n{render(rows)}\n\n{DEFINITIONS}"
    title = "On one GPU, beside the Hugging Face Trainer"
    publish(title, body, "benchmarks.speed.gpu", args, None if given.quick else "gpu")


if __name__ == "__main__":
    main()
