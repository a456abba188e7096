"""What is written in several files is the same in all of them: the version, and the supported Pythons."""

import re
import tomllib

import yaml

from src import __version__
from tests.docs.pages import ROOT


def test_version() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"] == __version__
    released = re.findall(r"^## \[(\d.*?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), flags=re.MULTILINE)
    assert released[0] == __version__


def test_supported_pythons() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    pythons = [found[1] for text in project["classifiers"] if (found := re.search(r"Python :: (3\.\d+)$", text))]
    ci = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))
    assert ci["jobs"]["test"]["strategy"]["matrix"]["python-version"] == pythons
    assert f"![Python {', '.join(pythons)}]" in (ROOT / "README.md").read_text("utf-8")
    assert project["requires-python"] == f">={pythons[0]}"
