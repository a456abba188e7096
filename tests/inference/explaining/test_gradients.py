"""Integrated gradients: their sum, and that they find the words that a model has learnt."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from src.inference.classifier import load_network
from src.inference.explaining.gradients import GAP, integrated_gradients
from src.inference.explaining.words import Words

pytest.importorskip("captum")


@pytest.mark.parametrize("max_length", [64, 16])
def test_weights_add_up_to_the_difference_from_the_masked_text(tiny_checkpoint: Path, max_length: int) -> None:
    """In windows too, of which the last is shorter than the others."""
    archive, network = load_network(tiny_checkpoint)
    encoder = replace(archive.encoder, max_length=max_length, truncation="windows")
    words = Words.of("the film was great and a moving plot , the music is very charming ; the story was quite", encoder)
    factors = torch.tensor([-1.0, 1.0])

    def score(windows: list[list[int]]) -> float:
        with torch.no_grad():
            return float(torch.stack([network(torch.tensor([w])).logits[0] for w in windows]).mean(dim=0) @ factors)

    mask = encoder.tokenizer.mask_token_id
    masked = [
        [mask if word >= 0 else token for token, word in zip(window, word_of, strict=True)]
        for window, word_of in zip(words.windows, words.word_of, strict=True)
    ]
    found = integrated_gradients(network, encoder.tokenizer, words, factors)
    difference = score(words.windows) - score(masked)
    assert abs(difference) > 0.1
    assert found.difference == pytest.approx(difference, abs=1e-4)
    assert found.words.sum() == pytest.approx(difference, rel=GAP)
    assert found.gap <= GAP
    best = {words.text[slice(*words.spans[i])] for i in np.argsort(-found.words)[:3]}
    assert best == {"great", "moving", "charming"}
