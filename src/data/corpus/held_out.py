"""Reviews that a classifier will be judged by, so that pre-training leaves them out."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from src.data.cache import ROWS_AT_ONCE, cache_dir
from src.data.fingerprints import hash_texts
from src.data.prepared_reviews import Selection, labelled_splits
from src.data.sources import Source, find_source
from src.data.splits import choose_rows
from src.system.errors import UserError


@dataclass(frozen=True)
class HeldOut:
    """The validation and test rows of one fine-tuning, by source and selection, not yet read."""

    source: Source
    selection: Selection

    def facts(self) -> dict[str, Any]:
        """What determines those rows, for a key; the number of training rows and their labels do not."""
        selection = asdict(self.selection)
        del selection["train_size"], selection["label_column"]
        return {"source": self.source.fingerprint, "selection": selection}

    def hashes(self) -> np.ndarray:
        """Of the texts of those rows, uint64."""
        splits = labelled_splits(self.source, self.selection)
        s = self.selection
        sizes = {name: len(split) for name, split in splits.items()}
        subsets = choose_rows(sizes, None, s.val_size, s.test_size, s.subset_seed)
        rows = (splits[subsets[name].split].select(subsets[name].indices) for name in ("val", "test"))
        return hash_texts(text for part in rows for batch in part.iter(ROWS_AT_ONCE) for text in batch[s.text_column])


def finetuning_config(pretraining: Mapping[str, Any]) -> str:
    """The config of a fine-tuning that a pre-training with these options of its data was made for."""
    return str((pretraining.get("held_out") or ["configs/imdb.yaml"])[0])


def held_out_of(configs: Iterable[str]) -> list[HeldOut]:
    """What the configurations of fine-tunings hold out for validation and testing.

    Raises:
        UserError: one cannot be read, or its data are no reviews with labels.
    """
    return [_held_out_of(Path(config)) for config in configs]


def _held_out_of(path: Path) -> HeldOut:
    from src.data.imdb import ImdbDataModule  # and with it Lightning, which `export` does without

    try:
        content = yaml.safe_load(path.read_text("utf-8"))
        data = content["data"]
        if data.get("class_path", "ImdbDataModule").rpartition(".")[2] != "ImdbDataModule":
            raise UserError(f"data.held_out: the data of {path} are not those of a fine-tuning")
        options = data.get("init_args", data)
        module = ImdbDataModule(**{name: value for name, value in options.items() if name != "class_path"})
    except OSError as error:
        raise UserError(f"data.held_out: {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"data.held_out: {path} is no configuration of a fine-tuning (no `data:` in it)") from error
    h: Any = module.hparams
    selection = Selection(**{field.name: h[field.name] for field in fields(Selection)})
    return HeldOut(find_source(h.dataset, h.revision, cache_dir()), selection)
