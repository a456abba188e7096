"""The README.md of an exported model: what it was trained on and how, how well it does, and what it is not for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from src.data.fingerprints import READ_TEXTS
from src.data.held_out import finetuning_config
from src.data.tokens import Encoder
from src.models.archive import Archive
from src.runs import folders

_PACKAGES = ("torch", "transformers", "lightning", "onnxruntime")
_TRAINER_FACTS = ("max_epochs", "max_steps", "accumulate_grad_batches", "gradient_clip_val", "precision", "devices")
_DATA_FACTS = (
    *("dataset", "revision", "where", "split", "held_out", "train_size", "val_size", "subset_seed"),
    *("sequence_length", "mask_rate", "next_sentence", "batch_size"),
)
_METRICS = ("loss", "f1", "auroc", "mcc", "ece")


@dataclass(frozen=True)
class Agreement:
    """How one exported file compares with the checkpoint.

    Attributes:
        file: its name.
        n: reviews compared.
        same_label: how many of them get the same label.
        difference: the largest of any probability.
    """

    file: str
    n: int
    same_label: int
    difference: float


def write_card(
    folder: Path,
    name: str,
    archive: Archive,
    checkpoint: Mapping[str, Any],
    path: Path,
    agreements: list[Agreement],
    reviews: str,
) -> None:
    """Writes `folder`/README.md.

    Args:
        folder: of the export.
        name: of the model.
        archive: its tokenizer and labels.
        checkpoint: as read from `path`; its run's test.json and validate.json give the figures, where they are there.
        path: of the checkpoint.
        agreements: of the files in `folder` with the checkpoint.
        reviews: what they were compared on.
    """
    model = _plain(checkpoint.get("hyper_parameters", {}))
    data = _plain(checkpoint.get("datamodule_hyper_parameters", {}))
    parts = [
        _front_matter(archive, model),
        f"# {name}\n\nA {archive.config.model_type} model that labels texts as {_join(archive.labels)}.",
        _usage(archive, agreements),
        _training(checkpoint, path, model, data),
        _figures(path),
        _checks(agreements, reviews),
        _limits(archive),
        "## Versions\n\n" + "\n".join(f"- {package} {_version(package)}" for package in _PACKAGES),
    ]
    (folder / "README.md").write_text("\n\n".join(part for part in parts if part) + "\n", "utf-8")


def write_pretrainer_card(folder: Path, name: str, checkpoint: Mapping[str, Any], path: Path, n_texts: int) -> None:
    """Writes `folder`/README.md of a pre-trained BERT; `n_texts` is the number of reviews it has read."""
    model = _plain(checkpoint.get("hyper_parameters", {}))
    data = _plain(checkpoint.get("datamodule_hyper_parameters", {}))
    base = str(model.get("model_name_or_path", ""))
    facts: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "fill-mask", "tags": ["bert", "fill-mask"]}
    if _is_hub_id(base) and not model.get("from_scratch"):
        facts["base_model"] = base
    tasks = "masked language modelling" + (" and next-sentence prediction" if data.get("next_sentence") else "")
    parts = [
        f"---\n{yaml.safe_dump(facts, sort_keys=False)}---",
        f"# {name}\n\nA BERT pre-trained by {tasks}, to be fine-tuned.",
        "## Use\n\n```python\nfrom transformers import pipeline\n\n"
        'pipeline("fill-mask", "THIS_FOLDER")("A film to [MASK].")\n```\n\n'
        f"`python -m src fit --config {finetuning_config(data)} --model.model_name_or_path THIS_FOLDER` fine-tunes it, "
        f"and refuses validation and test reviews that are among the {n_texts:,} which were read here "
        f"(`{READ_TEXTS}` holds their hashes)."
        + ("" if data.get("next_sentence") else " The head for next sentences has not been trained."),
        _training(checkpoint, path, model, data),
        _pretraining_figures(path),
        "## Versions\n\n" + "\n".join(f"- {package} {_version(package)}" for package in _PACKAGES[:3]),
    ]
    (folder / "README.md").write_text("\n\n".join(parts) + "\n", "utf-8")


def _pretraining_figures(path: Path) -> str:
    figures = _results_of(path, "validate.json")
    if figures is None:
        return "## Results\n\nNone: `python -m src validate --ckpt_path FILE` had not been run when it was exported."
    names = ("mlm_loss", "perplexity", "mlm_accuracy", "nsp_accuracy")
    shown = ", ".join(f"{name} {figures[name]:.4f}" for name in names if figures.get(name) is not None)
    return f"## Results\n\n- Validation, with fixed masks and pairs: {shown}."


def _front_matter(archive: Archive, model: Mapping[str, Any]) -> str:
    facts: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-classification",
        "tags": [archive.config.model_type, "text-classification"],
    }
    base = str(model.get("model_name_or_path", ""))
    if _is_hub_id(base):
        facts["base_model"] = base
    return f"---\n{yaml.safe_dump(facts, sort_keys=False)}---"


def _usage(archive: Archive, agreements: list[Agreement]) -> str:
    encoder = archive.encoder
    text = (
        "## Use\n\n```python\nfrom transformers import pipeline\n\n"
        'classify = pipeline("text-classification", "THIS_FOLDER")\n'
        'classify("A wonderful film.", truncation=True)\n```\n\n'
        f"Texts are cut to {encoder.max_length} tokens, special tokens included; "
        "without `truncation=True` the pipeline fails on longer ones than the network takes."
    )
    if encoder.truncation == "tail":
        text += " Their end is kept, which the tokenizer does by itself (`truncation_side`)."
    if encoder.truncation == "head_tail":
        text += (
            "\n\n**This model was trained on a quarter of the tokens from the start of a long text and the rest from "
            "its end. The pipeline cannot cut so: it keeps the start, and its labels of long texts differ from "
            "those of `python -m src predict --ckpt_path THIS_FOLDER`, which the figures below belong to.**"
        )
    if encoder.truncation == "windows":
        text += (
            "\n\n**This model was trained on windows of a long text, and its label is that of the mean of the windows' "
            "logits. The pipeline reads its start only, and its labels of long texts differ from those of "
            "`python -m src predict --ckpt_path THIS_FOLDER`, which the figures below belong to.** With `transformers` "
            f"alone:\n\n{_windows_snippet(encoder)}"
        )
    for file in (agreement.file for agreement in agreements if agreement.file.endswith(".onnx")):
        kind = "int8, for ONNX Runtime only" if "int8" in file else "fp32"
        text += (
            f"\n\n`{file}` ({kind}) takes `input_ids` and `attention_mask`, int64 of any shape (rows, tokens), and "
            f"gives `logits`; `python -m src predict --ckpt_path THIS_FOLDER/{file}` runs it."
        )
    return text


def _windows_snippet(encoder: Encoder) -> str:
    """What `Encoder.encode` does and the mean over windows, for a program that has the folder and `transformers`."""
    prefix, suffix = encoder.special_tokens()
    room = encoder.max_length - len(prefix) - len(suffix)
    window = ", ".join([*map(str, prefix), "*ids[a:b]", *map(str, suffix)])
    return f"""\
```python
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")
network = AutoModelForSequenceClassification.from_pretrained("THIS_FOLDER")


@torch.no_grad()
def logits(text: str) -> torch.Tensor:
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    n = max(1, -(-len(ids) // {room}))
    ends = [len(ids) * i // n for i in range(n + 1)]
    windows = [[{window}] for a, b in zip(ends, ends[1:])]
    return torch.cat([network(torch.tensor([window])).logits for window in windows]).mean(dim=0)
```"""


def _training(checkpoint: Mapping[str, Any], path: Path, model: dict[str, Any], data: dict[str, Any]) -> str:
    recipe = dict(model)
    config = folders.run_of(path) / folders.CONFIG
    if config.is_file() and isinstance(content := yaml.safe_load(config.read_text()), dict):
        trainer = content.get("trainer") or {}
        recipe |= {key: trainer[key] for key in _TRAINER_FACTS if trainer.get(key) is not None}
        recipe["seed_everything"] = content.get("seed_everything")
    recipe |= {key: data[key] for key in ("max_length", "truncation", "group_by_length") if key in data}
    facts = {key: data[key] for key in _DATA_FACTS if data.get(key) is not None}
    if data and data.get("train_size") is None:
        facts["train_size"] = "all rows that are not for validation or testing"
    return (
        f"## Training data\n\n{_table(facts)}\n\n## Recipe\n\n{_table(recipe)}\n\n"
        f"These weights are those after step {int(checkpoint.get('global_step', 0)):,}, in epoch "
        f"{int(checkpoint.get('epoch', 0)) + 1}. AdamW, betas 0.9 and 0.999, eps 1e-8."
    )


def _figures(path: Path) -> str:
    """The results of this very checkpoint; those of another one in the run, or of an older state, are left out."""
    found = []
    for kind, file in (("Test", "test.json"), ("Validation", "validate.json")):
        figures = _results_of(path, file)
        if figures is None:
            continue
        interval = f"{figures['accuracy_low']:.4f}–{figures['accuracy_high']:.4f}"
        line = f"- {kind}: accuracy {figures['accuracy']:.4f} (95% CI {interval}, Wilson; n={figures['n']})"
        rest = ", ".join(f"{name} {figures[name]:.4f}" for name in _METRICS if figures.get(name) is not None)
        line += f"; {rest}" if rest else ""
        if kind == "Validation":
            line += ". The checkpoint may have been chosen by this figure, which then is too high"
        found.append(line + ".")
    text = "\n".join(found) or (
        "None: `python -m src test --ckpt_path FILE` had not been run on this checkpoint when it was exported."
    )
    return f"## Results\n\n{text}"


def _results_of(path: Path, file: str) -> dict[str, Any] | None:
    run = folders.run_of(path)
    result = run / file
    if not result.is_file() or result.stat().st_mtime < path.stat().st_mtime:
        return None
    figures: dict[str, Any] = json.loads(result.read_text())
    return figures if (run / str(figures.get("checkpoint"))).resolve() == path.resolve() else None


def _checks(agreements: list[Agreement], reviews: str) -> str:
    header = "| file | reviews | same label | largest difference of a probability |\n|---|---|---|---|"
    rows = "\n".join(
        f"| {a.file} | {a.n} | {a.same_label} ({a.same_label / a.n:.1%}) | {a.difference:.1e} |" for a in agreements
    )
    return f"## Compared with the checkpoint\n\nMeasured at export, on {reviews}.\n\n{header}\n{rows}"


def _limits(archive: Archive) -> str:
    return (
        "## Limits\n\n"
        f"- Whatever the text, the answer is one of {_join(archive.labels)}; an empty text or another language too.\n"
        "- The figures hold for texts like those it was trained on. Nothing was measured on others.\n"
        f"- Of a text over {archive.encoder.max_length} tokens it sees a part only.\n"
        "- `ece` above, where it is given, says how far the scores can be taken for probabilities.\n"
        "- It has whatever biases the pretrained weights and the training texts have; none were looked for."
    )


def _table(facts: Mapping[str, Any]) -> str:
    return "\n".join(
        [
            "| option | value |",
            "|---|---|",
            *(f"| {key} | {_shown(value)} |" for key, value in facts.items() if value is not None),
        ]
    )


def _shown(value: Any) -> str:
    """A value without the paths of the machine it was trained on."""
    text = Path(value).name if isinstance(value, str) and Path(value).is_absolute() else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _plain(hyper_parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Without what LightningCLI adds for itself."""
    return {key: value for key, value in hyper_parameters.items() if not key.startswith("_")}


def _is_hub_id(name: str) -> bool:
    return bool(name) and "://" not in name and not Path(name).is_absolute() and not Path(name).exists()


def _join(labels: list[str]) -> str:
    if len(labels) > 20:
        return f"one of {len(labels)} classes"
    return " or ".join([", ".join(labels[:-1]), labels[-1]] if len(labels) > 1 else labels)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
