"""Distillation: which network a step trains."""

import pytest

from tests.train import miniature


@pytest.mark.parametrize("every", [1, 2, 6])
@pytest.mark.parametrize("stage", [miniature.intra, miniature.inter])
def test_the_generator_moves_once_and_the_critic_at_all_other_steps(tmp_path, stage, every):
    training = stage(tmp_path, generator_every=every)
    moved = [training.network_for_step(step) for step in range(13)]
    by_hand = {
        1: ["generator"] * 13,
        2: ["generator", "fake_score"] * 6 + ["generator"],
        6: (["generator"] + ["fake_score"] * 5) * 2 + ["generator"],
    }
    assert moved == by_hand[every]
