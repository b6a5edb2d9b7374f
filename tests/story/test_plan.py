"""What the rollout is told: captions, context, positions and lengths of each shot."""

import pytest

from shotstream_jax.story import (
    Defaults,
    FrameRef,
    Shot,
    Story,
    camera_start,
    context_frames,
    count_video_frames,
    full_captions,
    plan_shot,
    shot_lengths,
)

CUT, CONTINUE = "cut", "continue"


def story_of(*transitions: str, **shot: object) -> Story:
    shots = tuple(
        Shot(caption=f"caption {k}", transition=transition, **shot)
        for k, transition in enumerate(transitions)
    )
    return Story(title="A film", global_caption="A cat.", shots=shots, defaults=Defaults(seed=5))


def seen(plan) -> tuple[FrameRef, ...]:
    """Context frames of a plan by place; shots without a name are called s1, s2, ..."""
    return tuple(
        FrameRef(int(frame.source.shot_id[1:]) - 1, frame.source.frame) for frame in plan.context
    )


class TestCaptions:
    def test_are_glued_without_separator_and_count_from_zero(self):
        assert full_captions(story_of(CUT, CUT)) == (
            "A cat.shot0:caption 0",
            "A cat.shot1:caption 1",
        )

    def test_a_plan_knows_no_later_caption(self):
        story = story_of(CUT, CUT, CUT)
        for index in range(3):
            plan = plan_shot(story, index)
            assert plan.caption == full_captions(story)[index]
            assert {frame.caption for frame in plan.context} == set(full_captions(story)[:index])


class TestLengths:
    @pytest.mark.parametrize(
        ("latents", "transition", "frames"), [(21, CUT, 81), (1, CUT, 1), (21, CONTINUE, 84)]
    )
    def test_only_the_first_latent_of_a_camera_is_one_frame(self, latents, transition, frames):
        assert count_video_frames(latents, transition) == frames

    def test_a_camera_makes_the_same_film_in_one_shot_or_several(self):
        split = count_video_frames(6, CUT) + count_video_frames(9, CONTINUE)
        assert split == count_video_frames(15, CUT)

    def test_no_latents_are_refused(self):
        with pytest.raises(ValueError, match="0 latent frames"):
            count_video_frames(0, CUT)

    def test_a_shot_has_its_own_chunks_or_the_default(self):
        story = Story(
            title="A film",
            shots=(Shot(caption="a"), Shot(caption="b", chunks=2, transition=CONTINUE)),
        )
        assert shot_lengths(story) == (81, 24)
        assert shot_lengths(story, chunk_frames=2, temporal_stride=2) == (27, 8)


class TestPlan:
    def test_the_reference_numbers_positions_from_one(self):
        story = story_of(*[CUT] * 5)
        assert [plan_shot(story, index).rope_shot for index in range(5)] == [1, 1, 2, 3, 4]

    @pytest.mark.parametrize("index", range(1, 6))
    def test_position_follows_the_last_context_frame(self, index):
        plan = plan_shot(story_of(*[CUT] * 6), index)
        assert plan.rope_shot == plan.context[-1].rope_shot + 1

    def test_a_cut_sees_the_shots_before_it(self):
        plan = plan_shot(story_of(CUT, CUT, CUT), 2)
        assert seen(plan) == context_frames([81, 81])
        assert plan_shot(story_of(CUT), 0).context == ()

    def test_the_same_camera_keeps_context_and_position(self):
        story = story_of(CUT, CUT, CONTINUE, CONTINUE, CUT)
        cut, *going_on = (plan_shot(story, index) for index in (1, 2, 3))
        for plan in going_on:
            assert (plan.context, plan.rope_shot) == (cut.context, cut.rope_shot)
            assert plan.transition == CONTINUE
            assert plan.caption == full_captions(story)[plan.index]
        assert [camera_start(story, index) for index in range(5)] == [0, 1, 1, 1, 4]
        assert seen(plan_shot(story, 4)) == context_frames([81, 81, 84, 84])

    def test_the_first_camera_may_go_on(self):
        plan = plan_shot(story_of(CUT, CONTINUE), 1)
        assert (plan.context, plan.rope_shot) == ((), 1)

    def test_seed_and_chunks_are_the_shots_own_or_the_defaults(self):
        assert plan_shot(story_of(CUT), 0).seed == 5
        assert plan_shot(story_of(CUT), 0).chunks == 7
        plan = plan_shot(story_of(CUT, seed=0, chunks=1), 0)
        assert (plan.seed, plan.chunks) == (0, 1)

    def test_budget_and_policy_are_passed_on(self):
        story = story_of(*[CUT] * 4)
        recent = seen(plan_shot(story, 3, budget=2, policy="recent"))
        assert recent == (FrameRef(1, 0), FrameRef(2, 0))
        assert seen(plan_shot(story, 3, budget=2)) == (FrameRef(0, 0), FrameRef(2, 0))

    def test_shots_are_sampled_as_they_were_filmed(self):
        story = story_of(CUT, CUT)
        assert seen(plan_shot(story, 1, filmed=[9])) == context_frames([9])
        with pytest.raises(ValueError, match="1 earlier shots, got 0"):
            plan_shot(story, 1, filmed=[])

    @pytest.mark.parametrize("index", [-1, 2])
    def test_a_shot_that_is_not_there_is_refused(self, index):
        with pytest.raises(IndexError, match=f"Shot {index} of 'A film': its 2 shots"):
            plan_shot(story_of(CUT, CUT), index)
