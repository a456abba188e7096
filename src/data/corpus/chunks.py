"""Reviews cut into sentences, and sentences grouped into chunks: the text of one sequence of pre-training."""

from collections.abc import Sequence

import sentencex
from transformers import PreTrainedTokenizerBase

from src.data.tokenization import token_ids

Tokens = list[int]


def room_for_text(sequence_length: int, pairs: bool) -> int:
    """Tokens of a sequence besides [CLS] and the [SEP] after each of its segments, which are two with `pairs`."""
    return sequence_length - (3 if pairs else 2)


def cut_into_chunks(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, room: int, pairs: bool
) -> list[list[list[Tokens]]]:
    """The chunks of each text, each as its sentences. No token is lost, except a single one at a text's end.

    Args:
        tokenizer: a fast one.
        room: tokens of a chunk that fit into a sequence.
        pairs: makes chunks of whole sentences that can be split in two for next-sentence prediction; without, a chunk
            is one piece of at most `room` tokens.
    """
    if not pairs:
        return [[[ids[i : i + room]] for i in range(0, len(ids), room)] for ids in token_ids(tokenizer, texts)]
    sentences = [split_sentences(text) for text in texts]
    encoded = iter(token_ids(tokenizer, [sentence for text in sentences for sentence in text]))
    return [group_sentences([next(encoded) for _ in text], room) for text in sentences]


def split_sentences(text: str) -> list[str]:
    """The sentences of an English text, in order; joined they are the text.

    sentencex, by Wikimedia, splits 35 reviews a millisecond; pysbd takes 60 ms for one.
    """
    return [sentence for sentence in sentencex.segment("en", text) if sentence.strip()]


def group_sentences(sentences: Sequence[Tokens], room: int) -> list[list[Tokens]]:
    """Groups consecutive sentences until they fill `room` tokens, with the last one in full, as BERT does.

    A sentence longer than half of `room` is cut first, and a chunk of one sentence is halved. So each chunk has two
    parts or more and can be split, and none must be a negative example, as a chunk of one sentence must in BERT.
    (`create_instances_from_document`, https://github.com/google-research/bert/blob/master/create_pretraining_data.py)
    """
    most = max(1, room // 2)
    pieces = [sentence[i : i + most] for sentence in sentences for i in range(0, len(sentence), most)]
    chunks: list[list[Tokens]] = [[]]
    for piece in pieces:
        if sum(map(len, chunks[-1])) >= room:
            chunks.append([])
        chunks[-1].append(piece)
    return [parts for chunk in chunks if len(parts := _halved_if_single(chunk)) > 1]


def _halved_if_single(chunk: list[Tokens]) -> list[Tokens]:
    if len(chunk) != 1 or len(chunk[0]) < 2:
        return chunk
    middle = len(chunk[0]) // 2
    return [chunk[0][:middle], chunk[0][middle:]]
