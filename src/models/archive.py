"""A tokenizer as plain text inside a checkpoint, so that it can be read with `weights_only=True`."""

import tempfile
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase


def archive_tokenizer(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """The tokenizer's files: name to content."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {file.name: file.read_text() for file in sorted(Path(folder).iterdir()) if file.is_file()}


def restore_tokenizer(files: dict[str, str]) -> PreTrainedTokenizerBase:
    """The tokenizer of which `archive_tokenizer` made `files`."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / Path(name).name).write_text(content)
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
        return tokenizer
