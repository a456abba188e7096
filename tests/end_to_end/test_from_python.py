"""The modules under a Trainer that somebody makes in Python, without the command line."""

from pathlib import Path

import lightning
import numpy as np
import pandas as pd
import pytest
import torch

from src.data.imdb import ImdbDataModule
from src.models.classifier import BertClassifier


def test_a_trainer_made_in_python_returns_the_figures(tiny_bert: Path, reviews_csv: Path) -> None:
    sizes = {"train_size": 48, "val_size": 24, "test_size": 24, "max_length": 64}
    data = ImdbDataModule(dataset=str(reviews_csv), tokenizer=str(tiny_bert), **sizes)
    model = BertClassifier(str(tiny_bert), learning_rate=3e-3)
    trainer = lightning.Trainer(accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False)
    trainer.fit(model, datamodule=data)
    in_fit = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    (validated,) = trainer.validate(model, datamodule=data)
    assert {"val/loss", "val/accuracy", "val/f1"} <= validated.keys()
    assert validated == pytest.approx({name: value for name, value in in_fit.items() if name != "val/n"})
    (tested,) = trainer.test(model, datamodule=data)
    frame = pd.read_csv(reviews_csv)
    frame = frame.iloc[np.random.default_rng(42).permutation(len(frame))[-24:]]
    assert model.model is not None
    ids = data.encoder.encode(frame["text"].tolist())
    with torch.no_grad():
        answers = [int(model.model(torch.tensor(windows)).logits.argmax()) for windows in ids]
    right = [data.label_names[answer] == label for answer, label in zip(answers, frame["label"], strict=True)]
    assert tested["test/accuracy"] == pytest.approx(np.mean(right))

    trainer.save_checkpoint("my.ckpt")
    loaded = BertClassifier.load_from_checkpoint("my.ckpt")
    again = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert again.test(loaded, datamodule=data) == [pytest.approx(tested)]
