"""Training speed, evaluation speed and memory, beside the Hugging Face Trainer.

    python -m benchmarks.speed.training                      # 248 reviews, 3 repeats: an hour and a half on 2 cores
    python -m benchmarks.speed.training --quick              # a smoke run that writes no results
    python -m benchmarks.speed.training --reviews 1000 --repeats 5

Real reviews and the quickstart's weights. Each figure comes from its own process, which runs what a user would run:
`hf_trainer_tutorial.py` (A) and `hf_trainer_expert.py` (B) in `benchmarks/peers/`, and `python -m src` (ours), an epoch
each over the same rows, alternating. A stopped program continues.

248 reviews are 31 batches: as many as the Trainer sorts by length at a time when it trains on 1,000.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.processes import WORK, ours, quickstart_inputs, run_process, run_recorded
from benchmarks.recipes.__main__ import LIST, plan
from benchmarks.repeats import Row, arguments, measure_all
from benchmarks.report import publish
from benchmarks.speed.training_page import DEFINITIONS, figures, render

_PROBE = "--trainer.callbacks+=benchmarks.speed.recorder_callback.LightningProbe"
_PROFILER = "--trainer.profiler=benchmarks.speed.recorder_callback.PrepareProfiler"
_FP32 = ("--trainer.precision=32-true",)
_BASE_SIZE = WORK / "bert-base-size"
_HELD_BACK = 500  # rows at the end of the shuffle, which `--data.test_size` takes


@dataclass(frozen=True)
class Variant:
    """A column of the table: a recipe of recipes.yaml, how it cuts a review, and further options of its program."""

    title: str
    recipe: str
    max_length: int
    truncation: str
    options: tuple[str, ...] = ()
    is_base: bool = False  # of bert-base's size, with random weights


VARIANTS = {
    "A": Variant("A: Trainer, tutorial", "hf_trainer", 512, "head"),
    "same": Variant("ours, A's recipe", "grouped", 512, "head"),
    "B": Variant("B: Trainer, expert", "hf_expert", 512, "head"),
    "B16": Variant("B: Trainer, expert, bf16", "hf_expert", 512, "head", ("--bf16",)),
    "short": Variant("ours, 256 tokens", "short", 256, "head_tail"),
    "windows": Variant("ours, windows", "windows", 128, "windows"),
    "windows32": Variant("ours, windows, fp32", "windows", 128, "windows", _FP32),
    "base": Variant("ours, bert-base's size", "grouped", 512, "head", is_base=True),
    "base32": Variant("ours, bert-base's size, fp32", "grouped", 512, "head", _FP32, is_base=True),
}


def train_command(name: str, reviews: int, eval_reviews: int, directory: Path, one_step: bool = False) -> list[str]:
    """One epoch over `reviews`, or its first step, in `directory`; a peer evaluates in the same process."""
    content = yaml.safe_load(LIST.read_text())
    variant = VARIANTS[name]
    (run,) = plan(content["recipes"], content["base"], [None], [42], [variant.recipe])
    if run.peer:
        model, dataset = quickstart_inputs()
        place = ["--model", str(model), "--dataset", str(dataset), "--output_dir", str(directory)]
        sizes = ["--reviews", str(reviews), "--eval_reviews", str(eval_reviews), "--held_back", str(_HELD_BACK)]
        steps = ["--max_steps", "1"] if one_step else ["--epochs", "1"]
        return [sys.executable, "-m", run.peer, *place, *sizes, *steps, *variant.options]
    sizes = [f"--data.train_size={reviews}", f"--data.val_size={eval_reviews}", f"--data.test_size={_HELD_BACK}"]
    steps = ["--trainer.max_steps=1", "--trainer.limit_val_batches=1"] if one_step else ["--trainer.max_epochs=1"]
    network = [f"--model.model_name_or_path={_BASE_SIZE}"] if variant.is_base else []
    options = [*run.options, *network, *variant.options, *sizes, *steps]
    return ours("fit", *options, f"--trainer.default_root_dir={directory}", _PROBE)


def write_base_size_model() -> None:
    """Writes a network of bert-base-uncased's size, with random weights, and the quickstart's tokenizer."""
    from transformers import AutoTokenizer, BertConfig, BertForPreTraining

    if not (_BASE_SIZE / "model.safetensors").is_file():
        AutoTokenizer.from_pretrained(quickstart_inputs()[0]).save_pretrained(_BASE_SIZE)
        BertForPreTraining(BertConfig()).save_pretrained(_BASE_SIZE)


def measure_training(name: str, repeat: int, reviews: int, eval_reviews: int, warm: bool) -> Row:
    """Trains and evaluates; `warm` fills the caches by a step before."""
    directory = WORK / "runs" / f"{name}-{repeat}"
    log = WORK / "logs" / f"train-{name}-{repeat}.log"
    if warm:
        run_process(train_command(name, reviews, eval_reviews, directory, one_step=True), log.with_suffix(".warm.log"))
    gemm_every = max(2, reviews // 8 // 8)
    report, process = run_recorded(train_command(name, reviews, eval_reviews, directory), log, gemm_every)
    row = {
        "max_rss_mib": process.max_rss_mib,
        "steps": report["steps"],
        "gemm": report["gemm"],
        "gemm_bf16": report["gemm_bf16"],
        "before_s": report["first_step_at"] - report["fit_at"] if report["fit_at"] else 0.0,
    }
    if report["evaluation_s"] is None:
        evaluate = ours("validate", "--ckpt_path=best", f"--trainer.default_root_dir={directory}", _PROBE)
        report, _ = run_recorded(evaluate, log.with_suffix(".validate.log"))
    return row | {"evaluation_s": report["evaluation_s"], "evaluated": round(report["evaluated"])}


def measure_rows(rows: int, warm: bool) -> Row:
    """Ten steps with that many prepared rows in all: preparing again, and the peak memory."""
    command = train_command("short", rows - 200, 100, WORK / "runs" / "rows")
    command += ["--data.test_size=100", "--trainer.max_steps=10", "--trainer.limit_val_batches=1", _PROFILER]
    log = WORK / "logs" / f"rows-{rows}.log"
    first = None
    if warm:
        report, _ = run_recorded(command, log.with_suffix(".first.log"))
        first = report["prepare_s"]["prepare_data"]
    report, process = run_recorded(command, log)
    return {"first_prepare_s": first, "prepare_s": report["prepare_s"], "max_rss_mib": process.max_rss_mib}


def needed_flops(reviews: int) -> dict[str, float]:
    """Operations that an epoch of each variant needs on its real tokens."""
    from datasets import disable_progress_bars, load_dataset
    from transformers import AutoConfig, AutoTokenizer

    from src.data.tokenization import Encoder

    disable_progress_bars()
    model, dataset = quickstart_inputs()
    rows = load_dataset("csv", data_files=str(dataset), split="train", cache_dir=str(WORK / "cache" / "datasets"))
    texts = rows.filter(lambda source: source == "imdb", input_columns="source").shuffle(seed=42)["text"][:reviews]
    tokenizer = AutoTokenizer.from_pretrained(model)
    flops = {}
    for name, variant in VARIANTS.items():
        encoded = Encoder(tokenizer, variant.max_length, variant.truncation).encode(texts)  # type: ignore[arg-type]
        config = AutoConfig.from_pretrained(_BASE_SIZE if variant.is_base else model)
        flops[name] = training_flops(config, [len(window) for windows in encoded for window in windows])
    return flops


def training_flops(config: Any, lengths: Sequence[int]) -> float:
    """Operations of a training step of the plain encoder on rows of these lengths, without any padding.

    Per layer and token, the matrix products take 2·(4h² + 2·h·f) operations and attention 4·h·(length). A training step
    takes three times the forward pass. Embeddings, norms and the head are left out: they are below 1%.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    forward = sum(n * 2 * (4 * hidden**2 + 2 * hidden * inner) + 4 * hidden * n**2 for n in lengths)
    return float(3 * config.num_hidden_layers * forward)


def main(args: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, reviews=248)
    parser.add_argument("--eval_reviews", type=int, default=500, help="evaluated (default: 500, as in the tutorial)")
    given = parser.parse_args(args)
    row_counts = [1000, 25_000]
    if given.quick:
        given.reviews, given.eval_reviews, given.repeats, row_counts = 16, 8, 1, [216, 300]
    write_base_size_model()
    warmed: set[str] = set()

    def measure(name: str, repeat: int) -> Row:
        warm = not given.quick and name not in warmed
        warmed.add(name)
        if name in VARIANTS:
            return measure_training(name, repeat, given.reviews, given.eval_reviews, warm)
        return measure_rows(int(name), warm)

    def brief(row: Row) -> str:
        if "prepare_s" in row:
            return f"prepared in {sum(row['prepare_s'].values()):.2f} s, {row['max_rss_mib']:,.0f} MiB"
        return f"{given.reviews / sum(step[0] for step in row['steps']):.2f} reviews/s"

    settings = {"reviews": given.reviews, "eval_reviews": given.eval_reviews}
    found = measure_all("training", settings, [*VARIANTS, *map(str, row_counts)], given.repeats, measure, brief)
    flops = needed_flops(given.reviews)
    training = {name: [figures(row, flops[name], given.reviews) for row in found[name]] for name in VARIANTS}
    titles = {name: variant.title for name, variant in VARIANTS.items()}
    tables = render(titles, training, {n: found[str(n)] for n in row_counts})
    sample = f"{given.reviews} reviews, {given.eval_reviews} evaluated, {given.repeats} repeats."
    body = "\n\n".join([sample, tables, DEFINITIONS])
    title = "Training, beside the Hugging Face Trainer"
    publish(title, body, "benchmarks.speed.training", args, None if given.quick else "bench")


if __name__ == "__main__":
    main()
