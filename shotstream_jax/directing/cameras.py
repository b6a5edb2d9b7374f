"""What films the shots of a film: the causal student chunk by chunk, or the teacher."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from shotstream_jax.model import Model
from shotstream_jax.rollout.stream import Camera, ContextFrameStore, FilmedChunk, context_sources
from shotstream_jax.rollout.teacher import SampleConfig
from shotstream_jax.rollout.teacher_camera import TeacherCamera
from shotstream_jax.story import ShotPlan
from shotstream_jax.typing import Latents


@runtime_checkable
class FilmsShots(Protocol):
    """What films the shots of one film: a camera of the student, or of the teacher."""

    @property
    def store(self) -> ContextFrameStore:
        """Frames that later shots may see."""
        ...

    @property
    def sampler(self) -> str:
        """How it samples, where that is not how the model's student does."""
        ...

    def film(self, plan: ShotPlan) -> Iterator[FilmedChunk]:
        """Film a take, chunk by chunk."""
        ...

    def replay(self, plan: ShotPlan, latents: Latents) -> Iterator[FilmedChunk]:
        """Take a shot that was filmed before as filmed."""
        ...


MakeCamera = Callable[[Sequence[ShotPlan], tuple[int, int]], FilmsShots]
"""Makes what films the shots of some plans, at a height and width in pixels."""


def student_camera(
    model: Model, plans: Sequence[ShotPlan], size: tuple[int, int], *, whole_shots: bool = False
) -> FilmsShots:
    """A camera of the causal student that keeps the frames which some plans name.

    With `whole_shots` each shot is denoised in one program: the same film, but no frame of a shot
    is there before all of them.
    """
    wanted = context_sources(plans)
    return Camera(model.networks, size, wanted=wanted, whole_takes=whole_shots)


def teacher_camera(
    model: Model,
    plans: Sequence[ShotPlan],
    size: tuple[int, int],
    *,
    sample: SampleConfig,
    negative: str | None = None,
) -> FilmsShots:
    """A camera of the bidirectional teacher that keeps the frames which some plans name."""
    wanted = context_sources(plans)
    return TeacherCamera(model.networks, size, sample=sample, negative=negative, wanted=wanted)
