"""Which classes a configuration may name: those of our libraries, of this project, and of the user's own modules.

A configuration comes with a run, so it may come from a stranger. It must not be able to run what it likes.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonargparse import set_parsing_settings

from src.commands.arguments import Command

_LIBRARIES = ("lightning", "lightning_fabric", "pytorch_lightning", "torch", "torchmetrics", "transformers", "src")
_IMPORT_PATH = re.compile(r"(?<![\w./-])([A-Za-z_]\w*)(?:\.\w+)+")


def allow_classes(command: Command) -> None:
    """Restricts the parser, for the rest of the process.

    The user's own modules are those that a flag names, those that the config of an own run names, and those in the
    working directory that another config names. A value of the type `Any` stays what it is: by default jsonargparse
    makes an instance of whatever class it names there.
    """
    typed = {name for arg in command.args for name in _IMPORT_PATH.findall(arg)}
    own = {
        name
        for config in command.configs
        for path in _class_paths(config.content)
        if (name := path.partition(".")[0]).isidentifier()
        and (config.own or Path(name).is_dir() or Path(f"{name}.py").is_file())
    }
    set_parsing_settings(
        instantiate_subclass_spec_in_any=False,
        import_path_denylist=["*"],
        import_path_allowlist=sorted({*_LIBRARIES, *typed, *own} - {"jsonargparse"}),
    )


def _class_paths(content: Any) -> Iterator[str]:
    """The values of all keys `class_path` in a config."""
    if isinstance(content, dict):
        if isinstance(path := content.get("class_path"), str):
            yield path
        content = list(content.values())
    if isinstance(content, list):
        for part in content:
            yield from _class_paths(part)
