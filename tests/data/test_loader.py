"""Batches are dense, shared out without overlap, and resume to the bit."""

import dataclasses
import itertools

import numpy as np
import pytest

from shotstream_jax.data.loader import LoaderConfig, make_loader

FILMS = 12
ORDER = [1, 2, 11, 5, 9, 7, 10, 6, 0, 3, 8, 4, 9, 11, 1, 8]
"""Of seed 0."""


@dataclasses.dataclass(frozen=True)
class Numbered:
    """Films that are nothing but their number and how many shots they have."""

    films: int = FILMS
    shots: int = 2

    def __len__(self) -> int:
        return self.films

    def __getitem__(self, index: int) -> tuple[int, int]:
        return int(index), self.shots


def a_shot(film, rng):
    """The film's number, once a shot, and a shot drawn."""
    number, shots = film
    return {"films": np.full(shots, number), "target_shot": rng.integers(shots)}


def numbers(loader, batches: int) -> list[int]:
    drawn = itertools.islice(loader, batches)
    return [int(film) for batch in drawn for film in batch["films"][:, 0]]


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("stop", [0, 1, 5])
def test_a_resumed_loader_continues_to_the_bit(stop, threads):
    def fresh():
        config = LoaderConfig(batch=3, seed=4, threads=threads)
        return iter(make_loader(Numbered(), a_shot, config))

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


def test_the_order_of_a_seed_stays_what_it_was():
    """Runs of earlier versions resume: another order would show them films twice."""
    drawn = numbers(make_loader(Numbered(), a_shot, LoaderConfig(batch=4, threads=0)), 4)
    assert drawn == ORDER


def test_every_epoch_holds_every_film_once_in_an_order_of_its_own():
    drawn = numbers(make_loader(Numbered(), a_shot, LoaderConfig(batch=4)), 6)
    first, second = drawn[:FILMS], drawn[FILMS:]
    assert sorted(first) == sorted(second) == list(range(FILMS))
    assert first != second
    assert first != sorted(first)


def test_a_batch_may_hold_one_sample():
    drawn = numbers(make_loader(Numbered(films=3), a_shot, LoaderConfig(batch=1)), 6)
    assert sorted(drawn[:3]) == sorted(drawn[3:]) == [0, 1, 2]


def test_the_seed_decides_the_order():
    orders = [
        numbers(make_loader(Numbered(), a_shot, LoaderConfig(batch=4, seed=s)), 3)
        for s in (0, 0, 1)
    ]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


def test_another_epoch_draws_another_shot():
    source = Numbered(films=8, shots=8)
    loader = make_loader(source, a_shot, LoaderConfig(batch=8, shuffle=False))
    targets = [batch["target_shot"].tolist() for batch in itertools.islice(loader, 2)]
    assert targets[0] != targets[1]
    assert len(set(targets[0])) > 1


def test_without_shuffling_films_come_by_number():
    loader = make_loader(Numbered(), a_shot, LoaderConfig(batch=4, shuffle=False))
    assert numbers(loader, 3) == list(range(FILMS))


@pytest.mark.parametrize("shuffle", [True, False])
def test_processes_share_the_films_of_every_epoch_without_overlap(shuffle):
    shares = []
    for process in range(3):
        config = LoaderConfig(batch=2, shuffle=shuffle, process_index=process, process_count=3)
        shares.append(numbers(make_loader(Numbered(), a_shot, config), 4))
    for epoch in range(2):
        drawn = [film for share in shares for film in share[4 * epoch : 4 * epoch + 4]]
        assert sorted(drawn) == list(range(FILMS))


def test_a_batch_larger_than_the_share_runs_into_the_next_epoch():
    drawn = numbers(make_loader(Numbered(films=3), a_shot, LoaderConfig(batch=5)), 1)
    assert set(drawn) == {0, 1, 2}


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="batch of 0"):
        LoaderConfig(batch=0)


def test_a_process_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="Process 2 of 2"):
        LoaderConfig(batch=1, process_index=2, process_count=2)


def test_more_processes_than_films_are_refused():
    config = LoaderConfig(batch=1, process_index=0, process_count=4)
    with pytest.raises(ValueError, match="3 films for 4 processes"):
        make_loader(Numbered(films=3), a_shot, config)
