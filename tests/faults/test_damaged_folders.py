"""A damaged model folder ends in one line, whatever is damaged, and never in answers of other weights than its own."""

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from src.inference.classifier import load
from src.models.origin import ClassifierOrigin
from src.models.tasks.single_label import SingleLabel
from src.system.errors import UserError
from tests.faults.damage import LOST, VALUES, damaged, places

Run = Callable[..., tuple[int, str, str]]

_TEXTS = ["a great film", "dull"]
_JSON = ("config.json", "tokenizer_config.json", "tokenizer.json", "preprocessing.json")
_CI_FITS = settings.default.max_examples // 4


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """An exported classifier with model.onnx and without checksums, as another program would write it."""
    from src.commands.export import main

    folder = tmp_path_factory.mktemp("exported") / "model"
    assert main([f"--ckpt_path={tiny_checkpoint}", f"--output={folder}", "--onnx"]) == 0
    (folder / "checksums.json").unlink()
    return folder


def _copy(folder: Path, copy: str = "folder") -> Path:
    shutil.rmtree(copy, ignore_errors=True)
    return Path(shutil.copytree(folder, copy)).absolute()


def _logits(path: Path) -> np.ndarray | None:
    """The logits of some texts; None if the folder is refused in one line."""
    try:
        return load(path).logits(_TEXTS)
    except UserError:
        return None


def _start(folder: Path) -> bool:
    """Whether a fine-tuning takes the folder's weights; it is refused in one line otherwise."""
    origin = ClassifierOrigin(str(folder))
    try:
        tokenizer = origin.tokenizer()
        assert tokenizer is not None
        origin.check_weights(tokenizer)
        network = origin.build(SingleLabel(["neg", "pos"]))[0].eval()
    except UserError:
        return False
    ids = torch.full((1, 8), max(tokenizer.get_vocab().values()))
    assert network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.shape == (1, 2)
    return True


@given(data=st.data())
def test_no_entry_of_another_type_ends_in_a_traceback(data: st.DataObject, exported: Path) -> None:
    folder = _copy(exported)
    name = data.draw(st.sampled_from(_JSON))
    content = json.loads((folder / name).read_text())
    value = data.draw(st.sampled_from([value for value in VALUES if value is LOST or value != {0: "x"}]))
    changed = damaged(content, data.draw(places(content)), value)
    (folder / name).write_text(json.dumps(changed))
    logits = _logits(folder)
    assert logits is None or (logits.shape == (2, 2) and np.isfinite(logits).all())
    _start(folder)


@pytest.mark.parametrize(
    "value",
    [
        *({"vocab_size": size} for size in (-1, 0, None, "9", 10**12, 3.0)),
        *({"hidden_size": size} for size in (0, 31, 64, 10**9)),
        *({"num_hidden_layers": number} for number in (0, 1, 3, -1, 10**9, "2")),
        *({"num_attention_heads": number} for number in (0, 3, 10**9)),
        *({"max_position_embeddings": number} for number in (0, -1, 16, 10**12)),
        *({"intermediate_size": number} for number in (0, 10**12)),
        *({"type_vocab_size": number} for number in (0, 10**12)),
        *({"model_type": kind} for kind in ("none", None, ["bert"], {}, "gpt2", "roberta")),
        *({"num_labels": number} for number in (0, -1, 10**12, None)),
        {"hidden_act": "none"},
        {"pad_token_id": 10**9},
        {"quantization_config": {"quant_method": "awq"}},
    ],
    ids=str,
)
def test_the_configuration_fits_the_weights(value: dict[str, Any], exported: Path, tiny_bert: Path) -> None:
    """For a prediction as for a fine-tuning, and before there is memory for what it asks for."""
    for source in (exported, tiny_bert):
        folder = _copy(source)
        content = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(content | value))
        if "quantization_config" in value:
            continue
        assert not _start(folder), "a fine-tuning began with other weights than the file's"
        if source == exported:
            assert _logits(folder) is None


@pytest.mark.parametrize(
    "value",
    [
        *({"id2label": names} for names in ("x", [], {}, {"a": "b"}, {"0": "neg", "5": "pos"}, {"0": 1, "1": 2})),
        {"id2label": {"0": "same", "1": "same"}},
        {"problem_type": "regression"},
        {"problem_type": 3},
    ],
    ids=str,
)
def test_labels_are_names_of_the_logits(value: dict[str, Any], exported: Path) -> None:
    folder = _copy(exported)
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | value))
    assert _logits(folder) is None


@pytest.mark.parametrize("value", [{"return_dict": False}, {"chunk_size_feed_forward": 3}], ids=str)
def test_how_the_network_is_called_is_not_the_folders_matter(value: dict[str, Any], exported: Path) -> None:
    folder = _copy(exported)
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | value))
    np.testing.assert_array_equal(load(folder).logits(_TEXTS), load(exported).logits(_TEXTS))
    assert _start(folder)


@given(data=st.data())
def test_a_damaged_header_of_the_weights_is_refused(data: st.DataObject, exported: Path) -> None:
    """A flipped bit may still be a header that says the same, such as one in its metadata."""
    folder = _copy(exported)
    file = bytearray((folder / "model.safetensors").read_bytes())
    end = 8 + struct.unpack("<Q", file[:8])[0]
    file[data.draw(st.integers(0, end - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (folder / "model.safetensors").write_bytes(file)
    logits = _logits(folder)
    if logits is not None:
        np.testing.assert_array_equal(logits, load(exported).logits(_TEXTS))
    _start(folder)


@given(name=st.sampled_from(["model.safetensors", "model.onnx", *_JSON]), share=st.floats(0, 1, exclude_max=True))
def test_a_lost_end_is_refused(name: str, share: float, exported: Path) -> None:
    folder = _copy(exported)
    os.truncate(folder / name, int((folder / name).stat().st_size * share))
    found = _logits(folder / "model.onnx" if name == "model.onnx" else folder)
    # the last byte of a JSON file is the end of its line
    assert found is None or name.endswith(".json")


_WEIGHTS: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "a layer's weight is missing": lambda w: w.pop("bert.encoder.layer.1.output.dense.weight"),
    "embeddings of another shape": lambda w: w.update({"bert.embeddings.word_embeddings.weight": torch.zeros(3, 32)}),
    "whole numbers": lambda w: w.update({"bert.embeddings.word_embeddings.bias": torch.zeros(3, dtype=torch.int64)}),
    "a layer too many": lambda w: w.update({"bert.encoder.layer.2.output.dense.bias": torch.zeros(32)}),
    "none of its names": lambda w: [w.update({f"x{name}": w.pop(name)}) for name in list(w)],
    "nothing": lambda w: w.clear(),
}


@pytest.mark.parametrize("kind", _WEIGHTS)
def test_weights_of_another_network_are_refused(kind: str, exported: Path) -> None:
    folder = _copy(exported)
    weights = load_file(folder / "model.safetensors")
    _WEIGHTS[kind](weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert _logits(folder) is None
    assert not _start(folder)


def _shards(folder: Path, *names: str) -> None:
    """Moves the weights to the first of `names`, and writes an index that names all."""
    (folder / "model.safetensors").rename(folder / Path(names[0]).name)
    index = {"metadata": {}, "weight_map": {f"weight{i}": name for i, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


_BROKEN: dict[str, Callable[[Path], object]] = {
    "config.json is empty": lambda f: (f / "config.json").write_text(""),
    "config.json is a list": lambda f: (f / "config.json").write_text("[]"),
    "config.json is deep": lambda f: (f / "config.json").write_text("[" * 10**5),
    "config.json is not UTF-8": lambda f: (f / "config.json").write_bytes(b'{"a": "\xff"}'),
    "config.json is huge": lambda f: (f / "config.json").write_text('{"a": "' + "x" * 2**24 + '"}'),
    "header of 2^60 bytes": lambda f: (f / "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}"),
    "weights are empty": lambda f: (f / "model.safetensors").write_bytes(b""),
    "a shard out of the folder": lambda f: _shards(f, "../first.safetensors"),
    "a shard nowhere": lambda f: _shards(f, "first.safetensors", "second.safetensors"),
    "a shard with an absolute path": lambda f: _shards(f, "/etc/hostname"),
    "a shard that is no text": lambda f: (
        _shards(f, "first.safetensors"),
        (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": 3}}'),
    ),
    "tokenizer.json is a list": lambda f: (f / "tokenizer.json").write_text("[]"),
    "tokenizer.json is deep": lambda f: (f / "tokenizer.json").write_text("[" * 10**5),
    **{
        f"model_max_length is {length}": lambda f, length=length: (f / "tokenizer_config.json").write_text(
            json.dumps(json.loads((f / "tokenizer_config.json").read_text()) | {"model_max_length": length})
        )
        for length in (float("nan"), float("inf"), "64", -1)
    },
    "checksums.json is no JSON": lambda f: (f / "checksums.json").write_text("{"),
    "checksums.json is deep": lambda f: (f / "checksums.json").write_text("[" * 10**5),
    "checksums.json is of numbers": lambda f: (f / "checksums.json").write_text('{"model.safetensors": 3}'),
    "checksums.json is of another file": lambda f: (f / "checksums.json").write_text('{"config.json": "abc"}'),
    "hashes of texts are no numbers": lambda f: (f / "pretraining_texts.npy").write_bytes(b"\x93NUMPY"),
    "hashes of texts are too many": lambda f: _claim(f / "pretraining_texts.npy", 10**15),
    **{
        f"a folder in place of {name}": lambda f, name=name: ((f / name).unlink(missing_ok=True), (f / name).mkdir())
        for name in (*_JSON[:3], "model.safetensors", "checksums.json", "pretraining_texts.npy")
    },
}
_OF_CLASSIFIERS: dict[str, Callable[[Path], object]] = {
    "preprocessing.json is a list": lambda f: (f / "preprocessing.json").write_text("[]"),
    "a folder in place of preprocessing.json": lambda f: (
        (f / "preprocessing.json").unlink(),
        (f / "preprocessing.json").mkdir(),
    ),
    "longer than the positions": lambda f: (f / "preprocessing.json").write_text(
        '{"max_length": 512, "truncation": "head"}'
    ),
}


def _claim(path: Path, n: int) -> None:
    """A file that says it has `n` numbers, and has none."""
    np.save(path, np.zeros(0, dtype=np.uint64))
    path.write_bytes(path.read_bytes().replace(b"(0,), }" + b" " * 15, f"({n},), }}".encode()[:22].ljust(22)))


@pytest.mark.parametrize("kind", [*_BROKEN, *_OF_CLASSIFIERS])
def test_a_broken_file_is_refused(kind: str, exported: Path) -> None:
    folder = _copy(exported)
    (_BROKEN | _OF_CLASSIFIERS)[kind](folder)
    assert _logits(folder) is None
    if kind in _BROKEN and "texts" not in kind:  # which a fine-tuning reads later
        assert not _start(folder)


@pytest.mark.parametrize("extra", [1, 10**6])
def test_every_id_of_the_tokenizer_has_an_embedding(extra: int, exported: Path) -> None:
    """A vocabulary may be short and yet have a high id."""
    folder = _copy(exported)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["great"] = len(content["model"]["vocab"]) - 1 + extra
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert _logits(folder) is None
    assert not _start(folder)


def _other_onnx(folder: Path, change: Callable[[Any], object]) -> Path:
    import onnx

    model = onnx.load(folder / "model.onnx")
    change(model)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def _rename(model: Any, old: str, new: str) -> None:
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for value in (*model.graph.input, *model.graph.output):
        value.name = new if value.name == old else value.name


_ONNX: dict[str, Callable[[Path], object]] = {
    "no model": lambda f: (f / "model.onnx").write_bytes(b"no model"),
    "another input": lambda f: _other_onnx(f, lambda model: _rename(model, "input_ids", "tokens")),
    "another output": lambda f: _other_onnx(f, lambda model: _rename(model, "logits", "scores")),
    "fewer logits than labels": lambda f: (f / "config.json").write_text(
        json.dumps(json.loads((f / "config.json").read_text()) | {"id2label": {"0": "a", "1": "b", "2": "c"}})
    ),
}


@pytest.mark.parametrize("kind", _ONNX)
def test_another_onnx_model_is_refused(kind: str, exported: Path) -> None:
    folder = _copy(exported)
    _ONNX[kind](folder)
    assert _logits(folder / "model.onnx") is None


@settings(max_examples=_CI_FITS)
@given(data=st.data())
def test_a_command_ends_in_one_line(
    data: st.DataObject, tiny_bert: Path, exported: Path, tiny_options: list[str], run_cli: Run
) -> None:
    """By `predict` and by `fit`, which leaves no run behind."""
    name = data.draw(st.sampled_from(sorted(_BROKEN)))
    Path("in.csv").write_text("text\ngreat\n")
    for source, command in (
        (exported, ["predict", "--ckpt_path=folder", "--input=in.csv", "--output=out.csv"]),
        (tiny_bert, ["fit", *tiny_options, "--model.model_name_or_path=./folder"]),
    ):
        _BROKEN[name](_copy(source))
        status, _, err = run_cli(*command)
        assert (status, err.count("\n")) == (1, 1), err
        assert not Path("lightning_logs").exists()
