"""What wins where options meet, and what is answered before anything heavy is imported."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

Run = Callable[..., tuple[int, str, str]]
_REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def configs() -> list[str]:
    """Two configs that disagree, with the class and the options by their bare names."""
    first = {"data": {"class_path": "ImdbDataModule", "init_args": {"batch_size": 1, "max_length": 10, "val_size": 11}}}
    second = {"data": {"init_args": {"batch_size": 2, "max_length": 20}}}
    for name, content in (("first.yaml", first), ("second.yaml", second)):
        Path(name).write_text(yaml.safe_dump(content))
    return ["--config", "first.yaml", "--config=second.yaml"]


@pytest.mark.parametrize("flags_first", [True, False])
def test_flags_win_over_later_configs_over_earlier_over_defaults(
    flags_first: bool, configs: list[str], run_cli: Run
) -> None:
    flags = ["--data.batch_size", "3", "--print_config"]
    status, out, err = run_cli("fit", *(flags + configs if flags_first else configs + flags))
    assert status == 0, err
    options = yaml.safe_load(out)["data"]["init_args"]
    assert options["batch_size"] == 3  # the flag
    assert options["max_length"] == 20  # the later config
    assert options["val_size"] == 11  # the earlier config
    assert options["test_size"] == 500  # the default


def test_an_overlay_keeps_the_other_options_of_the_class(configs: list[str], run_cli: Run) -> None:
    _, out, _ = run_cli("fit", *configs, "--print_config")
    assert yaml.safe_load(out)["data"]["class_path"].endswith("ImdbDataModule")


def test_a_checkpoint_never_overrides_what_is_typed(run_cli: Run, tiny_options: list[str]) -> None:
    assert run_cli("fit", *tiny_options, "--trainer.max_epochs=1", "--model.learning_rate=1e-3")[0] == 0
    run = Path("lightning_logs/version_0")
    typed = ["--ckpt_path=last", "--trainer.max_epochs=2", "--model.hidden_dropout=0.3"]
    status, _, err = run_cli("fit", *typed)  # the rest from the run's own config.yaml
    assert status == 0, err
    model = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]
    assert (model["hidden_dropout"], model["learning_rate"]) == (0.3, 1e-3)
    # the restored optimizer would go on with its own: refused, rather than silently not done
    status, _, err = run_cli("fit", "--ckpt_path=last", "--trainer.max_epochs=3", "--model.learning_rate=2e-3")
    assert status == 1
    assert "model.learning_rate was 0.001 and is 0.002" in err
    data = yaml.safe_load((run / "config.yaml").read_text())["data"]["init_args"]
    assert data["train_size"] == 48  # as in the first launch


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["fit", "--trainer.max_ep=1"], "--trainer.max_ep=1; did you mean --trainer.max_epochs?"),
        (
            ["fit", "--model.learning_rat=1"],
            "Option 'learning_rat' is not accepted; did you mean --model.learning_rate?",
        ),
        (["fit", "--data.batchsize=1"], "Option 'batchsize' is not accepted; did you mean --data.batch_size?"),
        (["fit", "--data.batch-size=1"], "Option 'batch-size' is not accepted; did you mean --data.batch_size?"),
        (["fit", "--max_epochs=1"], "--max_epochs=1; did you mean --trainer.max_epochs?"),
        (["fit", "--trainer.batch_size=1"], "--trainer.batch_size=1; did you mean --data.batch_size?"),
        (["fit", "--trainer.m=1"], "--trainer.m=1 ("),
        # an option of the other class
        (["fit", "--model.head_learning_rate=1"], "Option 'head_learning_rate' is not accepted ("),
        (["fit", "--data.next_sentence=1"], "ImdbDataModule': Option 'next_sentence' is not accepted ("),
        (
            ["fit", "--model=tests.end_to_end.test_own_classes.SmoothedClassifier", "--model.learnig_rate=1"],
            "SmoothedClassifier': Option 'learnig_rate' is not accepted; did you mean --model.learning_rate?",
        ),
        (
            [
                "fit",
                "--trainer.callbacks+=tests.end_to_end.test_own_classes.AverageOfLastSteps",
                "--trainer.callbacks.shar=1",
            ],
            "AverageOfLastSteps': Option 'shar' is not accepted (",
        ),
        (["fit", "--conf=a.yaml"], "--conf=a.yaml; did you mean --config?"),
        (["--config=a.yaml", "fit"], "--config comes after the subcommand"),
        (["fit", "--data.vocabulary=x"], "ImdbDataModule': Option 'vocabulary' is not accepted ("),
    ],
)
def test_what_is_refused_exits_2_in_one_line(args: list[str], words: str, run_cli: Run) -> None:
    status, _, err = run_cli(*args)
    assert status == 2
    assert err.count("\n") == 1
    assert words in err


def test_a_misspelt_key_of_a_config_gets_a_suggestion(run_cli: Run) -> None:
    Path("my.yaml").write_text("trainer: {max_epoch: 1}\n")
    status, _, err = run_cli("fit", "--config=my.yaml")
    assert (status, err.count("\n")) == (2, 1)
    assert "'trainer.max_epoch'; did you mean --trainer.max_epochs?" in err


def test_a_config_key_whose_value_is_refused_gets_no_suggestion(run_cli: Run) -> None:
    Path("my.yaml").write_text("data: {class_path: ImdbDataModule, init_args: {batch_size: many}}\n")
    status, _, err = run_cli("fit", "--config=my.yaml")
    assert (status, err.count("\n")) == (2, 1)
    assert "Parser key \"batch_size\": Expected a <class 'int'>. Got value: many (" in err


def test_help_explains_our_options_with_their_defaults(run_cli: Run) -> None:
    status, out, _ = run_cli("fit", "--help")
    assert status == 0
    text = " ".join(out.split())
    for option in ("--data.truncation", "--data.group_by_length", "--model.layer_decay", "--trainer.max_epochs"):
        assert option in text
    assert "tokens that the model reads at once, special tokens included. (type: int, default: 512)" in text


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["--data.help=PretrainingDataModule"], "--data.mask_rate"),
        (["--model.help", "BertPretrainer"], "--model.from_scratch"),
    ],
)
def test_help_of_a_class_explains_its_options(arguments: list[str], option: str, run_cli: Run) -> None:
    status, out, err = run_cli("fit", *arguments)
    assert (status, err) == (0, "")
    assert option in out


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(flag: str) -> None:
    code = f"import sys; from src.__main__ import main; main(['{flag}']); "
    code += "print([name for name in ('torch', 'lightning') if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], cwd=_REPOSITORY, capture_output=True, text=True, check=True)
    assert answer.stdout.strip().splitlines()[-1] == "[]"


def test_a_config_from_before_the_files_were_grouped_is_read_or_refused_in_one_line(
    run_cli: Run, tiny_options: list[str]
) -> None:
    """Models, data modules and the checkpoint callback did not move; the report did."""
    old = {
        "model": {"class_path": "src.models.classifier.BertClassifier", "init_args": {"torch_compile": False}},
        "data": {"class_path": "src.data.imdb.ImdbDataModule", "init_args": {"padding": "longest"}},
        "trainer": {"callbacks": [{"class_path": "src.callbacks.last_checkpoint.LastCheckpoint"}]},
    }
    Path("old.yaml").write_text(yaml.safe_dump(old))
    status, _, err = run_cli("fit", "--config=old.yaml", *tiny_options, "--trainer.max_steps=1")
    assert status == 0, err
    old["trainer"] = {"callbacks": [{"class_path": "src.callbacks.report.Report"}]}
    Path("old.yaml").write_text(yaml.safe_dump(old))
    status, _, err = run_cli("fit", "--config=old.yaml", *tiny_options, "--trainer.max_steps=1")
    assert (status, err.count("\n")) == (2, 1)
    assert "src.callbacks.report" in err
