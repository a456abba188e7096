"""`classify.py`: what makes an exported folder run by itself, with ONNX Runtime, `tokenizers` and NumPy alone."""

import runpy
import shutil
from pathlib import Path

import numpy as np

from src.data.tokenization import Encoder
from src.system.errors import UserError

SCRIPT = "classify.py"
REQUIREMENTS = "requirements.txt"
_FILES = Path(__file__).parent / "standalone"


def write_script(folder: Path) -> None:
    """Writes the script and its requirements."""
    for name in (SCRIPT, REQUIREMENTS):
        shutil.copyfile(_FILES / name, folder / name)


def probabilities_by_script(folder: Path, texts: list[str], encoder: Encoder) -> np.ndarray:
    """What the script in `folder` makes of texts, float64 of shape (texts, labels).

    Raises:
        UserError: it reads them otherwise than `encoder`.
    """
    # unlike an import, this leaves no bytecode in the folder
    classifier = runpy.run_path(str(folder / SCRIPT))["Classifier"](folder)
    if classifier.encode(texts) != encoder.encode(texts):
        raise UserError(f"{SCRIPT} makes other tokens of the texts than the training did")
    found: np.ndarray = classifier.probabilities(texts)
    return found
