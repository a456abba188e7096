"""`fit --help`: the options of this project, each explained, before the Trainer's many."""

from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer

from src.data.imdb import ImdbDataModule
from src.models.classifier import BertClassifier

_EPILOG = """\
Flags win over later configs, those over earlier ones, and those over the defaults; --config and flags may come in any
order. The options above are those of fine-tuning. Pre-training is `--config configs/pretrain.yaml`, or `--model
BertPretrainer --data PretrainingDataModule`; `fit --model.help BertPretrainer` and `fit --data.help
PretrainingDataModule` explain its options. `fit --print_config` prints the whole configuration, to be edited and given
back with --config.
"""


def print_help(command: str) -> None:
    """Prints the help of fit, validate or test.

    LightningCLI takes any model and data class, so its own help lists the options of none.
    """
    parser = ArgumentParser(
        prog=f"python -m src {command}",
        usage=f"python -m src {command} [--config FILE]… [--ckpt_path best|last|FILE] "
        "[--data.X …] [--model.Y …] [--trainer.Z …]",
        epilog=_EPILOG,
        description="Reads reviews, trains or evaluates a classifier, and writes lightning_logs/version_N/.",
    )
    parser.add_argument("--config", help="YAML with any of the options below; may be given several times")
    parser.add_argument(
        "--ckpt_path",
        help="fit: `last` goes on with the newest interrupted run; validate and test: best, last or a file. Without "
        "--config, the config.yaml of that run is taken",
    )
    parser.add_argument("--seed_everything", type=int, default=42, help="of the order, the new head and dropout")
    parser.add_class_arguments(ImdbDataModule, "data")
    parser.add_class_arguments(BertClassifier, "model")
    parser.add_class_arguments(Trainer, "trainer", fail_untyped=False)
    parser.print_help()
