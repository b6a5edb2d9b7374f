"""Opening a model: a preset or a checkpoint folder becomes networks that film.

model = open_model("tiny")
model = open_model("checkpoints/shotstream-1.3b")
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding

from shotstream_jax.checkpoints.formats import OFFICIAL_FORMATS
from shotstream_jax.checkpoints.integrity import CHECKSUM_FILE as CHECKSUMS
from shotstream_jax.checkpoints.integrity import verify
from shotstream_jax.checkpoints.lora_files import LoRA, read_lora
from shotstream_jax.checkpoints.lora_source import LoRARequest
from shotstream_jax.checkpoints.lora_trees import device_updates
from shotstream_jax.checkpoints.manager import (
    CONFIG,
    TOKENIZER,
    load_network,
    network_shapes,
    read_config,
)
from shotstream_jax.checkpoints.param_trees import check_leaves
from shotstream_jax.compile_cache import use_compile_cache
from shotstream_jax.data.encode import text_encoder_fn
from shotstream_jax.data.tokenizer import Tokenizer, load_tokenizer
from shotstream_jax.model_config import LoRAConfig, ModelConfig, WeightsOrigin
from shotstream_jax.models.compute import default_compute
from shotstream_jax.models.configs import DiTConfig
from shotstream_jax.models.lora import add_changes, merge
from shotstream_jax.presets import PRESETS
from shotstream_jax.rollout.approximate import Approximation, ApproximationName
from shotstream_jax.rollout.networks import Networks, approximated
from shotstream_jax.sharding import Device, replicated, shardings_for, split_devices
from shotstream_jax.typing import Params

_TINY = pathlib.Path(__file__).parent / "bundled" / "tiny"
"""The miniature's checkpoint, which comes with the package; configs/tiny_all.py makes it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A model ready to film.

    Attributes:
      name: preset, or folder of the checkpoint.
      config: all its sizes.
      networks: parameters and callables for the rollout.
      tokenizer: of the text encoder.
      weights: where they come from; random ones are to be called so wherever they are shown.
      digest: a short hash of sizes and weights, and what is approximate: the same digest films the
        same film.
      loras: what was added to the transformer when it was opened, one line each.
    """

    name: str
    config: ModelConfig
    networks: Networks
    tokenizer: Tokenizer
    weights: WeightsOrigin
    digest: str
    loras: tuple[str, ...] = ()

    def __repr__(self) -> str:
        # The arrays themselves would fill a terminal.
        return f"Model({self.name!r}, {self.weights} weights, {self.networks!r})"

    def count_tokens(self, caption: str) -> int:
        """Tokens of a full caption, end token included."""
        return self.tokenizer.count(caption)

    @property
    def badge(self) -> str:
        """What must not be overlooked wherever something of this model is shown."""
        said = ["random weights"] if self.weights == "random" else []
        if self.networks.approximation.names:
            said.append(f"approximate: {', '.join(self.networks.approximation.names)}")
        return "; ".join(said)


def open_model(
    source: str | pathlib.Path = "tiny",
    *,
    dtype: Any = None,
    devices: int | None = None,
    text_on_host: bool = False,
    vae_apart: bool = False,
    approximate: Sequence[ApproximationName] = (),
    lora: Sequence[str] = (),
) -> Model:
    """Load a model onto the devices of this machine, and keep compiled programs between runs.

    Args:
      source: `tiny`, or a checkpoint folder that `shotstream convert` or training wrote.
      dtype: format of the transformer, by default bfloat16 on accelerators and float32 on a CPU.
      devices: how many devices to split the heads over, by default as many as divide them.
      text_on_host: keep the text encoder in host memory and run it there, to save the device's.
      vae_apart: give the last of the devices to the autoencoder alone, to decode while the others
        film.
      approximate: ways to film faster or in less memory, not quite the same (see
        rollout/approximate.py).
      lora: LoRAs to add to the transformer for this film: `FILE` or `FILE:STRENGTH` each.

    Raises:
      FileNotFoundError: no such checkpoint, or one without a tokenizer.
      ValueError: a preset without weights, a damaged checkpoint, or more devices than there are.
    """
    use_compile_cache()
    parts = find_model(source)
    # Before any weights are read: a LoRA of another transformer is refused in seconds.
    loras = [read_lora(LoRARequest.parse(text), parts.config.dit) for text in lora]
    heads = parts.config.dit.heads
    mesh, apart = split_devices(heads, _devices(devices), vae_apart=vae_apart)
    compute = default_compute(parts.config.dit.head_dim, dtype, mesh.devices.flat[0].platform, mesh)
    networks = Networks(
        config=parts.config,
        dit=_with_loras(parts.load("dit", compute.dtype, mesh), loras, parts.config.dit, mesh),
        vae=parts.load("vae", jnp.float32, apart or replicated(mesh)),
        encode_text=_text_encoder(parts, compute.dtype, mesh, on_host=text_on_host),
        compute=compute,
        decode_dtype=compute.dtype,
        mesh=mesh,
        vae_apart=apart,
    )
    networks = approximated(networks, Approximation.named(approximate))
    return Model(
        name=str(source),
        config=parts.config,
        networks=networks,
        tokenizer=parts.tokenizer,
        weights=parts.weights,
        digest="+".join([parts.digest, *map(_lora_digest, loras), *networks.approximation.names]),
        loras=tuple(line for one in loras for line in (one.summary, *one.notes)),
    )


def find_model(source: str | pathlib.Path) -> "ModelSource":
    """Look a model up without loading its weights.

    Raises:
      FileNotFoundError: no such checkpoint, or one without a tokenizer.
      ValueError: a preset without weights, or a damaged checkpoint.
    """
    if str(source) == "tiny":
        return _stored(_TINY)
    if str(source) in PRESETS:
        raise ValueError(
            f"{source} comes without weights: convert the released ones "
            "(`shotstream convert --help`) and name their folder."
        )
    return _stored(pathlib.Path(source))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSource:
    """A model before it is on a device.

    Attributes:
      config: all its sizes.
      tokenizer: of its text encoder.
      weights: where they come from.
      digest: a short hash of sizes and weights.
      load: puts one network, by name, on a device or a mesh in some format.
    """

    config: ModelConfig
    tokenizer: Tokenizer
    weights: WeightsOrigin
    digest: str
    load: Callable[[str, Any, Any], Params]


def _stored(folder: pathlib.Path) -> ModelSource:
    stored = read_config(folder)
    config, lora = stored.model(), stored.lora

    def load(name: str, dtype: Any, where: Any) -> Params:
        shapes = network_shapes(folder, name)
        leaves, _ = jax.tree_util.tree_flatten_with_path(shapes)
        # A size that does not belong to the weights is found here, before any array is on a
        # device, and not as a shape error inside a compiled program.
        check_leaves(
            OFFICIAL_FORMATS[name].names(stored.network(name)),
            {tuple(key.key for key in path): leaf for path, leaf in leaves},
        )
        shardings = _shardings(shapes, where)
        params = load_network(folder, name, dtype=dtype, shardings=shardings)
        if name == "dit" and lora is not None:
            params = _adapted(params, folder, lora, where)
        return params

    tokenizer = load_tokenizer(folder / TOKENIZER, length=config.dit.text_tokens)
    # What is neither in the networks' files nor in the digest itself: a flipped bit in either would
    # film another film under the same digest, which is of the listed checksums.
    for part in (CONFIG, TOKENIZER):
        verify(folder, part)
    content = json.dumps(config.to_json()).encode() + (folder / CHECKSUMS).read_bytes()
    return ModelSource(
        config=config,
        tokenizer=tokenizer,
        weights=stored.weights,
        digest=hashlib.sha256(content).hexdigest()[:16],
        load=load,
    )


def _adapted(params: Params, folder: pathlib.Path, lora: LoRAConfig, where: Any) -> Params:
    """Merge the LoRA that a checkpoint keeps beside its transformer."""
    shapes = network_shapes(folder, "lora")
    factors = load_network(folder, "lora", shardings=_shardings(shapes, where))
    join = jax.jit(merge, static_argnums=2, donate_argnums=0)
    return join(params, factors, lora.scale)


def _with_loras(params: Params, loras: Sequence[LoRA], config: DiTConfig, where: Any) -> Params:
    """Add LoRAs to a transformer that is on its devices."""
    if not loras:
        return params
    factors, changes = device_updates(OFFICIAL_FORMATS["dit"].names(config), loras)
    if factors is not None:
        factors = jax.device_put(factors, _shardings(factors, where))
        # Each update's scale is in its second factor.
        params = jax.jit(merge, static_argnums=2, donate_argnums=0)(params, factors, 1.0)
    return add_changes(params, jax.device_put(changes, _shardings(changes, where)))


def _lora_digest(lora: LoRA) -> str:
    """A short hash of all that a LoRA adds, whatever the names in its file."""
    digest = hashlib.sha256()
    for place, update in sorted(lora.updates.items(), key=str):
        digest.update(f"{place} {update.scale}".encode())
        for values in update.arrays:
            digest.update(np.asarray(values).tobytes())
    return f"lora-{digest.hexdigest()[:8]}"


def _text_encoder(parts: ModelSource, dtype: Any, mesh: Mesh, *, on_host: bool) -> Any:
    where = SingleDeviceSharding(jax.local_devices(backend="cpu")[0]) if on_host else mesh
    encode = text_encoder_fn(
        parts.load("text", dtype, where),
        parts.config.text,
        parts.tokenizer,
        text_tokens=parts.config.dit.text_tokens,
        dtype=dtype,
    )
    return lambda captions: jax.device_put(encode(captions), replicated(mesh))


def _shardings(shapes: Any, where: Any) -> Any:
    """Shardings of a tree on a mesh by the rules, or one sharding for all of it."""
    if isinstance(where, Mesh):
        return shardings_for(shapes, where)
    return jax.tree.map(lambda _: where, shapes)


def _devices(count: int | None) -> list[Device]:
    devices = jax.local_devices()
    if count is not None and not 1 <= count <= len(devices):
        raise ValueError(f"{count} devices were asked for and there are {len(devices)}.")
    return devices[:count]
