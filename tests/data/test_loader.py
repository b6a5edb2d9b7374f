"""Batches are dense, shared out without overlap, and resume to the bit."""

import itertools

import numpy as np
import pytest

from shotstream_jax.data.loader import LoaderConfig, make_loader
from shotstream_jax.data.sources import StoredFilm, WorldSource
from shotstream_jax.data.transforms import Excerpt, WholeFilm
from shotstream_jax.data.world.stage import Picture

SMALL = Picture(height=48, width=80)
FILMS = 12


class Numbered:
    """Films that are nothing but their number, as their only grey."""

    def __init__(self, films: int = FILMS, shots: int = 2):
        self._films, self._shots = films, shots

    def __len__(self) -> int:
        return self._films

    def __getitem__(self, index: int) -> StoredFilm:
        pixels = np.full((self._shots, 1, 16, 32, 3), index, np.uint8)
        return StoredFilm(pixels, tuple(f"film {index}" for _ in range(self._shots)))


def numbers(loader, batches: int) -> list[int]:
    return [
        int(pixel)
        for batch in itertools.islice(loader, batches)
        for pixel in batch["pixels"][:, 0, 0, 0, 0, 0]
    ]


def world(shots: int) -> WorldSource:
    return WorldSource(stories=10, shots=shots, picture=SMALL, video_frames=9)


def test_films_of_unlike_length_make_dense_batches_in_turn():
    loader = make_loader([world(2), world(3)], WholeFilm(), LoaderConfig(batch=3))
    shapes = [batch["pixels"].shape for batch in itertools.islice(loader, 4)]
    assert shapes == [(3, 2, 9, 48, 80, 3), (3, 3, 9, 48, 80, 3)] * 2


def test_excerpts_are_batched_field_by_field():
    batch = next(iter(make_loader([world(3)], Excerpt(), LoaderConfig(batch=4))))
    shapes = {name: part.shape for name, part in batch.items()}
    assert shapes == {
        "target": (4, 9, 48, 80, 3),
        "target_shot": (4,),
        "context": (4, 6, 48, 80, 3),
        "context_shot": (4, 6),
        "captions": (4, 3),
    }
    assert batch["target"].dtype == np.uint8


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("stop", [0, 1, 5])
def test_a_resumed_loader_continues_to_the_bit(stop, threads):
    def fresh():
        config = LoaderConfig(batch=3, seed=4, threads=threads)
        return iter(make_loader([world(2), world(3)], Excerpt(), config))

    first = fresh()
    for _ in range(stop):
        next(first)
    state = first.get_state()
    resumed = fresh()
    resumed.set_state(state)
    for _ in range(6):
        expected, batch = next(first), next(resumed)
        assert expected.keys() == batch.keys()
        for name, part in expected.items():
            np.testing.assert_array_equal(batch[name], part)


def test_every_epoch_holds_every_film_once_in_an_order_of_its_own():
    drawn = numbers(make_loader([Numbered()], WholeFilm(), LoaderConfig(batch=4)), 6)
    first, second = drawn[:FILMS], drawn[FILMS:]
    assert sorted(first) == sorted(second) == list(range(FILMS))
    assert first != second
    assert first != sorted(first)


def test_the_seed_decides_the_order():
    orders = [
        numbers(make_loader([Numbered()], WholeFilm(), LoaderConfig(batch=4, seed=s)), 3)
        for s in (0, 0, 1)
    ]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


def test_an_excerpt_draws_another_target_in_another_epoch():
    source = Numbered(films=8, shots=8)
    loader = make_loader([source], Excerpt(), LoaderConfig(batch=8, shuffle=False))
    targets = [batch["target_shot"].tolist() for batch in itertools.islice(loader, 2)]
    assert targets[0] != targets[1]
    assert len(set(targets[0])) > 1


def test_without_shuffling_films_come_by_number():
    loader = make_loader([Numbered()], WholeFilm(), LoaderConfig(batch=4, shuffle=False))
    assert numbers(loader, 3) == list(range(FILMS))


@pytest.mark.parametrize("shuffle", [True, False])
def test_processes_share_the_films_of_every_epoch_without_overlap(shuffle):
    shares = []
    for process in range(3):
        config = LoaderConfig(batch=2, shuffle=shuffle, process_index=process, process_count=3)
        shares.append(numbers(make_loader([Numbered()], WholeFilm(), config), 4))
    for epoch in range(2):
        drawn = [film for share in shares for film in share[4 * epoch : 4 * epoch + 4]]
        assert sorted(drawn) == list(range(FILMS))


def test_processes_take_turns_alike():
    for process in range(2):
        config = LoaderConfig(batch=2, process_index=process, process_count=2)
        loader = make_loader([Numbered(shots=2), Numbered(shots=3)], WholeFilm(), config)
        assert [b["pixels"].shape[1] for b in itertools.islice(loader, 4)] == [2, 3, 2, 3]


def test_a_batch_larger_than_the_share_runs_into_the_next_epoch():
    drawn = numbers(make_loader([Numbered(films=3)], WholeFilm(), LoaderConfig(batch=5)), 1)
    assert set(drawn) == {0, 1, 2}


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="batch of 0"):
        LoaderConfig(batch=0)


def test_a_process_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="Process 2 of 2"):
        LoaderConfig(batch=1, process_index=2, process_count=2)


def test_no_source_is_refused():
    with pytest.raises(ValueError, match="0 sources"):
        make_loader([], WholeFilm(), LoaderConfig(batch=1))


def test_more_processes_than_films_are_refused():
    config = LoaderConfig(batch=1, process_index=0, process_count=4)
    with pytest.raises(ValueError, match="3 films for 4 processes"):
        make_loader([Numbered(films=3)], WholeFilm(), config)
