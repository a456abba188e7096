"""The modules used from Python, without the command line: under a Trainer, and the data module alone."""

from pathlib import Path

import lightning
import numpy as np
import pandas as pd
import pytest
import torch
from transformers import BertTokenizerFast

from src.data.imdb import ImdbDataModule
from src.models.classifier import BertClassifier
from src.system.errors import UserError

_SIZES = {"train_size": 48, "val_size": 24, "test_size": 24, "max_length": 64}


def test_a_trainer_made_in_python_returns_the_figures(tiny_bert: Path, reviews_csv: Path) -> None:
    data = ImdbDataModule(str(reviews_csv), tokenizer=str(tiny_bert), **_SIZES)
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


def test_the_data_module_stands_alone(tiny_bert: Path, reviews_csv: Path) -> None:
    """A notebook looks at the batches: every row once an epoch, each as the tokenizer encodes it."""
    data = ImdbDataModule(str(reviews_csv), tokenizer=str(tiny_bert), **_SIZES)
    data.prepare_data()
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert sum(len(batch["labels"]) for batch in batches) == 48
    frame = pd.read_csv(reviews_csv)
    texts = frame["text"].iloc[np.random.default_rng(42).permutation(len(frame))[:48]].tolist()
    expected = {tuple(windows[0]) for windows in data.encoder.encode(texts)}
    seen = {
        tuple(ids[mask.bool()].tolist())
        for batch in batches
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    }
    assert seen == expected
    assert sum(len(batch["labels"]) for batch in data.val_dataloader()) == 24


def test_data_tokenised_for_another_model_are_refused(tiny_bert: Path, reviews_csv: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    words = (tiny_bert / "vocab.txt").read_text().splitlines()
    (other / "vocab.txt").write_text("\n".join([*words[:11], *reversed(words[11:])]) + "\n")
    (other / "config.json").write_bytes((tiny_bert / "config.json").read_bytes())
    BertTokenizerFast(str(other / "vocab.txt")).save_pretrained(other)
    data = ImdbDataModule(str(reviews_csv), tokenizer=str(other), **_SIZES)
    trainer = lightning.Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False)
    with pytest.raises(UserError, match=r"the data are tokenised for '.*/other', but the model is "):
        trainer.fit(BertClassifier(str(tiny_bert)), datamodule=data)
