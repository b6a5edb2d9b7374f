"""The sizes of a diffusion transformer; importable without the network."""

import dataclasses
import functools


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiTConfig:
    """A Wan2.1 text-to-video transformer. Defaults are the 1.3B model.

    Attributes:
      dim: width of the residual stream.
      layers: transformer blocks.
      heads: attention heads; `dim / heads` is even and holds the three rotary axes.
      ffn_dim: hidden width of the feed-forward layers.
      freq_dim: width of the sinusoidal embedding of a timestep.
      text_dim: width of an encoded caption.
      text_tokens: length of an encoded caption; longer is refused, shorter is zero-padded.
      latent_channels: channels of a latent frame, in and out.
      patch: rows and columns of latent that make one token.
      shot_phase: radians added to temporal rotations from one shot to the next, which tells
        context frames from the shot's own (0 turns it off).
    """

    dim: int = 1536
    layers: int = 30
    heads: int = 12
    ffn_dim: int = 8960
    freq_dim: int = 256
    text_dim: int = 4096
    text_tokens: int = 512
    latent_channels: int = 16
    patch: tuple[int, int] = (2, 2)
    # The released student's value.
    shot_phase: float = 1 / 6

    def __post_init__(self) -> None:
        """Raises: ValueError: sizes below 1, or that do not fit together, with both values."""
        for name, value in dataclasses.asdict(self).items():
            if name != "shot_phase" and min(value if name == "patch" else (value,)) < 1:
                raise ValueError(f"{name} {value} must be at least 1.")
        if self.dim % self.heads or (self.dim // self.heads) % 2:
            raise ValueError(
                f"dim {self.dim} over {self.heads} heads gives heads of {self.dim / self.heads:g}; "
                "heads must be an even whole number of channels wide."
            )
        if self.freq_dim % 2:
            raise ValueError(f"freq_dim {self.freq_dim} must be even: half cosines, half sines.")

    @functools.cached_property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.dim // self.heads

    @functools.cached_property
    def patch_channels(self) -> int:
        """Values in one patch: rows x columns x channels."""
        return self.patch[0] * self.patch[1] * self.latent_channels


WAN_1_3B = DiTConfig()
WAN_14B = DiTConfig(dim=5120, layers=40, heads=40, ffn_dim=13824)
