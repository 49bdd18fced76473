"""Fourier features: the networks see them, the algorithms do not know, and jumps are learned that otherwise blur."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from toolkit.agents import AGENTS
from toolkit.data.replay import unpack
from toolkit.learner import Learner
from toolkit.types import Spec

N = 256


def learner(name: str, fourier: tuple[float, ...], compile: str = "off") -> Learner:
    kind = AGENTS[name]
    agent = kind(kind.Config(hidden=(32, 32), lr=3e-3, fourier=fourier), Spec(2, 1))
    return Learner(agent, [0, 1], 10, compile=compile, precision="fp32", device=torch.device("cpu"))  # type: ignore[arg-type]


def packed(made: Learner, step: int) -> torch.Tensor:
    """Transitions whose action changes its sign at walls a third of the observation's spread apart, (2, N, W)."""
    rng = np.random.default_rng(step)
    width = 2 * (2 + 1) + 3 + made.agent.noise_dim
    rows = torch.as_tensor(rng.normal(size=(2, N, width)).astype(np.float32))
    obs = unpack(rows, torch.tensor(1.0), made.agent.spec).obs
    unpack(rows, torch.tensor(1.0), made.agent.spec).action.copy_(torch.sign(torch.sin(9 * obs[..., :1])))
    return rows


def error(fourier: tuple[float, ...]) -> float:
    made = learner("bc", fourier)
    for step in range(400):
        made.update(packed(made, step), torch.tensor(1.0))
    b = unpack(packed(made, -1 % 2**32), torch.tensor(1.0), made.agent.spec)
    return float((made.act(b.obs, torch.zeros(2, N, 1)) - b.action).abs().mean())


def test_jumps_are_learned_that_blur_without_them() -> None:
    without, with_them = error(()), error((3.0, 9.0))
    assert with_them < 0.3
    assert with_them < 0.5 * without


@pytest.mark.parametrize("name", ["iql", "sac"])
def test_an_algorithm_does_not_know_of_them(name: str) -> None:
    made, plain = learner(name, (3.0, 6.0)), AGENTS[name]
    wide = plain(plain.Config(hidden=(32, 32), lr=3e-3), Spec(2 * 5, 1))
    state = wide.init(torch.Generator().manual_seed(0))
    b = unpack(packed(made, 0)[0], torch.tensor(1.0), made.agent.spec)
    seen = {key: made.agent.features(getattr(b, key)) for key in ("obs", "next_obs", "policy_obs")}
    assert seen["obs"].shape == (N, 10)
    torch.testing.assert_close(seen["obs"][:, 2:4], torch.sin(3 * b.obs))
    torch.testing.assert_close(seen["obs"][:, 8:], torch.cos(6 * b.obs))
    state, _ = wide.update(state, b._replace(**seen))
    made.update(packed(made, 0), torch.tensor(1.0))
    zero = torch.zeros(2, N, 1)
    ours = made.act(b.obs.expand(2, -1, -1), zero)[0]
    torch.testing.assert_close(ours, wide.act(state, seen["obs"], zero[0]), rtol=1e-4, atol=1e-5)
    ours = made.q(b.obs.expand(2, -1, -1), b.action.expand(2, -1, -1))[0]
    torch.testing.assert_close(ours, wide.q(state, seen["obs"], b.action), rtol=1e-4, atol=1e-5)
