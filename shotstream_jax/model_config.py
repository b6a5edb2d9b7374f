"""All sizes of one model, and how it films: the one configuration that travels.

Whatever builds, films, trains, plans or stores a model takes a `ModelConfig` whole. A checkpoint's
`config.json` is a `CheckpointConfig`: the same with the origin of the weights, and possibly with
some of the networks only. Nothing else reads or writes that file.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, get_args, overload

import numpy as np

from shotstream_jax.models.cache import Window
from shotstream_jax.models.configs import DiTConfig, TextEncoderConfig, VAEConfig
from shotstream_jax.models.rope import MAX_POSITION
from shotstream_jax.schedule import FlowSchedule
from shotstream_jax.strict_json import T, read_dataclass
from shotstream_jax.typing import Float

NetworkConfig = DiTConfig | VAEConfig | TextEncoderConfig

NETWORKS: Mapping[str, type[NetworkConfig]] = {
    "dit": DiTConfig,
    "vae": VAEConfig,
    "text": TextEncoderConfig,
}
"""The networks of a model by the names that checkpoints give them, and their configurations."""

WeightsOrigin = Literal["random", "converted", "trained"]

FORMAT, VERSION = "shotstream_jax", 1
"""What `config.json` calls itself; a change that older releases would misread counts up."""

ADDED_LATER = frozenset({"patch_size", "shot_phase", "trained_chunks"})
"""Fields that the first checkpoints lack; those films were made with today's defaults."""

_LARGEST = {
    "layers": 1_000,
    "heads": 1_000,
    "text_tokens": 100_000,
    "vocab": 10_000_000,
    "residual_blocks": 100,
    # Multipliers of the autoencoder's stages, and pixels and latents along a side of a patch.
    "multipliers": 1_000,
    "patch": 64,
    "patch_size": 64,
}
_LARGEST_OTHER = 1_000_000
"""Far beyond any published model: what is larger is a slip of the pen, and is refused here before
terabytes are asked for."""

# Far beyond Wan2.2's 14B transformer, and 4 TB in float32.
_MOST_PARAMETERS = 10**12
# Stages of an autoencoder, steps of a schedule, channels of statistics: tuples of a config.
_MOST_ITEMS = 4096


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
        """The settings as `config.json` has them."""
        document = dataclasses.asdict(self)
        # A setting that is not made is not written: digests of older checkpoints stay as they are.
        if self.trained_chunks is None:
            del document["trained_chunks"]
        return document


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
        """Raises: ValueError: sizes out of range, or networks that do not fit one another."""
        for name in NETWORKS:
            _check_range(name, getattr(self, name))
        _check_range("rollout.window", self.rollout.window)
        check_fit({name: getattr(self, name) for name in NETWORKS})

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
        """The sizes of a whole model, from what `to_json` made of them.

        Raises:
          ValueError: sizes that are not known, not all there, out of range or do not fit.
        """
        parts = {**document["networks"], "rollout": document["rollout"]}
        return read_dataclass(cls, parts, "model", optional=ADDED_LATER)

    def digest(self) -> str:
        """A short hash of all sizes."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoRAConfig:
    """Adapters beside a transformer's kernels.

    Attributes:
      rank: of their factors.
      alpha: their change is scaled by alpha / rank.
    """

    rank: int = 256
    alpha: float = 256.0

    def __post_init__(self) -> None:
        """Raises: ValueError: a rank below 1."""
        if self.rank < 1:
            raise ValueError(f"rank {self.rank} must be at least 1.")

    @property
    def scale(self) -> float:
        """What the product of the factors is multiplied with."""
        return self.alpha / self.rank


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """All that the `config.json` of a checkpoint says, which may hold some networks only.

    Attributes:
      networks: sizes of those that it holds, in the order in which they are stored.
      lora: adapters that are stored beside the transformer, to be merged when it is loaded.
      rollout: windows and denoising steps; `None` where the files it comes from do not say.
      weights: where the weights come from.
      source: of converted weights: each network's format, files and report.
      training: of trained weights: the stage, and under `after` those before it.
    """

    networks: Mapping[str, NetworkConfig]
    lora: LoRAConfig | None = None
    rollout: RolloutConfig | None = None
    weights: WeightsOrigin
    source: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises: ValueError: sizes out of range."""
        for name, config in self.networks.items():
            _check_range(f"networks.{name}", config)
        if self.rollout is not None:
            _check_range("rollout.window", self.rollout.window)

    @property
    def items(self) -> tuple[str, ...]:
        """Names of all trees of parameters that the checkpoint holds."""
        return (*self.networks, *(() if self.lora is None else ("lora",)))

    @overload
    def network(self, name: Literal["dit"]) -> DiTConfig: ...
    @overload
    def network(self, name: Literal["vae"]) -> VAEConfig: ...
    @overload
    def network(self, name: Literal["text"]) -> TextEncoderConfig: ...
    @overload
    def network(self, name: str) -> NetworkConfig: ...
    def network(self, name: str) -> NetworkConfig:
        """The sizes of one network.

        Raises:
          ValueError: the checkpoint does not hold it.
        """
        self.require(name)
        return self.networks[name]

    def require(self, item: str) -> None:
        """Raises: ValueError: the checkpoint does not hold this tree of parameters."""
        if item not in self.items:
            raise ValueError(
                f"This checkpoint holds {', '.join(self.items)} and no {item}; "
                "convert again with the folder that has it (--wan)."
            )

    def model(self) -> ModelConfig:
        """The whole model; the released rollout where the checkpoint does not say.

        Raises:
          ValueError: a network that is missing, or networks that do not fit one another.
        """
        return ModelConfig(
            dit=self.network("dit"),
            vae=self.network("vae"),
            text=self.network("text"),
            rollout=self.rollout or RolloutConfig(),
        )

    def to_json(self) -> dict[str, Any]:
        """The content of `config.json`."""
        networks = {name: dataclasses.asdict(config) for name, config in self.networks.items()}
        if self.lora is not None:
            networks["lora"] = dataclasses.asdict(self.lora)
        return {
            "format": FORMAT,
            "version": VERSION,
            "networks": networks,
            **({} if self.rollout is None else {"rollout": self.rollout.to_json()}),
            "weights": self.weights,
            **({"source": dict(self.source)} if self.source else {}),
            **({"training": dict(self.training)} if self.training else {}),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any], where: str) -> "CheckpointConfig":
        """What a `config.json` says; `where` names the file in errors.

        Raises:
          ValueError: the file of another program or version, or fields that are not known, not
            all there, of another type, out of range, or that do not fit together.
        """
        _check_document(document, where)
        networks = dict(document["networks"])
        lora, rollout = networks.pop("lora", None), document.get("rollout")

        def read(kind: type[T], part: object, name: str) -> T:
            return read_dataclass(kind, part, f"{where}: {name}", optional=ADDED_LATER)

        sizes = {
            name: read(NETWORKS[name], networks[name], f"networks.{name}") for name in networks
        }
        adapters = None if lora is None else read(LoRAConfig, lora, "networks.lora")
        settings = None if rollout is None else read(RolloutConfig, rollout, "rollout")
        try:
            return cls(
                networks=sizes,
                lora=adapters,
                rollout=settings,
                weights=document["weights"],
                source=document.get("source", {}),
                training=document.get("training", {}),
            )
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


def check_fit(networks: Mapping[str, NetworkConfig]) -> None:
    """Compare the widths at which networks meet, of those that are there.

    Raises:
      ValueError: networks that do not fit one another, with both widths.
    """
    dit, vae, text = (networks.get(name) for name in NETWORKS)
    if not isinstance(dit, DiTConfig):
        return
    if isinstance(vae, VAEConfig) and dit.latent_channels != vae.latent_channels:
        raise ValueError(
            f"The transformer has {dit.latent_channels} latent channels and the "
            f"autoencoder {vae.latent_channels}; take both from one release."
        )
    if isinstance(text, TextEncoderConfig) and dit.text_dim != text.dim:
        raise ValueError(
            f"The transformer reads text {dit.text_dim} wide and the text encoder "
            f"writes {text.dim}; take both from one release."
        )


def _check_document(document: Mapping[str, Any], where: str) -> None:
    """Raises: ValueError: another program's or version's file, or one that says something else."""
    if document.get("format") != FORMAT:
        raise ValueError(
            f"{where} does not say format {FORMAT!r}: another program's; convert it first."
        )
    if document.get("version") != VERSION:
        raise ValueError(
            f"{where} is of version {document.get('version')!r} and {VERSION} is read here; "
            "install the release that wrote it, or convert again."
        )
    fields = {"format", "version", *(field.name for field in dataclasses.fields(CheckpointConfig))}
    unknown = sorted(document.keys() - (fields - {"lora"}))
    if unknown:
        raise ValueError(
            f"{where} has a field {unknown[0]!r} that is not known here; install the release that "
            "wrote it, or take the field out if nothing needs it."
        )
    objects = [document.get(name, {}) for name in ("source", "training")]
    if not all(isinstance(part, dict) for part in (document.get("networks"), *objects)) or (
        document.get("weights") not in get_args(WeightsOrigin)
    ):
        raise ValueError(f"{where} does not describe networks and weights; fetch it again.")
    strange = sorted(document["networks"].keys() - {*NETWORKS, "lora"})
    if strange:
        raise ValueError(
            f"{where} describes a network {strange[0]!r} that is not known here; install the "
            "release that wrote it."
        )


def _check_range(name: str, config: NetworkConfig | Window) -> None:
    """Raises: ValueError: a size that no model has, with the largest one that is taken."""
    for field, value in dataclasses.asdict(config).items():
        most = _LARGEST.get(field, _LARGEST_OTHER)
        # Every frame that a window holds has a position of its own in the rotary tables.
        most = MAX_POSITION if isinstance(config, Window) else most
        values = value if isinstance(value, tuple) else (value,)
        if len(values) > _MOST_ITEMS:
            raise ValueError(f"{name}.{field} has {len(values)} values, above {_MOST_ITEMS}.")
        for number in values:
            if isinstance(number, int) and number > most:
                raise ValueError(
                    f"{name}.{field} {number} is above {most}, the most that is taken."
                )
    if isinstance(config, DiTConfig | TextEncoderConfig) and _parameters(config) > _MOST_PARAMETERS:
        raise ValueError(
            f"{name} has {_parameters(config):.1e} parameters, above {_MOST_PARAMETERS:.0e}; "
            "correct its sizes."
        )


def _parameters(config: DiTConfig | TextEncoderConfig) -> int:
    """Parameters in the kernels of a transformer's blocks and embeddings, about all it has."""
    if isinstance(config, DiTConfig):
        # Queries, keys, values and outputs of two attentions, and two layers of the FFN.
        block = 8 * config.dim**2 + 2 * config.dim * config.ffn_dim
        return config.layers * block + 8 * config.dim**2
    block = 4 * config.dim * config.attention_dim + 3 * config.dim * config.ffn_dim
    return config.layers * block + config.vocab * config.dim
