"""The numba kernels against a plain NumPy reference, and the properties a sampler must have."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sampler_reference import (
    filled_ring,
    make_episodes,
    reference_begins,
    reference_goal,
    reference_pick,
    reference_steps,
    reference_tail,
)

from toolkit.data.replay import Goals, Normalizer, Relabel, Replay, Sampler, push, unpack
from toolkit.data.sampler import HEADER, LEFT, RETURN, REWARD, TERMINATED
from toolkit.types import NO_RETURN, Episodes, Spec, ToolkitError


def widened(replay: Replay, chunk: int, goal_dim: int = 0) -> Spec:
    """Sizes that an agent with chunks sees."""
    return Spec(replay.spec.obs_dim, chunk * replay.spec.action_dim, goal_dim)


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    n=st.integers(1, 7),
    chunk=st.integers(1, 4),
    seed=st.integers(0, 1 << 30),
    step=st.integers(0, 1 << 33),
)
def test_offline_batches_equal_the_reference(lengths: list[int], n: int, chunk: int, seed: int, step: int) -> None:
    episodes = make_episodes([*lengths, chunk])
    replay = Replay.from_episodes(episodes, episodes.obs, 0.9)
    n = n if chunk == 1 else chunk
    sampler = Sampler(widened(replay, chunk), np.array([seed, seed + 1]), 8, 0, n, 0.9, updates=2, chunk=chunk)
    got = sampler.draw(step, replay, None, np.array([8, 8])).numpy()
    for u in range(2):
        for s in range(2):
            for b in range(8):
                k, i = reference_pick(replay, s, seed + s, step + u, b, chunk)
                tail = partial(reference_tail, replay, s, seed + s, step + u, b)
                np.testing.assert_array_equal(got[u, s, b], reference_steps(replay, k, i, n, 0.9, chunk, tail))


@settings(max_examples=100, deadline=None)
@given(
    capacity=st.integers(4, 40),
    steps=st.integers(1, 120),
    envs=st.integers(1, 3),
    n=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
def test_ring_batches_equal_the_reference_and_stay_inside_episodes(
    capacity: int, steps: int, envs: int, n: int, seed: int
) -> None:
    ring, log = filled_ring(seed, 2, envs, capacity * envs, steps)
    sampler = Sampler(ring.spec, np.array([5, 9]), 16, 0, n, 0.9, updates=1)
    got = sampler.draw(3, None, ring, np.array([0])).numpy()
    for s in range(2):
        for b in range(16):
            k, i = reference_pick(ring, s, (5, 9)[s], 3, b)
            assert s * envs <= k < (s + 1) * envs
            np.testing.assert_array_equal(got[0, s, b], reference_steps(ring, k, i, n, 0.9))
            # the window that was drawn is one that was really pushed, step by step
            start = next(x for x in log[k] if np.array_equal(x[1], got[0, s, b, :3]))
            window = []
            for entry in log[k][start[0] : start[0] + n]:
                window.append(entry)
                if entry[5] or entry[6]:
                    break
            np.testing.assert_array_equal(got[0, s, b, 5:8], window[-1][4])
            total = sum(np.float32(0.9) ** j * entry[3] for j, entry in enumerate(window))
            assert got[0, s, b, 10] == pytest.approx(total, abs=1e-5)
            want = 0.0 if window[-1][5] else 0.9 ** len(window)
            assert got[0, s, b, 11] == pytest.approx(want, rel=1e-5)


@settings(max_examples=100, deadline=None)
@given(capacity=st.integers(4, 40), steps=st.integers(1, 120), envs=st.integers(1, 3), seed=st.integers(0, 1000))
def test_a_ring_unrolls_to_what_was_pushed_last(capacity: int, steps: int, envs: int, seed: int) -> None:
    ring, log = filled_ring(seed, 1, envs, capacity * envs, steps)
    whole, starts = ring.unrolled()
    assert starts[-1] == len(whole)
    begin = 0
    for pushed, size in zip(log, ring.size.tolist(), strict=True):
        wanted: list = []  # rows from the newest to the oldest: a final one behind every end, and behind the last step
        for number, (_, obs, action, reward, after, terminated, truncated) in enumerate(reversed(pushed)):
            wanted += [(after, None, 0.0, False)] if number == 0 or terminated or truncated else []
            wanted += [(obs, action, reward, terminated)]
        wanted = wanted[:size][::-1]
        wanted = wanted[wanted[0][1] is None :]
        rows, begin = whole[begin : begin + len(wanted)], begin + len(wanted)
        for row, (obs, action, reward, terminated) in zip(rows, wanted, strict=True):
            assert (row[LEFT] == 0) == (action is None)
            np.testing.assert_array_equal(row[HEADER : HEADER + 3], obs)
            np.testing.assert_array_equal(row[HEADER + 3 :], np.zeros(2) if action is None else action)
            assert (row[REWARD], bool(row[TERMINATED])) == (reward, terminated)
    assert begin == len(whole)
    np.testing.assert_array_equal(starts[1:], np.flatnonzero(whole[:, LEFT] == 0) + 1)


@settings(max_examples=100, deadline=None)
@given(capacity=st.integers(4, 40), steps=st.integers(1, 120), seed=st.integers(0, 1000))
def test_ring_knows_lengths_and_returns_of_finished_episodes(capacity: int, steps: int, seed: int) -> None:
    ring, log = filled_ring(seed, 1, 1, capacity, steps)
    for t, obs, *_ in log[0]:
        found = np.flatnonzero((ring.rows[0, : ring.size[0], HEADER : HEADER + 3] == obs).all(-1))
        found = [i for i in found if ring.rows[0, i, LEFT] != 0]
        if not found:
            continue  # overwritten
        tail = []
        for entry in log[0][t:]:
            tail.append(entry)
            if entry[5] or entry[6]:
                break
        row = ring.rows[0, found[0]]
        if tail[-1][5] or tail[-1][6]:
            assert row[LEFT] == len(tail)
            assert row[RETURN] == pytest.approx(sum(0.9**j * e[3] for j, e in enumerate(tail)), abs=1e-4)
        else:
            assert row[LEFT] == -1 and row[RETURN] == NO_RETURN


@settings(max_examples=60, deadline=None)
@given(offline=st.integers(0, 32), seed=st.integers(0, 1000))
def test_the_share_of_offline_rows_is_exact(offline: int, seed: int) -> None:
    episodes = make_episodes([10, 20])
    replay = Replay.from_episodes(episodes, episodes.obs + 100.0, 0.9)
    ring, _ = filled_ring(seed, 3, 2, 50, 30)
    sampler = Sampler(replay.spec, np.arange(3), 32, 4, 1, 0.9, updates=2)
    got = sampler.draw(0, replay, ring, np.array([offline, 32 - offline])).numpy()
    assert ((got[..., 0] > 50).sum(-1) == np.array([[offline], [32 - offline]])).all()
    alone = Sampler(replay.spec, np.arange(3), 32, 4, 1, 0.9, updates=1).draw(1, replay, ring, np.array([32 - offline]))
    np.testing.assert_array_equal(alone.numpy()[0], got[1])  # a batch depends on seed and step alone


def test_each_seed_may_have_its_own_share() -> None:
    episodes = make_episodes([10, 20])
    replay = Replay.from_episodes(episodes, episodes.obs + 100.0, 0.9)
    ring, _ = filled_ring(0, 3, 2, 50, 30)
    rows = np.array([[0, 5, 32], [7, 7, 7]])
    sampler = Sampler(replay.spec, np.arange(3), 32, 4, 1, 0.9, updates=2)
    got = sampler.draw(0, replay, ring, rows).numpy().copy()
    assert ((got[..., 0] > 50).sum(-1) == rows).all()
    for u, s in np.ndindex(2, 3):  # what other seeds draw changes nothing
        np.testing.assert_array_equal(sampler.draw(0, replay, ring, np.full(2, rows[u, s])).numpy()[u, s], got[u, s])


def test_uniform_over_transitions() -> None:
    lengths = [3, 50, 1, 20]
    episodes = make_episodes(lengths)
    replay = Replay.from_episodes(episodes, episodes.obs, 0.9)
    got = Sampler(replay.spec, np.array([1]), 256, 0, 1, 0.9, updates=400).draw(0, replay, None, np.full(400, 256))
    order = {obs.tobytes(): i for i, obs in enumerate(episodes.obs)}
    counts = np.zeros(len(order))
    for row in got.numpy().reshape(-1, got.shape[-1]):
        counts[order[row[:3].tobytes()]] += 1
    final = episodes.starts[1:] - 1
    assert counts[final].sum() == 0
    counts = np.delete(counts, final)
    expected = counts.sum() / len(counts)
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < 73 + 4 * np.sqrt(2 * 73)  # 73 degrees of freedom, beyond any doubt


@st.composite
def shares(given: st.DrawFn) -> Goals:
    """Any shares that leave no less than nothing."""
    own, current, future = sorted(given(st.tuples(*[st.floats(0, 1)] * 3)))
    return Goals(own, current - own, future - current, given(st.booleans()))


@settings(max_examples=300, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    n=st.integers(1, 7),
    gamma=st.floats(0.5, 0.999),
    value=shares(),
    policy=st.none() | shares(),
    chunk=st.integers(1, 3),
    shown=st.booleans(),
    waypoint=st.integers(0, 9),
    steps=st.integers(0, 60),
    seed=st.integers(0, 1 << 30),
)
def test_batches_with_new_goals_equal_the_reference(
    lengths: list[int], n: int, gamma: float, value: Goals, policy: Goals | None, chunk: int, shown: bool,
    waypoint: int, steps: int, seed: int,
) -> None:  # fmt: skip
    if steps:
        replay, _ = filled_ring(seed % 1000, 1, 2, 40, steps, goal=2)
    else:
        episodes = make_episodes([*lengths, chunk], goal=2)
        replay = Replay.from_episodes(episodes, episodes.obs, 0.9)
    assume(replay.holds(chunk, cut=False))
    n, waypoint = n if chunk == 1 else chunk, waypoint * shown
    rule = Relabel(value, radius=0.8, step_reward=-1.0, goal_reward=0.5, policy=policy)
    normalizer = Normalizer(np.array([0, 1, 2], np.float32), np.array([1, 2, 3], np.float32))
    sampler = Sampler(
        widened(replay, chunk, 2 * shown), np.array([seed]), 40, 0, n, gamma, 1, rule, normalizer, chunk, waypoint
    )
    got = sampler.draw(7, *((None, replay) if steps else (replay, None)), np.array([0 if steps else 40])).numpy()[0, 0]
    for b in range(40):
        k, i = reference_pick(replay, 0, seed, 7, b, chunk, cut=False)
        want = reference_goal(replay, k, i, n, gamma, rule, normalizer, seed, 7, b, chunk, shown, waypoint)
        np.testing.assert_array_equal(got[b], want)


def test_goals_are_drawn_with_their_shares_and_reward_follows() -> None:
    episodes = make_episodes([30] * 20, goal=2)
    inputs = np.concatenate([episodes.obs[:, :1], episodes.desired], 1)
    normalizer = Normalizer(np.array([0, 1, 2], np.float32), np.array([1, 2, 3], np.float32))
    replay = Replay.from_episodes(episodes, normalizer(inputs), 0.9)
    rule = Relabel(Goals(own=0.25, future=0.5), radius=1e-3, step_reward=-1.0, goal_reward=0.0)
    sampler = Sampler(replay.spec, np.array([3]), 256, 0, 4, 0.9, 40, rule, normalizer)
    got = sampler.draw(0, replay, None, np.full(40, 256)).numpy().reshape(-1, sampler.packed.shape[-1])
    rows = {state.tobytes(): i for i, state in enumerate(normalizer(inputs)[:, :1])}
    own = future = reached = 0
    for row in got:
        i = rows[row[:1].tobytes()]
        goal = row[1:3] * normalizer.std[1:] + normalizer.mean[1:]
        if np.allclose(goal, episodes.desired[i], atol=1e-4):
            own += 1
            continue
        near = np.abs(episodes.achieved - goal).sum(1).argmin()
        assert np.allclose(episodes.achieved[near], goal, atol=1e-4)
        same = i // 31 == near // 31
        future += same and near > i
        steps = near - i
        if same and 1 <= steps <= 4:
            reached += 1
            assert row[-2] == 0 and row[-3] == pytest.approx(-sum(0.9**j for j in range(steps - 1)), abs=1e-5)
        else:
            left = 30 - i % 31
            assert row[-2] == pytest.approx(0.9 ** min(4, left), rel=1e-5)
    assert abs(own / len(got) - 0.25) < 0.02
    assert abs(future / len(got) - 0.5 - 0.25 * 0.025) < 0.02
    assert reached > 500


@settings(max_examples=50, deadline=None)
@given(steps=st.integers(1, 60), seed=st.integers(0, 100))
def test_future_goals_of_a_running_episode_were_achieved(steps: int, seed: int) -> None:
    ring, log = filled_ring(seed, 1, 1, 30, steps, goal=3)
    rule = Relabel(Goals(future=1.0), radius=1e-6, step_reward=-1.0, goal_reward=0.0)
    got = Sampler(ring.spec, np.array([0]), 32, 0, 1, 0.9, 1, rule).draw(0, None, ring, np.array([0])).numpy()[0, 0]
    for row in got:
        # the goal overwrites the whole observation here, so it must be a position after some transition
        assert any(np.array_equal(row[:3], entry[4]) for entry in log[0])


def test_the_policy_strives_for_the_rows_own_goal() -> None:
    episodes = make_episodes([5, 7])
    replay = Replay.from_episodes(episodes, episodes.obs, 0.9)
    spec = replace(replay.spec, goal_dim=2)
    b = unpack(Sampler(spec, np.array([0]), 8, 3, 2, 0.9, 1).draw(0, replay, None, np.array([8])), torch.ones(()), spec)
    assert torch.equal(b.policy_obs, b.obs) and b.noise.shape[-1] == 3 and b.noise.all()


def test_policy_goals_and_waypoints_lie_ahead_in_the_same_episode() -> None:
    """Uniform over the rest of the episode; the waypoint is on the way, not beyond the goal."""
    episodes = make_episodes([10] * 20, goal=2)
    time = np.arange(len(episodes.obs)) % 11 + 100 * (np.arange(len(episodes.obs)) // 11)
    episodes.achieved[:] = episodes.obs[:, :2] = time[:, None]
    replay = Replay.from_episodes(episodes, np.concatenate([episodes.obs[:, :1], episodes.desired], 1), 0.9)
    spec = Spec(3, 2, goal_dim=2)
    rule = Relabel(Goals(current=0.5), 0.1, -1.0, 0.0, policy=Goals(future=1.0, uniform=True))
    sampler = Sampler(spec, np.array([0]), 256, 0, 1, 0.9, 40, rule, waypoint=4)
    b = unpack(sampler.draw(0, replay, None, np.full(40, 256)), torch.ones(()), spec, waypoint=True)
    now, aim, way = (x[..., j].flatten().numpy() for x, j in ((b.obs, 0), (b.policy_obs, 1), (b.waypoint, 0)))
    assert torch.equal(b.waypoint[..., 0], b.waypoint[..., 2]) and (b.policy_obs[..., 0] == b.obs[..., 0]).all()
    left = 10 - now % 100
    assert (aim > now).all() and (aim <= now + left).all()
    np.testing.assert_array_equal(way, np.minimum(now + 4, aim))
    ahead = (aim - now)[now % 100 == 0]
    assert np.bincount(ahead.astype(int), minlength=11)[1:].min() / len(ahead) > 0.07
    reached = b.discount.flatten().numpy() == 0
    assert abs(reached.mean() - 0.5) < 0.03  # current; a random row is this one's next in one case of 220
    assert (b.reward.flatten().numpy()[reached] == 0).all()


def test_a_chunk_that_no_episode_holds_is_an_error() -> None:
    episodes = make_episodes([2, 3])
    replay = Replay.from_episodes(episodes, episodes.obs, 0.9)
    assert replay.holds(4) and replay.holds(3, cut=False) and not replay.holds(4, cut=False)
    replay = Replay.from_episodes(replace(episodes, terminated=0 * episodes.terminated), episodes.obs, 0.9)
    sampler = Sampler(widened(replay, 4), np.array([0]), 1, 0, 4, 0.9, 1, chunk=4)
    with pytest.raises(ToolkitError, match=r"4 transitions, as many as config\.chunk"):
        sampler.draw(0, replay, None, np.array([1]))


@settings(max_examples=60, deadline=None)
@given(
    capacity=st.integers(4, 20),
    steps=st.integers(1, 60),
    chunk=st.integers(1, 6),
    cut=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_rings_know_whether_they_hold_a_chunk(capacity: int, steps: int, chunk: int, cut: bool, seed: int) -> None:
    ring, _ = filled_ring(seed, 2, 2, 2 * capacity, steps)
    begins = [[reference_begins(ring, k, i, chunk, cut) for i in range(ring.size[k])] for k in range(4)]
    for row, want in zip(ring.begins(chunk, cut), begins, strict=True):
        assert row[: len(want)].tolist() == want and not row[len(want) :].any()
    assert ring.holds(chunk, cut) == all(any(begins[k] + begins[k + 1]) for k in (0, 2))


@settings(max_examples=60, deadline=None)
@given(capacity=st.integers(6, 40), steps=st.integers(1, 120), chunk=st.integers(2, 5), seed=st.integers(0, 1000))
def test_chunks_from_a_ring_are_what_was_played(capacity: int, steps: int, chunk: int, seed: int) -> None:
    """Action by action, as it was pushed, around the ring's end too; and as the reference draws them."""
    ring, log = filled_ring(seed, 2, 1, capacity, steps)
    assume(ring.holds(chunk))
    spec = widened(ring, chunk)
    sampler = Sampler(spec, np.array([5, 9]), 16, 0, chunk, 0.9, updates=1, chunk=chunk)
    batch = sampler.draw(3, None, ring, np.array([0]))
    b = unpack(batch, torch.ones(()), spec, chunk=chunk)
    for s in range(2):
        for row in range(16):
            k, i = reference_pick(ring, s, (5, 9)[s], 3, row, chunk)
            tail = partial(reference_tail, ring, s, (5, 9)[s], 3, row)
            np.testing.assert_array_equal(batch[0, s, row], reference_steps(ring, k, i, chunk, 0.9, chunk, tail))
            begin = next(x[0] for x in log[s] if np.array_equal(x[1], b.obs[0, s, row]))
            played = []
            for entry in log[s][begin : begin + chunk]:
                played.append(entry)
                if entry[5]:
                    break
                assert not entry[6] or len(played) == chunk, "the recording stops in the middle of a chunk"
            wanted = np.concatenate([entry[2] for entry in played])
            np.testing.assert_array_equal(b.action[0, s, row, : len(wanted)], wanted)
            assert (b.discount[0, s, row] == 0) == played[-1][5]
            assert played[-1][5] or len(played) == chunk
            assert b.taken is not None and b.taken[0, s, row] == len(played)


def test_returns_beyond_a_time_limit_count_what_may_follow() -> None:
    """Of recorded and of new episodes alike; a termination ends the sum, whatever the value."""
    gamma, cut_value, steps = 0.5, -8.0, 3
    for terminates in (True, False):
        ends = np.array([False, False, terminates, False])
        cut = np.array([False, False, not terminates, False])
        zeros = lambda *width: np.zeros((steps + 1, *width), np.float32)  # noqa: E731
        reward = np.array([-1.0, -1.0, -1.0, 0.0], np.float32)
        episodes = Episodes(
            zeros(3), zeros(0), zeros(0), zeros(2), reward, ends, cut, np.array([0, steps + 1])
        )  # fmt: skip
        recorded = Replay.from_episodes(episodes, episodes.obs, gamma, cut_value)
        ring = Replay.ring(Spec(3, 2), 0, seeds=1, envs=1, capacity=10)
        for t in range(steps):
            push(
                ring, zeros(3)[:1], zeros(2)[:1], reward[t : t + 1], zeros(3)[:1], zeros(0)[:1], zeros(0)[:1],
                ends[t : t + 1], cut[t : t + 1], gamma, cut_value,
            )  # fmt: skip
        last = -1.0 + (0.0 if terminates else gamma * cut_value)
        expected = [-1.5 + 0.25 * last, -1.0 + 0.5 * last, last]
        for replay in (recorded, ring):
            assert replay.rows[0, :steps, RETURN].tolist() == expected
