"""A data module on its own: attached to a Trainer and the tiny model, as the command line attaches it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest

from src.data.imdb import ImdbDataModule
from src.models.classifier import BertClassifier

Attach = Callable[..., ImdbDataModule]


@pytest.fixture
def attach(tiny_bert: Path, reviews_csv: Path) -> Attach:
    """Makes an `ImdbDataModule` of the tiny file (or of what the options say) that is ready for `prepare_data`."""

    def attach(model: Path = tiny_bert, **options: Any) -> ImdbDataModule:
        sizes = {"train_size": 48, "val_size": 24, "test_size": 24, "max_length": 64}
        data = ImdbDataModule(**({"dataset": str(reviews_csv)} | sizes | options))
        data.trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_epochs=1)
        data.trainer.strategy.connect(BertClassifier(model_name_or_path=str(model)))
        return data

    return attach
