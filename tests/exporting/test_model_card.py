"""The model card: metadata that the Hub reads, and results of the exported checkpoint only."""

import json
import shutil
import socket
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from src.exporting.model_card import Agreement, write_card, write_pretrainer_card
from src.models.checkpoint_format import Archive
from src.runs.checkpoint_reading import Checkpoint, read_checkpoint
from tests.loopback_hub import LoopbackHub

_FIGURES = {"accuracy": 0.875, "accuracy_low": 0.69, "accuracy_high": 0.9566, "loss": None, "f1": 0.87654321, "n": 24}


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    """best.ckpt in a copy of the run; a card that asked the network would fail."""

    def refuse(*_: object) -> None:
        raise AssertionError("the network is asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    shutil.copytree(tiny_checkpoint.parents[1], "version_0")
    return read_checkpoint(Path("version_0/checkpoints/best.ckpt").absolute())


def _write_results(checkpoint: Checkpoint, file: str, **figures: object) -> Path:
    path = checkpoint.path.parents[1] / file
    path.write_text(json.dumps(_FIGURES | {"checkpoint_digest": checkpoint.digest} | figures))
    return path


def _card_of(checkpoint: Checkpoint, repository: str | None = None) -> ModelCard:
    compared = [Agreement("model.safetensors", 100, 100, 1e-8)]
    archive = Archive.of(checkpoint)
    write_card(Path(), "my-classifier", checkpoint, archive, compared, "100 reviews", repository=repository)
    return ModelCard.load("README.md")


def test_metadata_hold_the_test_results_and_nothing_that_is_not_known(checkpoint: Checkpoint) -> None:
    of = {"dataset": "/home/me/reviews.csv", "split": "train", "fingerprint": "0123456789abcdef"}
    _write_results(checkpoint, "test.json", mcc=None, **of)
    _write_results(checkpoint, "validate.json", accuracy=1.0)
    card = _card_of(checkpoint)
    assert card.data.model_name == "my-classifier"
    assert card.data.pipeline_tag == "text-classification"
    assert card.data.tags == ["bert", "text-classification"]
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert results == {"accuracy": 0.875, "f1": 0.8765}
    assert card.data.metrics == ["accuracy", "f1"]
    assert {result.dataset_name for result in card.data.eval_results} == {"reviews.csv"}
    # the data and the weights are local: neither ids of the Hub, nor licence, nor language
    unknown = ("base_model", "datasets", "language", "license")
    assert not [name for name in unknown if card.data.get(name) is not None]
    assert (
        "- Test on reviews.csv (split train, content 0123456789ab): accuracy 0.8750 (95% CI 0.6900–0.9566, Wilson; "
        "n=24); loss –, f1 0.8765, mcc –.\n"
    ) in card.text
    assert "- Validation: accuracy 1.0000" in card.text
    assert "optimistic" in card.text


@pytest.mark.parametrize(
    ("model", "dataset", "known"),
    [
        ("bert-base-uncased", "imdb", ("google-bert/bert-base-uncased", "stanfordnlp/imdb", "en")),
        ("FacebookAI/roberta-base", "./gone.csv", ("FacebookAI/roberta-base", None, None)),
        ("someone/some-bert", "someone/reviews", ("someone/some-bert", "someone/reviews", None)),
        ("folder-that-is-gone", "./gone.csv", (None, None, None)),
        ("package://gone/model", "data/gone.parquet", (None, None, None)),
    ],
)
def test_metadata_name_what_is_of_the_hub(
    model: str, dataset: str, known: tuple[str | None, ...], checkpoint: Checkpoint
) -> None:
    content = checkpoint.content
    content["hyper_parameters"]["model_name_or_path"] = model
    content["datamodule_hyper_parameters"]["dataset"] = dataset
    card = _card_of(checkpoint)
    data = card.data
    assert (data.base_model, data.datasets, data.language) == known
    assert data.eval_results is None
    assert data.license is None, "the card of the base is not on this machine"
    assert "add `license:` to the metadata" in card.text


@pytest.mark.parametrize(
    ("metadata", "known"),
    [
        ("license: bsd-3-clause", "bsd-3-clause"),
        ("license: other", None),
        ("license: [mit]", None),
        ("license: 'a\n<script>'", None),
        ("- license", None),
        ("license: &a [*a]", None),
        ("{", None),
    ],
)
def test_the_licence_is_that_of_the_card_of_a_local_base(
    metadata: str, known: str | None, checkpoint: Checkpoint
) -> None:
    Path("my-bert").mkdir()
    checkpoint.content["hyper_parameters"]["model_name_or_path"] = "my-bert"
    assert _card_of(checkpoint).data.license is None, "it has no card"
    Path("my-bert/README.md").write_text(f"---\n{metadata}\n---\n# My BERT\n")
    assert _card_of(checkpoint).data.license == known
    checkpoint.content["hyper_parameters"]["from_scratch"] = {"layers": 2}
    assert _card_of(checkpoint).data.license is None, "only its vocabulary and sizes were taken"


def test_the_licence_of_a_base_on_the_hub_is_that_of_its_card(
    tiny_checkpoint: Path, loopback: LoopbackHub, tmp_path: Path
) -> None:
    """The Hub is asked for it where the export is uploaded."""
    Path("base").mkdir()
    Path("base/README.md").write_text("---\nlicense: bsd-3-clause\n---\n# A BERT\n")
    loopback.add("models/google-bert/bert-base-uncased", tmp_path / "base")
    checkpoint = read_checkpoint(tiny_checkpoint)
    checkpoint.content["hyper_parameters"]["model_name_or_path"] = "bert-base-uncased"
    assert _card_of(checkpoint).data.license is None
    assert not loopback.asked
    card = _card_of(checkpoint, repository="me/my-classifier")
    assert card.data.license == "bsd-3-clause"
    assert "add `license:`" not in card.text
    loopback.fail("500")
    checkpoint.content["hyper_parameters"]["model_name_or_path"] = "someone/some-bert"
    assert _card_of(checkpoint, repository="me/my-classifier").data.license is None


def test_results_on_another_data_set_are_told_under_its_name(checkpoint: Checkpoint) -> None:
    checkpoint.content["datamodule_hyper_parameters"]["dataset"] = "imdb"
    of = {"dataset": "nyu-mll/glue", "split": "validation", "fingerprint": f"nyu-mll/glue@{'1f' * 20} sst2"}
    _write_results(checkpoint, "test.json", where="idx=1", **of)
    card = _card_of(checkpoint)
    assert card.data.datasets == "stanfordnlp/imdb"
    result = card.data.eval_results[0]
    assert (result.dataset_type, result.dataset_name) == ("nyu-mll/glue", "nyu-mll/glue")
    assert (result.dataset_split, result.dataset_config, result.dataset_revision) == ("validation", "sst2", "1f" * 20)
    which = rf"(split validation, configuration sst2, where idx\=1, commit {'1f' * 20})"
    assert rf"- Test on nyu-mll\/glue {which}: accuracy 0.8750" in card.text


def test_results_of_another_checkpoint_are_left_out(checkpoint: Checkpoint) -> None:
    """Another file, or the same file with another content: a fit that went on has replaced it."""
    not_run = "had not been run on this checkpoint"
    _write_results(checkpoint, "test.json")
    assert not_run not in _card_of(checkpoint).text
    other = read_checkpoint(checkpoint.path.with_name("last.ckpt"))
    assert not_run in _card_of(other).text
    other.content["state_dict"] = {name: weight + 1.0 for name, weight in other.content["state_dict"].items()}
    torch.save(other.content, checkpoint.path)
    assert not_run in _card_of(read_checkpoint(checkpoint.path)).text


def test_no_path_of_this_machine_is_told(checkpoint: Checkpoint) -> None:
    content = checkpoint.content
    content["datamodule_hyper_parameters"] |= {"where": {"file": "/home/me/a.csv"}, "held_out": ["/home/me/b.yaml"]}
    text = _card_of(checkpoint).text
    assert "a.csv" in text
    assert "- b.yaml" in text
    assert "/home" not in text
    assert "/tmp" not in text


def test_the_card_of_a_pretrainer_has_its_figures_and_how_to_fine_tune_it(checkpoint: Checkpoint) -> None:
    content = checkpoint.content
    content["hyper_parameters"] |= {"model_name_or_path": "bert-base-uncased", "from_scratch": {"layers": 2}}
    content["datamodule_hyper_parameters"] |= {"next_sentence": False, "held_out": ["mine.yaml"]}
    figures = {"mlm_loss": 2.5, "perplexity": 12.1825, "mlm_accuracy": 0.5, "nsp_accuracy": None, "n": 1234}
    _write_results(checkpoint, "validate.json", **figures)
    write_pretrainer_card(Path(), "my-bert", checkpoint, 12345)
    card = ModelCard.load("README.md")
    assert card.data.pipeline_tag == "fill-mask"
    assert card.data.base_model is None, "only its vocabulary and sizes were taken"
    assert "fit --config mine.yaml --model.model_name_or_path THIS_FOLDER" in card.text
    assert "12,345" in card.text
    assert "The next-sentence head is untrained." in card.text
    assert "mlm_loss 2.5000, perplexity 12.1825, mlm_accuracy 0.5000 (n=1,234 masked tokens)." in card.text
    assert f"- torch {torch.__version__}" in card.text


def test_names_have_no_meaning_as_markdown_or_html(checkpoint: Checkpoint) -> None:
    archive = Archive.of(checkpoint)
    object.__setattr__(archive, "labels", ["<img src=x>", "[a](http://b)\n# c"])
    checkpoint.content["datamodule_hyper_parameters"]["dataset"] = "```\n<script>\n```"
    write_card(Path(), "a*b*", checkpoint, archive, [Agreement("model.safetensors", 9, 9, 0.0)], "9 reviews")
    text = Path("README.md").read_text("utf-8")
    assert "# a\\*b\\*\n" in text
    assert r"\<img src\=x\>, \[a\]\(http\:\/\/b\) \# c." in text
    assert "\n````yaml\n" in text
