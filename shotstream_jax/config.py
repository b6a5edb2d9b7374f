"""All sizes of one model together, named presets of them, and the JSON they are stored as.

Only the command and `model.py` hold the whole; everything below receives its own part.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from shotstream_jax.models.cache import Window
from shotstream_jax.models.dit_config import WAN_1_3B, WAN_14B, DiTConfig
from shotstream_jax.models.text_encoder import UMT5_XXL, TextEncoderConfig
from shotstream_jax.models.vae_config import WAN_VAE, VAEConfig
from shotstream_jax.rollout.chunk import RolloutConfig
from shotstream_jax.storyworld.captions import VOCABULARY


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The sizes of the networks of one model, and how it films.

    Attributes:
      dit: the transformer.
      vae: the video autoencoder.
      text: the text encoder.
      rollout: windows and denoising steps.
    """

    dit: DiTConfig
    vae: VAEConfig
    text: TextEncoderConfig
    rollout: RolloutConfig = RolloutConfig()

    def __post_init__(self) -> None:
        """Raises: ValueError: networks that do not fit one another, with both sizes."""
        if self.dit.latent_channels != self.vae.latent_channels:
            raise ValueError(
                f"The transformer has {self.dit.latent_channels} latent channels and the "
                f"autoencoder {self.vae.latent_channels}; take both from one release."
            )
        if self.dit.text_dim != self.text.dim:
            raise ValueError(
                f"The transformer reads text {self.dit.text_dim} wide and the text encoder "
                f"writes {self.text.dim}; take both from one release."
            )

    def document(self) -> dict[str, Any]:
        """The sizes as a checkpoint's `config.json` has them."""
        networks = {
            name: dataclasses.asdict(getattr(self, name)) for name in ("dit", "vae", "text")
        }
        return {"networks": networks, "rollout": dataclasses.asdict(self.rollout)}

    def digest(self) -> str:
        """A short hash of all sizes."""
        text = json.dumps(self.document(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def rollout_from(document: Mapping[str, Any] | None) -> RolloutConfig:
    """Rollout settings as a checkpoint stores them; the released model's where it stores none.

    Raises:
      ValueError: settings of another version, or that make no schedule.
    """
    if document is None:
        return RolloutConfig()
    try:
        window = Window(**document["window"])
        return RolloutConfig(window=window, steps=tuple(document["steps"]), shift=document["shift"])
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"The checkpoint's rollout settings {document} are not understood ({error}); "
            "install the release that wrote them."
        ) from error


_TINY_WORDS = 2 + 256 + len(VOCABULARY)

TINY = ModelConfig(
    dit=DiTConfig(
        dim=192,
        layers=4,
        heads=3,
        ffn_dim=640,
        freq_dim=64,
        text_dim=64,
        text_tokens=48,
        latent_channels=8,
        patch=(4, 4),
    ),
    vae=VAEConfig(
        base_channels=8,
        latent_channels=8,
        multipliers=(1, 2, 4),
        residual_blocks=1,
        temporal_downsample=(True, True),
        latent_mean=(0.0,) * 8,
        latent_std=(1.0,) * 8,
    ),
    text=TextEncoderConfig(
        vocab=_TINY_WORDS, dim=64, attention_dim=64, ffn_dim=128, heads=4, layers=2
    ),
    rollout=RolloutConfig(window=Window(local=6), shift=3.0),
)
"""The miniature: films StoryWorld in 48 x 80 pixels, two chunks a shot."""

PRESETS: Mapping[str, ModelConfig] = {
    "tiny": TINY,
    "wan-1.3b": ModelConfig(dit=WAN_1_3B, vae=WAN_VAE, text=UMT5_XXL),
    "wan-14b": ModelConfig(dit=WAN_14B, vae=WAN_VAE, text=UMT5_XXL),
}
"""Models by name; only `tiny` comes with weights, the others are what a checkpoint may hold."""

WAN_NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，"
    "低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，"
    "毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)
"""The negative prompt of the public Wan2.1 and ShotStream configs."""
