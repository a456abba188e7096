"""The model card (README.md) of an exported model: a template of `cards/`, filled in with what is known."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from src.data.corpus.held_out import finetuning_config
from src.data.fingerprints import READ_TEXTS
from src.data.split_files import METADATA
from src.exporting.classify_script import SCRIPT
from src.models.checkpoint_format import Archive
from src.runs import directories
from src.runs.checkpoint_reading import Checkpoint
from src.runs.results import read_results
from src.system.errors import UserError, one_line
from src.system.locations import PACKAGE_PREFIX, locate
from src.system.pretrained import model_folder
from src.system.yaml_reading import parse_yaml, read_yaml

if TYPE_CHECKING:
    from src.exporting.calibration import Calibration

_CARDS = Path(__file__).parent / "cards"
_MOST_CLASSES = 100
_README = "README.md"
_THIS_FOLDER = "THIS_FOLDER"  # in the code of a card, where it is not known under which name it will be found
# of the Trainer's options, those that change the weights
_TRAINER_OPTIONS = ("max_epochs", "max_steps", "accumulate_grad_batches", "gradient_clip_val", "precision", "devices")
# our name: the Hub's; it has none for the loss and the calibration error
_METRIC_IDS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced_accuracy",
    "f1": "f1",
    "auroc": "roc_auc",
    "mcc": "matthews_correlation",
}
# short ids that the Hub redirects; any other name without a slash may be a folder that is gone
_FULL_IDS = {
    "bert-base-uncased": "google-bert/bert-base-uncased",
    "bert-base-cased": "google-bert/bert-base-cased",
    "bert-large-uncased": "google-bert/bert-large-uncased",
    "bert-large-cased": "google-bert/bert-large-cased",
    "imdb": "stanfordnlp/imdb",
}


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
    checkpoint: Checkpoint,
    archive: Archive,
    agreements: list[Agreement],
    compared_on: str,
    calibration: "Calibration | None" = None,
    repository: str | None = None,
) -> None:
    """Writes `folder`/README.md of a classifier.

    Args:
        folder: of the export.
        name: of the model.
        checkpoint: of the model; test.json and validate.json of its run give the results, if they are there.
        archive: its tokenizer and labels.
        agreements: of the files in `folder` with the checkpoint.
        compared_on: the reviews that they were compared on, in words.
        calibration: of the head, if it was calibrated.
        repository: of the Hub that the folder will be uploaded to.
    """
    run = directories.run_of(checkpoint.path)
    results = {
        split: read_results(run / file, checkpoint, "accuracy", "accuracy_low", "accuracy_high")
        for split, file in (("Test", "test.json"), ("Validation", "validate.json"))
    }
    _write(
        folder,
        "classifier.md",
        _metadata(name, checkpoint, "text-classification", archive.config.model_type, results["Test"], repository),
        checkpoint,
        name=_escaped(name),
        source=repository or _THIS_FOLDER,
        archive=archive,
        labels=[_escaped(label) for label in archive.labels],
        encoder=archive.encoder,
        results={split: figures for split, figures in results.items() if figures},
        agreements=agreements,
        compared_on=_escaped(compared_on),
        figure_names=["loss", *(name for name in archive.task.figure_names if name not in ("loss", "accuracy"))],
        several=bool(archive.task.label_shape),
        thresholds=dict(zip(archive.labels, archive.task.settings.get("thresholds", []), strict=False)),
        calibration=calibration,
        alone=(folder / SCRIPT).is_file(),
        escaped=_escaped,
        most_classes=_MOST_CLASSES,
        evaluated_on=_evaluated_on,
    )


def write_pretrainer_card(
    folder: Path, name: str, checkpoint: Checkpoint, n_texts: int, repository: str | None = None
) -> None:
    """Writes `folder`/README.md of a pre-trained BERT; `n_texts` is the number of reviews that it has read."""
    data = checkpoint.content.get("datamodule_hyper_parameters", {})
    _write(
        folder,
        "pretrainer.md",
        _metadata(name, checkpoint, "fill-mask", "bert", None, repository),
        checkpoint,
        name=_escaped(name),
        source=repository or _THIS_FOLDER,
        next_sentence=bool(data.get("next_sentence")),
        finetuning_config=shlex.quote(_shortened(finetuning_config(data))),
        n_texts=n_texts,
        texts_file=READ_TEXTS,
        figures=read_results(directories.run_of(checkpoint.path) / "validate.json", checkpoint),
    )


def _write(folder: Path, template: str, metadata: ModelCardData, checkpoint: Checkpoint, **content: Any) -> None:
    """Writes `folder`/README.md: `template`, then the part that all cards share."""
    packages = ["torch", "transformers", "lightning", *(["onnxruntime"] if any(folder.glob("*.onnx")) else [])]
    options = yaml.safe_dump(_shortened(_options(checkpoint)), sort_keys=False)
    # needs Jinja2, which torch requires, and no network (only `validate` and `push_to_hub` of a card do)
    card = ModelCard.from_template(
        metadata,
        template_str="".join((_CARDS / file).read_text("utf-8") for file in (template, "training.md")),
        options=options,
        license=metadata.license,
        fence="`" * max([3, *(len(run) + 1 for run in re.findall("`+", options))]),  # no option ends the block
        step=checkpoint.step,
        epoch=checkpoint.content.get("epoch", 0) + 1,
        versions={package: version(package) for package in packages},
        **content,
    )
    card.save(folder / _README)


def _escaped(text: str) -> str:
    """A name that a stranger may have chosen, without its meaning as Markdown or HTML."""
    return re.sub(r"([!-&(-+/:-@\[-`{-~])", r"\\\1", one_line(text))


# ---- metadata ------------------------------------------------------------------------------------------------------


def _metadata(
    name: str,
    checkpoint: Checkpoint,
    task: str,
    model_type: str,
    results: Mapping[str, Any] | None,
    repository: str | None,
) -> ModelCardData:
    """What the Hub reads of a card. What is not known for sure is left out."""
    model, data = (checkpoint.content.get(f"{kind}hyper_parameters", {}) for kind in ("", "datamodule_"))
    name_or_path, revision = model.get("model_name_or_path"), model.get("revision")
    base = None if model.get("from_scratch") else _hub_id(name_or_path)
    dataset = _hub_id(data.get("dataset"))
    evaluated = []
    if results and results.get("dataset"):  # an earlier version did not write what was evaluated
        shown, commit, config = _evaluated(results)
        rows: dict[str, Any] = {"dataset_split": results["split"], "dataset_revision": commit, "dataset_config": config}
        evaluated = [
            EvalResult(task, shown, shown, metric, round(results[ours], 4), metric_name=f"Test {ours}", **rows)
            for ours, metric in _METRIC_IDS.items()
            if results.get(ours) is not None
        ]
    # without an upload the Hub need not be there, and is not asked
    stated = not model.get("from_scratch") and (base is None or repository is not None)
    return ModelCardData(
        model_name=name,
        library_name="transformers",
        pipeline_tag=task,
        tags=[model_type, task],
        base_model=base,
        license=_license_of(base or name_or_path, revision) if stated else None,
        datasets=dataset,
        language="en" if dataset == "stanfordnlp/imdb" else None,
        metrics=[result.metric_type for result in evaluated] or None,
        eval_results=evaluated or None,
    )


def _license_of(name: str | None, revision: str | None) -> str | None:
    """The licence that the card of the pretrained weights `name` states; of those on the Hub it is downloaded."""
    try:
        card = model_folder(name or "", revision, [_README]) / _README
        metadata = METADATA.match(card.read_text("utf-8"))
        content = parse_yaml(metadata[1]) if metadata else None
    except (UserError, OSError, ValueError):  # the weights, or their card, are not there or cannot be read
        return None
    found = content.get("license") if isinstance(content, dict) else None
    # "other" says nothing without a name and a link beside it
    return found if isinstance(found, str) and re.fullmatch(r"[a-z0-9.-]+", found) and found != "other" else None


def _evaluated(results: Mapping[str, Any]) -> tuple[str, str | None, str | None]:
    """The name of the data set that results are of, and of one on the Hub its commit and its configuration."""
    name, fingerprint = str(results["dataset"]), str(results["fingerprint"])
    if fingerprint.startswith(f"{name}@"):
        commit, _, config = fingerprint.removeprefix(f"{name}@").partition(" ")
        return _FULL_IDS.get(name, name), commit, config or None
    return name if name.startswith(PACKAGE_PREFIX) else Path(name).name or "a folder", None, None


def _evaluated_on(results: Mapping[str, Any]) -> str:
    """What was evaluated, in words."""
    name, commit, config = _evaluated(results)
    which = [f"split {results['split']}", *([f"configuration {config}"] if config else [])]
    which += [f"where {results['where']}"] if results.get("where") else []
    which.append(f"commit {commit}" if commit else f"content {results['fingerprint'][:12]}")
    return f"on {_escaped(name)} ({_escaped(', '.join(which))})"


def _hub_id(name: str | None) -> str | None:
    """The full id if `name` means a repository of the Hub; None if it is, or may have been, a local path."""
    try:
        if not name or locate(name, "") is not None:
            return None
    except UserError:  # a path that is not there any more
        return None
    return name if "/" in name else _FULL_IDS.get(name)


# ---- options of the run --------------------------------------------------------------------------------------------


def _options(checkpoint: Checkpoint) -> dict[str, Any]:
    """The options of the training, as `fit --config` takes them."""
    options: dict[str, Any] = {}
    config = directories.run_of(checkpoint.path) / directories.CONFIG
    try:
        content = read_yaml(config) if config.is_file() else None
    except (OSError, ValueError) as error:
        reason = f"{one_line(error)[:200]}; delete it to export without the Trainer's options"
        raise UserError(f"{config} is no YAML that can be read: {reason}") from error
    if isinstance(content, dict):
        trainer = content.get("trainer")
        trainer = trainer if isinstance(trainer, dict) else {}
        options["seed_everything"] = content.get("seed_everything")
        options["trainer"] = {k: v for k, v in trainer.items() if k in _TRAINER_OPTIONS and v is not None}
    for section, key in (("model", "hyper_parameters"), ("data", "datamodule_hyper_parameters")):
        hparams = checkpoint.content.get(key, {})
        # LightningCLI adds options of its own, which begin with "_"
        arguments = {name: value for name, value in hparams.items() if not name.startswith("_")}
        class_path = hparams.get("_class_path")
        options[section] = {"class_path": class_path, "init_args": arguments} if class_path else arguments
    return options


def _shortened(value: Any) -> Any:
    """`value` without the paths of the machine that it was trained on."""
    if isinstance(value, Mapping):
        return {key: _shortened(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shortened(item) for item in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
