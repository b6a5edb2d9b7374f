"""Names of the text encoder's tensors: the official Wan2.1 file and the transformers layout.

Both files hold the same arrays; only the names differ. Kernels are turned to [in, out], tables
stay as they are, and the layers of a file are stacked on our leading axis.

Source: public Wan2.1 repository, wan/modules/t5.py, T5Encoder; transformers, UMT5EncoderModel.
"""

from collections.abc import Mapping

from shotstream_jax.checkpoints.naming import Layout, ParamPath, TensorMapping
from shotstream_jax.models.configs import TextEncoderConfig

_OFFICIAL: Mapping[ParamPath, str] = {
    ("token_embedding", "embedding"): "token_embedding.weight",
    ("blocks", "norm1", "scale"): "blocks.{layer}.norm1.weight",
    ("blocks", "attention", "q", "kernel"): "blocks.{layer}.attn.q.weight",
    ("blocks", "attention", "k", "kernel"): "blocks.{layer}.attn.k.weight",
    ("blocks", "attention", "v", "kernel"): "blocks.{layer}.attn.v.weight",
    ("blocks", "attention", "o", "kernel"): "blocks.{layer}.attn.o.weight",
    ("blocks", "attention", "position_bias"): "blocks.{layer}.pos_embedding.embedding.weight",
    ("blocks", "norm2", "scale"): "blocks.{layer}.norm2.weight",
    ("blocks", "ffn", "gate", "kernel"): "blocks.{layer}.ffn.gate.0.weight",
    ("blocks", "ffn", "up", "kernel"): "blocks.{layer}.ffn.fc1.weight",
    ("blocks", "ffn", "down", "kernel"): "blocks.{layer}.ffn.fc2.weight",
    ("norm", "scale"): "norm.weight",
}

# T5 nests sublayers as `layer.0` (attention) and `layer.1` (FFN), each with a norm of its own.
_ATTENTION = "encoder.block.{layer}.layer.0."
_FFN = "encoder.block.{layer}.layer.1."
_TRANSFORMERS: Mapping[ParamPath, str] = {
    ("token_embedding", "embedding"): "shared.weight",
    ("blocks", "norm1", "scale"): _ATTENTION + "layer_norm.weight",
    ("blocks", "attention", "q", "kernel"): _ATTENTION + "SelfAttention.q.weight",
    ("blocks", "attention", "k", "kernel"): _ATTENTION + "SelfAttention.k.weight",
    ("blocks", "attention", "v", "kernel"): _ATTENTION + "SelfAttention.v.weight",
    ("blocks", "attention", "o", "kernel"): _ATTENTION + "SelfAttention.o.weight",
    ("blocks", "attention", "position_bias"): _ATTENTION
    + "SelfAttention.relative_attention_bias.weight",
    ("blocks", "norm2", "scale"): _FFN + "layer_norm.weight",
    # wi_0 goes through the activation and gates wi_1: swapped, shapes fit and texts are garbage.
    ("blocks", "ffn", "gate", "kernel"): _FFN + "DenseReluDense.wi_0.weight",
    ("blocks", "ffn", "up", "kernel"): _FFN + "DenseReluDense.wi_1.weight",
    ("blocks", "ffn", "down", "kernel"): _FFN + "DenseReluDense.wo.weight",
    ("norm", "scale"): "encoder.final_layer_norm.weight",
}


def text_names(config: TextEncoderConfig) -> dict[str, TensorMapping]:
    """Mappings of `models_t5_umt5-xxl-enc-bf16.pth`, or of a file of another size named alike."""
    return _table(config, _OFFICIAL)


def hf_text_names(config: TextEncoderConfig) -> dict[str, TensorMapping]:
    """Mappings of transformers' UMT5EncoderModel (a diffusers `text_encoder` folder)."""
    return _table(config, _TRANSFORMERS)


def _table(config: TextEncoderConfig, names: Mapping[ParamPath, str]) -> dict[str, TensorMapping]:
    # Layers innermost, as in names_dit.py: one stacked leaf is in memory at a time.
    table = {}
    for path, shape in _shapes(config).items():
        layout = Layout.LINEAR if path[-1] == "kernel" else Layout.SAME
        for layer in range(config.layers) if path[0] == "blocks" else (None,):
            table[names[path].format(layer=layer)] = TensorMapping(path, layout, shape, layer)
    return table


def _shapes(config: TextEncoderConfig) -> dict[ParamPath, tuple[int, ...]]:
    """Shapes as the files have them, kernels [out, in], one layer at a time."""
    into_heads, out_of_heads = (
        (config.attention_dim, config.dim),
        (config.dim, config.attention_dim),
    )
    return {
        ("token_embedding", "embedding"): (config.vocab, config.dim),
        ("blocks", "norm1", "scale"): (config.dim,),
        ("blocks", "attention", "q", "kernel"): into_heads,
        ("blocks", "attention", "k", "kernel"): into_heads,
        ("blocks", "attention", "v", "kernel"): into_heads,
        ("blocks", "attention", "o", "kernel"): out_of_heads,
        # UMT5, unlike T5, has a table of relative positions in every layer.
        ("blocks", "attention", "position_bias"): (config.buckets, config.heads),
        ("blocks", "norm2", "scale"): (config.dim,),
        ("blocks", "ffn", "gate", "kernel"): (config.ffn_dim, config.dim),
        ("blocks", "ffn", "up", "kernel"): (config.ffn_dim, config.dim),
        ("blocks", "ffn", "down", "kernel"): (config.dim, config.ffn_dim),
        ("norm", "scale"): (config.dim,),
    }
