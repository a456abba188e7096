"""Labels parquet files on a Ray cluster, which distributes them, and gives a file to another worker if one dies."""

import logging
import os
from pathlib import Path
from typing import Any

from src.inference.classifier import load
from src.inference.parquet_files import FileLabeller, Job, Labelled, UnreadableError
from src.inference.parquet_jobs import tell_outcomes
from src.system.errors import Interrupted, UserError, one_line, why
from src.system.signals import interrupted_by_signals


class _Worker:
    """One process of the cluster, with the model."""

    def __init__(self, checkpoint: Path, *settings: Any) -> None:
        self.labeller = FileLabeller(load(checkpoint), *settings)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Labels the file `row["source"]`; says what it did or why it could not."""
        outcome = Labelled()._asdict() | {"bad": "", "failed": ""}
        try:
            done = self.labeller.label(Job(Path(row["source"]), Path(row["target"])), wait=True)
            return outcome | done._asdict()
        except UnreadableError as error:
            return outcome | {"bad": str(error)}
        except UserError as error:
            return outcome | {"failed": str(error)}
        except OSError as error:
            return outcome | {"failed": f"{row['target']} could not be written: {why(error)}"}


def label_on_ray(jobs: list[Job], checkpoint: Path, text_column: str, batch_size: int | None, min_score: float) -> None:
    """Labels files on the cluster of RAY_ADDRESS or of this machine, or else on a Ray that ends with this process.

    A worker has a GPU, or on a cluster without one a core. All machines see the checkpoint and the files by the same
    paths.

    Raises:
        UserError: Ray is not installed or not reached; or as `label_files`.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports its use otherwise
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError("--engine ray needs Ray: pip install -c constraints.txt -e '.[ray]'") from error
    checkpoint = checkpoint.absolute()
    settings = (text_column, batch_size, min_score)
    todo = FileLabeller(load(checkpoint), *settings).open_jobs(jobs)
    if not todo:
        return
    outcomes: list[Labelled | UnreadableError] = []
    try:
        ray.init(logging_level=logging.ERROR, log_to_driver=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"Ray could not be started or reached: {one_line(error)[:200]}") from error
    try:
        with interrupted_by_signals():  # again, since Ray has a handler of its own
            for row in _outcomes(todo, checkpoint, *settings):
                if row["failed"]:
                    raise UserError(row["failed"])
                done = Labelled(*(row[count] for count in Labelled._fields))
                outcomes.append(UnreadableError(row["bad"]) if row["bad"] else done)
    except Interrupted as error:
        advice = f"{error} after {len(outcomes):,} files; the same command resumes from there"
        raise Interrupted(error.signum, advice) from None
    finally:
        ray.shutdown()
    tell_outcomes(outcomes, min_score)


def _outcomes(jobs: list[Job], *options: Any) -> Any:
    """What the workers say of each file, as they finish."""
    import ray
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    resources = ray.cluster_resources()
    gpus, cores = (int(resources.get(name, 0)) for name in ("GPU", "CPU"))
    files = [{"source": str(job.source.absolute()), "target": str(job.target.absolute())} for job in jobs]
    workers = ray.data.ActorPoolStrategy(size=max(1, min(gpus or cores, len(jobs))))
    return (
        ray.data.from_items(files, override_num_blocks=len(files))
        .map(
            _Worker,  # type: ignore[arg-type]
            fn_constructor_args=options,
            compute=workers,
            num_cpus=1,
            num_gpus=1 if gpus else None,
        )
        .iter_rows()
    )
