"""Options of an evaluation, as `shotstream eval` and table files take them."""

import dataclasses
import pathlib
from typing import Annotated, Literal

import tyro

from shotstream_jax.evaluation.generators import Role
from shotstream_jax.rollout.approximate import ApproximationName
from shotstream_jax.rollout.teacher import Solver
from shotstream_jax.story import ContextCaptions, ContextPolicy
from shotstream_jax.storyworld.spec import Split

_TEACHER_OPTIONS = ("solver", "steps", "guidance", "history_guidance", "negative", "batch")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """What is evaluated, and by which stories.

    Attributes:
      checkpoint: checkpoint folder; without it the preset is used.
      preset: a model that comes with the package.
      role: what the transformer is: the causal student in few steps, or the bidirectional teacher
        in many; or films of no transformer: the ground truth, and its reconstructions by the
        autoencoder.
      stories: how many.
      shots: shots of a story; several numbers take turns.
      seed: where the stories are drawn from; the same seed, the same films.
      split: whose stories; no split shares one with another.
      given: ground-truth first shots after which carry-over is measured; 0 measures it on the
        model's own films, and saves filming once.
      no_context: film every shot as a first one, and compare with nothing.
      policy: which frames of earlier shots are seen: of all, the latest, first ones, or both ends.
      context_captions: whose caption those frames read, that of their own shot or of the new one.
      size: height and width in pixels; the miniature was trained on 48 80.
      video_frames: length of a shot; the miniature was trained on 21.
      solver: of the teacher: euler if not said, or unipc, as good with about half the steps.
      steps: of the teacher, 50 if not said.
      guidance: of the teacher, 6 if not said; 1 is none.
      history_guidance: guide the teacher by the context too, not only by captions.
      negative: prompt that the teacher is guided away from; if not said, a caption of zeros.
      batch: stories that the teacher films together, 8 if not said.
      dtype: format of the transformer; by default bfloat16 on accelerators, float32 on a CPU.
      devices: devices to split the heads over; by default as many as divide them.
      approximate: film faster or in less memory, not quite the same; only the student does:
        no-clean-pass, latent-context, int8-cache, int8-weights.
      output: folder for metrics.json and a contact sheet; older ones are replaced.
      table: evaluate several models as a file says, training those that are not, and print a
        table; `ablations` is that of configs/ablations.py. All other options are the file's.
      json: print metrics.json: `metrics`, a number each; `intervals`, [low, high] each, 95 %
        bootstrap over stories; and what was measured, with which weights.
    """

    checkpoint: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    preset: Literal["tiny"] = "tiny"
    role: Role = "student"
    # Prompt accuracy is then known to 0.011 and carry-over to 0.023 to either side (95 % intervals
    # of the shipped student).
    stories: Annotated[int, tyro.conf.arg(metavar="N")] = 200
    # Stories in training have five: no shot lies beyond what was trained.
    shots: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N")] = (3, 4, 5)
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    split: Split = "test"
    given: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    no_context: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    policy: ContextPolicy = "anchor"
    context_captions: ContextCaptions = "own"
    size: Annotated[tuple[int, int], tyro.conf.arg(metavar="HEIGHT WIDTH")] = (48, 80)
    video_frames: Annotated[int, tyro.conf.arg(metavar="N")] = 21
    solver: Solver | None = None
    steps: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    guidance: Annotated[float | None, tyro.conf.arg(metavar="X")] = None
    history_guidance: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    negative: Annotated[str | None, tyro.conf.arg(metavar="PROMPT")] = None
    batch: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    devices: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    approximate: Annotated[tuple[ApproximationName, ...], tyro.conf.arg(metavar="NAME")] = ()
    output: Annotated[pathlib.Path | None, tyro.conf.arg(aliases=("-o",), metavar="FOLDER")] = None
    table: Annotated[str, tyro.conf.arg(metavar="NAME|FILE")] = ""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False

    def __post_init__(self) -> None:
        """Raises: ValueError: an option that would do nothing."""
        for name in _TEACHER_OPTIONS:
            value = getattr(self, name)
            # By identity, since 0 == False: `--steps 0` is set, and the sampler refuses it.
            said = value is not None and value is not False
            if said and self.role != "teacher":
                raise ValueError(
                    f"--{name.replace('_', '-')} is for the teacher and the role is {self.role}; "
                    "add --role teacher, or leave it out."
                )
        if self.approximate and self.role != "student":
            raise ValueError(
                f"--approximate is for the student and the role is {self.role}; leave it out."
            )


def command_line(args: EvalOptions) -> list[str]:
    """The words of the command with these options; defaults are left out."""
    words = ["shotstream", "eval"]
    for field in dataclasses.fields(args):
        value = getattr(args, field.name)
        # A result is found again by its command: with defaults left out, an option that a later
        # release adds does not make older results look new.
        if value == field.default:
            continue
        words.append(f"--{field.name.replace('_', '-')}")
        if not isinstance(value, bool):
            words += map(str, value if isinstance(value, tuple) else [value])
    return words
