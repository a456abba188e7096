"""Do explanations name the words that decide? Takes the highest-weighted words out of real reviews, and random ones.

    python -m benchmarks.explanations --ckpt_path best

A word is removed from the text, which is then read anew. If its weight means something, the score (the logit of the
label less that of the other) falls further than without a word drawn at random. The reviews are test rows of the
quickstart, which its model was not trained on. Finished reviews are kept in build/bench/explanations.jsonl, so that a
stopped program goes on; delete it to begin anew.
"""

import argparse
import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from benchmarks.processes import WORK
from benchmarks.repeats import Row, append_line, read_lines
from benchmarks.report import markdown_table, publish
from benchmarks.speed.prediction import read_texts
from src.inference.classifier import Classifier, load_network, torch_network
from src.inference.explaining.gradients import GAP, integrated_gradients
from src.inference.explaining.words import Words, weights_by_leaving_out
from src.runs.directories import find_model

_REMOVED = (1, 3, 5, 10)
_DRAWS = 3
_GROUPS = 100  # as `serve` does
_STORE = WORK / "explanations.jsonl"


def measure(number: int, text: str, classifier: Classifier, network: PreTrainedModel) -> Row:
    """How far the score of a review falls without its first k words in an order: by weight, and at random."""
    words = Words.of(text, classifier.encoder)
    logits = classifier.logits_of_tokens([[window] for window in words.windows])
    factors = classifier.task.contrast(torch.from_numpy(logits.mean(axis=0)))
    found = integrated_gradients(network, classifier.encoder.tokenizer, words, factors)
    groups = words.groups(_GROUPS)
    without = classifier.logits_of_tokens([[words.without(*group)] for group in groups])
    left_out = weights_by_leaving_out(words, groups, np.concatenate([logits, without]), classifier.task)
    read = np.flatnonzero(~np.isnan(found.words))
    random = np.random.default_rng(number)
    orders = {
        "gradients": [read[np.argsort(-found.words[read], kind="stable")]],
        "leaving out": [read[np.argsort(-left_out[read], kind="stable")]],
        "random": [random.permutation(read) for _ in range(_DRAWS)],
    }
    texts = [text] + [
        _without(words, order[:k].tolist()) for each in orders.values() for order in each for k in _REMOVED
    ]
    scores = classifier.logits(texts) @ factors.numpy()
    falls = (scores[0] - scores[1:]).reshape(-1, len(_REMOVED))
    places = np.cumsum([0] + [len(each) for each in orders.values()])
    return {
        "review": number,
        "falls": {name: falls[places[i] : places[i + 1]].mean(axis=0).tolist() for i, name in enumerate(orders)},
        **{"gap": found.gap, "steps": found.steps, "score": float(scores[0]), "words": len(read)},
    }


def _without(words: Words, removed: Sequence[int]) -> str:
    gone = set(removed)
    return " ".join(words.text[slice(*span)] for i, span in enumerate(words.spans) if i not in gone)


def render(rows: Sequence[Row]) -> str:
    """Mean falls with 95% intervals, and in how many reviews the weights' words mattered more than random ones."""
    lines = []
    for i, k in enumerate(_REMOVED):
        falls = {name: np.array([row["falls"][name][i] for row in rows]) for name in rows[0]["falls"]}
        more = [f"{(falls[name] > falls['random']).mean():.1%}" for name in ("gradients", "leaving out")]
        lines.append([f"{k} word{'s' * (k > 1)}", *map(_mean, falls.values()), *more])
    header = [
        "removed",
        "by gradients",
        "by leaving out",
        "at random",
        "gradients over random",
        "leaving out over random",
    ]
    steps, counts = np.unique([row["steps"] for row in rows], return_counts=True)
    met = sum(row["gap"] <= GAP for row in rows)
    taken = ", ".join(f"{step} steps for {count}" for step, count in zip(steps, counts, strict=True))
    return f"""{markdown_table(header, lines)}

The mean score of the whole reviews is {np.mean([row["score"] for row in rows]):.2f}, and the mean number of words read
{np.mean([row["words"] for row in rows]):.0f}. The weights by gradients add up to the difference of the scores within
{GAP:.0%} in {met} of {len(rows)} reviews: {taken}."""


def _mean(falls: np.ndarray) -> str:
    half = 1.96 * falls.std(ddof=1) / np.sqrt(len(falls))
    return f"{falls.mean():.2f} ± {half:.2f}"


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt_path", default="best", help="default: %(default)s")
    parser.add_argument("--reviews", type=int, default=200, help="default: %(default)s")
    given = parser.parse_args(args)
    path = find_model(given.ckpt_path)
    archive, network = load_network(path)
    classifier = Classifier(torch_network(network), archive.encoder, archive.task, [], on_gpu=False)
    mark = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    done = {row["review"]: row for row in read_lines(_STORE) if row["model"] == mark}
    for number, text in enumerate(read_texts(given.reviews)):
        if number not in done:
            done[number] = {**measure(number, text, classifier, network), "model": mark}
            append_line(_STORE, done[number])
            print(f"{number + 1} of {given.reviews}", flush=True)
    table = render([done[number] for number in range(given.reviews)])
    body = f"""{given.reviews} real reviews of the quickstart's test rows. How far the score, the logit of the predicted
label less that of the other, falls without k words: those with the highest weights by integrated gradients (`explain`),
those by leaving words out (`serve`, at most {_GROUPS} groups), and random ones (mean of {_DRAWS} draws). Means with 95%
intervals over the reviews; the last columns are shares of reviews.

{table}"""
    publish("Explanations: words taken out", body, "benchmarks.explanations", args, "explanations")


if __name__ == "__main__":
    main()
