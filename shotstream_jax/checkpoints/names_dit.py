"""Names of the transformer's tensors: the official Wan2.1 and ShotStream files, and diffusers.

Both layouts hold the same arrays under other names. Kernels are turned to [in, out], patches are
read row, column, channel, and the blocks of a file are stacked on our leading axis.

Source: public Wan2.1 repository, wan/modules/model.py, WanModel; public ShotStream repository,
wan/modules/causal_model.py, CausalWanModel; diffusers, WanTransformer3DModel.
"""

from collections.abc import Iterator, Mapping

from shotstream_jax.checkpoints.naming import Layout, ParamPath, TensorMapping
from shotstream_jax.models.configs import DiTConfig

# Numbers are positions in torch's Sequential; those left out are activations, without parameters.
_OFFICIAL: Mapping[ParamPath, str] = {
    ("patch_embedding",): "patch_embedding",
    ("text_in",): "text_embedding.0",
    ("text_out",): "text_embedding.2",
    ("time_in",): "time_embedding.0",
    ("time_out",): "time_embedding.2",
    ("time_projection",): "time_projection.1",
    ("blocks", "modulation"): "blocks.{layer}.modulation",
    ("blocks", "self_attention"): "blocks.{layer}.self_attn",
    ("blocks", "cross_attention"): "blocks.{layer}.cross_attn",
    ("blocks", "cross_norm"): "blocks.{layer}.norm3",
    ("blocks", "ffn", "up"): "blocks.{layer}.ffn.0",
    ("blocks", "ffn", "down"): "blocks.{layer}.ffn.2",
    ("head_modulation",): "head.modulation",
    ("head",): "head.head",
}
"""Where the official files keep each of our modules."""

_DIFFUSERS: Mapping[ParamPath, str] = {
    ("patch_embedding",): "patch_embedding",
    ("text_in",): "condition_embedder.text_embedder.linear_1",
    ("text_out",): "condition_embedder.text_embedder.linear_2",
    ("time_in",): "condition_embedder.time_embedder.linear_1",
    ("time_out",): "condition_embedder.time_embedder.linear_2",
    ("time_projection",): "condition_embedder.time_proj",
    ("blocks", "modulation"): "blocks.{layer}.scale_shift_table",
    ("blocks", "self_attention"): "blocks.{layer}.attn1",
    ("blocks", "cross_attention"): "blocks.{layer}.attn2",
    ("blocks", "cross_norm"): "blocks.{layer}.norm2",
    ("blocks", "ffn", "up"): "blocks.{layer}.ffn.net.0.proj",
    ("blocks", "ffn", "down"): "blocks.{layer}.ffn.net.2",
    ("head_modulation",): "scale_shift_table",
    ("head",): "proj_out",
}
"""Where diffusers keeps each of our modules."""

# The two name the norm of cross-attention norm3 and norm2, after its position; norms 1 and 2 (1 and
# 3) have no parameters, since the modulation scales and shifts their outputs.

_OFFICIAL_HEADS = {name: name for name in "qkvo"}
_DIFFUSERS_HEADS = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}


def dit_names(config: DiTConfig) -> dict[str, TensorMapping]:
    """Mappings of an official file of these sizes."""
    return _table(config, _OFFICIAL, _OFFICIAL_HEADS)


def diffusers_dit_names(config: DiTConfig) -> dict[str, TensorMapping]:
    """Mappings of a diffusers `transformer` folder of these sizes."""
    return _table(config, _DIFFUSERS, _DIFFUSERS_HEADS)


def _table(
    config: DiTConfig, modules: Mapping[ParamPath, str], heads: Mapping[str, str]
) -> dict[str, TensorMapping]:
    # Not the order of a file, whose tensors are found by name: layers come innermost, so that all
    # parts of one stacked leaf are adjacent and one leaf at a time is in memory.
    table = {}
    for path, name, layout, shape in _tensors(config, modules, heads):
        for layer in range(config.layers) if path[0] == "blocks" else (None,):
            table[name.format(layer=layer)] = TensorMapping(path, layout, shape, layer)
    return table


_Tensor = tuple[ParamPath, str, Layout, tuple[int, ...]]


def _tensors(
    config: DiTConfig, modules: Mapping[ParamPath, str], heads: Mapping[str, str]
) -> Iterator[_Tensor]:
    """Path, name, layout and official shape of every tensor, one block standing for all."""
    dim = config.dim
    # A convolution in the files, a matrix product over flattened patches here.
    patch = (dim, config.latent_channels, 1, *config.patch)
    module = ("patch_embedding",)
    yield (*module, "kernel"), f"{modules[module]}.weight", Layout.PATCH, patch
    yield (*module, "bias"), f"{modules[module]}.bias", Layout.SAME, (dim,)
    for module, shape in _linears(config).items():
        yield from _linear(module, modules[module], shape)
    for module in (("blocks", "self_attention"), ("blocks", "cross_attention")):
        for ours, theirs in heads.items():
            yield from _linear((*module, ours), f"{modules[module]}.{theirs}", (dim, dim))
        for norm in ("norm_q", "norm_k"):
            name = f"{modules[module]}.{norm}.weight"
            yield (*module, norm, "scale"), name, Layout.SAME, (dim,)
    module = ("blocks", "cross_norm")
    yield (*module, "scale"), f"{modules[module]}.weight", Layout.SAME, (dim,)
    yield (*module, "bias"), f"{modules[module]}.bias", Layout.SAME, (dim,)
    # Shift, scale and gate for self-attention and for the FFN; shift and scale for the head.
    for table, rows in ((("blocks", "modulation"), 6), (("head_modulation",), 2)):
        yield table, modules[table], Layout.DROP_FIRST, (1, rows, dim)


def _linears(config: DiTConfig) -> dict[ParamPath, tuple[int, int]]:
    """Linear layers outside attention, with their official shapes [out, in]."""
    dim = config.dim
    return {
        ("text_in",): (dim, config.text_dim),
        ("text_out",): (dim, dim),
        ("time_in",): (dim, config.freq_dim),
        ("time_out",): (dim, dim),
        ("time_projection",): (6 * dim, dim),
        ("blocks", "ffn", "up"): (config.ffn_dim, dim),
        ("blocks", "ffn", "down"): (dim, config.ffn_dim),
        ("head",): (config.patch_channels, dim),
    }


def _linear(path: ParamPath, name: str, shape: tuple[int, int]) -> Iterator[_Tensor]:
    yield (*path, "kernel"), f"{name}.weight", Layout.LINEAR, shape
    yield (*path, "bias"), f"{name}.bias", Layout.SAME, shape[:1]
