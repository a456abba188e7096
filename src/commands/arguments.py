"""What was typed, before LightningCLI sees it: the order of configs, and the run that a checkpoint belongs to."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from src.runs import folders
from src.system.errors import UsageError, UserError, one_line

SUBCOMMANDS = ("fit", "validate", "test")


@dataclass
class Command:
    """A command line with its parts found out.

    Attributes:
        name: fit, validate or test; empty for --help.
        args: for LightningCLI.
        checkpoint: the file that --ckpt_path means.
        finished: the run to go on with has come to its end already.
    """

    name: str
    args: list[str]
    checkpoint: Path | None = field(default=None)
    finished: bool = field(default=False)

    def names_class_of(self, option: str) -> bool:
        """Whether a config or a flag says which class `option` ("model" or "data") is."""
        if any(arg.split("=")[0] in (f"--{option}", f"--{option}.class_path") for arg in self.args):
            return True
        contents = (_content(config) for config in _split(self.args, ("--config", "-c"))[0])
        return any(isinstance(part := content.get(option), dict) and "class_path" in part for content in contents)


def read_command(args: list[str]) -> Command:
    """Resolves `best` and `last`, and puts configs before flags, so that flags win wherever they were typed.

    Without --config, the config.yaml of the checkpoint's run is taken.

    Raises:
        UsageError: the subcommand is missing or comes after --config.
        UserError: there is no such checkpoint, or no config to be had.
    """
    name = next((arg for arg in args if not arg.startswith("-")), "")
    if args and args[0].split("=")[0] in ("--config", "-c"):
        raise UsageError("--config comes after the subcommand: python -m src fit --config configs/imdb.yaml")
    if args and not args[0].startswith("-") and name not in SUBCOMMANDS:
        known = ", ".join((*SUBCOMMANDS, "predict", "export"))
        raise UsageError(f"there is no command {name!r}; the commands are {known}")
    if not args or args[0].startswith("-") or {"--help", "-h"} & set(args):
        return Command(name, args)

    configs, rest = _split(args[1:], ("--config", "-c"))
    for config in configs:
        _check_config(config)
    checkpoints, rest = _split(rest, ("--ckpt_path",))
    roots, _ = _split(rest, ("--trainer.default_root_dir",))
    if any(flag.startswith("--print_config") for flag in rest):
        return Command(name, [name, *_flags("--config", configs), *rest])
    root = Path(roots[-1] if roots else _root_of(configs))
    checkpoint, finished = None, False
    meant = checkpoints[-1] if checkpoints else _checkpoint_of(configs)
    if meant not in (None, "null"):
        if name == "fit" and meant == "last":
            checkpoint, finished = folders.find_interrupted(root)
            finished = finished and not _trains_longer(rest, configs, checkpoint)
        else:
            checkpoint = folders.find_checkpoint(meant, root)
        rest += ["--ckpt_path", str(checkpoint)]
        if not configs:
            configs = [_run_config(checkpoint)]
    elif name != "fit":
        raise UserError(f"`{name}` needs --ckpt_path best, last or a file")
    else:
        rest += ["--ckpt_path", "null"]  # over what a config says
    return Command(name, [name, *_flags("--config", configs), *rest], checkpoint, finished)


def _trains_longer(flags: list[str], configs: list[str], checkpoint: Path) -> bool:
    """Whether flags or configs say how long to train, and not what the finished run was told."""
    if any(flag.startswith("--trainer.max_") for flag in flags):
        return True
    before = _limits(str(folders.run_of(checkpoint) / folders.CONFIG))
    return any(before.get(name) != value for config in configs for name, value in _limits(config).items())


def _limits(config: str) -> dict[str, Any]:
    trainer = _content(config).get("trainer")
    return {name: value for name, value in (trainer or {}).items() if name.startswith("max_")}


def _check_config(config: str) -> None:
    """Names the file that is no YAML, which the parser does not."""
    path = Path(config)
    if not path.is_file() and "\n" not in config and ":" not in config:  # else YAML itself, which the parser takes too
        raise UsageError(f"the config {config!r} is no file")
    try:
        content = yaml.safe_load(path.read_text("utf-8")) if path.is_file() else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{config} is no YAML that can be read: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{config} holds no options, as `model:` or `trainer:`, but {one_line(content)[:50]!r}")


def _split(args: list[str], names: tuple[str, ...]) -> tuple[list[str], list[str]]:
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


def _flags(name: str, values: list[str]) -> list[str]:
    return [part for value in values for part in (name, value)]


def _checkpoint_of(configs: list[str]) -> str | None:
    """What the configs say of ckpt_path, the last of them that does."""
    said = [str(content["ckpt_path"]) for content in map(_content, configs) if content.get("ckpt_path")]
    return said[-1] if said else None


def _root_of(configs: list[str]) -> str:
    """The directory that holds lightning_logs, as the configs say it."""
    root = "."
    for config in configs:
        if isinstance(trainer := _content(config).get("trainer"), dict):
            root = trainer.get("default_root_dir") or root
    return root


def _content(config: str) -> dict[str, Any]:
    """What a config says; nothing where the parser will say what is wrong with it."""
    try:
        content = yaml.safe_load(Path(config).read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _run_config(checkpoint: Path) -> str:
    """The config.yaml of the checkpoint's run; the --ckpt_path that is typed wins over the one it was begun with."""
    path = folders.run_of(checkpoint) / folders.CONFIG
    if not path.is_file():
        raise UserError(f"{checkpoint} lies in no run's directory ({path} is missing): give its --config")
    return str(path)
