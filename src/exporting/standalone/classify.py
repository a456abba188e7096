"""Labels texts with the ONNX model in this file's folder. It needs the packages of requirements.txt, and nothing else.

    python classify.py < reviews.txt > labels.jsonl      # a text a line
    python classify.py model_int8.onnx < reviews.txt     # with another of the folder's models

    from classify import Classifier
    classifier = Classifier("THIS_FOLDER")
    classifier(["What a film.", "Two hours lost."])      # a dict for each text, with its label and probabilities

Texts are cut, or read in windows, as in the training.
"""

import json
import signal
import sys
from collections.abc import Sequence
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

try:
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer
except ImportError as error:
    if __name__ != "__main__":
        raise
    sys.exit(f"error: {error.name} is not installed: pip install -r {Path(__file__).with_name('requirements.txt')}")

MODELS = ("model.onnx", "model_int8.onnx")
TEXTS_AT_ONCE = 256
TOKENS_AT_ONCE = 1024  # a call's activations fit the cache then


class Classifier:
    """Texts to labels.

    Args:
        folder: of the model.
        model: a file in it; None takes `model.onnx`, or `model_int8.onnx` where that alone is there.
    """

    def __init__(self, folder: str | Path, model: str | None = None) -> None:
        folder = Path(folder)
        files = (folder / "config.json", folder / "preprocessing.json")
        config, reading = (json.loads(file.read_text("utf-8")) for file in files)
        names = config["id2label"]
        self.labels = [names[str(i)] for i in range(len(names))]
        self.several = config.get("problem_type") == "multi_label_classification"
        self.thresholds = np.array(config.get("thresholds") or [0.5] * len(names))
        self.max_length, self.truncation = reading["max_length"], reading["truncation"]
        self.prefix, self.suffix, self.pad = reading["prefix"], reading["suffix"], reading["pad_token_id"]
        # what a text says is text: `[SEP]` and `</s>` in it are never the special tokens
        self.as_text = {int(token): ids for token, ids in reading["special_tokens_as_text"].items()}
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.encode_special_tokens = True
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        there = [name for name in MODELS if (folder / name).is_file()]
        path = folder / (model or (there or MODELS)[0])
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def __call__(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """`label`, `score` (its probability) and `probability_NAME` of each label; all None for an empty text.

        Where a text may have several labels, `label` is a list, and there is no `score`.
        """
        if isinstance(texts, str):
            raise TypeError("give a list of texts, not one text")
        read = iter(self.probabilities([text for text in texts if text.strip()]))
        return [self._answer(next(read) if text.strip() else None) for text in texts]

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Float64 of shape (texts, labels)."""
        parts = [self._logits(texts[i : i + TEXTS_AT_ONCE]) for i in range(0, len(texts), TEXTS_AT_ONCE)]
        logits = np.concatenate([np.empty((0, len(self.labels))), *parts])
        if self.several:
            return np.asarray(np.exp(-np.logaddexp(0, -logits)))
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def encode(self, texts: Sequence[str]) -> list[list[list[int]]]:
        """The token ids of the windows of each text; one window, unless the model reads long texts in windows."""
        found = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        bodies = [[*chain.from_iterable(self.as_text.get(token, [token]) for token in each.ids)] for each in found]
        return [[self.prefix + window + self.suffix for window in self._cut(body)] for body in bodies]

    def _cut(self, body: list[int]) -> list[list[int]]:
        room = self.max_length - len(self.prefix) - len(self.suffix)
        if len(body) <= room:
            return [body]
        if self.truncation == "windows":  # as few as possible, of equal length
            n = -(-len(body) // room)
            return [body[start:end] for start, end in pairwise(len(body) * i // n for i in range(n + 1))]
        # "head_tail" keeps a quarter from the start, and the rest from the end
        head = {"head": room, "tail": 0, "head_tail": round(room * 128 / 510)}[self.truncation]
        return [body[:head] + body[len(body) - (room - head) :]]

    def _logits(self, texts: Sequence[str]) -> np.ndarray:
        """The mean over the windows of each text, float64 of shape (texts, labels)."""
        encoded = self.encode(texts)
        windows = list(chain.from_iterable(encoded))
        logits = np.empty((len(windows), len(self.labels)))
        order = sorted(range(len(windows)), key=lambda i: -len(windows[i]))  # like lengths together: less padding
        start = 0
        while start < len(order):
            batch = order[start : start + max(1, TOKENS_AT_ONCE // len(windows[order[start]]))]
            start += len(batch)
            ids = np.full((len(batch), len(windows[batch[0]])), self.pad, dtype=np.int64)
            mask = np.zeros_like(ids)
            for row, i in enumerate(batch):
                ids[row, : len(windows[i])] = windows[i]
                mask[row, : len(windows[i])] = 1
            logits[batch] = self.session.run(["logits"], {"input_ids": ids, "attention_mask": mask})[0]
        counts = np.array([len(each) for each in encoded])
        return np.asarray(np.add.reduceat(logits, counts.cumsum() - counts) / counts[:, None])

    def _answer(self, found: np.ndarray | None) -> dict[str, Any]:
        names = [f"probability_{label}" for label in self.labels]
        if found is None:
            return dict.fromkeys([*(["label"] if self.several else ["label", "score"]), *names])
        values = [float(f"{value:.7g}") for value in found]  # the network computes in float32
        if self.several:
            label = [self.labels[i] for i in np.flatnonzero(found >= self.thresholds)]
            return {"label": label, **dict(zip(names, values, strict=True))}
        best = int(found.argmax())
        return {"label": self.labels[best], "score": values[best], **dict(zip(names, values, strict=True))}


def main() -> None:
    """Reads texts from standard input, and writes a JSON object for each."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a word
    try:
        classifier = Classifier(Path(__file__).parent, *sys.argv[1:2])
    except Exception as error:  # onnxruntime and tokenizers raise classes of their own
        sys.exit(f"error: the model cannot be read: {' '.join(str(error).split())}")
    try:
        with open(0, encoding="utf-8-sig", newline="\n") as stream:
            while some := [line.rstrip("\r\n") for line in islice(stream, TEXTS_AT_ONCE)]:
                rows = ({"text": text, **answer} for text, answer in zip(some, classifier(some), strict=True))
                sys.stdout.buffer.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
                sys.stdout.buffer.flush()
    except UnicodeDecodeError as error:
        sys.exit(f"error: the texts are not UTF-8: {error.reason}")


if __name__ == "__main__":
    main()
