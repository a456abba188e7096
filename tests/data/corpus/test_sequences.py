"""What pre-training reads: masks with BERT's shares, pairs that follow or do not, the same draws wherever they are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from src.data.corpus.chunks import cut_into_chunks, room_for_text
from src.data.corpus.pairs import ELSEWHERE, FOLLOWS
from src.data.corpus.sequences import DrawnBatches, SequenceCollator, Sequences
from tests.synthetic import synthetic_corpus

_LENGTH = 48
_N_REVIEWS = 300


@pytest.fixture(scope="module")
def tokenizer(tiny_bert: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_bert)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return synthetic_corpus(_N_REVIEWS)["text"].tolist()


@pytest.fixture(scope="module")
def make(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> Callable[..., Sequences]:
    def sequences(pairs: bool = True, mask_rate: float = 0.15, seed: int = 42) -> Sequences:
        rows: dict[str, list[Any]] = {"input_ids": [], "ends": [], "length": [], "review": []}
        for review, chunks in enumerate(cut_into_chunks(texts, tokenizer, room_for_text(_LENGTH, pairs), pairs)):
            for chunk in chunks:
                rows["input_ids"].append([token for sentence in chunk for token in sentence])
                rows["ends"].append(np.cumsum([len(sentence) for sentence in chunk]).tolist())
                rows["length"].append(min(len(rows["input_ids"][-1]) + 3, _LENGTH))
                rows["review"].append(review)
        return Sequences(datasets.Dataset.from_dict(rows), tokenizer, _LENGTH, mask_rate, pairs, seed)

    return sequences


def _plain(row: dict[str, Any]) -> list[int]:
    """The tokens before they were masked."""
    masked = row["labels"] != -100
    return torch.where(masked, row["labels"], row["input_ids"]).tolist()


def _segments(row: dict[str, Any], sep: int) -> tuple[list[int], list[int]]:
    ids = _plain(row)
    middle = ids.index(sep)
    return ids[1:middle], ids[middle + 1 : -1]


def _epoch(sequences: Sequences, epoch: int) -> list[dict[str, Any]]:
    return sequences.__getitems__([(epoch, row) for row in range(len(sequences))])


def test_masks_have_berts_shares(make: Callable[..., Sequences], tokenizer: PreTrainedTokenizerBase) -> None:
    rows = [row for epoch in range(10) for row in _epoch(make(), epoch)]
    inputs, labels = (torch.cat([row[name] for row in rows]) for name in ("input_ids", "labels"))
    masked = labels != -100
    plain = torch.cat([torch.tensor(_plain(row)) for row in rows])
    special = torch.isin(plain, torch.tensor(tokenizer.all_special_ids))
    assert not (masked & special).any()
    n = int((~special).sum())
    assert n > 150_000
    assert int(masked.sum()) / n == pytest.approx(0.15, abs=0.003)
    as_mask = inputs[masked] == tokenizer.mask_token_id
    unchanged = inputs[masked] == labels[masked]
    # a random token is now and then the mask or the token itself
    by_chance = 0.1 / len(tokenizer)
    assert as_mask.float().mean().item() == pytest.approx(0.8 + by_chance, abs=0.006)
    assert unchanged.float().mean().item() == pytest.approx(0.1 + by_chance, abs=0.006)
    drawn = torch.bincount(inputs[masked][~as_mask & ~unchanged], minlength=len(tokenizer))
    assert (drawn == 0).nonzero().flatten().tolist() == [tokenizer.mask_token_id], "any token may stand in for another"
    assert torch.equal(inputs[~masked], plain[~masked])


def test_half_of_the_pairs_follow_and_the_others_are_of_another_review(
    make: Callable[..., Sequences], tokenizer: PreTrainedTokenizerBase, texts: list[str]
) -> None:
    sequences = make()
    bodies = [" ".join(map(str, ids)) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    reviews, chunks = sequences.rows["review"][:], sequences.rows["input_ids"][:]
    labels = []
    for epoch in range(4):
        for number, row in enumerate(_epoch(sequences, epoch)):
            first, second = _segments(row, tokenizer.sep_token_id)
            own = bodies[reviews[number]]
            a, b = " ".join(map(str, first)), " ".join(map(str, second))
            assert first
            assert second
            assert len(first) + len(second) <= _LENGTH - 3
            assert a in own
            label = row["next_sentence_label"]
            stored = chunks[number]
            if label == FOLLOWS:
                assert b in own
                if len(stored) <= _LENGTH - 3:
                    assert first + second == stored, "adjacent, and the whole chunk"
            else:
                assert any(b in body for i, body in enumerate(bodies) if i != reviews[number])
            labels.append(label)
            ends = row["token_type_ids"].tolist()
            assert ends == [0] * (len(first) + 2) + [1] * (len(second) + 1)
    assert np.mean(labels) == pytest.approx(0.5, abs=0.03)


def test_neither_lengths_nor_edges_tell_whether_a_pair_follows(
    make: Callable[..., Sequences], tokenizer: PreTrainedTokenizerBase
) -> None:
    """Chunks that are shorter than a sequence, the last of a review, most of all: what follows there is not cut."""
    sequences = make()
    chunks, ends = sequences.rows["input_ids"][:], sequences.rows["ends"][:]
    at_ends = {tuple(ids[a:]) for ids, stops in zip(chunks, ends, strict=True) for a in stops[:-1]}
    seen: dict[int, list[tuple[int, int, bool, bool]]] = {FOLLOWS: [], ELSEWHERE: []}
    for epoch in range(8):
        for number, row in enumerate(_epoch(sequences, epoch)):
            if len(chunks[number]) > _LENGTH - 3:
                continue
            first, second = _segments(row, tokenizer.sep_token_id)
            whole = len(first) in ends[number] and first == chunks[number][: len(first)]
            seen[row["next_sentence_label"]].append((len(first), len(second), whole, tuple(second) in at_ends))
    follows, elsewhere = (np.mean(seen[label], axis=0) for label in (FOLLOWS, ELSEWHERE))
    assert min(map(len, seen.values())) > 500
    np.testing.assert_allclose(follows[:2], elsewhere[:2], rtol=0.07, err_msg="lengths of the segments")
    np.testing.assert_allclose(follows[2:], elsewhere[2:], atol=0.1, err_msg="segments that are whole sentences")


def test_draws_differ_by_epoch_and_seed_but_not_by_company(make: Callable[..., Sequences]) -> None:
    def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
        return all(torch.equal(torch.as_tensor(a[name]), torch.as_tensor(b[name])) for name in a)

    sequences = make()
    alone = sequences.__getitems__([(3, 7)])[0]
    assert same(alone, sequences.__getitems__([(3, 1), (3, 7), (3, 2)])[1])
    assert same(alone, make().__getitems__([(3, 7)])[0])
    assert not same(alone, sequences.__getitems__([(4, 7)])[0])
    assert not same(alone, make(seed=43).__getitems__([(3, 7)])[0])
    # those of evaluation are always the same
    assert same(sequences[7], make(seed=43)[7])
    assert not same(sequences[7], sequences[8])


def test_without_pairs_it_is_one_segment(make: Callable[..., Sequences], tokenizer: PreTrainedTokenizerBase) -> None:
    sequences = make(pairs=False)
    for number, row in enumerate(_epoch(sequences, 0)):
        ids = _plain(row)
        assert ids == [tokenizer.cls_token_id, *sequences.rows[number]["input_ids"], tokenizer.sep_token_id]
        assert not row["token_type_ids"].any()


def test_batches_are_padded_and_masked(make: Callable[..., Sequences], tokenizer: PreTrainedTokenizerBase) -> None:
    rows = _epoch(make(), 0)[:5]
    batch = SequenceCollator(tokenizer.pad_token_id)(rows)
    for i, row in enumerate(rows):
        n = len(row["input_ids"])
        assert batch["attention_mask"][i].tolist() == [1] * n + [0] * (batch["input_ids"].shape[1] - n)
        assert torch.equal(batch["input_ids"][i, :n], row["input_ids"])
        assert (batch["input_ids"][i, n:] == tokenizer.pad_token_id).all()
        assert (batch["labels"][i, n:] == -100).all()
    assert batch["next_sentence_label"].tolist() == [row["next_sentence_label"] for row in rows]


def test_training_batches_name_their_epoch() -> None:
    batches = DrawnBatches(np.arange(1, 11), batch_size=4, seed=1, group_by_length=True, rank=0, world_size=1)
    batches.epoch = 5
    drawn = [draw for batch in batches for draw in batch]
    assert {epoch for epoch, _ in drawn} == {5}
    assert sorted(row for _, row in drawn) == list(range(10))
