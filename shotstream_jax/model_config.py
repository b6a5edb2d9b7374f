"""All sizes of one model, and how it films: the one configuration that travels.

Whatever builds, films, trains, plans or stores a model takes a `ModelConfig` whole. Its JSON is the
`networks` and `rollout` of a checkpoint's `config.json`; nothing else reads or writes them.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from shotstream_jax.models.cache import Window
from shotstream_jax.models.dit_config import DiTConfig
from shotstream_jax.models.rope import MAX_POSITION
from shotstream_jax.models.text_encoder import TextEncoderConfig
from shotstream_jax.models.vae_config import VAEConfig
from shotstream_jax.schedule import FlowSchedule
from shotstream_jax.typing import Float

NetworkConfig = DiTConfig | VAEConfig | TextEncoderConfig

NETWORKS: Mapping[str, type[NetworkConfig]] = {
    "dit": DiTConfig,
    "vae": VAEConfig,
    "text": TextEncoderConfig,
}
"""The networks of a model by the names that checkpoints give them, and their configurations."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """How the causal student films.

    Attributes:
      window: latent frames in a chunk and in the caches.
      steps: the few noise levels, on the unshifted scale of [0, 1000].
      shift: of the flow schedule.
      trained_chunks: chunks of a shot in training, where that is not what the local window holds.
    """

    window: Window = Window()
    # denoising_step_list of the public ShotStream configs.
    steps: tuple[int, ...] = (1000, 740, 500, 260)
    shift: float = 8.0
    trained_chunks: int | None = None

    def __post_init__(self) -> None:
        """Raises: ValueError: steps or a shift that make no schedule, or shots without chunks."""
        _ = self.sigmas
        if self.trained_chunks is not None and self.trained_chunks < 1:
            raise ValueError(f"trained_chunks {self.trained_chunks} must be at least 1.")

    @functools.cached_property
    def sigmas(self) -> Float[np.ndarray, " step"]:
        """Noise level of every step."""
        return FlowSchedule(shift=self.shift).few_steps(self.steps)

    @property
    def max_chunks(self) -> int:
        """Chunks that one camera shot can have before positions run out."""
        return (MAX_POSITION - self.window.context) // self.window.chunk

    @property
    def shot_chunks(self) -> int:
        """Chunks of a shot in training; more than these the model was never shown."""
        # Released weights do not say; they were trained on shots that fill the local window.
        return self.trained_chunks or self.window.local // self.window.chunk

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON has them."""
        document = dataclasses.asdict(self)
        # A setting that is not made is not written: digests of older checkpoints stay as they are.
        if self.trained_chunks is None:
            del document["trained_chunks"]
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | None) -> "RolloutConfig":
        """Settings as a checkpoint stores them; the released model's where it stores none.

        Raises:
          ValueError: settings of another version, or that make no schedule.
        """
        if document is None:
            return cls()
        try:
            settings = {**document, "window": Window(**document["window"])}
            return cls(**{**settings, "steps": tuple(document["steps"])})
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"The checkpoint's rollout settings {document} are not understood ({error}); "
                "install the release that wrote them."
            ) from error


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

    def latent_grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of latents for a film of `size` = (height, width) pixels.

        Raises:
          ValueError: a size that does not divide into patches of latents.
        """
        for name, pixels, patch in zip(("height", "width"), size, self.dit.patch, strict=True):
            unit = self.vae.spatial_stride * patch
            if pixels <= 0 or pixels % unit:
                nearest = max(1, round(pixels / unit)) * unit
                raise ValueError(
                    f"A {name} of {pixels} pixels is not a multiple of {unit}; try {nearest}."
                )
        return self.vae.latent_grid(*size)

    def frame_tokens(self, size: tuple[int, int]) -> int:
        """Tokens of one latent frame for a film of `size` = (height, width) pixels.

        Raises:
          ValueError: a size that does not divide into patches of latents.
        """
        rows, cols = self.latent_grid(size)
        return (rows // self.dit.patch[0]) * (cols // self.dit.patch[1])

    def to_json(self) -> dict[str, Any]:
        """The sizes as a checkpoint's `config.json` has them."""
        networks = {name: dataclasses.asdict(getattr(self, name)) for name in NETWORKS}
        return {"networks": networks, "rollout": self.rollout.to_json()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "ModelConfig":
        """The sizes of a whole model, from what a `config.json` holds.

        Raises:
          ValueError: a network that is missing, or sizes that are not known or do not fit.
        """
        networks: Any = {
            name: network_from_json(name, document["networks"].get(name)) for name in NETWORKS
        }
        return cls(**networks, rollout=RolloutConfig.from_json(document.get("rollout")))

    def digest(self) -> str:
        """A short hash of all sizes."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def network_from_json(name: str, sizes: Mapping[str, Any] | None) -> NetworkConfig:
    """The sizes of one network by its name, from those that a `config.json` holds.

    Raises:
      ValueError: no sizes, sizes that are not known, or sizes that do not fit together.
    """
    if sizes is None:
        raise ValueError(
            f"This checkpoint holds no {name}; convert again with the folder that has it (--wan)."
        )
    lists = {key: tuple(value) for key, value in sizes.items() if isinstance(value, list)}
    try:
        return NETWORKS[name](**{**sizes, **lists})
    except TypeError as error:
        raise ValueError(
            f"config.json has other sizes for {name} than are known: {error}."
        ) from error
