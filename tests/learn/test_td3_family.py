"""TD3, TD3+BC and ReBRAC: what they share to the last bit, and the limits in which they are something known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tabular import Recording, record, train

from toolkit.agents import AGENTS, Agent
from toolkit.nn import q_values
from toolkit.types import Spec

GAMMA = 0.9


def walk() -> Recording:
    """Two states with two actions each; the second episode is cut off."""
    first = [(0, (0.4,), -1.0), (1, (-0.3,), 0.0)]
    return record(2, [(first, 1, True), ([(0, (-0.6,), -1.0), (0, (0.2,), -1.0)], 1, False)], GAMMA)


def make(agent: str, **config: Any) -> tuple[Agent[Any], Any]:
    kind = AGENTS[agent]
    made = kind(kind.Config(**({"hidden": (16,), "lr": 1e-3} | config)), Spec(2, 1))
    return made, made.init(torch.Generator().manual_seed(0))


def test_without_penalties_and_layer_norm_rebrac_is_td3() -> None:
    """Targets, critics' losses and critics to the last bit; the policy's loss up to its scale, with one critic."""
    (rebrac, ours), (td3, theirs) = make("rebrac", alpha_policy=0.0, alpha_critic=0.0, layer_norm=False), make("td3")
    data = walk()
    for step in range(5):
        ours, m = rebrac.update_critic(ours, data.batch(rebrac, step))
        theirs, n = td3.update_critic(theirs, data.batch(td3, step))
        assert torch.equal(m["loss/Q"], n["loss/Q"])
    assert all(torch.equal(ours.Q_targ[k], theirs.Q_targ[k]) for k in theirs.Q_targ)
    (rebrac, ours), (td3, theirs) = (make(n, members=1) for n in ("rebrac", "td3"))
    rebrac = type(rebrac)(rebrac.cfg.model_copy(update={"alpha_policy": 0.0}), rebrac.spec)
    theirs = theirs._replace(Q=ours.Q)
    b = data.batch(td3, 0)
    scaled, _ = rebrac.loss_pi(ours.pi.p, ours, b)
    plain, metrics = td3.loss_pi(ours.pi.p, theirs, b)
    q = q_values(ours.Q.p, b.obs, td3.act(ours, b.obs, torch.zeros(4, 1)))[0]
    torch.testing.assert_close(scaled * q.abs().mean(), plain)
    torch.testing.assert_close(metrics["q_pi"], q.mean())


def test_with_alpha_0_td3_bc_imitates() -> None:
    (td3_bc, ours), (bc, theirs) = make("td3_bc", alpha=0.0), make("bc", policy="deterministic")
    theirs = theirs._replace(pi=ours.pi)
    for step in range(10):
        ours, _ = td3_bc.update(ours, walk().batch(td3_bc, step))
        theirs, _ = bc.update(theirs, walk().batch(bc, step))
    for name, weight in theirs.pi.p.items():
        torch.testing.assert_close(ours.pi.p[name], weight)


def test_td3_bc_weighs_the_critics_the_same_at_any_scale_of_reward() -> None:
    agent, state = make("td3_bc")
    b = walk().batch(agent, 0)
    loud = state._replace(
        Q=state.Q._replace(p={k: w * (100 if k in ("w1", "b1") else 1) for k, w in state.Q.p.items()})
    )
    torch.testing.assert_close(agent.loss_pi(state.pi.p, state, b)[0], agent.loss_pi(state.pi.p, loud, b)[0])


def test_rebrac_penalises_the_next_action_where_there_is_one() -> None:
    """By alpha_critic times the squared distance; not where the recording stops."""
    (with_penalty, state), (without, _) = make("rebrac", alpha_critic=2.0), make("rebrac", alpha_critic=0.0)
    b = walk().batch(with_penalty, 0)
    a = torch.full((4, 1), 0.1)
    lost = without.next_value(a, state, b) - with_penalty.next_value(a, state, b)
    last = (b.next_action == 0).all(-1)
    assert last.tolist() == [True, False, True, False]
    torch.testing.assert_close(lost, torch.where(last, 0.0, 2.0 * ((a - b.next_action) ** 2).sum(-1)))


def test_noise_of_the_target_is_bounded() -> None:
    """With a bound of 0 the noise has no say; with the usual one it has."""
    for bound, same in ((0.0, True), (0.5, False)):
        agent, state = make("td3", target_noise_max=bound)
        losses = [agent.update_critic(state, walk().batch(agent, step))[1]["loss/Q"] for step in range(2)]
        assert torch.equal(*losses) == same


def test_exploration_has_the_configured_deviation() -> None:
    agent, state = make("rebrac", explore_std=0.3)
    obs = torch.zeros(10_000, 2)
    noise = torch.randn(10_000, 1, generator=torch.Generator().manual_seed(0))
    assert float((agent.act(state, obs, noise) - agent.act(state, obs, 0 * noise)).std()) == pytest.approx(
        0.3, rel=0.03
    )


@pytest.mark.parametrize(
    ("agent", "config", "expected"),
    [
        ("td3_bc", {"alpha": 2.5}, 0.4 * 2.5 / 3.5),
        ("rebrac", {"alpha_policy": 1.0}, 0.2),
        ("rebrac", {"alpha_policy": 0.01}, 0.4),
    ],
)
def test_the_policy_stands_where_both_pulls_are_equal(agent: str, config: dict[str, Any], expected: float) -> None:
    """A bandit with reward -1 - (a - 0.4)^2 and data all around 0: |Q| is near 1, so both pulls are straight lines."""
    grid = [-0.8 + 0.1 * i for i in range(17)]
    data = record(1, [([(0, (a,), -1.0 - (a - 0.4) ** 2)], 0, True) for a in grid], GAMMA)
    made, state = train(agent, data, 600, hidden=(32,), lr=5e-3, **config)
    assert float(made.act(state, torch.eye(1), torch.zeros(1, 1))) == pytest.approx(expected, abs=0.06)
