"""Stream a story and print how long after each request its frames are there.

    python examples/stream_chunks.py

The first run of a shape compiles; the story is streamed twice, and the second time counts.
"""

import time

import numpy as np

from shotstream_jax import Model, Story, load_story, open_model, stream_story

STORY = "configs/stories/demo.yaml"


def latencies(model: Model, story: Story) -> list[tuple[int, int, int, float]]:
    """Shot, chunk, number of frames and milliseconds until the host has them, for every chunk."""
    rows = []
    asked = time.perf_counter()
    for piece in stream_story(model, story):
        # JAX computes in the background: only reading the frames waits for them.
        frames = np.asarray(piece.frames)
        waited = 1000 * (time.perf_counter() - asked)
        rows.append((piece.plan.index, piece.chunk, len(frames), waited))
        asked = time.perf_counter()
    return rows


def main() -> None:
    """Print a line a chunk."""
    model, story = open_model("tiny"), load_story(STORY)
    latencies(model, story)
    for shot, chunk, frames, waited in latencies(model, story):
        print(f"shot {shot}, chunk {chunk}: {frames} frames after {waited:.0f} ms")


if __name__ == "__main__":
    main()
