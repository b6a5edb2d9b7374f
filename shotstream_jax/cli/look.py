"""What `shotstream train` looks at while a model is in training: a few films, and their scores."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

from shotstream_jax.cli.story_rows import SHOWN, story_rows
from shotstream_jax.directing.contact import contact_sheet, save_png
from shotstream_jax.evaluation.films import Film, MakeFilms, Shoot, draw_scripts
from shotstream_jax.evaluation.passes import PassName, Progress, run_passes
from shotstream_jax.evaluation.student_films import student_films
from shotstream_jax.evaluation.teacher_films import teacher_films
from shotstream_jax.rollout.networks import Networks as FilmNetworks
from shotstream_jax.rollout.teacher import SampleConfig
from shotstream_jax.storyworld.geometry import Picture
from shotstream_jax.train.engine.objective import Networks
from shotstream_jax.train.engine.stage import Candidate, Scores

SHOTS = 3
TEACHER_STEPS = 25
"""Half of what the teacher is judged with: these films are only looked at."""

_SHOWN = ("prompt_accuracy", "carry_over", "cut_accuracy", "identity")


def look(candidate: Candidate, networks: Networks, folder: pathlib.Path, step: int) -> Scores:
    """Film stories of the validation split, score them, and leave a contact sheet."""
    model = candidate.model(networks)
    height, width = candidate.size
    shoot = Shoot(picture=Picture(height=height, width=width), video_frames=candidate.video_frames)
    scripts = draw_scripts(candidate.stories, (SHOTS,), split="validation")
    passes: dict[PassName, Shoot] = {"own": shoot, "given": dataclasses.replace(shoot, given=1)}
    films: list[Film] = []

    def watch(progress: Progress) -> None:
        if progress.part == "own" and progress.film:
            films.append(progress.film)

    found = run_passes(_maker(candidate, model), passes, scripts, watch=watch)
    title = f"{candidate.role} after step {step}"
    sheet = contact_sheet(
        story_rows(list(zip(scripts, films, strict=True))[:SHOWN]), title=title, badge=""
    )
    save_png(sheet, folder / f"step_{step:06d}.png")
    return {name: metric.value for name, metric in found.metrics.items() if name.startswith(_SHOWN)}


def _maker(candidate: Candidate, model: FilmNetworks) -> Callable[[Shoot], MakeFilms]:
    if candidate.role == "student":
        return functools.partial(student_films, model)
    sample = SampleConfig(
        steps=TEACHER_STEPS, shift=model.config.rollout.shift, guidance=candidate.guidance
    )
    return functools.partial(teacher_films, model, sample=sample)
