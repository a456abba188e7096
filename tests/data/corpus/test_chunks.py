"""Reviews cut into chunks: whole sentences, nothing lost, each of two parts at least."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from src.data.corpus.chunks import cut_into_chunks, group_sentences, split_sentences

_TEXT = "The film was great. A very dull plot! Was the music moving? The end."


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=40), min_size=1, max_size=12), st.integers(2, 30))
def test_no_token_is_lost_and_each_chunk_can_be_parted(sentences: list[list[int]], room: int) -> None:
    chunks = group_sentences(sentences, room)
    tokens = [token for chunk in chunks for piece in chunk for token in piece]
    given_tokens = [token for sentence in sentences for token in sentence]
    # but for a single token at the very end, which cannot be parted
    assert tokens in (given_tokens, given_tokens[:-1])
    for chunk in chunks:
        assert len(chunk) >= 2
        assert all(chunk)
        assert sum(map(len, chunk[:-1])) < room, "it was full before its last sentence"


def test_sentences_end_where_they_do() -> None:
    assert [sentence.strip() for sentence in split_sentences(_TEXT)] == [
        "The film was great.",
        "A very dull plot!",
        "Was the music moving?",
        "The end.",
    ]


@pytest.mark.parametrize("pairs", [True, False])
def test_chunks_hold_the_tokens_of_the_text(tiny_bert: Path, pairs: bool) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    (chunks,) = cut_into_chunks([_TEXT], tokenizer, room=9, pairs=pairs)
    whole = tokenizer(_TEXT, add_special_tokens=False)["input_ids"]
    assert [token for chunk in chunks for piece in chunk for token in piece] == whole
    if pairs:
        first = tokenizer("The film was great.", add_special_tokens=False)["input_ids"]
        assert [token for piece in chunks[0][:2] for token in piece][: len(first)] == first
    else:
        assert [len(piece) for (piece,) in chunks] == [9, 9]
