"""The Python of the README and the how-to runs as it is written, with the tiny model and data in place of real ones."""

from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks

_BLOCKS = [
    pytest.param(code, id=f"{page.stem}-{i}")
    for page in (ROOT / "README.md", ROOT / "docs" / "how-to.md")
    for i, code in enumerate(blocks(page, "python"))
    if "ImdbDataModule" in code
]


@pytest.mark.parametrize("code", _BLOCKS)
def test_block_runs(code: str, tiny_bert: Path, reviews_csv: Path) -> None:
    sizes = "train_size=48, val_size=24, test_size=24, max_length=64"
    options = f"tokenizer={str(tiny_bert)!r}, dataset={str(reviews_csv)!r}, {sizes}"
    code = code.replace("ImdbDataModule()", f"ImdbDataModule({options})")
    for real, tiny in (("bert-base-uncased", tiny_bert), ("stanfordnlp/imdb", reviews_csv)):
        code = code.replace(f'"{real}"', repr(str(tiny)))
    code = code.replace("train_size=1000", sizes)
    exec(code, {})
