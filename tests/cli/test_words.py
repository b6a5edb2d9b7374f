"""`shotstream words`."""

import json

from shotstream_jax.storyworld.captions import VOCABULARY


def test_lists_what_the_model_knows(run):
    status, out, _ = run("words")
    assert status == 0
    assert set(out.split()) <= set(VOCABULARY)
    assert {"meadow", "triangle", "spins"} <= set(out.split())
    _, out, _ = run("words", "--json")
    assert json.loads(out)["closed"] is True


def test_lists_what_it_does_not_know_of_a_story(run, story, tmp_path):
    assert run("words", story)[:2] == (0, "The model knows every word of this story.\n")
    other = tmp_path / "other.csv"
    other.write_text("caption\na dragon waits.\n")
    status, out, _ = run("words", other)
    assert (status, out) == (1, "Shot 1: the model does not know dragon.\n")
    _, out, _ = run("words", other, "--json")
    assert json.loads(out)["unknown"][0]["words"] == ["dragon"]


def test_a_story_that_is_none_is_refused(refused, tmp_path):
    assert "cannot be read" in refused("words", tmp_path / "none.yaml")
