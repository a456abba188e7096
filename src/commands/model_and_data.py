"""The data and the model that a command line of `fit` names, without a Trainer."""

import sys
from collections.abc import Sequence

import torch

from src.commands.allowed_classes import allow_classes
from src.commands.arguments import Command, read_command
from src.commands.fit import ReviewCLI
from src.commands.library_errors import as_user_error
from src.data.imdb import ImdbDataModule
from src.models.classifier import BertClassifier
from src.models.origin import ClassifierOrigin
from src.system.errors import Interrupted, UsageError, UserError
from src.system.quiet import hush_libraries


class _ModelAndData(ReviewCLI):
    """Parses as `fit` does, and makes the model and the data alone."""

    def __init__(self, command: Command) -> None:
        super().__init__(command, locks=None)  # type: ignore[arg-type]  # which only a run has

    def before_instantiate_classes(self) -> None:
        """Nothing: there is no training whose precision could be chosen."""

    def instantiate_classes(self) -> None:
        made = self.parser.instantiate_classes(self.config)
        self.datamodule, self.model = self._get(made, "data"), self._get(made, "model")
        self.accelerator = self._get(self.config, "trainer").accelerator

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing: there is no Trainer."""


def model_and_data(options: Sequence[str]) -> tuple[ImdbDataModule, ClassifierOrigin, torch.device]:
    """The data module of a fine-tuning, which has the model's tokenizer; where the model comes from; and the device.

    Args:
        options: those of `fit`.

    Raises:
        UserError: the parser refuses them, or they are those of a pre-training.
    """
    hush_libraries()
    command = read_command(["fit", *options])
    allow_classes(command)
    argv = sys.argv
    sys.argv = [argv[0], *command.args]  # where LightningCLI reads them
    try:
        parsed = _ModelAndData(command)
    except (UserError, Interrupted):
        raise
    except Exception as error:
        raise as_user_error(error, command.args) from error
    finally:
        sys.argv = argv
    data, model = parsed.datamodule, parsed.model
    if not isinstance(data, ImdbDataModule) or not isinstance(model, BertClassifier):
        raise UsageError("this command is about texts to classify, but these options are those of a pre-training")
    if data.hparams.get("tokenizer") is None:
        data.tokenizer_source = model.origin
    on_gpu = parsed.accelerator != "cpu" and torch.cuda.is_available()
    return data, model.origin, torch.device("cuda" if on_gpu else "cpu")
