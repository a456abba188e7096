"""What each layer knows of the labels, without fine-tuning: logistic regression on its vectors.

    python -m benchmarks.layers                      # the quickstart's weights
    python -m benchmarks.layers --models my-bert     # and an export of a pre-training, beside them

Trained on the first 100 and 1,000 reviews of the quickstart's shuffle, judged by 1,000 validation reviews of
benchmarks/judged.yaml. A layer's vector of a review is that of [CLS], which a classifier reads, or the mean over its
tokens.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer

from benchmarks.common import RESULTS, WORK, markdown_table, provenance, quickstart_inputs, write_section
from src.data.fingerprints import hash_texts, read_hashes
from src.data.reviews import Selection, labelled_splits
from src.data.sources import find_source
from src.data.subsets import choose_rows
from src.data.tokens import Encoder
from src.system.quiet import quiet

_LABELS = (100, 1000)
_JUDGED = 1000
_BATCH_SIZE = 32


def reviews() -> tuple[list[str], np.ndarray]:
    """Texts and labels: 1,000 to train on, then those to judge by."""
    source = find_source(str(quickstart_inputs()[1]), None, WORK / "cache")
    selection = Selection({"source": "imdb"}, "text", "label", max(_LABELS), 2000, 2000, 42)
    split = labelled_splits(source, selection)["train"]
    rows = choose_rows({"train": len(split)}, max(_LABELS), 2000, 2000, 42)
    chosen = split.select(np.concatenate([rows["train"].indices, rows["val"].indices[:_JUDGED]]))
    return chosen["text"][:], np.asarray(chosen["label"][:])


@torch.inference_mode()
def vectors(model: str, texts: Sequence[str]) -> dict[tuple[int, str], np.ndarray]:
    """By layer (0: the embeddings) and kind ("[CLS]", "mean"): float32 of shape (texts, hidden)."""
    with quiet():
        network = AutoModel.from_pretrained(model).eval()
    ids = [window for [window] in Encoder(AutoTokenizer.from_pretrained(model), 256, "head_tail").encode(list(texts))]
    order = np.argsort([len(row) for row in ids], kind="stable")
    found: dict[tuple[int, str], np.ndarray] = {}
    for start in tqdm(range(0, len(order), _BATCH_SIZE), desc=model, unit="batch"):
        batch = order[start : start + _BATCH_SIZE]
        tokens = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids[i]) for i in batch], batch_first=True)
        lengths = torch.tensor([len(ids[i]) for i in batch])
        mask = (torch.arange(tokens.shape[1]) < lengths[:, None]).long()
        for layer, states in enumerate(network(tokens, mask, output_hidden_states=True).hidden_states):
            mean = (states * mask[..., None]).sum(dim=1) / lengths[:, None]
            for kind, values in (("[CLS]", states[:, 0]), ("mean", mean)):
                whole = found.setdefault((layer, kind), np.empty((len(ids), states.shape[-1]), dtype=np.float32))
                whole[batch] = values.numpy()
    return found


def accuracy(values: np.ndarray, labels: np.ndarray, n: int) -> float:
    """Of a regression on the first `n` rows, its strength chosen among them by cross-validation, on the last 1,000."""
    regression = make_pipeline(StandardScaler(), LogisticRegressionCV(Cs=np.logspace(-5, 0, 6), cv=5, max_iter=2000))
    return float(regression.fit(values[:n], labels[:n]).score(values[-_JUDGED:], labels[-_JUDGED:]))


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=[], help="folders of weights, beside the quickstart's")
    given = parser.parse_args(args)
    texts, labels = reviews()
    for model in given.models:
        if np.isin(hash_texts(texts[-_JUDGED:]), read_hashes(Path(model))).any():
            sys.exit(f"error: {model} has read reviews that judge here: pre-train with benchmarks/judged.yaml held out")
    columns: dict[str, dict[tuple[int, str], list[str]]] = {}
    for name, model in {"as published": str(quickstart_inputs()[0]), **{m: m for m in given.models}}.items():
        columns[name] = {
            at: [f"{100 * accuracy(values, labels, n):.1f}" for n in _LABELS]
            for at, values in vectors(model, texts).items()
        }
    places = sorted(columns["as published"], key=lambda at: (at[1], at[0]))
    header = ["vector", *(f"{name}, {n:,} labels" for name in columns for n in _LABELS)]
    table = [[f"layer {at[0]}, {at[1]}", *(cell for found in columns.values() for cell in found[at])] for at in places]
    command = shlex.join(["python", "-m", "benchmarks.layers", *(sys.argv[1:] if args is None else args)])
    text = "## What each layer knows\n\nAccuracy, %, of logistic regression on the vectors of a network that was not"
    text += f" fine-tuned, on {_JUDGED:,} reviews.\n\n{markdown_table(header, table)}\n\n{provenance(command)}"
    print("\n" + text)
    write_section(RESULTS, "layers", text)
    print(f"\nWritten to {RESULTS}")


if __name__ == "__main__":
    main()
