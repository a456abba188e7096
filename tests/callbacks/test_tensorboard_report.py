"""The TensorBoard report of real runs of a tiny model, read from their event files."""

import html
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugin_util import markdown_to_safe_html
from transformers import AutoConfig, AutoModelForSequenceClassification

from src.models.checkpoint_format import tokenizer_from_files
from tests import processes
from tests.synthetic import synthetic_reviews

N_VAL, N_TEST = 21, 37
SCRIPT = "<script>alert(1)</script> ![x](http://example.org/x.png) | "


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reviews with HTML and Markdown in their text and labels."""
    frame = synthetic_reviews(120)
    frame["text"] = SCRIPT + frame["text"]
    frame["label"] = frame["label"].map({"neg": "<i>neg</i>", "pos": "pos"})
    path = tmp_path_factory.mktemp("hostile") / "reviews.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_options: list[str], reviews: Path) -> Path:
    """A run of two epochs and its test; it learns almost nothing, so that some predictions are wrong."""
    from src.commands.fit import main

    root = tmp_path_factory.mktemp("report")
    options = [f"--data.dataset={reviews}", f"--data.val_size={N_VAL}", f"--data.test_size={N_TEST}"]
    options += ["--trainer.max_epochs=2", f"--trainer.default_root_dir={root}"]
    assert main(["fit", *tiny_options, *options]) == 0
    version = root / "lightning_logs" / "version_0"
    assert main(["test", f"--config={version}/config.yaml", f"--ckpt_path={version}/checkpoints/last.ckpt"]) == 0
    return version


@pytest.fixture(scope="module")
def events(run: Path) -> EventAccumulator:
    return read_events(run)


def read_events(run: Path) -> EventAccumulator:
    return EventAccumulator(str(run), size_guidance={"tensors": 0, "images": 0}).Reload()


def listed(events: EventAccumulator, tag: str) -> pd.DataFrame:
    """The last list of reviews under a tag, as a reader sees it; empty if the report says that there are none."""
    markdown = events.Tensors(f"{tag}/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert "<" not in markdown
    pattern = r"\*\*row (\d+)\*\*: label \*\*(.+)\*\*, predicted \*\*(.+)\*\* with ([\d.]+)\n\n> (.+)"
    entries = re.findall(pattern, markdown)
    assert bool(entries) != (markdown == "None.")
    frame = pd.DataFrame(entries, columns=["row", "label", "predicted", "probability", "review"])
    return frame.map(html.unescape).astype({"row": int, "probability": float})


@pytest.fixture(scope="module")
def judged(run: Path, reviews: Path) -> pd.DataFrame:
    """All reviews of the file with the checkpoint's predictions, computed one by one with transformers alone."""
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    archive = checkpoint["classifier"]
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(**archive["config"])).eval()
    weights = {k.removeprefix("model."): v for k, v in checkpoint["state_dict"].items() if k.startswith("model.")}
    model.load_state_dict(weights)
    tokenizer = tokenizer_from_files(archive["tokenizer"])
    frame = pd.read_csv(reviews)
    with torch.inference_mode():
        encoded = [
            tokenizer(text, truncation=True, max_length=archive["max_length"], return_tensors="pt")
            for text in frame["text"]
        ]
        probabilities = torch.cat([model(**review).logits.softmax(1) for review in encoded]).numpy()
    frame["predicted"] = [archive["labels"][k] for k in probabilities.argmax(1)]
    frame["probability"] = probabilities.max(1)
    return frame


def test_report_is_there_after_each_validation_and_the_test(events: EventAccumulator) -> None:
    steps = [event.step for event in events.Scalars("val/accuracy")][:2]
    for tag in ("confusion_matrix", "calibration", "accuracy_by_length"):
        assert [event.step for event in events.Images(f"val/{tag}")] == steps
        assert [event.step for event in events.Images(f"test/{tag}")] == [steps[-1]]
    for tag in ("precision_recall/pos", "most_wrong/text_summary", "least_sure/text_summary"):
        assert [event.step for event in events.Tensors(f"val/{tag}")] == steps
        assert [event.step for event in events.Tensors(f"test/{tag}")] == [steps[-1]]


def test_every_row_is_in_the_precision_recall_curve(run: Path, events: EventAccumulator) -> None:
    """At any threshold, the four counts add up to n; at 0.5, the true positives and negatives give the accuracy."""
    proto = events.Tensors("test/precision_recall/pos")[-1].tensor_proto
    curve = np.array(proto.float_val or np.frombuffer(proto.tensor_content, np.float32)).reshape(6, -1)
    true_positive, false_positive, true_negative, false_negative = curve[:4]
    assert (true_positive + false_positive + true_negative + false_negative == N_TEST).all()
    figures = json.loads((run / "test.json").read_text())
    middle = curve.shape[1] // 2
    accuracy = (true_positive[middle] + true_negative[middle]) / N_TEST
    assert figures["n"] == N_TEST
    assert accuracy == pytest.approx(figures["accuracy"], abs=1.01 / N_TEST)  # thresholds are 1/126 apart


def test_most_wrong_are_those_with_the_highest_probability_of_a_wrong_class(
    events: EventAccumulator, judged: pd.DataFrame
) -> None:
    shown = listed(events, "test/most_wrong")
    rows = np.random.default_rng(42).permutation(len(judged))[-N_TEST:]  # DESIGN's rule: the last of the shuffle
    tested = judged.loc[rows]
    wrong = tested[tested["predicted"] != tested["label"]]
    assert len(wrong) > 3
    expected = wrong["probability"].sort_values(ascending=False)[:10]
    assert np.allclose(shown["probability"], expected, atol=1e-4)
    of_shown = judged.loc[shown["row"]]
    assert (of_shown["label"].to_numpy() == shown["label"]).all()
    assert (of_shown["predicted"].to_numpy() == shown["predicted"]).all()
    assert (shown["label"] != shown["predicted"]).all()
    assert np.allclose(of_shown["probability"], shown["probability"], atol=1e-4)
    assert [text[:200] for text in of_shown["text"]] == [text[:200] for text in shown["review"]]


def test_least_sure_are_those_nearest_to_an_even_choice(events: EventAccumulator, judged: pd.DataFrame) -> None:
    shown = listed(events, "test/least_sure")
    tested = judged.loc[np.random.default_rng(42).permutation(len(judged))[-N_TEST:]]
    assert np.allclose(shown["probability"], tested["probability"].sort_values()[:10], atol=1e-4)
    assert len(shown) == 10
    assert shown["review"].str.startswith("<script>alert(1)</script>").all()


def test_reviews_are_only_shown(events: EventAccumulator) -> None:
    markdown = events.Tensors("test/least_sure/text_summary")[-1].tensor_proto.string_val[0].decode()
    page = markdown_to_safe_html(markdown)
    assert "&lt;script&gt;" in page or "&#60;script&#62;" in page
    for tag in ("<script", "<img", "<i>", "<a "):
        assert tag not in page


@pytest.mark.slow
@pytest.mark.parametrize("n_test", [9, 1])
def test_two_ranks_report_what_one_does(run: Path, tmp_path: Path, n_test: int) -> None:
    """With 5 and 4 rows per rank, and with a rank that has no row."""
    texts = []
    for name, world_size in (("one", 1), ("two", 2)):
        folder = tmp_path / name
        checkpoint = folder / "version_0" / "checkpoints" / "last.ckpt"
        checkpoint.parent.mkdir(parents=True)
        checkpoint.hardlink_to(run / "checkpoints" / "last.ckpt")
        config = folder / "version_0" / "config.yaml"
        config.write_text((run / "config.yaml").read_text())
        args = ["test", f"--config={config}", f"--ckpt_path={checkpoint}"]
        args += [f"--data.test_size={n_test}", "--data.eval_batch_size=2"]
        if world_size > 1:
            args += [f"--trainer.devices={world_size}", "--trainer.strategy=ddp"]
        for process in processes.ranks(args, world_size, tmp_path):
            assert processes.wait(process) == 0, (tmp_path / "rank0.log").read_text()
        events = read_events(folder / "version_0")
        assert json.loads((folder / "version_0" / "test.json").read_text())["n"] == n_test
        assert len(events.Images("test/calibration")) == 1
        texts.append(
            [listed(events, f"test/{tag}").drop(columns="probability") for tag in ("most_wrong", "least_sure")]
        )
    for one, two in zip(*texts, strict=True):
        pd.testing.assert_frame_equal(one, two)
