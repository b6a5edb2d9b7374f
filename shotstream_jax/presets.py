"""Named models. Only commands, `model.py` and experiments read them; the rest takes a config."""

from collections.abc import Mapping

from shotstream_jax.model_config import ModelConfig, RolloutConfig
from shotstream_jax.models.cache import Window
from shotstream_jax.models.configs import (
    UMT5_XXL,
    WAN_1_3B,
    WAN_14B,
    WAN_VAE,
    DiTConfig,
    TextEncoderConfig,
    VAEConfig,
)
from shotstream_jax.story import Defaults

TINY = ModelConfig(
    dit=DiTConfig(
        dim=192,
        layers=4,
        heads=3,
        ffn_dim=640,
        freq_dim=64,
        text_dim=64,
        # The longest StoryWorld caption has fewer tokens than this.
        text_tokens=48,
        latent_channels=8,
        # Latents of 12 x 20 (48 x 80 pixels) become 3 x 5 tokens a frame: a film takes seconds on
        # a CPU.
        patch=(4, 4),
    ),
    vae=VAEConfig(
        base_channels=8,
        latent_channels=8,
        multipliers=(1, 2, 4),
        residual_blocks=1,
        temporal_downsample=(True, True),
        # Placeholders: the stage that trains the autoencoder measures them.
        latent_mean=(0.0,) * 8,
        latent_std=(1.0,) * 8,
    ),
    text=TextEncoderConfig(
        # Padding, end of text, 256 bytes for unknown words, and the words of StoryWorld. A number
        # and not a count, because a configuration stands below StoryWorld; a test compares them.
        vocab=342,
        dim=64,
        attention_dim=64,
        ffn_dim=128,
        heads=4,
        layers=2,
    ),
    # Two chunks of three frames fill the local window: StoryWorld's shots are that long.
    rollout=RolloutConfig(window=Window(local=6), shift=3.0),
)
"""The miniature: films StoryWorld in 48 x 80 pixels, two chunks a shot."""

PRESETS: Mapping[str, ModelConfig] = {
    "tiny": TINY,
    "wan-1.3b": ModelConfig(dit=WAN_1_3B, vae=WAN_VAE, text=UMT5_XXL),
    "wan-14b": ModelConfig(dit=WAN_14B, vae=WAN_VAE, text=UMT5_XXL),
}
"""Models by name; only `tiny` comes with weights, the others are what a checkpoint may hold."""


def film_defaults(config: ModelConfig) -> Defaults:
    """Size, rate and length of what a model was trained to film, for stories that do not say."""
    chunks = config.rollout.shot_chunks
    # Checkpoints do not hold the size of their training films. Those that read StoryWorld's words
    # were trained on its films, all others on what the released weights were.
    if config.text == TINY.text:
        return Defaults(size=(48, 80), fps=8, chunks=chunks)
    return Defaults(chunks=chunks)


WAN_NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，"
    "低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，"
    "毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)
"""The negative prompt of the public Wan2.1 and ShotStream configs."""
