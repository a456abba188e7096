"""`python -m src export`: a checkpoint as a Hugging Face folder."""

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from src.system.atomic import atomic_write
from src.system.errors import Interrupted, UsageError, UserError, tell
from src.system.imports import quick_imports
from src.system.signals import interrupted_by_signals

_DESCRIPTION = """\
Writes a checkpoint as a folder that `transformers` and `fit --model.model_name_or_path DIR` take. A fine-tuned
classifier also goes into `transformers.pipeline("text-classification", DIR)` and `predict --ckpt_path DIR`: weights as
safetensors, the tokenizer with the length of the training, the names of the labels, and a model card; each file is
checked against the checkpoint on 100 reviews before the folder gets its name. A pre-trained BERT comes with both of its
heads, for `BertForPreTraining` and `AutoModelForMaskedLM`.
"""


def main(args: list[str]) -> int:
    """Runs `export ARGS` and returns its exit status."""
    try:
        options = _parse(args)
        with interrupted_by_signals():
            _export(options)
    except (UserError, Interrupted) as error:
        return tell(error)
    return 0


def _parse(args: list[str]) -> Any:
    parser = ArgumentParser(
        prog="python -m src export", description=_DESCRIPTION, exit_on_error=False, allow_abbrev=False
    )
    parser.add_argument(
        "--ckpt_path", required=True, help="a checkpoint: a file, or `best` or `last` of the newest run"
    )
    parser.add_argument("--output", required=True, help="the folder to make; it must not be there yet")
    parser.add_argument("--onnx", action="store_true", help="add model.onnx, in fp32")
    parser.add_argument(
        "--int8", action="store_true", help="add model_int8.onnx, four times smaller and faster, for ONNX Runtime"
    )
    parser.add_argument(
        "--reviews",
        help="a .csv, .tsv, .jsonl, .parquet or .txt file of reviews to check on; null takes validation rows of the "
        "training, or generated texts where those are gone",
    )
    parser.add_argument("--text_column", default="text", help="the column with the reviews")
    try:
        return parser.parse_args(args)
    except ArgumentError as error:
        raise UsageError(str(error)) from error


def _export(options: Any) -> None:
    output = Path(options.output).expanduser().absolute()
    if output.exists():
        raise UserError(f"{options.output} exists already: delete it or name another --output")
    if options.onnx or options.int8:
        from src.exporting.onnx import check_installed

        check_installed()
    with quick_imports():
        from src.models import archive  # noqa: F401  (transformers, which either kind of export needs)
        from src.runs.folders import find_checkpoint
        from src.runs.reading import read_checkpoint

    path = find_checkpoint(options.ckpt_path, Path())
    checkpoint = read_checkpoint(path)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(output) as folder:
            folder.mkdir()
            if "pretrainer" in checkpoint.content:
                from src.exporting.pretrainer import export_pretrainer

                if options.onnx or options.int8:
                    raise UserError("--onnx and --int8 are for classifiers; this checkpoint is of a pre-training")
                said = export_pretrainer(folder, output.name, checkpoint)
            else:
                from src.exporting.classifier import export_classifier

                said = export_classifier(folder, output.name, options, checkpoint)
    except OSError as error:
        raise UserError(f"{output} could not be written: {error.strerror or error}") from error
    print(*said, f"Exported to {options.output}", sep="\n")
