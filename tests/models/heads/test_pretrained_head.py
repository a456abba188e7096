"""The head of a pretrained model: its classes are those of the data by name, or it is a new one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    CamembertConfig,
    DistilBertConfig,
    ElectraConfig,
    PretrainedConfig,
    RobertaConfig,
)

from src.models.origin import ClassifierOrigin
from src.models.tasks.single_label import SingleLabel
from tests.synthetic import synthetic_reviews

Run = Callable[..., tuple[int, str, str]]
_SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
_SIZES |= {"intermediate_size": 16, "max_position_embeddings": 20}
_INPUT = {"input_ids": torch.tensor([[5, 6, 7, 8, 2]]), "attention_mask": torch.ones(1, 5, dtype=torch.int64)}


def _save(folder: Path, config: PretrainedConfig, before: list[str]) -> torch.Tensor:
    """A folder with a head of these classes; returns its logits of one text."""
    config.id2label = dict(enumerate(before))
    config.label2id = {name: i for i, name in enumerate(before)}
    torch.manual_seed(0)
    network: Any = AutoModelForSequenceClassification.from_config(config)
    network.save_pretrained(folder)
    return network.eval()(**_INPUT).logits[0].detach()  # type: ignore[no-any-return]


def _logits(folder: Path, labels: list[str]) -> tuple[torch.Tensor, str]:
    network, said = ClassifierOrigin(str(folder)).build(SingleLabel(labels))
    logits = network.eval()(**_INPUT).logits[0].detach()
    assert len(logits) == len(labels)
    return logits, said.replace(str(folder), "M")


@pytest.mark.parametrize(
    "config",
    [
        BertConfig(**_SIZES),
        RobertaConfig(**_SIZES),
        CamembertConfig(**_SIZES),
        ElectraConfig(**_SIZES, embedding_size=16),
        DistilBertConfig(vocab_size=40, dim=16, n_layers=1, n_heads=2, hidden_dim=16),
    ],
    ids=lambda config: config.model_type,
)
def test_classes_are_matched_by_name_whatever_their_order(config: PretrainedConfig, tmp_path: Path) -> None:
    before = _save(tmp_path, config, ["good", "bad", "so-so"])
    logits, said = _logits(tmp_path, ["bad", "good", "so-so"])
    torch.testing.assert_close(logits, before[[1, 0, 2]])
    assert said == "Head: kept from M, its classes matched by name"
    logits, said = _logits(tmp_path, ["bad", "good", "none"])
    assert not torch.isclose(logits, before[[1, 0, 2]], atol=1e-4).any()
    assert said == "Head: new, since that of M has the classes good, bad, so-so"


@pytest.mark.parametrize(
    ("before", "labels", "kept", "said"),
    [
        (["LABEL_0", "LABEL_1"], ["0", "1"], True, "kept from M, its classes matched by name"),
        (["LABEL_0", "LABEL_1"], ["1", "2"], False, "new, since M has none whose classes have names"),
        (["LABEL_0", "LABEL_1"], ["neg", "pos"], False, "new, since M has none whose classes have names"),
        (["LABEL_0", "LABEL_1", "LABEL_2"], ["0", "1"], False, "new, since M has none for these classes"),
        (["yes", "no", "maybe"], ["no", "yes"], False, "new, since that of M has the classes yes, no, maybe"),
        (["pos", "pos"], ["neg", "pos"], False, "new, since that of M has the classes pos, pos"),
        (["Neg", "Pos"], ["neg", "pos"], False, "new, since that of M has the classes Neg, Pos"),
        (["score"], ["neg", "pos"], False, "new, since that of M has the classes score"),
    ],
)
def test_a_head_is_kept_only_if_its_classes_have_the_names_of_the_data(
    before: list[str], labels: list[str], kept: bool, said: str, tmp_path: Path
) -> None:
    old = _save(tmp_path, BertConfig(**_SIZES), before)
    logits, told = _logits(tmp_path, labels)
    assert told == f"Head: {said}"
    assert (len(old) == len(logits) and torch.allclose(old, logits)) == kept


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_a_start_for_another_problem_becomes_a_classifier(
    problem: str, tiny_bert: Path, tiny_options: list[str], run_cli: Run, tmp_path: Path
) -> None:
    """Also what is exported, so that `pipeline` gives the probabilities of `predict`."""
    config = AutoConfig.from_pretrained(tiny_bert, problem_type=problem)
    config.id2label = {0: "pos", 1: "neg"} if problem.startswith("multi") else {0: "LABEL_0"}
    network: Any = AutoModelForSequenceClassification.from_pretrained(tiny_bert, config=config)
    network.save_pretrained(tmp_path / "start")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "start" / file).write_bytes((tiny_bert / file).read_bytes())
    synthetic_reviews(4).to_csv("in.csv", index=False)
    status, _, err = run_cli("predict", "--ckpt_path=start", "--input=in.csv", "--output=out.csv")
    assert (status, err.count("\n")) == (1, 1)
    assert "start gives no probabilities of classes" in err

    start = [*tiny_options, f"--model.model_name_or_path={tmp_path / 'start'}", "--trainer.max_epochs=1"]
    status, out, err = run_cli("fit", *start)
    assert status == 0, err
    assert ("Head: kept" if problem.startswith("multi") else "Head: new") in out
    status, _, err = run_cli("export", "--ckpt_path=best", "--output=ex")
    assert status == 0, err
    assert AutoConfig.from_pretrained("ex").problem_type == "single_label_classification"
