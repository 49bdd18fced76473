"""A recording that passes through memory: what is there at each step, and that every row has its turn equally often."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sampler_reference import make_episodes

from toolkit.data.replay import Replay, Sampler
from toolkit.data.sampler import FINAL, HEADER, LEFT
from toolkit.data.window import Window
from toolkit.types import Episodes, FloatArray, ToolkitError


def cut(episodes: Episodes, blocks: int) -> list[Replay]:
    parts = np.array_split(np.arange(len(episodes)), blocks)
    return [Replay.from_episodes(kept, kept.obs, 0.9) for kept in map(episodes.select, parts)]


def passing(parts: list[Replay], rows: int, batch_size: int = 4) -> Window:
    return Window(np.array([part.written() for part in parts]), parts.__getitem__, rows, batch_size)


def expected(parts: list[Replay], rows: int, batch_size: int, step: int) -> FloatArray:
    """The ring after all episodes so far have been written into it one after the other, row by row."""
    target = rows + max(part.written() for part in parts) + step * batch_size
    ring, written, epoch = np.zeros((rows, parts[0].rows.shape[2]), np.float32), 0, 0
    while True:
        for at in np.random.Generator(np.random.Philox(key=epoch)).permutation(len(parts)):
            block = parts[at].rows[0]
            for episode in np.split(block, np.flatnonzero(block[:, LEFT] == FINAL)[:-1] + 1):
                if written + len(episode) > target:
                    return ring
                for row in episode:
                    ring[written % rows] = row
                    written += 1
        epoch += 1


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=4, max_size=30),
    blocks=st.integers(1, 12),
    share=st.floats(0.0, 1.0),
    steps=st.lists(st.integers(0, 60), min_size=1, max_size=4),
)
def test_the_ring_depends_on_the_step_alone(lengths: list[int], blocks: int, share: float, steps: list[int]) -> None:
    parts = cut(make_episodes(lengths), min(blocks, len(lengths)))
    least, all_rows = max(part.written() for part in parts), sum(part.written() for part in parts)
    rows = int(least + share * (all_rows - least))
    window = passing(parts, rows)
    assert window.written() == all_rows
    for step in steps:  # forwards, backwards and far ahead
        ring = window.at(step)
        np.testing.assert_array_equal(ring.rows[0], expected(parts, rows, 4, step))
        np.testing.assert_array_equal(passing(parts, rows).at(step).rows, ring.rows)
        assert ring.rows[0, ring.head[0] - 1, LEFT] == FINAL  # the newest row ends an episode, so that nothing runs on


def test_every_row_has_its_turn_equally_often() -> None:
    """In the ring, where each is as likely to be drawn as any other: over epochs all rows stay equally long, but for
    the time that the first rows of an episode wait for its last, a 70th of the ring."""
    episodes = make_episodes([7, 3, 12, 5, 9, 1, 4, 8, 6, 10, 2, 11] * 20)
    parts = cut(replace(episodes, obs=np.arange(len(episodes.obs), dtype=np.float32)[:, None]), 16)
    window, epochs = passing(parts, 900), 100
    updates = epochs * window.written() // 4
    stay = np.zeros(window.written())
    for step in range(1000, 1000 + updates, 10):
        stay += np.bincount(window.at(step).rows[0, :, HEADER].astype(int), minlength=len(stay))
    assert np.abs(stay / stay.mean() - 1).max() < 0.03


def test_what_is_drawn_was_recorded() -> None:
    """Over two steps, from a ring that begins in the middle of an episode and goes round."""
    episodes = make_episodes([7, 3, 12, 5, 9, 1, 4, 8])
    parts = cut(episodes, 8)
    window = passing(parts, 31)
    sampler = Sampler(parts[0].spec, np.array([1]), 16, 0, 2, 0.9, updates=1)
    place = {tuple(obs): row for row, obs in enumerate(episodes.obs.tolist())}
    ends = set(episodes.starts[1:].tolist())
    for step in range(200):
        for row in sampler.draw(step, window.at(step), None, np.array([16])).numpy()[0, 0]:
            at = place[tuple(row[:3].tolist())]
            after = at + 1 if at + 2 in ends else at + 2
            np.testing.assert_array_equal(row[5:8], episodes.obs[after])
            np.testing.assert_array_equal(row[3:5], episodes.action[at])
            assert row[10] == pytest.approx(episodes.reward[at] + 0.9 * episodes.reward[at + 1])


def test_an_episode_longer_than_the_window() -> None:
    with pytest.raises(ToolkitError, match=r"window\.rows: expected at least 41, for the longest episodes; got 40"):
        passing(cut(make_episodes([3, 40]), 2), 40)
