"""Which action of a chunk comes now: in lanes, in practice, in an evaluation; and the chunks of a recording."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sampler_reference import make_episodes
from test_train import CARD, learner_of

from toolkit.data.replay import Normalizer, Replay
from toolkit.evaluate import EvalResult, evaluate
from toolkit.pipeline.material import sample
from toolkit.tasks import Chunks, EnvPool, make_env
from toolkit.train import Practice
from toolkit.types import FloatArray, Spec, ToolkitError


class Counting:
    """Decides on h actions that say when they were decided on, and in which lane."""

    def __init__(self, lanes: int, length: int) -> None:
        self.shape, self.asked = (lanes, length, 2), 0

    def __call__(self) -> FloatArray:
        self.asked += 1
        lanes, length, _ = self.shape
        numbers = 100.0 * self.asked + 10.0 * np.arange(lanes)[:, None] + np.arange(length)
        return np.repeat(numbers, 2, axis=1).astype(np.float32)


def test_each_lane_looks_when_its_chunk_is_played_or_its_episode_begins() -> None:
    ask, chunks = Counting(2, 3), Chunks(2)
    steps = [(0, 0), (1, 1), (2, 0), (3, 1), (4, 2), (0, 3), (1, 4)]  # new episodes in the second and the first lane
    got = [chunks.now(np.array(now), ask)[:, 0].tolist() for now in steps]
    assert got == [[100, 110], [101, 111], [102, 210], [300, 211], [301, 212], [400, 410], [401, 411]]
    assert ask.asked == 4
    again = Chunks(2, chunks.pending)
    assert again.now(np.array([2, 5]), ask)[:, 1].tolist() == [402, 412]


def test_an_action_alone_is_decided_on_at_every_step() -> None:
    ask, chunks = Counting(2, 1), Chunks(2)
    assert [chunks.now(np.array([n, n]), ask)[0, 0] for n in range(3)] == [100, 200, 300]
    assert chunks.pending is None
    with pytest.raises(ToolkitError, match="the policy gives 6 numbers; an action of this task has 4"):
        Chunks(4).now(np.zeros(2, int), Counting(2, 3))


def practice(lanes: int = 2) -> Practice:
    pool = EnvPool(CARD, lanes)
    width = pool.inputs.shape[1]
    return Practice(pool, Normalizer(np.zeros(width, np.float32), np.ones(width, np.float32)), [0])


@pytest.mark.parametrize("agent", ["qc", "qc_sac"])
def test_practice_goes_on_in_the_middle_of_a_chunk(agent: str) -> None:
    """What was decided on before the pause is played after it, though the policy has changed."""
    whole, later = practice(), practice()
    learner = learner_of(agent, Spec(4, 2), chunk=7)
    whole.start()
    for _ in range(24):  # episodes take 20 steps: 4 into the second one
        whole.step(learner)
    tensors, meta = whole.state()
    later.restore(dict(tensors), json.loads(json.dumps(meta)))
    learner.state = torch.utils._pytree.tree_map(lambda leaf: leaf + 0.1, learner.state)
    for _ in range(20):
        for one, other in zip(whole.step(learner), later.step(learner), strict=True):
            np.testing.assert_array_equal(one, other)
    plain = practice()
    plain.start()
    plain.step(learner_of("sac", Spec(4, 2)))
    assert "pending" not in plain.state()[0]


def planned(inputs: FloatArray) -> FloatArray:
    """Three actions for each place, other ones for each."""
    x = np.sin(37.0 * inputs[..., :2])
    return np.concatenate([x, 0.5 * x[..., ::-1], -x], -1).astype(np.float32)


def outcome(result: EvalResult) -> list[bytes]:
    names = ("success", "ret", "discounted", "steps", "path_length", "start_xy", "start_inputs")
    return [np.ascontiguousarray(getattr(result, name)).tobytes() for name in names]


def test_an_evaluation_plays_chunks_from_each_episodes_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one environment does alone, whatever lane an episode is played in and however many processes there are."""
    monkeypatch.setattr("toolkit.evaluate.WORTH", 1e-9)
    result = evaluate(planned, CARD, seeds=2, episodes=30, base_seed=5, record_routes=True)
    assert outcome(evaluate(planned, CARD, seeds=2, episodes=30, base_seed=5, workers=2)) == outcome(result)
    assert result.routes is not None
    env = make_env(CARD)
    for seed, episode in ((0, 0), (0, 17), (1, 29)):
        number = int(np.random.SeedSequence((5, seed, episode)).generate_state(1)[0])
        observation, _ = env.reset(seed=number)
        for step, action in enumerate(result.routes[seed][episode].action):
            if step % 3 == 0:
                chunk = planned(CARD.policy_input(observation)).reshape(3, 2)
            np.testing.assert_array_equal(action, chunk[step % 3])
            observation, _, terminated, truncated, _ = env.step(action)
        assert terminated or truncated


def test_the_critics_are_watched_on_chunks_as_they_were_recorded() -> None:
    episodes = make_episodes([2, 9, 4, 3])  # the first and the third end the task, the others only stop
    replay = Replay.from_episodes(episodes, episodes.obs, 0.9)
    obs, action = sample(replay, 200, chunk=3)
    rows = {row.tobytes(): i for i, row in enumerate(episodes.obs)}
    begun = [rows[row.tobytes()] for row in obs]
    assert set(begun) == {0, 1, *range(3, 10), *range(13, 17), 18}
    for i, chunk in zip(begun, action, strict=True):
        end = episodes.starts[np.searchsorted(episodes.starts, i, "right")] - 1
        recorded = episodes.action[i : min(i + 3, end)].reshape(-1)
        np.testing.assert_array_equal(chunk[: len(recorded)], recorded)
    assert [x.tobytes() for x in sample(replay, 50, chunk=1)] == [x.tobytes() for x in sample(replay, 50)]
