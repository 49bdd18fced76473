"""Fourier features: the networks see them, the algorithms do not know, and jumps are learned that otherwise blur."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from toolkit.agents import AGENTS
from toolkit.agents.qrl import embed, iqe
from toolkit.data.replay import unpack
from toolkit.learner import Learner
from toolkit.nn import mlp, policy
from toolkit.types import Batch, Spec

N = 256
SPEC = Spec(4, 1, goal_dim=1, position_dim=1)  # a place, two other numbers, and the place to go to


def learner(name: str, fourier: tuple[float, ...], updates: int = 10) -> Learner:
    kind = AGENTS[name]
    agent = kind(kind.Config(hidden=(32, 32), lr=3e-3, fourier=fourier), SPEC)
    return Learner(agent, [0, 1], updates, compile="off", precision="fp32", device=torch.device("cpu"))


def packed(made: Learner, step: int) -> tuple[torch.Tensor, Batch]:
    """Transitions whose action turns round at walls a third of the observation's spread apart; rows and batches."""
    rng = np.random.default_rng(step)
    width = 2 * (SPEC.obs_dim + SPEC.action_dim) + 3 + SPEC.goal_dim + made.agent.noise_dim
    rows = torch.as_tensor(rng.normal(size=(2, N, width)).astype(np.float32))
    b = unpack(rows, torch.tensor(1.0), SPEC)
    b.action.copy_(torch.sign(torch.sin(9 * b.obs[..., :1])))
    return rows, b


def of_first_seed(both: Batch) -> Batch:
    return both._replace(**{key: x[0] for key, x in both._asdict().items() if key not in ("lr_scale", "taken")})


def error(fourier: tuple[float, ...]) -> float:
    made = learner("bc", fourier, updates=400)
    for step in range(400):
        made.update(packed(made, step)[0], torch.tensor(1.0))
    _, b = packed(made, 1_000)
    return float((made.act(b.policy_obs, torch.zeros(2, N, 1)) - b.action).abs().mean())


def test_jumps_are_learned_that_blur_without_them() -> None:
    without, with_them = error(()), error((3.0, 9.0))
    assert with_them < 0.3
    assert with_them < 0.5 * without


@pytest.mark.parametrize("name", ["iql", "sac"])
def test_an_algorithm_does_not_know_of_them(name: str) -> None:
    made, plain = learner(name, (3.0, 6.0)), AGENTS[name]
    wide = plain(plain.Config(hidden=(32, 32), lr=3e-3), Spec(12, 1, goal_dim=1))
    rows, both = packed(made, 0)
    b = of_first_seed(both)
    seen = {key: made.agent.features(getattr(b, key)) for key in ("obs", "next_obs", "policy_obs")}
    assert seen["obs"].shape == (N, 12) == (N, made.agent.input_dim)
    places = b.obs[:, [0, 3]]
    torch.testing.assert_close(seen["obs"][:, 4:6], torch.sin(3 * places))
    torch.testing.assert_close(seen["obs"][:, 10:], torch.cos(6 * places))
    state, _ = wide.update(wide.init(torch.Generator().manual_seed(0)), b._replace(**seen))
    made.update(rows, torch.tensor(1.0))
    zero = torch.zeros(2, N, 1)
    ours = made.act(b.obs.expand(2, -1, -1), zero)[0]
    torch.testing.assert_close(ours, wide.act(state, seen["obs"], zero[0]), rtol=1e-4, atol=1e-5)
    ours = made.q(b.obs.expand(2, -1, -1), b.action.expand(2, -1, -1))[0]
    torch.testing.assert_close(ours, wide.q(state, seen["obs"], b.action), rtol=1e-4, atol=1e-5)


def test_a_step_is_judged_by_the_goal_that_the_policy_strives_for() -> None:
    """IVL puts it into the next state, whose waves must be the same goal's."""
    made = learner("ivl", (3.0, 6.0))
    b, agent = of_first_seed(packed(made, 0)[1]), made.agent
    seen = b._replace(**{key: agent.features(getattr(b, key)) for key in ("obs", "next_obs", "policy_obs")})
    after = torch.cat([b.next_obs[:, :3], b.policy_obs[:, 3:]], 1)
    torch.testing.assert_close(agent.aimed(seen.next_obs, seen.policy_obs), agent.features(after))
    V = agent.init(torch.Generator().manual_seed(0)).V.p
    values = lambda s: mlp(V, agent.features(s)).squeeze(-1).mean(0)  # noqa: E731
    torch.testing.assert_close(agent.advantage(V, seen), values(after) - values(b.policy_obs))


def test_hiql_makes_waves_of_the_goal_that_each_level_sees() -> None:
    made = learner("hiql", (3.0, 6.0))
    b, agent = of_first_seed(packed(made, 0)[1]), made.agent
    assert agent.features(b.obs) is b.obs
    state = agent.init(torch.Generator().manual_seed(0))
    wide = AGENTS["bc"](made.agent.cfg, SPEC)  # who sees waves of what there is
    proposed = mlp(state.high.p, wide.features(b.obs))
    aimed = wide.features(torch.cat([b.obs[:, :3], proposed], 1))
    torch.testing.assert_close(agent.act(state, b.obs, torch.zeros(N, 1)), policy(state.low.p, aimed).mode)
    values = mlp(state.V.p, wide.features(b.obs)).squeeze(-1)
    torch.testing.assert_close(agent.q(state, b.obs, b.action), values.mean(0))


def test_qrl_makes_waves_of_state_and_goal_apart() -> None:
    made = learner("qrl", (3.0,))
    b, agent = of_first_seed(packed(made, 0)[1]), made.agent
    state = agent.init(torch.Generator().manual_seed(0))
    place, goal = b.obs[:, :1], b.obs[:, 3:]
    phi = embed(state.d.p, "phi", torch.cat([b.obs[:, :3], torch.sin(3 * place), torch.cos(3 * place)], 1))
    psi = embed(state.d.p, "psi", torch.cat([goal, torch.sin(3 * goal), torch.cos(3 * goal)], 1))
    torch.testing.assert_close(agent.distance(state, b.obs), iqe(state.d.p, phi, psi))


def test_without_places_there_are_none() -> None:
    kind = AGENTS["iql"]
    agent = kind(kind.Config(fourier=(3.0,)), Spec(4, 1))
    assert agent.input_dim == 4
    assert agent.features(torch.ones(2, 4)).shape == (2, 4)
