"""What the networks cost by their sizes: floating-point operations, parameters, cached values.

Formulas, because `shotstream check` answers before anything is traced (tracing the three full-size
networks takes seconds), and because the compiler cannot count what films: it counts the body of a
loop over layers or denoising steps once, and no attention kernel at all. Tests hold parameters to
those of `init` exactly, and operations to the compiler's where it counts all of them.

Counted are matrix products and convolutions, two operations a multiply-add; element-wise work and
the timestep, text and patch embeddings are left out (together far below one percent).
"""

from collections.abc import Iterator
from typing import NamedTuple

from shotstream_jax.models.configs import DiTConfig, TextEncoderConfig, VAEConfig


def dit_weights(config: DiTConfig) -> int:
    """Parameters of a diffusion transformer."""
    dim = config.dim
    # Four projections with biases; a norm scale each for queries and keys.
    attention = 4 * (dim * dim + dim) + 2 * dim
    feed_forward = 2 * dim * config.ffn_dim + config.ffn_dim + dim
    # Self- and cross-attention; scale and shift of the norm between them; six modulations.
    block = 2 * attention + feed_forward + 2 * dim + 6 * dim
    # A row each for every patch, text and frequency channel; the second layers of text and time;
    # the biases of these five.
    embeddings = config.patch_channels + config.text_dim + config.freq_dim + 2 * dim + 5
    time_projection = 6 * (dim * dim + dim)
    # Its own modulation is a scale and a shift.
    head = (dim + 1) * config.patch_channels + 2 * dim
    return config.layers * block + embeddings * dim + time_projection + head


def dit_flops(config: DiTConfig, queries: int, keys: int) -> int:
    """Operations of one call: `queries` tokens in, which see `keys` tokens and one caption."""
    dim = config.dim
    # Self-attention has four projections, cross-attention two: its keys come from the cache.
    projections = 2 * 6 * dim * dim + 4 * dim * config.ffn_dim
    # Scores and weighted values: two products of 2 dim operations for every query and key.
    attention = 4 * dim * (keys + config.text_tokens)
    return config.layers * queries * (projections + attention)


def keys_flops(config: DiTConfig, queries: int, keys: int) -> int:
    """Operations of a call that stops at the last layer's keys and values."""
    whole = dit_flops(config, queries, keys) // config.layers * (config.layers - 1)
    # Two projections of the last layer; nothing reads what else it would compute.
    return whole + 2 * 2 * config.dim**2 * queries


def text_weights(config: TextEncoderConfig) -> int:
    """Parameters of a text encoder."""
    # T5: no biases; a table of position biases and two norm scales in every layer.
    layer = _text_products(config) + config.buckets * config.heads + 2 * config.dim
    return config.vocab * config.dim + config.layers * layer + config.dim


def text_flops(config: TextEncoderConfig, tokens: int) -> int:
    """Operations that encode one caption of `tokens` tokens, padding included."""
    attention = 4 * tokens * config.attention_dim
    return config.layers * tokens * (2 * _text_products(config) + attention)


def _text_products(config: TextEncoderConfig) -> int:
    return 4 * config.dim * config.attention_dim + 3 * config.dim * config.ffn_dim


class Conv(NamedTuple):
    """A convolution of the autoencoder.

    Attributes:
      inputs: channels in.
      outputs: channels out.
      area: taps on the picture.
      times: taps in time.
      positions: places on the picture it writes.
      frames: frames it writes.
      normed: whether a norm with a scale for each input channel comes before it.
    """

    inputs: int
    outputs: int
    area: int
    times: int
    positions: int
    frames: int
    normed: bool = False

    @property
    def weights(self) -> int:
        """Parameters, those of its bias and of the norm before it included."""
        scales = self.inputs if self.normed else 0
        return (self.inputs * self.area * self.times + 1) * self.outputs + scales

    @property
    def past(self) -> int:
        """Values that streaming remembers for it."""
        return (self.times - 1) * self.inputs * self.positions

    def flops(self, times: int) -> int:
        """Operations when no more than `times` taps in time meet anything but zeros."""
        taps = self.area * min(self.times, times)
        return 2 * self.inputs * self.outputs * taps * self.positions * self.frames


def vae_weights(config: VAEConfig) -> int:
    """Parameters of a video autoencoder."""
    convs = (*decoder_convs(config, 1, first=False), *encoder_convs(config, 1, first=False))
    return sum(conv.weights for conv in convs)


def decode_flops(config: VAEConfig, positions: int, *, first: bool) -> int:
    """Operations that decode the first or a later latent frame of `positions` positions."""
    convs = decoder_convs(config, positions, first=first)
    # At the start of a clip two of three temporal taps would meet zeros, and are not computed.
    return _picture_flops(config, positions, convs, times=1 if first else 3)


def encode_flops(config: VAEConfig, positions: int) -> int:
    """Operations that encode a single video frame to `positions` latent positions."""
    return _picture_flops(config, positions, encoder_convs(config, positions, first=True), times=1)


def decoder_past(config: VAEConfig, positions: int) -> int:
    """Values that streaming decoding carries from one latent frame to the next."""
    return sum(conv.past for conv in decoder_convs(config, positions, first=False))


def decoder_convs(config: VAEConfig, positions: int, *, first: bool) -> Iterator[Conv]:
    """Every convolution that decodes the first or a later latent frame, in order."""
    latent, frames = config.latent_channels, 1
    doublings = (*reversed(config.temporal_downsample), None)
    width, *_ = widths = tuple(reversed(config.stage_channels))
    yield Conv(latent, latent, 1, 1, positions, 1)
    yield Conv(latent, width, 9, 3, positions, 1)
    yield from _middle(width, positions)
    for doubles_time, outputs in zip(doublings, widths, strict=True):
        yield from _residual_blocks(width, outputs, config.residual_blocks + 1, positions, frames)
        width = outputs
        if doubles_time is None:
            break
        # A clip's first latent frame shows one video frame: it is not doubled in time.
        if doubles_time and not first:
            yield Conv(width, 2 * width, 1, 3, positions, frames)
            frames *= 2
        positions *= 4
        yield Conv(width, width // 2, 9, 1, positions, frames)
        width //= 2
    yield Conv(width, config.patch_channels, 9, 3, positions, frames, normed=True)


def encoder_convs(config: VAEConfig, positions: int, *, first: bool) -> Iterator[Conv]:
    """Every convolution that encodes the first or a later latent frame, in order."""
    moments = 2 * config.latent_channels
    halvings = (*config.temporal_downsample, None)
    frames = 1 if first else config.temporal_stride
    # From latent positions back to those of the first convolution, after pixels are patched.
    positions *= (config.spatial_stride // config.patch_size) ** 2
    width = config.base_channels
    yield Conv(config.patch_channels, width, 9, 3, positions, frames)
    for halves_time, outputs in zip(halvings, config.stage_channels, strict=True):
        yield from _residual_blocks(width, outputs, config.residual_blocks, positions, frames)
        width = outputs
        if halves_time is None:
            break
        positions //= 4
        yield Conv(width, width, 9, 1, positions, frames)
        if halves_time and not first:
            frames //= 2
            yield Conv(width, width, 1, 3, positions, frames)
    yield from _middle(width, positions)
    yield Conv(width, moments, 9, 3, positions, frames, normed=True)
    yield Conv(moments, moments, 1, 1, positions, frames)


def _middle(width: int, positions: int) -> Iterator[Conv]:
    yield from _residual_blocks(width, width, 2, positions, 1)
    # Queries, keys and values of the bottleneck's attention at once, and its way out.
    yield Conv(width, 3 * width, 1, 1, positions, 1, normed=True)
    yield Conv(width, width, 1, 1, positions, 1)


def _residual_blocks(
    inputs: int, outputs: int, count: int, positions: int, frames: int
) -> Iterator[Conv]:
    for _ in range(count):
        yield Conv(inputs, outputs, 9, 3, positions, frames, normed=True)
        yield Conv(outputs, outputs, 9, 3, positions, frames, normed=True)
        if inputs != outputs:
            yield Conv(inputs, outputs, 1, 1, positions, frames)
        inputs = outputs


def _picture_flops(config: VAEConfig, positions: int, convs: Iterator[Conv], *, times: int) -> int:
    attention = 4 * positions**2 * config.stage_channels[-1]
    return attention + sum(conv.flops(times) for conv in convs)
