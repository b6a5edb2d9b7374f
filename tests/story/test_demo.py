"""The demo story is one that the bundled networks understand."""

import pathlib
import re

from shotstream_jax.story import full_captions, load_story
from shotstream_jax.storyworld.captions import VOCABULARY, read_caption

DEMO = pathlib.Path(__file__).parents[2] / "configs" / "stories" / "demo.yaml"


def test_every_word_is_in_the_vocabulary():
    for caption in full_captions(load_story(DEMO)):
        words = re.findall(r"shot\d+:|\w+|[^\w\s]", caption)
        assert set(words) <= {*VOCABULARY, *(word for word in words if word.endswith(":"))}


def test_every_shot_names_scene_action_and_framing():
    story = load_story(DEMO)
    assert read_caption(story.global_caption).keys() >= {"shape", "colour", "pattern"}
    for shot in story.shots:
        assert read_caption(shot.caption).keys() >= {"scene", "action", "framing"}
