"""How many wrong labels does `check` find? Plants some in the quickstart's training reviews.

    python -m benchmarks.wrong_labels

With cleanlab installed (`pip install cleanlab`), its rankings are measured on the same probabilities.
"""

import argparse
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from src.checking.probe import doubted, out_of_sample, vectors_of
from src.data.imdb import ImdbDataModule
from src.data.prepared_reviews import choose_subsets, classes_of, labelled_splits
from src.models.origin import ClassifierOrigin
from src.models.tasks.single_label import SingleLabel
from src.system.yaml_reading import read_yaml

_SHARE = 0.05
_PLANTINGS = 10
_LISTS = (20, 50, 500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/quickstart.yaml")
    parser.add_argument("--reviews", type=int, default=1000)
    args = parser.parse_args()
    config = read_yaml(Path(args.config))
    model = config["model"]["init_args"]
    data = ImdbDataModule(
        **config["data"]["init_args"] | {"train_size": args.reviews}, tokenizer=model["model_name_or_path"]
    )
    splits = labelled_splits(data.source, data.selection)
    rows = choose_subsets(splits, data.selection)["train"]
    texts = splits["train"].select(rows.indices)[data.selection.text_column][:]
    y = classes_of(splits, "train", data.selection)[rows.indices]
    network, _ = ClassifierOrigin(model["model_name_or_path"], pooling=model["pooling"]).build(SingleLabel(["0", "1"]))
    x = vectors_of(network, data.encoder.encode(texts), int(data.tokenizer.pad_token_id), lambda _: None)
    found: dict[str, list[list[int]]] = {}
    accuracies = []
    for seed in range(_PLANTINGS):
        rng = np.random.default_rng(seed)
        wrong = rng.choice(len(y), round(_SHARE * len(y)), replace=False)
        given = y.copy()
        given[wrong] = 1 - given[wrong]
        probabilities = out_of_sample(x, given, 2)
        accuracies.append((probabilities.argmax(axis=1) == given).mean())
        for name, order in rankings(probabilities, given).items():
            found.setdefault(name, []).append([int(np.isin(order[:n], wrong).sum()) for n in _LISTS])
    print(f"{len(y)} reviews, {len(wrong)} planted, {_PLANTINGS} times; the probe's accuracy {np.mean(accuracies):.3f}")
    print("| ranking | " + " | ".join(f"precision at {n}" for n in _LISTS) + " |")
    print("| --- |" + " ---: |" * len(_LISTS))
    for name, counts in found.items():
        mean, sd = np.mean(counts, axis=0) / _LISTS, np.std(counts, axis=0, ddof=1) / _LISTS
        print(f"| {name} | " + " | ".join(f"{m:.3f} (sd {s:.3f})" for m, s in zip(mean, sd, strict=True)) + " |")


def rankings(probabilities: np.ndarray, given: np.ndarray) -> dict[str, np.ndarray]:
    """The rows by each way of doubting their labels, the most doubtful first."""
    orders = {"probability of the label (`check`)": doubted(probabilities, given)}
    if importlib.util.find_spec("cleanlab"):
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores

        for method in ("self_confidence", "normalized_margin", "confidence_weighted_entropy"):
            for adjusted in (False, True):
                if adjusted and method == "confidence_weighted_entropy":
                    continue
                scores: Any = get_label_quality_scores(given, probabilities, method=method, adjust_pred_probs=adjusted)
                orders[f"cleanlab, {method}{', adjusted' if adjusted else ''}"] = np.argsort(scores, kind="stable")
        issues = find_label_issues(given, probabilities, return_indices_ranked_by="self_confidence")
        rest = [row for row in doubted(probabilities, given).tolist() if row not in set(issues.tolist())]
        orders["cleanlab, find_label_issues first"] = np.asarray([*issues.tolist(), *rest])
    return orders


if __name__ == "__main__":
    main()
