"""Look inside: a shot in the making is a value, so it can end in two ways and be filmed again.

    python examples/one_shot_two_endings.py

An `Engine` owns no film. Every call takes a state and returns a new one; with `reuse_states` the
old one stays as it was, at the price of a copy a pass.
"""

import numpy as np

from shotstream_jax import Engine, load_story, open_model
from shotstream_jax.rollout.stream import plan_story

STORY = "configs/stories/demo.yaml"
OTHER_CAPTION = (
    "our hero is a dipped yellow triangle.shot0:medium shot, it walks left in the meadow."
)


def main() -> None:
    """Film the first chunk of a shot once, and three second chunks after it."""
    model, story = open_model("tiny"), load_story(STORY)
    plan = plan_story(model.networks, story)[0]
    engine = Engine(model.networks, story.defaults.size, reuse_states=True)

    # The first shot of a film has no context; a later one is given a latent frame for every slot.
    start = engine.cut(plan, context=())
    print("cache [layer, batch, slot, head, head_dim]:", start.cache.kv.key.shape)

    half, first = engine.next_chunk(start, engine.noise(plan, 0))
    _, ending = engine.next_chunk(half, engine.noise(plan, 1))
    _, again = engine.next_chunk(half, engine.noise(plan, 1))
    _, other = engine.next_chunk(engine.continue_(half, OTHER_CAPTION), engine.noise(plan, 1))
    print("the same ending twice differs by", difference(ending.latents, again.latents))
    print("another caption's ending differs by", difference(ending.latents, other.latents))

    # From stored latents the state comes back: this is how a film is resumed, and a shot redone.
    replayed, _ = engine.replay(start, first.latents)
    _, resumed = engine.next_chunk(replayed, engine.noise(plan, 1))
    print("the ending after a replay differs by", difference(ending.latents, resumed.latents))


def difference(a: object, b: object) -> float:
    """Greatest absolute difference of two arrays."""
    return float(np.abs(np.asarray(a) - np.asarray(b)).max())


if __name__ == "__main__":
    main()
