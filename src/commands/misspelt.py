"""Which option was meant, where the parser refuses one that does not exist."""

import difflib
import inspect
import pydoc
import re
from collections.abc import Iterable

from lightning.pytorch import Trainer

from src.data.imdb import ImdbDataModule
from src.data.pretraining import PretrainingDataModule
from src.models.classifier import BertClassifier
from src.models.pretrainer import BertPretrainer
from src.system.errors import one_line

# what jsonargparse says of an option of a class that it was given, and of any other
_OF_A_CLASS = re.compile(r"Parser key \"([\w.]+)\".*?given class_path '([\w.]+)': Option '([\w.-]+)' is not accepted")
_OF_NONE = re.compile(r"does not accept option '([\w.-]+)'|unrecognized arguments:.*?--([\w.-]+)")

_LEAST_BEGINNING = 3  # letters of a name from which its end is guessed: trainer.max_ep, but not trainer.m
_LIKE = 0.8  # difflib's ratio: batchsize is like batch_size, tokenizer like nothing


def option_meant(error: object) -> str | None:
    """The option that is like the one which the parser refused; None if none is, or it refused something else."""
    text = one_line(error)
    if match := _OF_A_CLASS.search(text):
        group, path, name = match.groups()
        owner = pydoc.locate(path)
        options = inspect.signature(owner).parameters if isinstance(owner, type) else ()
        return _like(f"{group}.{name}", [f"{group}.{option}" for option in options])
    if match := _OF_NONE.search(text):
        return _like(match[1] or match[2], _options())
    return None


def _options() -> Iterable[str]:
    yield from ("config", "ckpt_path", "seed_everything")
    classes = {
        "data": (ImdbDataModule, PretrainingDataModule),
        "model": (BertClassifier, BertPretrainer),
        "trainer": (Trainer,),
    }
    for group, owners in classes.items():
        yield from dict.fromkeys(f"{group}.{name}" for owner in owners for name in inspect.signature(owner).parameters)


def _like(name: str, options: Iterable[str]) -> str | None:
    """The option with the same last part, or the only one that begins so, or the one whose last part is most alike."""
    name = name.replace("-", "_")
    by_last = {option.rpartition(".")[2]: option for option in options}
    last = name.rpartition(".")[2]
    if last in by_last:
        return by_last[last]
    begun = [option for option in by_last.values() if option.startswith(name)]
    if len(last) >= _LEAST_BEGINNING and len(begun) == 1:
        return begun[0]
    alike = difflib.get_close_matches(last, by_last, n=1, cutoff=_LIKE)
    return by_last[alike[0]] if alike else None
