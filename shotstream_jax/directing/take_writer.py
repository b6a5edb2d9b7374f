"""A take on its way to disk: its video as it comes, then latents, then the plan: it is done."""

import json
import pathlib
from collections.abc import Mapping

import numpy as np

from shotstream_jax.directing.plans_on_disk import plan_document
from shotstream_jax.directing.shot_files import file_facts, write_latents
from shotstream_jax.directing.video import Mp4Writer
from shotstream_jax.files import atomic_file
from shotstream_jax.rollout.stream import FilmedChunk
from shotstream_jax.story import ShotPlan


class TakeWriter:
    """Records a take; as a context, its files appear when the block ends well.

    Raises:
      OSError: no room; files of other takes are untouched.
    """

    def __init__(
        self, paths: Mapping[str, pathlib.Path], plan: ShotPlan, *, fps: int, size: tuple[int, int]
    ):
        """Open nothing yet; `paths` are those of `mp4`, `npz` and `json`."""
        self._paths, self._plan = paths, plan
        self._latents: list[np.ndarray] = []
        self._video = Mp4Writer(paths["mp4"], fps=fps, size=size)

    def add(self, piece: FilmedChunk) -> int:
        """Append a chunk, waiting for it to exist; returns its video frames."""
        frames = piece.frames
        self._video.write(frames)
        # In host memory until the shot ends: 2 million float32 of a released shot, 8.4 MB.
        self._latents.append(np.asarray(piece.latents))
        return len(frames)

    def __enter__(self) -> "TakeWriter":
        self._video.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._video.__exit__(kind, *rest)
        if kind is not None:
            return
        write_latents(self._paths["npz"], np.concatenate(self._latents, axis=1))
        files = {suffix: file_facts(self._paths[suffix]) for suffix in ("mp4", "npz")}
        document = {**plan_document(self._plan), "files": files}
        # Last: a shot whose plan is there is complete.
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        with atomic_file(self._paths["json"]) as path:
            path.write_text(text, encoding="utf-8")
