"""The layouts of weights that are read here, and how a file's layout is recognised."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from shotstream_jax.checkpoints.foreign_settings import (
    DIFFUSERS_DIT_SETTINGS,
    DIFFUSERS_VAE_SETTINGS,
    TRANSFORMERS_TEXT_SETTINGS,
    WAN_DIT_SETTINGS,
    WAN_TEXT_SETTINGS,
    WAN_VAE_SETTINGS,
    SettingsTable,
)
from shotstream_jax.checkpoints.names_dit import diffusers_dit_names, dit_names
from shotstream_jax.checkpoints.names_text import hf_text_names, text_names
from shotstream_jax.checkpoints.names_vae import diffusers_vae_names, vae_names
from shotstream_jax.checkpoints.naming import NameTable
from shotstream_jax.checkpoints.sizes import (
    Shapes,
    SignatureKeys,
    StoredSettings,
    dit_sizes,
    text_sizes,
    vae_sizes,
)
from shotstream_jax.checkpoints.tensors import Tensors
from shotstream_jax.model_config import NetworkConfig


@dataclasses.dataclass(frozen=True)
class Format:
    """One layout of one network's weights.

    Attributes:
      name: for messages.
      network: key of `NETWORKS`.
      signature_keys: tensors by which the format is recognised and whose shapes give the sizes, by
        role; `{}` stands for a number.
      sizes: the config of such a network, from shapes, signature keys and settings.
      names: the table of a file of such sizes.
      settings: what the `config.json` beside such a file may say.
      copies: tensors that some files hold a second time under another name: {copy: original}.
    """

    name: str
    network: str
    signature_keys: SignatureKeys
    sizes: Callable[[Shapes, SignatureKeys, StoredSettings], NetworkConfig]
    names: Callable[[Any], NameTable]
    settings: SettingsTable
    copies: Mapping[str, str] = dataclasses.field(default_factory=dict)


# Together the signature keys tell this layout from the others and determine every size; `layer` is
# a tensor that each block has once, so that counting it counts blocks.
WAN_DIT_FORMAT = Format(
    "Wan2.1 transformer",
    "dit",
    {
        "patch": "patch_embedding.weight",
        "text": "text_embedding.0.weight",
        "time": "time_embedding.0.weight",
        "ffn": "blocks.0.ffn.0.weight",
        "layer": "blocks.{}.modulation",
    },
    dit_sizes,
    dit_names,
    WAN_DIT_SETTINGS,
)
WAN_VAE_FORMAT = Format(
    "Wan2.1 autoencoder",
    "vae",
    {
        "conv_in": "encoder.conv1.weight",
        "latent": "conv2.weight",
        "block": "encoder.downsamples.{}.residual.2.weight",
        "down": "encoder.downsamples.{}.resample.1.weight",
        "time_down": "encoder.downsamples.{}.time_conv.weight",
    },
    vae_sizes,
    vae_names,
    WAN_VAE_SETTINGS,
)
WAN_TEXT_FORMAT = Format(
    "Wan2.1 text encoder",
    "text",
    {
        "embedding": "token_embedding.weight",
        "query": "blocks.0.attn.q.weight",
        "ffn": "blocks.0.ffn.fc1.weight",
        "bias": "blocks.0.pos_embedding.embedding.weight",
        "layer": "blocks.{}.norm1.weight",
    },
    text_sizes,
    text_names,
    WAN_TEXT_SETTINGS,
)
_DIFFUSERS_DIT = Format(
    "diffusers transformer",
    "dit",
    {
        "patch": "patch_embedding.weight",
        "text": "condition_embedder.text_embedder.linear_1.weight",
        "time": "condition_embedder.time_embedder.linear_1.weight",
        "ffn": "blocks.0.ffn.net.0.proj.weight",
        "layer": "blocks.{}.scale_shift_table",
    },
    dit_sizes,
    diffusers_dit_names,
    DIFFUSERS_DIT_SETTINGS,
)
_DIFFUSERS_VAE = Format(
    "diffusers autoencoder",
    "vae",
    {
        "conv_in": "encoder.conv_in.weight",
        "latent": "post_quant_conv.weight",
        "block": "encoder.down_blocks.{}.conv1.weight",
        "down": "encoder.down_blocks.{}.resample.1.weight",
        "time_down": "encoder.down_blocks.{}.time_conv.weight",
    },
    vae_sizes,
    diffusers_vae_names,
    DIFFUSERS_VAE_SETTINGS,
)
_TRANSFORMERS_TEXT = Format(
    "transformers text encoder",
    "text",
    {
        "embedding": "shared.weight",
        "query": "encoder.block.0.layer.0.SelfAttention.q.weight",
        "ffn": "encoder.block.0.layer.1.DenseReluDense.wi_1.weight",
        "bias": "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        "layer": "encoder.block.{}.layer.0.layer_norm.weight",
    },
    text_sizes,
    hf_text_names,
    TRANSFORMERS_TEXT_SETTINGS,
    # Tied in the model, so that files saved from it may hold the same table twice.
    copies={"encoder.embed_tokens.weight": "shared.weight"},
)
# Official ones first: `recognise` takes the first of those that match equally well.
WEIGHT_FORMATS = (
    WAN_DIT_FORMAT,
    WAN_VAE_FORMAT,
    WAN_TEXT_FORMAT,
    _DIFFUSERS_DIT,
    _DIFFUSERS_VAE,
    _TRANSFORMERS_TEXT,
)

OFFICIAL_FORMATS = {
    format_.network: format_ for format_ in (WAN_DIT_FORMAT, WAN_VAE_FORMAT, WAN_TEXT_FORMAT)
}
"""The format that each network is written back in."""


def without_copies(format_: Format, tensors: Tensors) -> Tensors:
    """Drop second copies of tensors; a copy whose original is not there takes its place."""
    kept = {name: tensor for name, tensor in tensors.items() if name not in format_.copies}
    for copy, original in format_.copies.items():
        if copy in tensors and original not in tensors:
            kept[original] = tensors[copy]
    return kept
