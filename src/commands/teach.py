"""`python -m src teach`: labels the surest of texts that have no labels, as a data set to train on."""

import importlib.util
import shlex
from pathlib import Path

from src.system.errors import Interrupted, UsageError, UserError, tell
from src.system.imports import quick_imports
from src.system.locations import expanded

_HELP = """\
usage: python -m src teach --sentences FILE --output FOLDER [the options of fit]

Labels training rows without reading their labels, for a training with few labels or none. All it is told are some
sentences for each class, such as "This movie is great.": a sentence encoder finds the texts that are nearest to them,
which teach a model of words; the texts that both are surest of are written, with their labels, to a folder that `fit`
reads. Needs the extra `teach`.

  --sentences FILE  YAML: `sentences`, a list for each class by name; `prior`, the share of each class (default: equal);
                    `keep`, the share of the texts that is kept (default: 0.5). See configs/teacher/imdb.yaml
  --output FOLDER   a new folder: train.parquet, and validation.parquet and test.parquet with the rows for these

All other options are those of fit. The texts are the training rows, as many as data.train_size; the encoder is the
pretrained model, which must be one for sentences. With data.val_size=0 and data.test_size=0, no column of labels is
needed.
"""


def main(args: list[str]) -> int:
    """Runs `teach ARGS` and returns its exit status."""
    if {"--help", "-h"} & set(args):
        print(_HELP, end="")
        return 0
    try:
        _teach(args)
    except (UserError, Interrupted, OSError) as error:
        return tell(error)
    return 0


def _teach(args: list[str]) -> None:
    told, output, options = _own_options(args)
    if importlib.util.find_spec("sklearn") is None:
        raise UserError("teach needs scikit-learn: pip install -c constraints.txt -e '.[teach]'")
    with quick_imports():
        from src.commands.model_and_data import model_and_data
        from src.data.splits import SPLITS
        from src.system.atomic import atomic_write, remove_unfinished
        from src.system.signals import interrupted_by_signals
        from src.teaching.lesson import Lesson
        from src.teaching.rows import read_rows, write_folder
        from src.teaching.teacher import teach
        from src.teaching.vectors import read_texts

    with interrupted_by_signals():
        lesson = Lesson.read(told)
        data, origin, device = model_and_data(options)
        rows = read_rows(data, lesson)
        vectors, sentences = read_texts(rows.texts, list(lesson.sentences.values()), data.encoder, origin, device)
        taught = teach(rows.texts, vectors, sentences, lesson)
        output.parent.mkdir(parents=True, exist_ok=True)
        remove_unfinished(output)
        with atomic_write(output) as unfinished:
            unfinished.mkdir()
            write_folder(unfinished, rows, taught, lesson)
    of_class = [f"{name!r} ({(taught.labels == k).sum():,})" for k, name in enumerate(lesson.sentences)]
    print(f"Labelled the surest {len(taught.rows):,} of {len(rows.texts):,} texts: {', '.join(of_class)}")
    none = [f"--data.{name}_size=0" for name, split in SPLITS.items() if split not in rows.evaluated]
    fit = ["python", "-m", "src", "fit", "--config", "configs/few_labels.yaml", f"--data.dataset={output}", *none]
    print(f"\nWritten to {output}\nTrain on them:   {shlex.join(fit)}")


def _own_options(args: list[str]) -> tuple[Path, Path, list[str]]:
    """The file of --sentences, the folder of --output, and the other arguments."""
    from src.commands.arguments import split_options

    sentences, rest = split_options(args, ("--sentences",))
    outputs, rest = split_options(rest, ("--output",))
    if not sentences or not outputs:
        raise UsageError("`teach` needs --sentences FILE and --output FOLDER; `teach --help` explains them")
    if any(arg.partition("=")[0] == "--ckpt_path" for arg in rest):
        raise UsageError("`teach` takes no --ckpt_path: its encoder is the pretrained model")
    output = expanded(outputs[-1])
    if output.exists():
        raise UserError(f"--output {output} is there already: delete it, or name another folder")
    return expanded(sentences[-1]), output, rest
