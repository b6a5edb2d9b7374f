"""The sizes of the three networks; importable without the networks."""

import dataclasses
import functools
import math

# Per-channel statistics that the public Wan2.1 code normalises its latents with (WanVAE.__init__).
_WAN_MEAN = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
_WAN_STD = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """A causal video autoencoder of the Wan family. Defaults are the Wan2.1 VAE.

    One stage a multiplier; between stages height and width halve (encoder) or double (decoder),
    and so does time where `temporal_downsample` is true.

    Attributes:
      base_channels: width of the first stage of the encoder and the last of the decoder.
      latent_channels: channels of a latent frame.
      multipliers: width of each stage of the encoder, in units of `base_channels`.
      residual_blocks: residual blocks of an encoder stage; a decoder stage has one more.
      temporal_downsample: whether time halves too, one flag for each change of stage.
      patch_size: pixels along one side of a position of the network's input (2 in Wan2.2's).
      latent_mean: mean of each latent channel over the training set of the weights.
      latent_std: standard deviation of each latent channel, likewise.
    """

    base_channels: int = 96
    latent_channels: int = 16
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    residual_blocks: int = 2
    temporal_downsample: tuple[bool, ...] = (False, True, True)
    patch_size: int = 1
    latent_mean: tuple[float, ...] = _WAN_MEAN
    latent_std: tuple[float, ...] = _WAN_STD

    def __post_init__(self) -> None:
        """Raises: ValueError: sizes that do not fit together, with both values."""
        self._check_stages()
        for name, values in (("latent_mean", self.latent_mean), ("latent_std", self.latent_std)):
            if len(values) != self.latent_channels:
                raise ValueError(
                    f"{name} has {len(values)} values for {self.latent_channels} latent channels; "
                    "give one for each channel."
                )
        if not all(std > 0 and math.isfinite(std) for std in self.latent_std):
            raise ValueError(f"latent_std {self.latent_std} must be positive, finite numbers.")

    def _check_stages(self) -> None:
        for name in ("base_channels", "latent_channels", "residual_blocks", "patch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1.")
        if len(self.temporal_downsample) != len(self.multipliers) - 1:
            raise ValueError(
                f"{len(self.multipliers)} multipliers make {len(self.multipliers) - 1} changes of "
                f"stage, but temporal_downsample has {len(self.temporal_downsample)} flags; "
                "give one flag for each change."
            )
        # Every change of stage in the decoder halves the channels while it doubles the picture.
        for multiplier in self.multipliers[1:]:
            if multiplier * self.base_channels % 2:
                raise ValueError(
                    f"base_channels {self.base_channels} times multiplier {multiplier} is odd, "
                    "and the decoder halves it; make one of them even."
                )

    @property
    def stages(self) -> int:
        """Resolutions that the network works at."""
        return len(self.multipliers)

    @property
    def stage_channels(self) -> tuple[int, ...]:
        """Width of each stage, from pixels to latents."""
        return tuple(self.base_channels * multiplier for multiplier in self.multipliers)

    @property
    def spatial_stride(self) -> int:
        """Pixels along one side of a latent position."""
        return self.patch_size * 2 ** (self.stages - 1)

    @property
    def patch_channels(self) -> int:
        """Channels of the network's input: the colours of one patch of pixels."""
        return 3 * self.patch_size**2

    @property
    def temporal_stride(self) -> int:
        """Video frames per latent frame, after the first."""
        return 2 ** sum(self.temporal_downsample)

    def video_frames(self, latent_frames: int) -> int:
        """Video frames that `latent_frames` decode to: one, and a stride for each later one.

        Raises:
          ValueError: fewer than one frame.
        """
        if latent_frames < 1:
            raise ValueError(f"{latent_frames} latent frames make no clip; give at least 1.")
        return 1 + self.temporal_stride * (latent_frames - 1)

    def latent_frames(self, video_frames: int) -> int:
        """Latent frames that `video_frames` encode to.

        Raises:
          ValueError: a number of frames that is not one and a whole number of strides.
        """
        # The first frame stands alone, so that one image is one latent frame.
        further, rest = divmod(video_frames - 1, self.temporal_stride)
        if video_frames < 1 or rest:
            # Refused, not cut: which frames to drop is for the caller to decide.
            nearest = self.video_frames(max(further, 0) + 1)
            raise ValueError(
                f"{video_frames} video frames are not 1 and a multiple of {self.temporal_stride}; "
                f"cut the clip to {nearest} frames or fill it to {nearest + self.temporal_stride}."
            )
        return further + 1

    def latent_grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the latents of a picture of `height` by `width` pixels.

        Raises:
          ValueError: a side that is not a whole number of latent positions.
        """
        stride = self.spatial_stride
        if min(height, width) < stride or height % stride or width % stride:
            raise ValueError(
                f"A picture of {height}x{width} pixels does not divide into latent positions of "
                f"{stride}x{stride}; crop or resize both sides to multiples of {stride}."
            )
        return height // stride, width // stride


WAN_VAE = VAEConfig()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextEncoderConfig:
    """The sizes of a UMT5 encoder. Defaults are UMT5-XXL.

    Attributes:
      vocab: rows of the embedding table; at least as many as the tokenizer has ids.
      dim: width of the residual stream, and of an encoded caption.
      attention_dim: width of all heads together.
      ffn_dim: hidden width of the gated feed-forward layers.
      heads: attention heads.
      layers: transformer blocks.
      buckets: relative-position buckets, half for keys ahead; a quarter hold one distance each.
      max_distance: distance in tokens from which all share the last bucket.
    """

    vocab: int = 256384
    dim: int = 4096
    attention_dim: int = 4096
    ffn_dim: int = 10240
    heads: int = 64
    layers: int = 24
    buckets: int = 32
    max_distance: int = 128

    def __post_init__(self) -> None:
        """Raises: ValueError: sizes that do not fit together, with both values."""
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise ValueError(f"{field.name} {getattr(self, field.name)} must be at least 1.")
        if self.attention_dim % self.heads:
            raise ValueError(
                f"attention_dim {self.attention_dim} does not divide into {self.heads} heads; "
                "make it a multiple."
            )
        if self.buckets % 4:
            raise ValueError(
                f"buckets {self.buckets} must be a multiple of 4: back and ahead, near and far."
            )
        if self.max_distance <= self.buckets // 4:
            raise ValueError(
                f"max_distance {self.max_distance} must exceed buckets / 4 = {self.buckets // 4}, "
                "the distances that have a bucket of their own."
            )

    @functools.cached_property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.attention_dim // self.heads


UMT5_XXL = TextEncoderConfig()
