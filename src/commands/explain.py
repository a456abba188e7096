"""`python -m src explain`: the words of each text that speak for its label, and those against it."""

import base64
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from jsonargparse import ArgumentError, ArgumentParser

from src.data.tables import STANDARD, BadLine, Format, Table
from src.system.atomic import atomic_write
from src.system.errors import Interrupted, UsageError, UserError, printable, tell
from src.system.imports import quick_imports
from src.system.locations import expanded
from src.system.signals import interrupted_by_signals

_DESCRIPTION = """\
Shows which words of each text speak for its label and which against it, by integrated gradients (captum).

What is explained is the logit of the label less that of the second best; of a model that may give a text several
labels, the logit of the likeliest. The weights of the words add up to its difference from the text with every token
masked, within 2%: the steps of the integral are doubled until they do, from 16 to at most 512.
An .html output is a page of its own, with the shading of `serve`. A .jsonl has the label, the probabilities, and each
word with its weight, a line a text. Empty texts are left out.
Each text is computed 16 times or more, with gradients, so this takes much longer than `predict`.
"""
_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src '{script_hash}'; \
style-src '{style_hash}'">
<title>Words that decide</title>
<style>{style}</style>
<body>
"""
_SHOW_ALL = """
for (const row of document.querySelectorAll("[type='application/json']")) row.after(show(JSON.parse(row.textContent)));
"""


def main(args: list[str]) -> int:
    """Runs `explain ARGS` and returns its exit status."""
    try:
        with interrupted_by_signals():
            _explain(_parse(args))
    except (UserError, Interrupted, OSError) as error:
        return tell(error)
    return 0


def _parse(args: list[str]) -> Any:
    parser = ArgumentParser(
        prog="python -m src explain", description=_DESCRIPTION, exit_on_error=False, allow_abbrev=False
    )
    parser.add_argument(
        "--ckpt_path",
        required=True,
        help="a checkpoint (a file, or `best` or `last` of the newest run), or a folder written by `export`",
    )
    parser.add_argument("--input", required=True, help="a .csv, .tsv, .jsonl, .parquet or .txt file, or - for stdin")
    parser.add_argument("--output", required=True, help="a .html or .jsonl file")
    parser.add_argument("--text_column", default="text", help="the column with the texts")
    parser.add_argument("--input_format", choices=get_args(Format), help="in place of the suffix; of stdin it is txt")
    try:
        options = parser.parse_args(args)
    except ArgumentError as error:
        raise UsageError(str(error)) from error
    options.output = expanded(options.output)
    if options.output.suffix.lower() not in (".html", ".jsonl"):
        raise UsageError(f"--output {options.output} ends neither in .html nor in .jsonl")
    return options


def _explain(options: Any) -> None:
    if importlib.util.find_spec("captum") is None:
        raise UserError("explain needs captum: pip install -c constraints.txt -e '.[explain]'")
    if options.ckpt_path.endswith(".onnx") and not Path(options.ckpt_path).is_dir():
        raise UserError("an .onnx file has no gradients: name its folder or the checkpoint (`serve` explains it too)")
    table = Table(options.input, options.input_format, options.text_column)
    output: Path = options.output
    if output.is_dir() or (options.input != STANDARD and output.exists() and output.samefile(table.path)):
        raise UserError(f"--output {output} is a folder or the input itself: name another file")
    output.parent.mkdir(parents=True, exist_ok=True)
    bad: list[BadLine] = []
    as_page = output.suffix.lower() == ".html"
    with atomic_write(output) as path, path.open("w", encoding="utf-8") as stream:
        style, script = _files()
        if as_page:
            stream.write(_PAGE.format(style=style, style_hash=_sha256(style), script_hash=_sha256(script)))
        for row in _rows(options.ckpt_path, table, bad):
            line = json.dumps(row, ensure_ascii=False)
            if as_page:  # "<" alone could end the element
                line = f'<script type="application/json">{line.replace("<", chr(92) + "u003c")}</script>'
            stream.write(line + "\n")
        if as_page:
            stream.write(f"<script>{script}</script>\n")
    print(f"Written to {output}", flush=True)
    if bad:
        raise UserError(f"{len(bad)} lines of {table.name} could not be read and are left out")


def _rows(ckpt_path: str, table: Table, bad: list[BadLine]) -> Iterator[dict[str, Any]]:
    with quick_imports():
        import torch
        from tqdm import tqdm

        from src.inference.classifier import Classifier, load_network, torch_network
        from src.inference.explaining.gradients import GAP, integrated_gradients
        from src.inference.explaining.words import Words, explanation
        from src.runs.directories import find_model

    archive, network = load_network(find_model(ckpt_path))
    task, encoder = archive.task, archive.encoder
    classifier = Classifier(torch_network(network), encoder, task, [], on_gpu=torch.cuda.is_available())
    for row in tqdm(table.rows(), unit=" texts", mininterval=0.1 if sys.stderr.isatty() else 10):
        if isinstance(row, BadLine):
            bad.append(row)
            print(printable(f"{table.name}, line {row.number}: {row.reason}"), file=sys.stderr)
            continue
        if not row.text.strip():
            continue
        words = Words.of(row.text, encoder)
        logits = classifier.logits_of_tokens([[window] for window in words.windows])
        weights = integrated_gradients(
            network, encoder.tokenizer, words, task.contrast(torch.from_numpy(logits.mean(axis=0)))
        )
        if weights.gap > GAP:
            line = f"line {row.number}: after {weights.steps} steps, the weights still miss the score's difference by"
            print(f"{line} {weights.gap:.1%}", file=sys.stderr)
        found = explanation(words, weights.words, logits, task)
        yield {
            **{"line": row.number, **found},
            **{"difference": weights.difference, "gap": weights.gap, "steps": weights.steps},
        }


def _files() -> tuple[str, str]:
    """The style and the script of the page."""
    folder = Path(__file__).parents[1] / "inference" / "explaining" / "page"
    return (folder / "shading.css").read_text(), (folder / "shading.js").read_text() + _SHOW_ALL


def _sha256(text: str) -> str:
    """As a Content-Security-Policy names an element's content."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
