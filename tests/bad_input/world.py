"""What the tests of mistakes share: the files that a command line names, and what is expected of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from tests.conftest import write_reviews
from tests.synthetic import synthetic_reviews

USAGE, MISTAKE = 2, 1


@dataclass(frozen=True)
class World:
    """Valid options and files, and ways to damage them.

    Attributes:
        here: the working directory of the command.
        tiny: valid options for a fine-tuning.
        pretraining: valid options for a pre-training.
        model: folder of the tiny model.
        checkpoint: the best.ckpt of a finished run.
    """

    here: Path
    tiny: list[str]
    pretraining: list[str]
    model: Path
    checkpoint: Path

    def fit(self, *options: str) -> list[str]:
        return ["fit", *self.tiny, *options]

    def reviews(self, change: Callable[[pd.DataFrame], object], suffix: str = ".csv") -> str:
        """An option that names a file of 200 reviews after `change` was applied to it."""
        frame = synthetic_reviews(200)
        change(frame)
        return f"--data.dataset={write_reviews(self.here / f'changed{suffix}', frame)}"

    def file(self, name: str, content: str | bytes = "") -> Path:
        path = self.here / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def altered(self, name: str, change: Callable[[dict[str, Any]], object]) -> Path:
        """A copy of the checkpoint after `change` was applied to its content."""
        content = torch.load(self.checkpoint, weights_only=True)
        change(content)
        torch.save(content, self.here / name)
        return self.here / name

    def altered_model(self, change: Callable[[Path], object]) -> str:
        """An option that names a copy of the model's folder after `change` was applied to it."""
        folder = self.here / "altered-model"
        folder.mkdir()
        for file in self.model.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        change(folder)
        return f"--model.model_name_or_path={folder}"

    def files(self) -> set[Path]:
        """All files and folders where a command could leave something behind."""
        return {path for folder in (self.here, self.checkpoint.parents[1]) for path in folder.rglob("*")}


Cases = dict[str, tuple[Callable[[World], list[str]], int, list[str]]]
"""By name: a function that gives the command line, the exit status, and words of the line on stderr."""
