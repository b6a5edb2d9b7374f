"""The shape of a film: everything that decides which programs film it, and their array shapes."""

import dataclasses

from shotstream_jax.model_config import ModelConfig
from shotstream_jax.models.compute import Compute
from shotstream_jax.rollout.approximate import Approximation


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilmShape:
    """A model, how it computes, and the size of what it films. Two of one shape share programs.

    Attributes:
      config: sizes of the networks, windows and denoising steps.
      compute: number format and kernels.
      size: height and width of the film in pixels.
      chunks: of a shot.
      merged_passes: clean and context passes share a pass with the step that follows.
      approximation: what is not computed exactly.
    """

    config: ModelConfig
    compute: Compute = Compute()
    # 480 x 832 pixels and 7 chunks: what the released student was trained on.
    size: tuple[int, int] = (480, 832)
    chunks: int = 7
    merged_passes: bool = False
    approximation: Approximation = Approximation()

    def __post_init__(self) -> None:
        """Raises: ValueError: a size that does not divide into patches, or shots without chunks."""
        if self.chunks < 1:
            raise ValueError(f"A shot of {self.chunks} chunks; a shot has 1 or more.")
        self.config.latent_grid(self.size)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of a latent frame."""
        return self.config.latent_grid(self.size)

    @property
    def positions(self) -> int:
        """Rows times columns of a latent frame."""
        return self.grid[0] * self.grid[1]

    @property
    def frame_tokens(self) -> int:
        """Tokens of a latent frame."""
        return self.config.frame_tokens(self.size)

    @property
    def shot_latent_frames(self) -> int:
        """Latent frames of a shot."""
        return self.chunks * self.config.rollout.window.chunk

    @property
    def video_frames(self) -> int:
        """Video frames of a shot that begins with a cut."""
        return self.config.vae.video_frames(self.shot_latent_frames)
