"""`shotstream bench` without the command: films a synthetic story several times and times it.

Compilation, end to end, memory, and the split into parts. Every film has captions of its own, so
that text is encoded in each.
"""

import dataclasses
from typing import Any

import jax

from shotstream_jax.perf.bench.compile_time import compile_times
from shotstream_jax.perf.bench.end_to_end import deliver_film, end_to_end
from shotstream_jax.perf.bench.memory import peak_memory
from shotstream_jax.perf.bench.split import EncodeVideo, split, split_document
from shotstream_jax.perf.film_shape import FilmShape
from shotstream_jax.perf.peaks import peak_flops
from shotstream_jax.rollout.networks import Networks
from shotstream_jax.story import Defaults, Shot, Story


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """How much to film.

    Attributes:
      shots: of the film that is measured, all of them cuts.
      warmup: films before it that are not measured, after those that compile.
      fps: video frames per second of the film, for its file.
    """

    # Three shots have two cuts, the second with context of two shots; one warm film fills caches of
    # allocators and clocks after the films that compile.
    shots: int = 3
    warmup: int = 1
    fps: int = 16

    def __post_init__(self) -> None:
        """Raises: ValueError: no shots, or fewer warm-ups than none."""
        if self.shots < 1 or self.warmup < 0:
            raise ValueError(
                f"{self.shots} shots after {self.warmup} warm-up films; give 1 shot or more and 0 "
                "films or more."
            )


def measure_film(
    networks: Networks, shape: FilmShape, settings: BenchSettings, encode_video: EncodeVideo
) -> dict[str, Any]:
    """Measure filming; the result is plain JSON.

    `compile` is the first shot, cold and warm; `end_to_end` a whole film; `memory` the peak up to
    its end; `split` another film, part by part.
    """
    one_shot = dataclasses.replace(settings, shots=1)
    compiled = compile_times(
        lambda label: deliver_film(networks, bench_story(shape, one_shot, f"{label} programs"))
    )
    for number in range(settings.warmup):
        deliver_film(networks, bench_story(shape, settings, f"warm-up {number}"))
    arrived = end_to_end(deliver_film(networks, bench_story(shape, settings, "measured")))
    # Before the split: a peak cannot be taken back, and the split holds arrays that a film does
    # not.
    memory = peak_memory()
    calls, seconds = split(networks, shape, bench_story(shape, settings, "split"), encode_video)
    return {
        "film": {
            "shots": settings.shots,
            "size": list(shape.size),
            "chunks_per_shot": shape.chunks,
            "frames_per_shot": shape.video_frames,
            "frames": settings.shots * shape.video_frames,
        },
        "end_to_end": dataclasses.asdict(arrived),
        "split": split_document(calls, seconds, total_peak(networks)),
        "memory": memory,
        "compile": compiled,
    }


def bench_story(shape: FilmShape, settings: BenchSettings, label: str) -> Story:
    """A story of cuts, whose captions no story of another label has."""
    captions = [f"wide shot of {label}, take {index}." for index in range(settings.shots)]
    return Story(
        title=label,
        shots=tuple(Shot(caption=caption) for caption in captions),
        defaults=Defaults(size=shape.size, fps=settings.fps, chunks=shape.chunks),
    )


def total_peak(networks: Networks) -> float | None:
    """Peak operations per second of all devices that films are made on, where it is known."""
    devices = jax.devices()[:1] if networks.mesh is None else list(networks.mesh.devices.flat)
    peak = peak_flops(devices[0].device_kind)
    count = len(devices) + (networks.vae_apart is not None)
    return None if peak is None else peak * count
