"""Context selection: the drawing, the reference's arithmetic, and what must hold for any film."""

import inspect
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shotstream_jax.story import (
    FrameRef,
    context_candidates,
    context_counts,
    context_frames,
    spread_frames,
)

SHOT = 81
BUDGET = 6

policies = st.sampled_from(["anchor", "recent", "first", "ends"])
films = st.lists(st.integers(1, 200), max_size=12)
budgets = st.integers(1, 10)


def drawn_rows() -> list[tuple[int, str, list[list[int]]]]:
    """The drawing in the docstring: earlier shots, policy, frames of each shot."""
    rows = []
    for line in inspect.getdoc(context_frames).splitlines():
        match = re.fullmatch(r"\s*(\d+) *(anchor|recent|first|ends)? *\|(.*)", line)
        if match:
            cells = match[3].split("|")
            frames = [[int(frame) for frame in cell.replace(".", "").split()] for cell in cells]
            rows.append((int(match[1]), match[2] or "anchor", frames))
    return rows


def reference_frames(lengths, budget):
    """What the reference does with positions in the whole film, for up to `budget` shots."""
    counts = context_counts(len(lengths), budget)
    start, chosen = 0, []
    for shot, (length, count) in enumerate(zip(lengths, counts, strict=True)):
        first, last = np.float32(start), np.float32(start + length - 1)
        positions = np.linspace(first, last, count, dtype=np.float32)
        chosen += [FrameRef(shot, int(p) - start) for p in np.rint(positions)]
        start += length
    return tuple(chosen)


class TestContextFrames:
    def test_there_is_nothing_before_the_first_shot(self):
        assert context_frames([]) == ()

    def test_is_what_is_drawn(self):
        rows = drawn_rows()
        assert [(shots, policy) for shots, policy, _ in rows[6:]] == [
            (7, "recent"),
            (7, "anchor"),
            (8, "recent"),
            (8, "anchor"),
            (2, "first"),
            (2, "ends"),
        ]
        for shots, policy, frames in rows:
            drawn = tuple(FrameRef(k, f) for k, of_shot in enumerate(frames) for f in of_shot)
            assert context_frames([SHOT] * shots, BUDGET, policy) == drawn

    @pytest.mark.parametrize("policy", ["anchor", "recent"])
    def test_policies_agree_while_the_budget_suffices(self, policy):
        for shots in range(1, BUDGET + 1):
            lengths = [SHOT] * shots
            assert context_frames(lengths, BUDGET, policy) == reference_frames(lengths, BUDGET)

    @settings(deadline=None)
    @given(st.lists(st.integers(0, 60), min_size=1, max_size=6))
    def test_cut_shots_are_sampled_as_in_the_whole_film(self, strides):
        """Shots of 1 + 4 n frames meet no halves, so where a shot lies in the film is no matter."""
        lengths = [1 + 4 * stride for stride in strides]
        assert context_frames(lengths) == reference_frames(lengths, BUDGET)

    @settings(deadline=None)
    @given(films.filter(len), budgets, policies)
    def test_spends_the_budget_in_order_and_in_range(self, lengths, budget, policy):
        context = context_frames(lengths, budget, policy)
        assert len(context) == budget
        assert list(context) == sorted(context)
        assert all(0 <= ref.frame < lengths[ref.shot] for ref in context)

    @settings(deadline=None)
    @given(films.filter(len), st.integers(2, 10), policies)
    def test_the_last_shot_is_always_seen(self, lengths, budget, policy):
        assert context_frames(lengths, budget, policy)[-1].shot == len(lengths) - 1

    @settings(deadline=None)
    @given(films.filter(len), budgets)
    def test_an_anchor_is_never_forgotten(self, lengths, budget):
        assert context_frames(lengths, budget, "anchor")[0] == FrameRef(0, 0)

    @pytest.mark.parametrize(
        ("lengths", "budget", "complaint"),
        [([81, 0], 6, "Shot 1 has 0"), ([81], 0, "budget of 0")],
    )
    def test_impossible_requests_are_refused(self, lengths, budget, complaint):
        with pytest.raises(ValueError, match=complaint):
            context_frames(lengths, budget)


class TestSpreadFrames:
    @pytest.mark.parametrize(
        ("last", "count", "frames"),
        [
            (80, 0, ()),
            (80, 1, (0,)),
            (80, 2, (0, 80)),
            (80, 6, (0, 16, 32, 48, 64, 80)),
            (5, 3, (0, 2, 5)),  # 2.5 goes to the even 2
            (7, 3, (0, 4, 7)),  # 3.5 goes to the even 4
            (0, 3, (0, 0, 0)),
        ],
    )
    def test_known_cases(self, last, count, frames):
        assert spread_frames(0, last, count) == frames

    @settings(deadline=None)
    @given(st.integers(0, 300), st.integers(0, 300), st.integers(2, 12))
    def test_ends_are_included_and_steps_even(self, first, length, count):
        frames = spread_frames(first, first + length, count)
        assert (frames[0], frames[-1]) == (first, first + length)
        steps = np.diff(frames)
        assert steps.max() - steps.min() <= 1 or length < count


class TestCounts:
    @settings(deadline=None)
    @given(st.integers(1, 20), budgets)
    def test_add_up_and_favour_the_recent(self, shots, budget):
        counts = context_counts(shots, budget)
        assert sum(counts) == budget
        assert list(counts) == sorted(counts)
        assert counts[-1] - counts[0] <= 1


class TestCandidates:
    @settings(deadline=None)
    @given(films.filter(len), budgets)
    def test_candidates_cover_every_later_context(self, lengths, budget):
        for policy in ("anchor", "recent"):
            for ref in context_frames(lengths, budget, policy):
                asked_at = context_candidates(lengths[ref.shot], len(lengths), budget)
                asked_before = context_candidates(lengths[ref.shot], ref.shot + 1, budget)
                assert ref.frame in asked_at
                assert set(asked_at) <= set(asked_before)

    def test_candidates_shrink_as_the_story_grows(self):
        assert context_candidates(SHOT, 1) == (0, 16, 32, 40, 48, 64, 80)
        assert context_candidates(SHOT, 3) == (0, 80)
        assert context_candidates(SHOT, 6) == (0,)
        assert context_candidates(SHOT, 40) == (0,)
