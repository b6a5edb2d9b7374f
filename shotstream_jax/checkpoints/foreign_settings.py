"""Settings in the `config.json` of other programs: each is used, checked or listed.

A setting that changes numbers is either read into the config (`sizes.py`), compared with what the
shapes of the weights show, or compared with the one value that is implemented here. All
other settings are listed in the report of a conversion.

Source: the public Wan2.1 repository, wan/modules/model.py; diffusers, WanTransformer3DModel and
AutoencoderKLWan; transformers, UMT5Config.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from shotstream_jax.checkpoints.sizes import StoredSettings, described_width
from shotstream_jax.model_config import NetworkConfig
from shotstream_jax.models.configs import DiTConfig, TextEncoderConfig, VAEConfig
from shotstream_jax.models.rope import MAX_POSITION
from shotstream_jax.strict_json import brief

Accepted = tuple[object, ...]

# Every norm of the networks adds this to a variance; it is Flax's default and theirs.
_EPSILON: Accepted = (1e-6,)


@dataclasses.dataclass(frozen=True)
class SettingsTable:
    """The settings that a kind of `config.json` is known to have.

    Attributes:
      used: those that `sizes.py` reads into the config.
      shown: values that agree with the weights, by setting, from the config of the weights.
      fixed: values that are implemented, by setting.
      harmless: those that change no number when a film is made.
      is_shared: whether the file describes another network, whose settings are not ours to list.
    """

    used: frozenset[str]
    shown: Mapping[str, Callable[[Any], Accepted]] = dataclasses.field(default_factory=dict)
    fixed: Mapping[str, Accepted] = dataclasses.field(default_factory=dict)
    harmless: frozenset[str] = frozenset()
    is_shared: bool = False


def check_settings(
    table: SettingsTable,
    settings: StoredSettings,
    config: NetworkConfig,
    path: pathlib.Path,
    *,
    is_own: bool,
) -> tuple[str, ...]:
    """Check the settings of a file against what the weights have and what is implemented.

    `is_own` is false for settings that weights of another size may be read with, such as those of
    the folder that a file is based on.

    Returns:
      Notes on what was guessed or not read, one line each.

    Raises:
      ValueError: a setting that contradicts the weights, or of a value that is not implemented,
        with both values and the file.
    """
    if isinstance(config, DiTConfig):
        if not settings:
            return (
                f"no {path.name} beside the weights: {config.heads} heads of {config.head_dim} "
                f"channels and {config.text_tokens} text tokens are assumed",
            )
        width = described_width(settings)
        if not is_own and width not in (None, config.dim):
            return (
                f"{path.name} describes a transformer {width} wide and the weights are "
                f"{config.dim} wide: only text_len is read of it",
            )
    for name, accepted in {
        **{name: values(config) for name, values in table.shown.items()},
        **table.fixed,
    }.items():
        if name in settings and not _among(settings[name], accepted):
            why = "the weights have" if name in table.shown else "is implemented here"
            values = " or ".join(brief(value) for value in accepted)
            raise ValueError(
                f"{path} has {name} {brief(settings[name])} and {values} {why}; "
                "fetch the config.json that belongs to these weights, or weights made with that."
            )
    known = table.used | table.shown.keys() | table.fixed.keys() | table.harmless
    unknown = sorted(settings.keys() - known)
    if not unknown or table.is_shared:
        return ()
    return (f"{path.name} has settings that are not known and not read: {', '.join(unknown)}",)


def _among(found: object, accepted: Accepted) -> bool:
    # A flag is no number, although True == 1 to Python.
    return any(
        isinstance(found, bool) == isinstance(value, bool) and found == _plain(value)
        for value in accepted
    )


def _plain(value: object) -> object:
    """A value as JSON has it."""
    return list(value) if isinstance(value, tuple) else value


_DIT_PATCH: Mapping[str, Callable[[DiTConfig], Accepted]] = {
    # Frames are never merged: a latent frame is a row of patches of its own.
    "patch_size": lambda config: ((1, *config.patch),),
    "num_layers": lambda config: (config.layers,),
    "ffn_dim": lambda config: (config.ffn_dim,),
    "freq_dim": lambda config: (config.freq_dim,),
    "text_dim": lambda config: (config.text_dim,),
}
_LIBRARY = frozenset({"_class_name", "_diffusers_version", "_name_or_path"})
_STATISTICS = frozenset({"latents_mean", "latents_std"})

WAN_DIT_SETTINGS = SettingsTable(
    used=frozenset({"num_heads", "text_len"}),
    shown={
        **_DIT_PATCH,
        "dim": lambda config: (config.dim,),
        "in_dim": lambda config: (config.latent_channels,),
        "out_dim": lambda config: (config.latent_channels,),
    },
    fixed={
        # Image-to-video models have more input channels and a second cross-attention.
        "model_type": ("t2v",),
        "window_size": ((-1, -1),),
        "qk_norm": (True,),
        "cross_attn_norm": (True,),
        "eps": _EPSILON,
    },
    harmless=_LIBRARY | _STATISTICS,
)
DIFFUSERS_DIT_SETTINGS = SettingsTable(
    used=frozenset({"num_attention_heads", "text_len"}),
    shown={
        **_DIT_PATCH,
        "attention_head_dim": lambda config: (config.head_dim,),
        "in_channels": lambda config: (config.latent_channels,),
        "out_channels": lambda config: (config.latent_channels,),
    },
    fixed={
        "qk_norm": ("rms_norm_across_heads",),
        "cross_attn_norm": (True,),
        "eps": _EPSILON,
        "rope_max_seq_len": (MAX_POSITION,),
        # What image-to-video models have besides.
        "added_kv_proj_dim": (None,),
        "image_dim": (None,),
        "pos_embed_seq_len": (None,),
    },
    harmless=_LIBRARY,
)

_SHARED_VAE: Mapping[str, Callable[[VAEConfig], Accepted]] = {
    "base_dim": lambda config: (config.base_channels,),
    "z_dim": lambda config: (config.latent_channels,),
    "dim_mult": lambda config: (config.multipliers,),
    "num_res_blocks": lambda config: (config.residual_blocks,),
    "temperal_downsample": lambda config: (config.temporal_downsample,),
    "in_channels": lambda config: (config.patch_channels,),
    "out_channels": lambda config: (config.patch_channels,),
    # Without patches the setting is null.
    "patch_size": lambda config: (config.patch_size, *((None,) if config.patch_size == 1 else ())),
    "decoder_base_dim": lambda config: (None, config.base_channels),
    "scale_factor_spatial": lambda config: (config.spatial_stride,),
    "scale_factor_temporal": lambda config: (config.temporal_stride,),
}
# The transformer's config.json lies beside the autoencoder and the text encoder of a Wan2.1 folder.
WAN_VAE_SETTINGS = SettingsTable(used=_STATISTICS, is_shared=True)
WAN_TEXT_SETTINGS = SettingsTable(used=frozenset(), is_shared=True)
DIFFUSERS_VAE_SETTINGS = SettingsTable(
    used=_STATISTICS,
    shown=_SHARED_VAE,
    # Wan2.2's residual stages are not implemented, nor is attention between stages.
    fixed={"is_residual": (False,), "attn_scales": ((),)},
    # Frames are clipped when they become 8 bits, whatever the decoder does.
    harmless=_LIBRARY | {"dropout", "clip_output"},
)

_TEXT_SHOWN: Mapping[str, Callable[[TextEncoderConfig], Accepted]] = {
    "vocab_size": lambda config: (config.vocab,),
    "d_model": lambda config: (config.dim,),
    "d_ff": lambda config: (config.ffn_dim,),
    "d_kv": lambda config: (config.head_dim,),
    "num_heads": lambda config: (config.heads,),
    "num_layers": lambda config: (config.layers,),
    "relative_attention_num_buckets": lambda config: (config.buckets,),
}
TRANSFORMERS_TEXT_SETTINGS = SettingsTable(
    used=frozenset({"relative_attention_max_distance"}),
    shown=_TEXT_SHOWN,
    fixed={
        # T5 shares one table of biases between layers, UMT5 has one in each.
        "model_type": ("umt5",),
        "feed_forward_proj": ("gated-gelu",),
        "dense_act_fn": ("gelu_new",),
        "is_gated_act": (True,),
        "layer_norm_epsilon": _EPSILON,
    },
    harmless=_LIBRARY
    | {
        *("architectures", "torch_dtype", "dtype", "transformers_version", "tokenizer_class"),
        # Of training, and of the decoder, which is not converted.
        *("dropout_rate", "classifier_dropout", "initializer_factor", "num_decoder_layers"),
        *("decoder_start_token_id", "is_encoder_decoder", "is_decoder", "tie_word_embeddings"),
        *("use_cache", "output_past", "scalable_attention"),
        # The tokenizer's file has these itself.
        *("eos_token_id", "pad_token_id"),
    },
)
