"""Training, evaluation and prediction on one GPU, beside the Hugging Face Trainer.

    python -m benchmarks.speed.gpu                              # 2,048 reviews, up to 3 repeats within 14 minutes
    python -m benchmarks.speed.gpu --checks                     # in place of speeds: is what is computed right?
    python -m benchmarks.speed.gpu --model bert-base-uncased    # as published; otherwise random weights of that size

Real reviews of at most 512 tokens, each program in its own process, alternating. A step takes as long with random
weights as with pretrained ones, so no Hub is needed. This was assembled from the programs that measured what
docs/experiments/gpu.md tells, after that; as one command it has not run on a GPU yet.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import WORK, ours, quickstart_inputs, run_process, run_recorded
from benchmarks.repeats import Row, arguments, measure_all
from benchmarks.report import markdown_table, median_and_range, median_ratio, publish
from benchmarks.speed.training import training_flops

_FIRST_STEPS = 10
_PROBE = "--trainer.callbacks+=benchmarks.speed.recorder_callback.LightningProbe"
_GPU = "--config=configs/trainer/gpu.yaml"
_EXPERT, _TUTORIAL = "benchmarks.peers.hf_trainer_expert", "benchmarks.peers.hf_trainer_tutorial"
_PREDICTED = (2000, 20_000)
OURS = "ours, gpu.yaml"


@dataclass(frozen=True)
class Variant:
    options: list[str]
    peer: str | None = None
    batch: int = 8
    environment: dict[str, str] = field(default_factory=dict)


VARIANTS = {
    "A: Trainer, tutorial, fp32": Variant([], _TUTORIAL),
    "B: Trainer, tutorial, bf16": Variant(["--bf16"], _TUTORIAL),
    "C: Trainer, expert, bf16": Variant(["--bf16"], _EXPERT),
    OURS: Variant([_GPU]),
    "ours, gpu.yaml, compiled": Variant([_GPU, "--model.torch_compile=true"]),
    "ours, gpu.yaml, TF32": Variant(
        [_GPU, "--trainer.precision=32-true"], environment={"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}
    ),
    "ours, gpu_fast.yaml, batch 32": Variant([_GPU, "--config=configs/trainer/gpu_fast.yaml"], batch=32),
}

DEFINITIONS = f"""\
Two epochs. A and B pad every review to 512 tokens, C sorts by length. *Training* is over the steps of the second epoch
after its first {_FIRST_STEPS}, and the GPU is waited for at both ends. *First epoch* is the time of its steps, in which
graphs are captured and the network is compiled. *Share* is the operations needed on real tokens, without padding, over
the rate of a bf16 product of two 8,192 × 8,192 matrices in the same process. *Peak* is the memory that PyTorch
allocated on the GPU, at most. *Evaluation* is the validation loop, with its metrics and the loading of kernels.
*Prediction*, file to file, is from the difference of a file of {_PREDICTED[1]:,} reviews and one of {_PREDICTED[0]:,},
which leaves loading out."""


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


def data_options(model: str, reviews: int, evaluated: int) -> list[str]:
    """The data and the network of our commands."""
    return [
        f"--model.model_name_or_path={model}",
        f"--data.dataset={quickstart_inputs()[1]}",
        "--data.revision=null",
        "--data.where={source: imdb}",
        f"--data.train_size={reviews}",
        f"--data.val_size={evaluated}",
        "--data.test_size=500",
    ]


def train_command(name: str, model: str, reviews: int, directory: Path) -> list[str]:
    """Two epochs over `reviews`."""
    variant = VARIANTS[name]
    if variant.peer:
        place = ["--model", model, "--dataset", str(quickstart_inputs()[1]), "--output_dir", str(directory)]
        sizes = ["--reviews", str(reviews), "--eval_reviews", "64", "--epochs", "2"]
        return [sys.executable, "-m", variant.peer, *place, *sizes, *variant.options]
    data = data_options(model, reviews, evaluated=64)
    run = ["--trainer.max_epochs=2", f"--trainer.default_root_dir={directory}", _PROBE]
    return ours("fit", "--config=configs/imdb.yaml", *variant.options, *data, *run)


def measure(name: str, repeat: int, model: str, reviews: int, evaluated: int) -> Row:
    """Trains; with ours, evaluates and predicts too."""
    from transformers import AutoConfig

    variant, slug = VARIANTS[name], f"gpu-{list(VARIANTS).index(name)}-{repeat}"
    directory, log = WORK / "runs" / slug, WORK / "logs" / f"{slug}.log"
    steps = reviews // variant.batch
    first, last = steps + _FIRST_STEPS, 2 * steps
    command = train_command(name, model, reviews, directory)
    seen, _ = run_recorded(command, log, 0, BENCH_WAIT_AFTER=f"{first},{last}", **variant.environment)
    seconds = sum(step[0] for step in seen["steps"][first:last])
    lengths = [length for rows in seen["lengths"][first:last] for length in rows]
    row: Row = {
        "training, reviews/s": variant.batch * (last - first) / seconds,
        "first epoch, s": sum(step[0] for step in seen["steps"][:steps]),
        "peak, MiB": seen["gpu_peak_mib"],
    }
    if lengths and (rate := seen.get("bf16_rate")):
        row["share, %"] = 100 * training_flops(AutoConfig.from_pretrained(model), lengths) / seconds / rate
    if name == OURS:
        best = str(max(directory.rglob("best.ckpt"), key=lambda path: path.stat().st_mtime))
        row |= measure_evaluation(best, model, reviews, evaluated, log) | measure_prediction(best, log)
    return row


def measure_evaluation(checkpoint: str, model: str, reviews: int, evaluated: int, log: Path) -> Row:
    """`validate`."""
    run = [f"--ckpt_path={checkpoint}", f"--trainer.default_root_dir={log.with_suffix('')}", _PROBE]
    command = ours("validate", "--config=configs/imdb.yaml", _GPU, *data_options(model, reviews, evaluated), *run)
    seen, _ = run_recorded(command, log.with_suffix(".validate.log"))
    return {"evaluation, reviews/s": seen["evaluated"] / seen["evaluation_s"]}


def measure_prediction(checkpoint: str, log: Path) -> Row:
    """`predict`, of a short and of a long file."""
    import pandas as pd

    reviews = pd.read_csv(quickstart_inputs()[1])[["text"]]
    seconds = []
    for n in _PREDICTED:
        source, output = (log.with_suffix(f".{n}.{kind}.csv") for kind in ("input", "output"))
        reviews[:n].to_csv(source, index=False)
        output.unlink(missing_ok=True)
        command = ours("predict", f"--ckpt_path={checkpoint}", f"--input={source}", f"--output={output}")
        seconds.append(run_process(command, log.with_suffix(".predict.log")).wall_s)
    return {"prediction, reviews/s": (_PREDICTED[1] - _PREDICTED[0]) / (seconds[1] - seconds[0])}


def render(rows: Mapping[str, Sequence[Row]]) -> str:
    """The tables; ratios are within a repeat."""
    rate = "training, reviews/s"
    shown = {rate: "{:,.0f}", "share, %": "{:.1f}", "first epoch, s": "{:.1f}", "peak, MiB": "{:,.0f}"}
    peers = [name for name, variant in VARIANTS.items() if variant.peer]

    def figure(row: Sequence[Row], what: str, form: str) -> str:
        return median_and_range([r[what] for r in row], form) if what in row[0] else "–"

    def against(name: str, peer: str) -> str:
        if VARIANTS[name].peer:
            return ""
        return f"{median_ratio([row[rate] for row in rows[name]], [row[rate] for row in rows[peer]]):.2f}×"

    training = [
        [name, *(figure(rows[name], what, form) for what, form in shown.items()), *(against(name, p) for p in peers)]
        for name in VARIANTS
    ]
    rest = [[what, figure(rows[OURS], what, "{:,.0f}")] for what in ("evaluation, reviews/s", "prediction, reviews/s")]
    header = ["median (lowest to highest)", *shown, *(f"against {peer[0]}" for peer in peers)]
    return f"{markdown_table(header, training)}\n\n{markdown_table([OURS, ''], rest)}"


def check(model: str, reviews: int, minutes: float) -> int:
    """Prints the checks; returns 1 where one failed, or the time was up before the last."""
    from benchmarks.speed import gpu_checks

    def fit(directory: Path, *options: str) -> list[str]:
        run = [*data_options(model, reviews, evaluated=64), f"--trainer.default_root_dir={directory}"]
        return ours("fit", "--config=configs/imdb.yaml", _GPU, *run, *options)

    failed, end = 0, time.monotonic() + 60 * minutes
    checks = gpu_checks.run(model, quickstart_inputs()[1], fit)
    while time.monotonic() < end:
        if (found := next(checks, None)) is None:
            return int(failed > 0)
        name, holds, figures = found
        print(f"{'ok' if holds else 'FAILED'}: {name}: {figures}", flush=True)
        failed += not holds
    print(f"FAILED: the rest did not begin within {minutes:g} minutes", flush=True)
    return 1


def main(args: Sequence[str] | None = None) -> int:
    parser = arguments(__doc__, reviews=2048)
    parser.add_argument("--model", help="Hub id or folder (default: random weights of bert-base-uncased's size)")
    parser.add_argument("--checks", action="store_true", help="checks what is computed, in place of speeds")
    parser.add_argument("--minutes", type=float, default=14, help="begins nothing that would take longer (default: 14)")
    given = parser.parse_args(args)
    if given.quick:
        given.reviews, given.repeats = 640, 1
    if given.reviews % 32 or given.reviews < 640:
        parser.error("--reviews must be a multiple of 32, and at least 640")
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    if gpu is None and (given.checks or not given.quick):
        sys.exit("error: PyTorch finds no GPU here; without --checks, --quick --model FOLDER does without")
    model = given.model or str(model_of_that_size())
    if given.checks:
        return check(model, given.reviews, given.minutes)
    evaluated = 500 if given.quick else 3500
    rows = measure_all(
        "gpu",
        {"reviews": given.reviews, "model": model, "gpu": gpu},
        VARIANTS,
        given.repeats,
        lambda name, repeat: measure(name, repeat, model, given.reviews, evaluated),
        lambda row: ", ".join(f"{what} {figure:,.1f}" for what, figure in row.items()),
        given.minutes,
    )
    weights = given.model or "random weights of bert-base-uncased's size"
    body = f"{gpu or 'no GPU'}, {weights}, {given.reviews:,} reviews, {len(rows[OURS])} repeats."
    body += f"\n\n{render(rows)}\n\n{DEFINITIONS}"
    title = "On one GPU, beside the Hugging Face Trainer"
    publish(title, body, "benchmarks.speed.gpu", args, None if given.quick else "gpu")
    return 0


if __name__ == "__main__":
    sys.exit(main())
