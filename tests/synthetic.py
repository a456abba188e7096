"""Reviews made up of a few words and a tiny BERT that can learn them, so that nothing need be shipped."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import BertConfig, BertForPreTraining, BertTokenizerFast  # type: ignore[attr-defined]

_GOOD = ["wonderful", "great", "moving", "brilliant", "charming"]
_BAD = ["awful", "boring", "terrible", "dull", "clumsy"]
_PLAIN = ["the", "film", "plot", "actor", "scene", "was", "is", "and", "a", "very", "quite", "story", "music", "end"]
WORDS = [*_GOOD, *_BAD, *_PLAIN]


def synthetic_corpus(n: int, seed: int = 0) -> pd.DataFrame:
    """`n` reviews of 2 to 12 sentences, no two of them alike, without labels."""
    rng = np.random.default_rng(seed)
    texts = []
    for i in range(n):
        sentences = [rng.choice(WORDS, size=int(rng.integers(3, 12))).tolist() for _ in range(int(rng.integers(2, 13)))]
        sentences[0].append("abcdefghij"[i % 10] + " " + "abcdefghij"[i // 10 % 10])
        texts.append(" ".join(" ".join(words).capitalize() + "." for words in sentences))
    return pd.DataFrame({"text": texts})


def synthetic_reviews(n: int, seed: int = 0) -> pd.DataFrame:
    """`n` reviews of 5 to 100 words, half of them neg and half pos; sorted by label, as the real ones are."""
    rng = np.random.default_rng(seed)
    labels = ["neg"] * (n // 2) + ["pos"] * (n - n // 2)
    texts = []
    for i, label in enumerate(labels):
        words = rng.choice(_PLAIN, size=int(rng.integers(5, 100))).tolist()
        for place in rng.integers(0, len(words), size=max(2, len(words) // 6)):
            words[place] = str(rng.choice(_GOOD if label == "pos" else _BAD))
        texts.append(" ".join(words) + f" {'abcdefghij'[i % 10]} .")
    return pd.DataFrame({"text": texts, "label": labels})


LABELS = {"praise": _GOOD[:2], "blame": _BAD[:2], "music": ["music", "end"]}
"""Labels that a text may have together, and the words that tell each of them."""


def several_labels(n: int, seed: int = 0) -> pd.DataFrame:
    """`n` reviews with any of three labels, of which the last is rare, as columns of 0 and 1."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        has = {name: int(rng.random() < share) for name, share in zip(LABELS, (0.5, 0.4, 0.15), strict=True)}
        words = rng.choice(_PLAIN[:11], size=int(rng.integers(5, 40))).tolist()
        for name in (name for name, here in has.items() if here):
            place = int(rng.integers(len(words)))
            words[place:place] = rng.choice(LABELS[name], size=6).tolist()
        rows.append({"text": " ".join(words), **has})
    return pd.DataFrame(rows)


def write_tiny_bert(folder: Path) -> None:
    """Writes a BERT of 2 layers, hidden size 32, at most 128 tokens, with both heads, and its tokenizer."""
    folder.mkdir(exist_ok=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ",", "<", ">", "/", "br", *WORDS]
    vocabulary += [chr(c) for c in range(ord("a"), ord("z") + 1)] + [
        f"##{chr(c)}" for c in range(ord("a"), ord("z") + 1)
    ]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(vocabulary)) + "\n")
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
    tokenizer.model_max_length = 128
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    BertForPreTraining(config).save_pretrained(folder)
