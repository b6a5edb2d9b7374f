"""The parts of a camera's work by name, and the seam where somebody may measure them.

A camera does each part through a `run(part, program, *inputs, **settings)` that returns what
`program(*inputs, **settings)` does. The camera's own simply calls it.
"""

from collections.abc import Callable
from typing import Any, Literal

Part = Literal[
    "text",
    "caption keys",
    "context encode",
    "context pass",
    "noise",
    "context pass and denoise",
    "denoise",
    "clean pass",
    "clean pass and denoise",
    "decode",
    "to video",
]
"""What a camera does, in the order of a shot; nearly all of its time goes into these."""

Run = Callable[..., Any]
"""Does one part of the work."""


def simply_run(part: Part, program: Callable[..., Any], *inputs: Any, **settings: Any) -> Any:
    """Do a part of the work, and nothing else."""
    return program(*inputs, **settings)
