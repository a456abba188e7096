"""The tasks that there are, by the name that a configuration of `transformers` gives them."""

from collections.abc import Sequence

from transformers import PretrainedConfig

from src.models.tasks.multi_label import MultiLabel
from src.models.tasks.single_label import SingleLabel
from src.models.tasks.task import Task
from src.system.errors import UserError

TASKS: dict[str, type[Task]] = {task.problem_type: task for task in (SingleLabel, MultiLabel)}


def task_of(config: PretrainedConfig, labels: Sequence[str]) -> Task:
    """The task of a network; without a problem_type, a text has one label.

    Raises:
        UserError: it is none of a classifier, or its settings are damaged.
    """
    problem = getattr(config, "problem_type", None) or SingleLabel.problem_type
    if (task := TASKS.get(str(problem))) is None:
        raise UserError(f"the network gives no probabilities of classes: its problem_type is {problem!r:.50}")
    return task.of(config, labels)
