"""A run's folder has one owner, and is never taken for another run's."""

import pytest

from shotstream_jax.train.engine.loop import train
from shotstream_jax.train.engine.optimizer import OptimizerConfig
from shotstream_jax.train.engine.run_folder import describe, opened, refuse_other
from tests.train import miniature
from tests.train.engine.toy_training import toy


def test_a_second_owner_is_refused(tmp_path):
    training = toy(tmp_path / "run")
    with (
        opened(training, "refuse"),
        pytest.raises(ValueError, match="in use by another process"),
        opened(training, "resume"),
    ):
        pass
    with opened(training, "resume"):
        pass


def test_a_run_is_resumed_or_overwritten_only_when_asked(tmp_path):
    training = toy(tmp_path / "run")
    with opened(training, "refuse") as folder:
        (folder / "metrics.jsonl").write_text("{}\n")
        (folder / "checkpoints").mkdir()
    with pytest.raises(ValueError, match=r"--resume.*--overwrite"), opened(training, "refuse"):
        pass
    with opened(training, "resume"):
        assert (folder / "metrics.jsonl").exists()
    with opened(training, "overwrite"):
        assert visible(folder) == ["lock", "run.json"]
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "run.json"]


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if path.name[0] != ".")


def failing(training, existing, after):
    with opened(training, existing) as folder:
        after(folder)
        # Weights of an earlier stage that are not there, or any other end of a start.
        raise LookupError(folder)


def fail(training, existing, *, after=lambda folder: None):
    with pytest.raises(LookupError):
        failing(training, existing, after)


def test_a_failed_start_leaves_nothing(tmp_path):
    """Kind: a failed start left a lock and a run folder, which the next start then refused."""
    fail(toy(tmp_path / "runs" / "run"), "refuse")
    assert not (tmp_path / "runs" / "run").exists()
    (tmp_path / "mine").mkdir()
    fail(toy(tmp_path / "mine"), "refuse")
    assert visible(tmp_path / "mine") == ["lock"]


def run_of(folder, step="000004"):
    (folder / "checkpoints" / step).mkdir(parents=True)
    (folder / "metrics.jsonl").write_text(step)


def test_an_overwrite_that_fails_to_start_gives_the_run_back(tmp_path):
    """Kind: --overwrite deleted first and refused after."""
    training = toy(tmp_path / "run")
    with opened(training, "refuse") as folder:
        run_of(folder)
    fail(toy(tmp_path / "run", seed=7), "overwrite")
    assert (folder / "checkpoints" / "000004").is_dir()
    with opened(training, "resume"):
        pass
    # With a checkpoint of its own it has taken the other's place.
    fail(toy(tmp_path / "run", seed=7), "overwrite", after=lambda folder: run_of(folder, "000008"))
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["000008"]
    assert not (folder / ".replaced").exists()


def test_a_run_without_a_checkpoint_is_compared_too(tmp_path):
    """Kind: a run of other settings was gone on with from step 0, without a word."""
    with opened(toy(tmp_path / "run"), "refuse"):
        pass
    with (
        pytest.raises(ValueError, match="with seed 0, and it is 7 now"),
        opened(toy(tmp_path / "run", seed=7), "resume"),
    ):
        pass


@pytest.mark.parametrize("text", ["{", "[]", "null", "3", '{"stage": 3}', "[" * 100_000])
def test_a_damaged_description_is_named(tmp_path, text):
    """Kind: facts that are valid JSON, but wrong, ended in a traceback."""
    with opened(toy(tmp_path / "run"), "refuse") as folder:
        pass
    (folder / "run.json").write_text(text)
    with pytest.raises(ValueError, match=r"run\.json .*--overwrite"), opened(toy(folder), "resume"):
        pass


@pytest.mark.parametrize("existing", ["refuse", "resume", "overwrite"])
def test_a_folder_that_holds_no_run_is_left_alone(tmp_path, existing):
    (tmp_path / "thesis.txt").write_text("years of work")
    with (
        pytest.raises(ValueError, match=r"thesis\.txt and no run"),
        opened(toy(tmp_path), existing),
    ):
        pass
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_the_same_run_with_other_habits_is_the_same_run(tmp_path):
    found = describe(toy(tmp_path / "a"))
    refuse_other(toy(tmp_path / "b", steps=99, log_every=7, keep=5), found)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": 7}, r"with seed 0, and it is 7 now"),
        ({"bad": (1,)}, r"with bad.0 None, and it is 1 now"),
        (
            {"optimizer": OptimizerConfig(learning_rate=0.5, schedule="cosine", ema=0.9)},
            r"optimizer.learning_rate 0.05, and it is 0.5 now",
        ),
    ],
)
def test_another_setting_that_decides_the_numbers_is_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        refuse_other(toy(tmp_path, **settings), describe(toy(tmp_path)))


def test_another_stage_is_refused(tmp_path):
    found = {**describe(toy(tmp_path)), "stage": "TeacherTraining"}
    with pytest.raises(ValueError, match=r"stage TeacherTraining and this one is of stage Toy"):
        refuse_other(toy(tmp_path), found)


def test_the_loop_compares_before_it_goes_on(tmp_path):
    train(toy(tmp_path / "run", steps=2))
    with pytest.raises(ValueError, match="with seed 0, and it is 1 now"):
        train(toy(tmp_path / "run", steps=4, seed=1), existing="resume")


def test_a_run_of_version_0_1_is_known_by_its_old_names(tmp_path):
    """Stages and settings were renamed; the run is still the same run."""
    training = miniature.latents(tmp_path)
    found = describe(training)
    assert found["stage"] == "LatentDataset"
    refuse_other(training, {**found, "stage": "LatentMaking"})
    training = miniature.intra(tmp_path)
    found = describe(training)
    ratio = found["settings"].pop("generator_every")
    found["settings"]["ratio"] = ratio
    refuse_other(training, found)
    found["settings"]["ratio"] = ratio + 1
    with pytest.raises(ValueError, match=f"generator_every {ratio + 1}, and it is {ratio} now"):
        refuse_other(training, found)


def test_settings_that_are_gone_count_only_if_they_changed_the_numbers(tmp_path):
    training = miniature.intra(tmp_path)
    found = describe(training)
    settings = found["settings"]
    settings["commits"] = settings.pop("history")
    settings["cache_gradient"], settings["dmd"]["outside"] = "detached", "drop"
    refuse_other(training, found)
    settings["dmd"]["outside"] = "clamp"
    with pytest.raises(ValueError, match=r"with dmd\.outside 'clamp', and it is None now"):
        refuse_other(training, found)
    settings["dmd"]["outside"], settings["cache_gradient"] = "drop", "straight_through"
    with pytest.raises(ValueError, match=r"with cache_gradient 'straight_through'"):
        refuse_other(training, found)


def test_what_may_change_may_have_had_another_name(tmp_path):
    training = miniature.vae(tmp_path)
    found = describe(training)
    old = {
        "validation_stories": "looked_at",
        "test_stories": "judged",
        "min_oracle_accuracy": "gate",
    }
    for name, before in old.items():
        found["settings"][before] = found["settings"].pop(name) + 1
    refuse_other(training, found)
