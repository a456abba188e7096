"""Words and their tokens, and what a score loses without them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from src.data.tokenization import Encoder, Truncation
from src.inference.classifier import load
from src.inference.explaining.words import Words, explanation, weights_by_leaving_out
from src.models.tasks.multi_label import MultiLabel
from src.models.tasks.single_label import SingleLabel

TEXTS = [
    "The film was great, and the plot [SEP] awful.",
    "  \u200b wonderful\0film\n\nunbelievable<br />end \U0001f642\U0001f642 x",
    "영화가 좋다 映画は面白い",
    "a" * 200,
    "great the film awful " * 40,
    "\0",
]


@pytest.mark.parametrize("truncation", ["head", "tail", "head_tail", "windows"])
@pytest.mark.parametrize("text", TEXTS)
def test_every_token_has_its_place_and_its_word(tiny_bert: Path, text: str, truncation: Truncation) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    encoder = Encoder(tokenizer, 24, truncation)
    words = Words.of(text, encoder)
    for window, places, word_of in zip(words.windows, encoder.places(text), words.word_of, strict=True):
        assert len(window) == len(places) == len(word_of)
        for token, place, word in zip(window, places, word_of, strict=True):
            if place is None:
                assert token in tokenizer.all_special_ids
                assert word == -1
            else:
                start, end = words.spans[word]
                assert start <= place[0] < end
                piece = tokenizer.convert_ids_to_tokens(token).removeprefix("##")
                assert piece == "[UNK]" or piece in text[slice(*place)].lower()
    found = explanation(
        words, np.zeros(len(words.spans)), np.ones((len(words.windows), 2), np.float32), SingleLabel(["a", "b"])
    )
    assert "".join(piece["text"] for piece in found["pieces"]) == text


def test_the_weight_of_a_word_is_what_the_score_loses_without_it(tiny_checkpoint: Path) -> None:
    classifier = load(tiny_checkpoint)
    encoder = replace(classifier.encoder, max_length=16, truncation="windows")
    words = Words.of("the plot was awful and the end great , the film is moving music a story was dull .", encoder)
    groups = words.groups(most=100)
    n = len(words.windows)
    assert n == 2
    asked = [*words.windows, *(words.without(*group) for group in groups)]
    logits = classifier.logits_of_tokens([[window] for window in asked])
    weights = weights_by_leaving_out(words, groups, logits, classifier.task)
    whole = logits[:n].mean(axis=0)
    best = int(whole.argmax())
    for word, (start, end) in enumerate(words.spans):
        kept = [
            [token for token, place in zip(window, places, strict=True) if place is None or not start <= place[0] < end]
            for window, places in zip(words.windows, encoder.places(words.text), strict=True)
        ]
        without = classifier.logits_of_tokens([kept])[0]
        fall = (whole[best] - whole[1 - best]) - (without[best] - without[1 - best])
        assert weights[word] == pytest.approx(fall, abs=1e-5)


def test_a_word_that_is_not_read_has_no_weight_and_many_words_are_weighed_together(tiny_bert: Path) -> None:
    words = Words.of("great " * 30, Encoder(AutoTokenizer.from_pretrained(tiny_bert), 22, "head"))
    groups = words.groups(most=10)
    assert [together for _, together in groups] == [[i, i + 1] for i in range(0, 20, 2)]
    logits = np.zeros((11, 2), np.float32)
    logits[0] = 2, 1
    logits[1] = 1, 1
    weights = weights_by_leaving_out(words, groups, logits, SingleLabel(["a", "b"]))
    np.testing.assert_allclose(weights[:4], [0.5, 0.5, 0.5, 0.5])
    assert np.isnan(weights[20:]).all()
    found = explanation(words, weights, logits[:1], SingleLabel(["a", "b"]))
    assert [piece["weight"] for piece in found["pieces"]][19:21] == [0.5, None]


def test_what_is_explained_is_the_best_label_against_the_second_or_the_likeliest_of_several() -> None:
    logits = torch.tensor([0.5, 3.0, -1.0, 2.0])
    assert SingleLabel(list("abcd")).contrast(logits).tolist() == [0, 1, 0, -1]
    assert MultiLabel(list("abcd")).contrast(logits).tolist() == [0, 1, 0, 0]
