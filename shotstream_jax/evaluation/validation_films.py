"""A few films of a transformer in training, and their scores: a validation during a run."""

import dataclasses
import pathlib

from shotstream_jax.evaluation.films import EvalSetup, ShotVideos, draw_stories
from shotstream_jax.evaluation.generators import TransformerRole, bind_generator
from shotstream_jax.evaluation.passes import EvaluationProgress, PassName, run_passes
from shotstream_jax.evaluation.story_sheet import save_story_sheet
from shotstream_jax.rollout.networks import Networks
from shotstream_jax.rollout.teacher import SampleConfig

SHOTS = 3
"""Of every validation story: the fewest whose last shot has two shots to carry over from."""

TEACHER_STEPS = 25
"""Half of what the teacher is evaluated with: a validation follows a trend and may be rougher."""

_METRICS = ("prompt_accuracy", "carry_over", "cut_accuracy", "identity")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValidationFilms:
    """Which films a validation makes.

    Attributes:
      role: how the transformer films.
      setup: size and length of the shots.
      stories: how many, of the validation split.
      guidance: of a teacher.
    """

    role: TransformerRole
    setup: EvalSetup
    stories: int
    guidance: float


def validate_films(
    networks: Networks, films: ValidationFilms, sheet: pathlib.Path, *, title: str
) -> dict[str, float]:
    """Film stories of the validation split, draw a contact sheet, and score the films.

    Raises:
      ValueError: no stories, or sizes that the networks cannot film.
      OSError: no room for the sheet.
    """
    # A split of its own: settings that are chosen by these films leave the test stories unseen.
    stories = draw_stories(films.stories, (SHOTS,), split="validation")
    sample = SampleConfig(
        steps=TEACHER_STEPS, shift=networks.config.rollout.shift, guidance=films.guidance
    )
    # Carry-over is that after a ground-truth shot. The pass without context is left out: it
    # measures a floor that does not move during a run.
    passes: dict[PassName, EvalSetup] = {
        "own": films.setup,
        "given": dataclasses.replace(films.setup, reference_shots=1),
    }
    own: list[ShotVideos] = []

    def watch(progress: EvaluationProgress) -> None:
        if progress.part == "own" and progress.film:
            own.append(progress.film)

    found = run_passes(
        bind_generator(films.role, networks, sample=sample), passes, stories, watch=watch
    )
    save_story_sheet(sheet, stories, own, title=title)
    return {
        name: metric.value for name, metric in found.metrics.items() if name.startswith(_METRICS)
    }
