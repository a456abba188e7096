"""LoRA: what is trained, what a checkpoint holds, and how its base is found again."""

import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification, PreTrainedModel

from src.inference.classifier import load
from src.models.checkpoint_format import Archive, add_base, load_weights, network_in
from src.models.classifier import BertClassifier
from src.models.heads.mean_pooling import begin_as_mean
from src.models.lora import add_lora, check_place, frozen
from src.runs.checkpoint_reading import read_checkpoint
from src.system.checksums import file_sha256
from src.system.errors import UserError
from tests.models.families import FAMILIES, family_config

Run = Callable[..., tuple[int, str, str]]

_LORA = "--model.lora={rank: 4, alpha: 8}"
_RATE = "--model.learning_rate=1e-2"
_LAST = Path("lightning_logs/version_0/checkpoints/last.ckpt")
_TEXTS = ["a great film .", "the plot was awful and dull .", "music " * 40]


@pytest.fixture(scope="module")
def base(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the pretrained model, which a test may move."""
    return shutil.copytree(tiny_bert, tmp_path_factory.mktemp("base") / "bert")


@pytest.fixture(scope="module")
def trained(base: Path, tiny_options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last.ckpt of a run with all options that go with LoRA."""
    from src.commands.fit import main

    root = tmp_path_factory.mktemp("run")
    options = [*tiny_options, f"--model.model_name_or_path={base}", _LORA, _RATE, "--trainer.max_epochs=2"]
    options += ["--model.pooling=mean", "--model.linear_probe=true", "--model.layer_decay=0.9"]
    assert main(["fit", *options, f"--trainer.default_root_dir={root}"]) == 0
    return root / _LAST


@pytest.fixture
def moved(base: Path) -> Any:
    """The base is elsewhere during the test."""
    away = base.with_name("away")
    base.rename(away)
    yield away
    shutil.rmtree(base, ignore_errors=True)
    away.rename(base)


def _logits(network: PreTrainedModel) -> torch.Tensor:
    ids = torch.randint(5, 40, (3, 23), generator=torch.Generator().manual_seed(2))
    ids[:, -1] = 2  # the end of a text, by which BART and T5 find the vector to read
    with torch.inference_mode():
        logits: torch.Tensor = network.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return logits


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_trains_its_changes_and_its_head_and_merges(name: str) -> None:
    torch.manual_seed(0)
    network = AutoModelForSequenceClassification.from_config(family_config(name))
    if name in ("ibert", "fnet", "xlnet"):
        with pytest.raises(UserError, match=rf"model type {name!r} does not have"):
            check_place(network)
        return
    check_place(network)
    before = _logits(network)
    encoder = {parameter for part in network.base_model.modules() for parameter in part.parameters(recurse=False)}
    head = set(network.parameters()) - encoder
    made = add_lora(network, {"rank": 4, "alpha": 8})
    trained = {id(p): n for n, p in network.named_parameters() if p.requires_grad}
    assert head
    assert {id(parameter) for parameter in head} <= trained.keys()  # `add_lora` keeps them all
    assert [n for n in trained.values() if "lora_" in n]
    of_head = {id(parameter) for parameter in head}
    assert all("lora_" in n or "pooler" in n or each in of_head for each, n in trained.items())
    torch.testing.assert_close(_logits(network), before)
    for parameter_name, parameter in network.named_parameters():
        if "lora_B" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.5)
    changed = _logits(network)
    assert (changed - before).abs().max() > 1e-5
    made.merge_and_unload()
    torch.testing.assert_close(_logits(network), changed, atol=1e-6, rtol=1e-4)
    assert type(network) is type(AutoModelForSequenceClassification.from_config(family_config(name)))
    assert not [n for n, _ in network.named_modules() if "lora" in n]


def test_a_checkpoint_holds_what_is_trained_and_names_its_base(trained: Path, base: Path) -> None:
    content = torch.load(trained, weights_only=True)
    names = {name.removeprefix("model.") for name in content["state_dict"]}
    assert names == {
        *(
            f"bert.encoder.layer.{layer}.attention.self.{part}.lora_{matrix}.default.weight"
            for layer in (0, 1)
            for part in ("query", "value")
            for matrix in "AB"
        ),
        *(f"{part}.{kind}" for part in ("bert.pooler.dense", "classifier") for kind in ("weight", "bias")),
    }
    assert len(content["optimizer_states"][0]["state"]) == len(names)
    stored = content["classifier"]["lora"]
    assert stored["base"] == str(base)
    assert stored["hashes"] == {"model.safetensors": file_sha256(base / "model.safetensors")}
    assert content["hyper_parameters"]["lora"] == stored["lora"] == {"rank": 4, "alpha": 8.0}


def test_only_the_changes_and_the_head_differ_from_the_base(trained: Path, base: Path) -> None:
    """Of a base that was initialised for mean pooling."""
    before = BertForSequenceClassification.from_pretrained(base)
    begin_as_mean(before)
    checkpoint = read_checkpoint(trained)
    after = network_in(checkpoint, Archive.of(checkpoint)).state_dict()
    changed = {name for name, weight in before.state_dict().items() if not torch.equal(weight, after[name])}
    projections = {
        f"bert.encoder.layer.{n}.attention.self.{part}.weight" for n in (0, 1) for part in ("query", "value")
    }
    assert changed - projections <= {
        f"{p}.{k}" for p in ("bert.pooler.dense", "classifier") for k in ("weight", "bias")
    }
    assert projections <= changed
    assert {"bert.pooler.dense.weight", "classifier.weight"} <= changed


def test_all_ways_of_reading_give_the_logits_of_training(trained: Path, run_cli: Run) -> None:
    checkpoint = read_checkpoint(trained)
    archive = Archive.of(checkpoint)
    assert archive.adapter
    unmerged = AutoModelForSequenceClassification.from_config(archive.config)
    add_lora(unmerged, archive.adapter.lora)
    add_base(checkpoint, archive)
    load_weights(checkpoint, unmerged)
    wanted = _logits(unmerged)
    again = read_checkpoint(trained)
    torch.testing.assert_close(_logits(network_in(again, archive)), wanted)
    module = BertClassifier.load_from_checkpoint(trained)
    assert module.model is not None
    torch.testing.assert_close(_logits(module.model), wanted)

    status, out, err = run_cli("test", f"--ckpt_path={trained}", f"--trainer.default_root_dir={trained.parents[3]}")
    assert status == 0, err
    assert "LoRA: trains " in out
    status, _, err = run_cli("export", f"--ckpt_path={trained}", "--output=exported", "--onnx")
    assert status == 0, err
    plain, report = BertForSequenceClassification.from_pretrained("exported", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    torch.testing.assert_close(_logits(plain), wanted)
    ours = load(trained).logits(_TEXTS)
    for other in ("exported", "exported/model.onnx"):
        assert np.allclose(load(other).logits(_TEXTS), ours, atol=1e-5)


@pytest.mark.parametrize("averaged", [False, True])
def test_a_stopped_run_resumes_to_the_same_bits(averaged: bool, tiny_options: list[str], run_cli: Run) -> None:
    """Dropout is on. Averages hold the trained weights alone too."""
    average = "--trainer.callbacks+=lightning.pytorch.callbacks.EMAWeightAveraging"
    options = [*tiny_options, _LORA, _RATE, "--trainer.max_epochs=2", *([average] if averaged else [])]
    status, _, err = run_cli("fit", *options, "--trainer.default_root_dir=whole")
    assert status == 0, err
    kill = ["--trainer.callbacks+=tests.end_to_end.killing.KillAt", "--trainer.callbacks.hook=on_train_batch_start"]
    kill += ["--trainer.callbacks.count=4", f"--trainer.callbacks.signum={int(signal.SIGTERM)}"]
    status, _, err = run_cli("fit", *options, *kill)
    assert status == 143, err
    Path("empty.yaml").write_text("{}")
    status, _, err = run_cli("fit", "--config=empty.yaml", *options, "--ckpt_path=last")
    assert status == 0, err
    one, other = (torch.load(path, weights_only=True) for path in ("whole" / _LAST, _LAST))
    states = ["state_dict", *(["current_model_state"] if averaged else [])]
    for state in states:
        assert one[state].keys() == other[state].keys()
        assert not any("base_layer" in name or "embeddings" in name for name in one[state])
        assert all(torch.equal(one[state][name], other[state][name]) for name in one[state])
    assert str(one["optimizer_states"]) == str(other["optimizer_states"])


def test_a_run_resumes_with_the_lora_it_began_with(trained: Path, tiny_options: list[str], run_cli: Run) -> None:
    Path("empty.yaml").write_text("{}")
    options = ["--config=empty.yaml", *tiny_options, "--model.pooling=mean", "--model.linear_probe=true"]
    for option in ("--model.lora={rank: 2, alpha: 8}", "--model.lora=null"):
        status, _, err = run_cli("fit", *options, f"--ckpt_path={trained}", option)
        assert status == 1
        assert err.startswith("error: the run to resume began with model.lora={'rank': 4, 'alpha': 8.0}")


def _refusals(trained: Path, run_cli: Run) -> list[str]:
    """The line of each command that reads the checkpoint, none of which leaves anything."""
    Path("in.csv").write_text("text\ngreat\n")
    root = f"--trainer.default_root_dir={trained.parents[3]}"
    lines = []
    for args in (
        ["predict", "--input=in.csv", "--output=out.csv"],
        ["export", "--output=exported"],
        ["test", root],
        ["fit", root, "--trainer.max_epochs=5"],
    ):
        status, _, err = run_cli(args[0], f"--ckpt_path={trained}", *args[1:])
        assert (status, err.count("\n")) == (1, 1), err
        lines.append(err)
    assert {path.name for path in Path().iterdir()} == {"in.csv"}
    return lines


def test_a_missing_base_is_one_line(trained: Path, moved: Path, run_cli: Run) -> None:
    for line in _refusals(trained, run_cli):
        assert line.startswith("error: the checkpoint holds LoRA's weights alone and needs its base: the model ")
        assert str(moved.with_name("bert")) in line


def test_a_changed_base_is_one_line(trained: Path, base: Path, moved: Path, run_cli: Run) -> None:
    """Though its shapes are the same."""
    shutil.copytree(moved, base)
    other = BertForSequenceClassification.from_pretrained(moved)
    torch.nn.init.normal_(other.bert.embeddings.word_embeddings.weight)
    other.save_pretrained(base)
    for line in _refusals(trained, run_cli):
        assert line.startswith("error: the checkpoint holds LoRA's weights alone, and those of its base ")
        assert file_sha256(moved / "model.safetensors") in line


def test_an_exported_folder_needs_no_base(trained: Path, run_cli: Run, base: Path) -> None:
    assert run_cli("export", f"--ckpt_path={trained}", "--output=exported")[0] == 0
    wanted = load(trained).logits(_TEXTS)
    away = base.rename(base.with_name("away"))
    try:
        assert np.allclose(load("exported").logits(_TEXTS), wanted, atol=1e-5)
        pd.DataFrame({"text": _TEXTS}).to_csv("in.csv", index=False)
        assert run_cli("predict", "--ckpt_path=exported", "--input=in.csv", "--output=out.csv")[0] == 0
    finally:
        away.rename(base)


def test_a_checkpoint_is_calibrated(trained: Path, run_cli: Run) -> None:
    status, out, err = run_cli("export", f"--ckpt_path={trained}", "--output=calibrated", "--calibrate")
    assert status == 0, err
    temperature = float(re.search(r"temperature (\S+)", out)[1])  # type: ignore[index]
    assert abs(temperature - 1) > 0.05
    wanted = load(trained).logits(_TEXTS) / temperature
    assert np.allclose(load("calibrated").logits(_TEXTS), wanted, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"lora": {"rank": 0, "alpha": 8.0}},
        {"lora": {"rank": 10**9, "alpha": 8.0}},
        {"lora": {"rank": "4", "alpha": 8.0}},
        {"lora": {"rank": 4}},
        {"base": 5},
        {"base": "/etc"},
        {"base": "no such/name/at all"},
        {"revision": None},
        {"hashes": {}},
        {"hashes": {"model.safetensors": ["x"]}},
        {"hashes": []},
        {"pooling": None},
    ],
    ids=str,
)
def test_what_a_checkpoint_says_of_its_base_is_input(change: dict[str, Any], trained: Path, run_cli: Run) -> None:
    content = torch.load(trained, weights_only=True)
    content["classifier"]["lora"] |= change
    torch.save(content, "damaged.ckpt")
    Path("in.csv").write_text("text\ngreat\n")
    status, _, err = run_cli("predict", "--ckpt_path=damaged.ckpt", "--input=in.csv", "--output=out.csv")
    assert (status, err.count("\n")) == (1, 1), err
    assert err.startswith("error: ")
    assert not Path("out.csv").exists()


def test_without_peft_one_line_names_the_extra(
    trained: Path, tiny_options: list[str], run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)  # as if it were not installed
    Path("in.csv").write_text("text\ngreat\n")
    for args in (
        ["fit", *tiny_options, _LORA],
        ["predict", f"--ckpt_path={trained}", "--input=in.csv", "--output=out.csv"],
        ["export", f"--ckpt_path={trained}", "--output=exported"],
    ):
        status, _, err = run_cli(*args)
        assert status == 1
        assert err == (
            "error: peft is not installed, which model.lora needs: pip install -c constraints.txt -e '.[lora]'\n"
        )
    assert {path.name for path in Path().iterdir()} == {"in.csv"}


def test_without_lora_nothing_is_frozen(tiny_checkpoint: Path) -> None:
    checkpoint = read_checkpoint(tiny_checkpoint)
    assert "lora" not in checkpoint.content["classifier"]
    assert not frozen(network_in(checkpoint, Archive.of(checkpoint)))
