"""Stories: what a director writes, what it means for the camera, and the files it is kept in.

Host only: plain values and numpy, nothing that runs on a device.
"""

from shotstream_jax.story.context import (
    CONTEXT_BUDGET,
    ContextCaptions,
    ContextPolicy,
    FrameRef,
    context_candidates,
    context_counts,
    context_frames,
    spread_frames,
)
from shotstream_jax.story.overrides import overridden, with_model_defaults
from shotstream_jax.story.plan import (
    ContextFrame,
    Positions,
    ShotPlan,
    TakeFrame,
    TakeRef,
    camera_start,
    count_video_frames,
    plan_shot,
    shot_lengths,
)
from shotstream_jax.story.problems import FieldPath, Places, Problem, StoryError, field_name
from shotstream_jax.story.schema import story_schema
from shotstream_jax.story.story import (
    FORMAT_VERSION,
    Defaults,
    Shot,
    Story,
    Transition,
    full_captions,
)
from shotstream_jax.story.story_files import (
    STORY_SUFFIXES,
    StoryFile,
    dump_story,
    load_story,
    read_story,
)

__all__ = [
    "CONTEXT_BUDGET",
    "FORMAT_VERSION",
    "STORY_SUFFIXES",
    "ContextCaptions",
    "ContextFrame",
    "ContextPolicy",
    "Defaults",
    "FieldPath",
    "FrameRef",
    "Places",
    "Positions",
    "Problem",
    "Shot",
    "ShotPlan",
    "Story",
    "StoryError",
    "StoryFile",
    "TakeFrame",
    "TakeRef",
    "Transition",
    "camera_start",
    "context_candidates",
    "context_counts",
    "context_frames",
    "count_video_frames",
    "dump_story",
    "field_name",
    "full_captions",
    "load_story",
    "overridden",
    "plan_shot",
    "read_story",
    "shot_lengths",
    "spread_frames",
    "story_schema",
    "with_model_defaults",
]
