"""Several experiments in a row, each starting from the exports of those before it."""

import dataclasses
import pathlib

from shotstream_jax.data.shards import DATASET_FILE
from shotstream_jax.train.engine import dataset_job, loop
from shotstream_jax.train.engine.dataset_job import DatasetJob
from shotstream_jax.train.engine.loop import Outcome, TrainWatch, ignore
from shotstream_jax.train.engine.run_folder import EXPORT, Existing, refuse_other, stored_facts
from shotstream_jax.train.engine.stage import Training

Experiment = Training | DatasetJob


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Experiments that train a model stage by stage.

    Attributes:
      stages: experiment files, in order; a path that is not absolute begins at the file that
        lists it.
    """

    stages: tuple[pathlib.Path, ...]

    def __post_init__(self) -> None:
        """Raises: ValueError: no stages."""
        if not self.stages:
            raise ValueError("0 stages; list 1 or more experiment files.")


def run(
    experiment: Experiment,
    *,
    existing: Existing = "refuse",
    watch: TrainWatch = ignore,
) -> Outcome:
    """Train a network or compute a dataset; see `loop.train` for the arguments.

    Raises:
      ValueError: settings, data, checkpoints or a folder that do not fit together.
      OSError: files that cannot be read or written.
    """
    if isinstance(experiment, DatasetJob):
        return dataset_job.build_dataset(experiment, existing=existing, watch=watch)
    return loop.train(experiment, existing=existing, watch=watch)


def is_done(experiment: Experiment) -> bool:
    """Whether the experiment's folder is complete.

    Raises:
      ValueError: the folder holds another experiment, or this one with other settings.
    """
    found = stored_facts(experiment.output)
    if found is None:
        return False
    refuse_other(experiment, found)
    if isinstance(experiment, DatasetJob):
        folder = experiment.output
        shards = dataset_job.shards_of(experiment)
        return (folder / DATASET_FILE).is_file() and not any(True for _ in shards.missing())
    # Fewer steps than the settings ask for are a run to go on with, whatever it has exported.
    enough = found["settings"]["steps"] == experiment.steps
    return enough and (experiment.output / EXPORT).is_dir()
