"""Widths that come again, and batches that are as before but for padding."""

import torch

from src.models.kernels.few_widths import few_widths, with_few_widths


def test_widths_are_few_and_add_little() -> None:
    widths = {width: few_widths(width, 512) for width in range(1, 513)}
    assert len(set(widths.values())) == 16 + 8 + 8, "up to 128 by 8, up to 256 by 16, up to 512 by 32"
    assert all(width <= wide <= width + max(7, width / 8) for width, wide in widths.items())
    assert few_widths(512, 512) == 512


def test_no_width_is_above_what_the_network_takes() -> None:
    assert [few_widths(width, 100) for width in (89, 97, 100)] == [96, 100, 100]
    assert few_widths(120, 100) == 120, "what is longer stays"


def test_a_batch_is_padded_on_the_right() -> None:
    batch = {"input_ids": torch.tensor([[2, 5, 3]]), "attention_mask": torch.ones(1, 3), "labels": torch.tensor([1])}
    wide = with_few_widths(batch, 64)
    assert wide["input_ids"].tolist() == [[2, 5, 3, 0, 0, 0, 0, 0]]
    assert wide["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0, 0, 0]]
    assert wide["labels"] is batch["labels"]
