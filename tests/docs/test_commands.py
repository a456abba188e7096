"""Every command of the documentation is one that the programs accept: its options, configs, modules, make targets."""

import ast
import importlib
import importlib.util
import re
import shlex
import shutil
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, blocks, name_of

HOW_TO = ROOT / "docs" / "how-to.md"
Words = tuple[str, ...]


def _lines(page: Path) -> list[Words]:
    """The words of each shell command of the page, without comments."""
    code = "\n".join(blocks(page, "bash")).replace("\\\n", " ").replace("$seed", "1")
    return [tuple(shlex.split(line, comments=True)) for line in code.splitlines() if "<" not in line]


def _arguments(program: str) -> list[Words]:
    """What follows `-m PROGRAM` in the commands of all pages, up to a pipe or a redirection; each once."""
    found: dict[Words, None] = {}
    for words in (words for page in PAGES for words in _lines(page)):
        for i in range(len(words) - 1):
            if words[i] == "-m" and words[i + 1] == program:
                found[tuple(takewhile(lambda word: word not in ("|", ">", "&&"), words[i + 2 :]))] = None
    return list(found)


def _without_checkpoint(words: Words) -> list[str]:
    """The options that need no run on disk to be looked at."""
    kept = list(words)
    if "--ckpt_path" in kept:
        del kept[(i := kept.index("--ckpt_path")) : i + 2]
    return kept


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the commands name: the shipped configs, a config of one's own, and the how-to's `mine.py`."""
    Path("configs").symlink_to(ROOT / "configs")
    shutil.copy(ROOT / "configs" / "quickstart.yaml", "my.yaml")
    (mine,) = (code for code in blocks(HOW_TO, "python") if "(BertClassifier)" in code)
    Path("mine.py").write_text(mine)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("checkout")
@pytest.mark.parametrize("words", _arguments("src"), ids=shlex.join)
def test_options_and_configs_exist(run_cli: Callable[..., tuple[int, str, str]], words: Words) -> None:
    command, *options = words
    if command in ("fit", "validate", "test"):
        rest = [word for word in _without_checkpoint(tuple(options)) if word != "--print_config"]
        status, _, err = run_cli("fit", *rest, *([] if "--help" in rest else ["--print_config"]))
        assert status == 0, err
    elif command in ("check", "teach"):
        status, out, err = run_cli(*words, "--print_config")
        assert status == 0, err
        assert "class_path: " in out
    else:
        assert command in ("predict", "export", "serve", "explain")
        status, _, err = run_cli(*words)
        # there is no run yet, or no such file; the parser's own refusals exit with 2
        assert status == 1, err


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_modules_files_and_make_targets_exist(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for words in _lines(page):
        if words[:1] == ("make",):
            assert words[1] in targets
        if words[:2] == ("python", "-m"):
            assert importlib.util.find_spec(words[2]), words
        for word in words:
            if word.startswith(("tests/", "configs/", "benchmarks/")):
                assert (ROOT / word).exists(), words


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_imports_what_there_is(page: Path) -> None:
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names)


def test_the_tutorial_has_the_same_commands_in_both_languages() -> None:
    english, korean = (_lines(ROOT / "docs" / name) for name in ("tutorial.md", "tutorial.ko.md"))
    assert english == korean
