"""The validation and test reviews of fine-tunings, which pre-training leaves out."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from src.data.fingerprints import hash_texts
from src.data.prepared_reviews import Selection, choose_subsets, labelled_splits
from src.data.row_selection import texts_of
from src.data.sources import Source
from src.system.errors import UserError
from src.system.yaml_reading import read_yaml


@dataclass(frozen=True)
class HeldOut:
    """The validation and test reviews of one fine-tuning, not yet read."""

    source: Source
    selection: Selection

    def facts(self) -> dict[str, Any]:
        """What determines these reviews, for a key. The number of training rows and the labels do not."""
        selection = asdict(self.selection)
        del selection["train_size"]
        if not self.selection.stratify:  # which makes the rows depend on the labels
            del selection["label_column"], selection["label_separator"]
        return {"source": self.source.version, "selection": selection}

    def hashes(self) -> np.ndarray:
        """The hashes of their texts, uint64 of shape (texts,)."""
        s = self.selection
        splits = labelled_splits(self.source, s)
        subsets = choose_subsets(splits, replace(s, train_size=None))
        parts = (splits[subsets[name].split].select(subsets[name].indices) for name in ("val", "test"))
        return hash_texts(chain.from_iterable(texts_of(part, s.text_column) for part in parts))


def finetuning_config(pretraining: Mapping[str, Any]) -> str:
    """The config of the fine-tuning to try after a pre-training, given the options of the pre-training's data."""
    return str((pretraining.get("held_out") or ["configs/imdb.yaml"])[0])


def held_out_of(configs: Iterable[str]) -> list[HeldOut]:
    """The reviews that these config files of fine-tunings validate and test on.

    Raises:
        UserError: a config cannot be read, or is not that of a fine-tuning.
    """
    return [_held_out_of(Path(config)) for config in configs]


def _held_out_of(path: Path) -> HeldOut:
    from src.data.imdb import ImdbDataModule  # imports Lightning, which `export` does without

    try:
        data = read_yaml(path)["data"]
        if data.get("class_path", "ImdbDataModule").rpartition(".")[2] != "ImdbDataModule":
            raise UserError(f"data.held_out: the data of {path} are not those of a fine-tuning")
        options = data.get("init_args", data)
        module = ImdbDataModule(**{name: value for name, value in options.items() if name != "class_path"})
    except OSError as error:
        raise UserError(f"data.held_out: {path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"data.held_out: {path} is no configuration of a fine-tuning (no `data:` in it)") from error
    return HeldOut(module.source, module.selection)
