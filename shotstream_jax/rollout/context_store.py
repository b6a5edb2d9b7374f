"""What a film in the making remembers of its shots: the few frames that later ones may ask for.

A frame is kept as pixels, and encoded by itself when the first shot asks for it. What no later
shot can ask for is dropped, so that the memory does not grow with the film.
"""

from shotstream_jax.rollout import programs
from shotstream_jax.rollout.networks import Networks
from shotstream_jax.rollout.profiling import Run
from shotstream_jax.story import (
    FrameRef,
    ShotPlan,
    context_candidates,
    count_video_frames,
    frames_to_keep,
)
from shotstream_jax.typing import Array, Float, Latents, Pixels


class Memory:
    """The frames of one film that later shots may ask for."""

    def __init__(self, networks: Networks, run: Run):
        """Remember nothing yet; `run` does the encoding."""
        self._networks, self._run = networks, run
        self._lengths: dict[int, int] = {}
        self._frames: dict[FrameRef, Float[Array, "height width 3"]] = {}
        self._latents: dict[FrameRef, Latents] = {}

    def begin(self, plan: ShotPlan) -> None:
        """A shot is about to be watched."""
        self._lengths[plan.index] = self._count(plan, plan.chunks)

    def watch(self, plan: ShotPlan, chunk: int, latents: Latents, pixels: Pixels) -> None:
        """Keep those frames of a chunk that a later shot may ask for."""
        shown = self._count(plan, chunk) if chunk else 0
        length = self._lengths[plan.index]
        for frame in context_candidates(length, plan.index + 1, self._budget):
            if shown <= frame < shown + pixels.shape[1]:
                self._keep(FrameRef(plan.index, frame), pixels, latents, frame - shown)

    def forget(self) -> None:
        """Drop the frames that no later shot can ask for."""
        lengths = [self._lengths[shot] for shot in sorted(self._lengths)]
        kept = set(frames_to_keep(lengths, self._budget))
        self._frames = {ref: frame for ref, frame in self._frames.items() if ref in kept}
        self._latents = {ref: latent for ref, latent in self._latents.items() if ref in kept}

    def latent(self, ref: FrameRef) -> Latents:
        """A frame as a latent frame of its own.

        Raises:
          ValueError: a frame that was not watched.
        """
        if ref not in self._latents:
            if ref not in self._frames:
                raise ValueError(
                    f"Frame {ref.frame} of shot {ref.shot} is needed and was not filmed by this "
                    "camera; film or remember the shots in order."
                )
            vae = self._networks.vae, self._networks.config.vae
            image = self._networks.to_vae(self._frames[ref][None, None])
            latent = self._run("context encode", programs.encode_image, *vae, image)
            self._latents[ref] = self._networks.from_vae(latent)
        return self._latents[ref]

    def __len__(self) -> int:
        """Frames that are kept, encoded ones counted again."""
        return len(self._frames) + len(self._latents)

    def _keep(self, ref: FrameRef, pixels: Pixels, latents: Latents, frame: int) -> None:
        """Put a frame of a chunk aside; `frame` counts from the chunk's first."""
        self._frames[ref] = pixels[0, frame]
        if "latent-context" in self._networks.approximate:
            # Every latent frame shows `stride` video frames; one that a cut begins with shows one.
            left = pixels.shape[1] - 1 - frame
            last = latents.shape[1] - left // self._networks.config.vae.temporal_stride
            self._latents[ref] = latents[:, last - 1 : last]

    def _count(self, plan: ShotPlan, chunks: int) -> int:
        """Video frames that the first chunks of a shot show."""
        stride = self._networks.config.vae.temporal_stride
        frames = chunks * self._networks.config.rollout.window.chunk
        return count_video_frames(frames, plan.transition, stride)

    @property
    def _budget(self) -> int:
        return self._networks.config.rollout.window.context
