"""The typed command line, before LightningCLI sees it: the order of configs, and what --ckpt_path means."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from src.runs import directories
from src.runs.checkpoint_reading import Checkpoint, read_checkpoint
from src.system.errors import UsageError, UserError, one_line
from src.system.locations import expanded
from src.system.yaml_reading import parse_yaml, read_yaml

SUBCOMMANDS = ("fit", "validate", "test")


@dataclass(frozen=True)
class Config:
    """A configuration.

    Attributes:
        name: as typed; what was read, where that can be read only once.
        content: empty where the parser will say what is wrong.
        own: it is that of a run which this user made.
    """

    name: str
    content: dict[str, Any]
    own: bool = False

    def section(self, name: str) -> dict[str, Any]:
        """The options below `model:`, `data:` or `trainer:`."""
        section = self.content.get(name)
        return section if isinstance(section, dict) else {}


@dataclass(frozen=True)
class Command:
    """A command line, taken apart.

    Attributes:
        name: fit, validate or test; empty for --help.
        args: for LightningCLI.
        configs: those of --config, in their order.
        checkpoint: what --ckpt_path means.
        finished: the run to resume has come to its end already.
    """

    name: str
    args: list[str]
    configs: Sequence[Config] = ()
    checkpoint: Checkpoint | None = None
    finished: bool = False

    def names_class_of(self, option: str) -> bool:
        """Whether a config or a flag says which class `option` ("model" or "data") is."""
        typed = any(arg.split("=")[0] in (f"--{option}", f"--{option}.class_path") for arg in self.args)
        return typed or any("class_path" in config.section(option) for config in self.configs)


def read_command(args: list[str]) -> Command:
    """Resolves `best` and `last`, and puts configs before flags, so that flags win wherever they were typed.

    Without --config, the config.yaml of the checkpoint's run is taken.

    Raises:
        UsageError: the subcommand is missing or comes after --config.
        UserError: there is no such checkpoint, or no config.
    """
    name = args[0] if args else ""
    if name.split("=")[0] in ("--config", "-c"):
        raise UsageError("--config comes after the subcommand: python -m src fit --config configs/imdb.yaml")
    if name.startswith("-") or not name or {"--help", "-h"} & set(args):
        return Command("" if name.startswith("-") else name, args)
    if name not in SUBCOMMANDS:
        known = ", ".join((*SUBCOMMANDS, "check", "predict", "export"))
        raise UsageError(f"there is no command {name!r}; the commands are {known}")

    names, rest = split_options(args[1:], ("--config", "-c"))
    configs = [_read_config(name) for name in names]
    checkpoints, rest = split_options(rest, ("--ckpt_path",))
    # these print and do not run
    if any(flag.startswith("--print_config") or flag.partition("=")[0].endswith(".help") for flag in rest):
        return Command(name, [name, *_config_flags(configs), *rest], configs)
    meant = _last([*(config.content.get("ckpt_path") for config in configs), *checkpoints])
    if meant in (None, "null"):
        if name != "fit":
            raise UserError(f"`{name}` needs --ckpt_path best, last or a file")
        return Command(name, [name, *_config_flags(configs), *rest, "--ckpt_path", "null"], configs)

    roots, _ = split_options(rest, ("--trainer.default_root_dir",))
    typed_root = _last([".", *(config.section("trainer").get("default_root_dir") for config in configs), *roots])
    root = expanded(str(typed_root))
    resumes = name == "fit" and meant == "last"
    checkpoint = (
        directories.find_interrupted(root)
        if resumes
        else read_checkpoint(directories.find_checkpoint(str(meant), root))
    )
    finished = resumes and checkpoint.finished and not _trains_longer(rest, configs, checkpoint)
    configs = configs or [_run_config(checkpoint, root)]
    typed = [name, *_config_flags(configs), *rest, "--ckpt_path", str(checkpoint.path)]
    return Command(name, typed, configs, checkpoint, finished)


def _trains_longer(flags: list[str], configs: list[Config], checkpoint: Checkpoint) -> bool:
    """Whether flags or configs say how long to train, and not what the finished run was told."""
    if any(flag.startswith("--trainer.max_") for flag in flags):
        return True
    path = directories.run_of(checkpoint.path) / directories.CONFIG
    before = _limits(_read_config(str(path))) if path.is_file() else {}
    return any(before.get(name) != value for config in configs for name, value in _limits(config).items())


def _limits(config: Config) -> dict[str, Any]:
    return {name: value for name, value in config.section("trainer").items() if name.startswith("max_")}


def _read_config(name: str) -> Config:
    """A file's, or that of YAML itself, which the parser takes too. Says what is wrong, which the parser does not.

    A pipe, as /dev/stdin or <(…), gives its text once, so the parser gets the text.
    """
    is_file = os.path.isfile(name)  # noqa: PTH113  (Path.is_file fails on YAML that is too long for a name)
    is_pipe = not is_file and os.path.exists(name) and not os.path.isdir(name)  # noqa: PTH110, PTH112
    if not is_file and not is_pipe and "\n" not in name and ":" not in name:
        raise UsageError(f"the config {name!r} is no file")
    try:
        content = read_yaml(Path(name)) if is_file or is_pipe else parse_yaml(name)
    except (OSError, ValueError) as error:
        shown = name if is_file or is_pipe else "the text of --config"
        raise UsageError(f"{shown} is no YAML that can be read: {one_line(error)[:300]}") from error
    if not is_file and not is_pipe and not isinstance(content, dict):
        return Config(name, {})
    if not isinstance(content, dict):
        raise UsageError(f"{name} holds no options, as `model:` or `trainer:`, but {one_line(content)[:50]!r}")
    if not isinstance(trainer := content.get("trainer"), dict | None):
        raise UsageError(f"{name}: `trainer:` holds no options, but {one_line(trainer)[:50]!r}")
    return Config(yaml.safe_dump(content, sort_keys=False) if is_pipe else name, content)


def _run_config(checkpoint: Checkpoint, root: Path) -> Config:
    """The config.yaml of the checkpoint's run, if that is one of the user's own runs."""
    path = directories.run_of(checkpoint.path) / directories.CONFIG
    if not path.is_file():
        raise UserError(f"{checkpoint.path} lies in no run's directory ({path} is missing): give its --config")
    if not directories.is_read_unasked(path.parent, root):
        raise UserError(
            f"{path} is not read unasked, since it is not below {directories.shown(root / directories.LOGS)}: look at "
            f"it, since a configuration is code, and give it with --config {directories.shown(path)}"
        )
    return replace(_read_config(str(path)), own=True)


def split_options(args: list[str], names: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The values of the options `names`, and the other arguments."""
    values, rest = [], []
    following = iter(args)
    for arg in following:
        name, equals, value = arg.partition("=")
        if name not in names:
            rest.append(arg)
        elif equals:
            values.append(value)
        else:
            try:
                values.append(next(following))
            except StopIteration:
                raise UsageError(f"{name} needs a value") from None
    return values, rest


def _config_flags(configs: Sequence[Config]) -> list[str]:
    return [part for config in configs for part in ("--config", config.name)]


def _last(values: Sequence[Any]) -> Any:
    """The last value that is set."""
    return next((value for value in reversed(values) if value), None)
