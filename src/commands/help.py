"""Prints `fit --help`: this project's options with their explanations, then the Trainer's."""

from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer

from src.data.imdb import ImdbDataModule
from src.models.classifier import BertClassifier

_EPILOG = """\
Flags override configs, a later config overrides an earlier one, and configs override the defaults. Flags and --config
may be given in any order. The options above are those of fine-tuning. For pre-training, give `--config
configs/pretrain.yaml`, or `--model BertPretrainer --data PretrainingDataModule`; `fit --model.help BertPretrainer` and
`fit --data.help PretrainingDataModule` explain its options. `fit --print_config` prints the whole configuration, which
you can edit and pass to --config.
"""


def print_help(command: str) -> None:
    """Prints the help of fit, validate or test.

    LightningCLI accepts any model and data class, so its own help lists the options of none.
    """
    parser = ArgumentParser(
        prog=f"python -m src {command}",
        usage=f"python -m src {command} [--config FILE]… [--ckpt_path best|last|FILE] "
        "[--data.X …] [--model.Y …] [--trainer.Z …]",
        epilog=_EPILOG,
        description="Trains or evaluates a classifier of reviews and writes to lightning_logs/version_N/.",
    )
    parser.add_argument("--config", help="YAML file with any of the options below; may be given several times")
    parser.add_argument(
        "--ckpt_path",
        help="fit: `last` resumes the newest interrupted run; validate and test: best, last or a file. Without "
        "--config, the options come from that run's config.yaml",
    )
    parser.add_argument(
        "--seed_everything", type=int, default=42, help="seed of the training order, the new head and dropout"
    )
    parser.add_class_arguments(ImdbDataModule, "data")
    parser.add_class_arguments(BertClassifier, "model")
    parser.add_class_arguments(Trainer, "trainer", fail_untyped=False)
    parser.print_help()
