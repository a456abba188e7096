"""Encoders other than BERT: each works from training to prediction, or is refused in one line that names its type."""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from transformers import AutoModelForSequenceClassification

from src.data.tokenization import Encoder
from src.data.tokenizer_source import longest_input
from src.inference.classifier import load
from src.models.classifier import BertClassifier
from src.models.kernels.last_layer import use_partial_last_layer
from src.models.optimizer import layers_of
from src.models.reading_check import check_reading
from src.system.errors import UserError
from tests.models.families import FAMILIES, family_config, save_family, word_level_tokenizer
from tests.synthetic import synthetic_reviews

Run = Callable[..., tuple[int, str, str]]

_NO_TABLE = {"deberta-v2": 130, "modernbert": 130, "t5": None, "xlnet": None}  # these read more than they state
_OFFSET = {"roberta", "xlm-roberta", "camembert", "mpnet", "data2vec-text", "ibert", "longformer"}
_MEAN = {"bert", "roberta", "xlm-roberta", "camembert", "data2vec-text", "electra", "distilbert", "modernbert"}
_REFUSED = {"fnet", "nystromformer", "xlnet"}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_longest_input_is_what_the_network_has_positions_for(name: str) -> None:
    """Of 130 positions, RoBERTa's kin use all but those up to the padding's; a network without a table has no limit."""
    config = family_config(name)
    longest = longest_input(config)
    assert longest == _NO_TABLE.get(name, 128 if name in _OFFSET else 130)
    if name in _NO_TABLE:
        return
    network = AutoModelForSequenceClassification.from_config(config).eval()
    ids = torch.full((1, longest + 1), 10)
    ids[0, -1] = config.eos_token_id
    with torch.inference_mode():
        network(input_ids=ids[:, 1:])
        with pytest.raises((IndexError, RuntimeError)):
            network(input_ids=ids)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_text_has_one_answer_alone_and_padded_or_the_network_is_refused(name: str) -> None:
    network = AutoModelForSequenceClassification.from_config(family_config(name)).eval()
    encoder = Encoder(word_level_tokenizer("$A </s> <s>" if name == "xlnet" else "<s> $A </s>"), 64, "head")
    if name in _REFUSED:
        with pytest.raises(UserError, match=rf"model type {name}\) gives a text another answer when it is padded"):
            check_reading(network, encoder, "it")
    else:
        check_reading(network, encoder, "it")


def test_a_length_is_refused_that_the_network_has_no_positions_for() -> None:
    """By looking them up, whatever its configuration states."""
    network = AutoModelForSequenceClassification.from_config(family_config("mpnet")).eval()
    check_reading(network, Encoder(word_level_tokenizer(), 128, "head"), "it")
    with pytest.raises(UserError, match=r"model type mpnet\) cannot read 129 tokens at once"):
        check_reading(network, Encoder(word_level_tokenizer(), 129, "head"), "it")


def test_a_padding_token_that_the_network_does_not_know_is_refused() -> None:
    """GPT-2 finds the end of a text by the padding after it."""
    config = family_config("gpt2")
    config.pad_token_id = None
    network = AutoModelForSequenceClassification.from_config(config).eval()
    with pytest.raises(UserError, match=r"model type gpt2\) cannot read a batch of texts"):
        check_reading(network, Encoder(word_level_tokenizer(), 64, "head"), "it")


@pytest.mark.parametrize("name", ["bert", "roberta", "modernbert"])
def test_the_mask_hides_any_padding(name: str) -> None:
    """Of a tokenizer that would pad on the left, or by another token than the network's."""
    network = AutoModelForSequenceClassification.from_config(family_config(name)).eval()
    tokenizer = word_level_tokenizer()
    tokenizer.padding_side, tokenizer.pad_token = "left", "<mask>"
    assert tokenizer.pad_token_id != network.config.pad_token_id
    check_reading(network, Encoder(tokenizer, 64, "head"), "it")


@pytest.mark.parametrize("name", sorted(_REFUSED))
def test_fit_and_predict_refuse_in_one_line_and_leave_nothing(
    run_cli: Run, tiny_options: list[str], tmp_path: Path, name: str
) -> None:
    folder = save_family(name, tmp_path / "it")
    status, _, err = run_cli("fit", *tiny_options, f"--model.model_name_or_path={folder}")
    assert status == 1
    assert _error(err).startswith(f"error: '{folder}' (model type {name}) gives a text another answer")
    assert not Path("lightning_logs").exists()
    Path("reviews.txt").write_text("the film\n")
    status, _, err = run_cli("predict", f"--ckpt_path={folder}", "--input=reviews.txt", "--output=labels.csv")
    assert status == 1
    assert f"(model type {name}) gives a text another answer" in _error(err)
    assert not Path("labels.csv").exists()


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("bart", "--model.layer_decay=0.9"),
        ("albert", "--model.layer_decay=0.9"),
        ("gpt2", "--model.linear_probe=true"),
        ("albert", "--model.pooling=mean"),
        ("deberta-v2", "--model.pooling=mean"),
        ("mpnet", "--model.pooling=mean"),
    ],
)
def test_options_that_a_family_has_no_place_for_are_refused_before_training(
    run_cli: Run, tiny_options: list[str], tmp_path: Path, name: str, option: str
) -> None:
    folder = save_family(name, tmp_path / "it")
    status, _, err = run_cli("fit", *tiny_options, f"--model.model_name_or_path={folder}", option)
    assert status == 1
    assert option.removeprefix("--").partition("=")[0] in _error(err)
    assert repr(name) in _error(err)
    assert not Path("lightning_logs").exists()


_RARER = {"camembert", "data2vec-text", "ibert", "big_bird", "longformer", "t5", "gpt2"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in _RARER else ()) for name in FAMILIES if name not in _REFUSED],
)
def test_a_family_works_from_training_to_prediction(
    run_cli: Run, tiny_options: list[str], tmp_path: Path, name: str
) -> None:
    """With all options that it has a place for. The answers do not depend on the batch or on the export.

    Reviews that mention special tokens are among them; the export compares `classify.py` on these too, which reads them
    without `transformers`.
    """
    folder = save_family(name, tmp_path / "it")
    frame = synthetic_reviews(60)
    frame.loc[::5, "text"] += " </s> film <mask> <s> <pad>"
    frame.to_csv("reviews.csv", index=False)
    options = [*tiny_options, "--data.dataset=reviews.csv", "--data.train_size=24", "--data.val_size=12"]
    options += ["--data.test_size=12", f"--model.model_name_or_path={folder}", "--trainer.max_epochs=1"]
    options += ["--model.pooling=mean"] if name in _MEAN else []
    options += ["--model.linear_probe=true"] if name != "gpt2" else []
    options += ["--model.layer_decay=0.9"] if name not in ("albert", "bart", "t5", "gpt2") else []
    onnx = [] if name == "longformer" else ["--onnx", "--reviews=reviews.csv"]
    for args in (
        ["fit", *options],
        ["test", "--ckpt_path=best"],
        ["export", "--ckpt_path=best", "--output=exported", *onnx],
        ["predict", "--ckpt_path=best", "--input=reviews.csv", "--output=1.csv", "--batch_size=1"],
        ["predict", "--ckpt_path=exported", "--input=reviews.csv", "--output=16.csv", "--batch_size=16"],
    ):
        status, _, err = run_cli(*args)
        assert status == 0, err
    one, many = (pd.read_csv(name)["probability_pos"] for name in ("1.csv", "16.csv"))
    assert np.allclose(one, many, atol=1e-5)
    if onnx:
        texts = pd.read_csv("reviews.csv")["text"].tolist()
        ours, theirs = (load(f"exported{file}").logits(texts) for file in ("", "/model.onnx"))
        assert np.allclose(ours, theirs, atol=1e-4)


def test_a_family_without_onnx_is_refused_before_the_export_begins(
    run_cli: Run, tiny_options: list[str], tmp_path: Path
) -> None:
    folder = save_family("longformer", tmp_path / "it")
    options = [*tiny_options, f"--model.model_name_or_path={folder}", "--trainer.max_steps=1"]
    assert run_cli("fit", *options)[0] == 0
    for option in ("--onnx", "--int8"):
        status, _, err = run_cli("export", "--ckpt_path=last", "--output=exported", option)
        assert status == 1
        assert _error(err).startswith("error: the model type 'longformer' cannot be exported to ONNX")
        assert not list(Path().glob("*exported*"))


def test_a_folder_without_a_stored_length_is_cut_where_its_positions_end(tmp_path: Path) -> None:
    """A tokenizer that states no length has 1e30."""
    folder = save_family("mpnet", tmp_path / "it")
    assert "preprocessing.json" not in {file.name for file in folder.iterdir()}
    classifier = load(folder)
    assert classifier.encoder.max_length == 128
    assert np.isfinite(classifier.logits(["film " * 500])).all()


def test_an_exported_tokenizer_takes_special_tokens_in_a_text_for_text(run_cli: Run, tiny_checkpoint: Path) -> None:
    """With `transformers` too, whose own default is to take them for the tokens."""
    status, _, err = run_cli("export", f"--ckpt_path={tiny_checkpoint}", "--output=exported")
    assert status == 0, err
    settings = json.loads(Path("exported/tokenizer_config.json").read_text())
    assert settings["split_special_tokens"] is True
    tokenizer = load("exported").encoder.tokenizer
    assert tokenizer.sep_token_id not in tokenizer("a film [SEP] b", add_special_tokens=False)["input_ids"]


def _error(err: str) -> str:
    """The only line on stderr that is no progress bar."""
    lines = [line for line in err.splitlines() if line.startswith("error")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


@pytest.mark.parametrize(("name", "compiled"), [("bert", 2), ("distilbert", 1), ("roberta", 1), ("albert", 1)])
def test_a_layer_is_compiled_once_for_all_layers_and_lengths(
    name: str, compiled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BERT's last layer computes [CLS] alone, so it is compiled too; ALBERT's layers have no numbers."""
    counter = CompileCounter()
    torch._dynamo.reset()
    monkeypatch.setattr(nn.Module, "compile", functools.partialmethod(nn.Module.compile, backend=counter))
    config = family_config(name)
    setattr(config, "n_layers" if name == "distilbert" else "num_hidden_layers", 4)
    network = AutoModelForSequenceClassification.from_config(config).train()
    use_partial_last_layer(network)
    assert len(layers_of(network)) == (0 if name == "albert" else 4)
    BertClassifier(torch_compile=True).speed_up(network)
    for rows, width in ((8, 20), (8, 33), (8, 12), (8, 47), (3, 25)):
        mask = torch.ones(rows, width, dtype=torch.int64)
        mask[0, -3:] = 0
        logits = network(input_ids=torch.full((rows, width), 5), attention_mask=mask).logits
        logits.sum().backward()
    assert counter.frame_count == compiled
