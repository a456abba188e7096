"""A data module on its own, without a Trainer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from src.data.imdb import ImdbDataModule

Attach = Callable[..., ImdbDataModule]


@pytest.fixture
def attach(tiny_bert: Path, reviews_csv: Path) -> Attach:
    """Makes an `ImdbDataModule` of the tiny file (or of what the options say) that is ready for `prepare_data`."""

    def attach(model: Path = tiny_bert, **options: Any) -> ImdbDataModule:
        sizes = {"train_size": 48, "val_size": 24, "test_size": 24, "max_length": 64}
        return ImdbDataModule(**({"dataset": str(reviews_csv), "tokenizer": str(model)} | sizes | options))

    return attach
