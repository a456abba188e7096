"""`python -m src export`: turns a checkpoint into a Hugging Face folder."""

import shlex
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from src.system.atomic import atomic_write, remove_unfinished
from src.system.checksums import write_checksums
from src.system.errors import Interrupted, UsageError, UserError, tell, why
from src.system.imports import quick_imports
from src.system.locations import expanded
from src.system.locks import exclusive
from src.system.signals import interrupted_by_signals

_DESCRIPTION = """\
Writes a checkpoint as a folder for `transformers` and for `fit --model.model_name_or_path DIR`. The folder of a
fine-tuned classifier also works with `transformers.pipeline("text-classification", DIR)` and `predict --ckpt_path DIR`.
It holds the weights as safetensors, the tokenizer with the length of the training, the names of the labels, and a model
card. Each file is compared with the checkpoint on 100 reviews before the folder gets its name. The folder of a
pre-trained BERT holds both heads, for `BertForPreTraining` and `AutoModelForMaskedLM`.
With --push, the folder is uploaded to the Hugging Face Hub, in one commit. Log in first by `hf auth login`, or set
HF_TOKEN.
"""


def main(args: list[str]) -> int:
    """Runs `export ARGS` and returns its exit status."""
    try:
        options = _parse(args)
        with interrupted_by_signals():
            _export(options)
    except (UserError, Interrupted, OSError) as error:
        return tell(error)
    return 0


def _parse(args: list[str]) -> Any:
    parser = ArgumentParser(
        prog="python -m src export", description=_DESCRIPTION, exit_on_error=False, allow_abbrev=False
    )
    parser.add_argument(
        "--ckpt_path", required=True, help="a checkpoint: a file, or `best` or `last` of the newest run"
    )
    parser.add_argument("--output", required=True, help="the folder to write; it must not exist yet")
    parser.add_argument(
        "--onnx",
        action="store_true",
        help="add model.onnx, in fp32, and classify.py, which runs it with ONNX Runtime, tokenizers and NumPy alone",
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="add model_int8.onnx, four times smaller and faster, for ONNX Runtime; and classify.py",
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        help="divide the head by the temperature that gives the validation rows of the training the lowest loss, so "
        "that the probabilities of all files are calibrated; the labels stay the same",
    )
    parser.add_argument(
        "--reviews",
        help="a .csv, .tsv, .jsonl, .parquet or .txt file of reviews to compare on; null takes validation rows of the "
        "training, or random words if those are not in the cache any more",
    )
    parser.add_argument("--text_column", default="text", help="the column with the reviews")
    parser.add_argument(
        "--push",
        metavar="ORGANISATION/NAME",
        help="upload the folder to this repository of the Hugging Face Hub, which is created if it does not exist",
    )
    try:
        return parser.parse_args(args)
    except ArgumentError as error:
        raise UsageError(str(error)) from error


def _export(options: Any) -> None:
    output = expanded(options.output).absolute()
    if output.exists():
        raise UserError(f"{options.output} exists already: delete it or name another --output")
    if options.onnx or options.int8:
        from src.exporting.onnx import check_installed

        check_installed()
    if options.push is not None:
        from src.exporting.hub_upload import check_repository, upload

        check_repository(options.push)
    with quick_imports():
        from src.models.checkpoint_format import PretrainerArchive
        from src.runs.checkpoint_reading import read_checkpoint
        from src.runs.directories import find_checkpoint

    checkpoint = read_checkpoint(find_checkpoint(options.ckpt_path, Path()))
    is_pretrainer = PretrainerArchive.SECTION in checkpoint.content
    if is_pretrainer and (options.onnx or options.int8 or options.calibrate):
        raise UserError("--onnx, --int8 and --calibrate are for classifiers; this checkpoint is of a pre-training")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(output.with_name(f".{output.name}.lock"), options.output), atomic_write(output) as folder:
            remove_unfinished(output)  # left by a killed export; under the lock nobody else is writing
            folder.mkdir()
            if is_pretrainer:
                from src.exporting.pretrainer import export_pretrainer

                lines = export_pretrainer(folder, output.name, checkpoint, options.push)
            else:
                from src.exporting.classifier import export_classifier

                lines = export_classifier(
                    folder,
                    output.name,
                    checkpoint,
                    onnx=options.onnx,
                    int8=options.int8,
                    calibrate=options.calibrate,
                    reviews=options.reviews,
                    text_column=options.text_column,
                    repository=options.push,
                )
            write_checksums(folder)
    except OSError as error:
        raise UserError(f"{output} could not be written: {why(error)}") from error
    print(*lines, f"Exported to {options.output}", sep="\n", flush=True)
    if options.push is not None:
        try:
            print(f"Uploaded to {upload(output, options.push)}")
        except UserError as error:
            again = f"`hf upload {options.push} {shlex.quote(str(options.output))}` uploads the exported folder"
            raise UserError(f"{error}. {again}") from error
