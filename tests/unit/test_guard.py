"""The guard: what it takes for a fall, what it goes back to, what it leaves alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

from toolkit.agents import AGENTS
from toolkit.console import rolled_back
from toolkit.learner import Learner
from toolkit.nn import Net
from toolkit.pipeline.blocks import GuardRule
from toolkit.pipeline.guard import Guard
from toolkit.types import Spec

SPEC = Spec(obs_dim=3, action_dim=2)


def learner(agent: str = "sac", seeds: tuple[int, ...] = (3, 5)) -> Learner:
    kind = AGENTS[agent]
    made = kind(kind.Config(hidden=(8,)), SPEC)
    return Learner(made, list(seeds), 1, compile="off", precision="fp32", device=torch.device("cpu"))


def stir(chosen: Learner, by: float) -> Any:
    """Another state, as after training; returns it."""
    chosen.state = pytree.tree_map(lambda leaf: leaf + by, chosen.state)
    return chosen.state


def row(state: Any, seed: int) -> list[torch.Tensor]:
    return [leaf[seed] for leaf in pytree.tree_leaves(state)]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_seed_that_falls_goes_back_and_the_other_stays() -> None:
    sac = learner()
    guard = Guard(GuardRule(drop=0.2, over=2, lr_policy=0.5, offline=0.75), sac)
    assert guard.judge(0, [0.8, 0.8]) == []
    stir(sac, 0.1)
    good = sac.state
    assert guard.judge(500, [0.9, 0.7]) == []
    stir(sac, 0.1)
    assert guard.judge(1000, [0.55, 0.8]) == []  # with the one before it 0.725: not yet 0.2 below
    fallen = stir(sac, 0.1)
    (line,) = guard.judge(1500, [0.5, 0.7])
    assert line == {
        "step": 1500, "seed": 3, "success": 0.525, "best": 0.9, "best_step": 500, "lr_policy": 0.5, "offline": 0.75,
    }  # fmt: skip
    assert same(row(sac.state, 0), row(good, 0))
    assert same(row(sac.state, 1), row(fallen, 1))
    assert guard.share(lambda step, rows: 0.5)(1500, 10).tolist() == [0.75, 0.5]
    assert guard.judge(1500, [0.0, 0.0]) == []  # played again where it stands
    assert guard.judge(2000, [0.0, 0.8]) == []  # one evaluation since then is not two
    stir(sac, 0.1)
    (line,) = guard.judge(2500, [0.0, 0.8])
    assert (line["lr_policy"], line["best_step"]) == (0.25, 500)
    assert guard.values() == {"guard/lr_policy": [0.25, 1.0], "guard/offline": [0.75, 0.0]}


def test_one_bad_evaluation_is_no_fall_and_the_later_of_equal_ones_is_the_best() -> None:
    sac = learner()
    guard = Guard(GuardRule(), sac)
    for step, success in enumerate([0.9, 0.9, 0.55, 0.9, 0.8, 0.65]):
        assert guard.judge(step, [success, success]) == []
    assert guard.best_step == [3, 3]


def test_who_rises_has_not_fallen_and_what_is_not_there_is_not_asked_for() -> None:
    guard = Guard(GuardRule(), learner(), recorded=False)
    assert guard.judge(0, [0.35, 0.0]) == guard.judge(500, [0.8, 0.5]) == []
    assert guard.judge(1000, [0.4, 0.5]) == []
    (line,) = guard.judge(1500, [0.4, 0.6])
    assert (line["best_step"], line["offline"]) == (500, 0.0) and "recording" not in rolled_back(line)
    assert guard.judge(2000, [0.0, 0.6]) == guard.judge(2500, [0.8, 0.6]) == []  # it is where it was
    assert guard.values() == {"guard/lr_policy": [0.2, 1.0], "guard/offline": [0.0, 0.0]}


def test_a_saved_guard_goes_on_where_it_was() -> None:
    sac, other = learner(), learner()
    guard = Guard(GuardRule(over=1), sac)
    guard.judge(0, [0.9, 0.5])
    stir(sac, 0.1)
    guard.judge(500, [0.1, 0.6])
    tensors, meta = guard.state()
    again = Guard(GuardRule(over=1), other)
    again.restore({name: torch.as_tensor(leaf) for name, leaf in tensors.items()}, json.loads(json.dumps(meta)))
    other.state = sac.state
    for fallen, slowed in ((guard, sac), (again, other)):
        stir(slowed, 0.1)
        fallen.judge(1000, [0.2, 0.1])
    assert guard.log == again.log
    assert len(guard.log) == 3
    assert same(pytree.tree_leaves(sac.state), pytree.tree_leaves(other.state))


@pytest.mark.parametrize("agent", ["sac", "td3", "iql", "fql", "pex"])
def test_a_slowed_policy_goes_a_share_of_the_way_and_nothing_else_changes(agent: str) -> None:
    def updated(lr: list[float] | None) -> Any:
        chosen = learner(agent)
        if lr is not None:
            chosen.slow_policies(lr)
        width = 2 * (SPEC.obs_dim + SPEC.action_dim) + 3 + chosen.agent.noise_dim
        chosen.update(torch.randn((2, 16, width), generator=torch.Generator().manual_seed(0)), torch.ones(()))
        return chosen.state

    fresh, whole, slowed = learner(agent).state, updated(None), updated([0.25, 1.0])
    (name,) = AGENTS[agent].policies
    assert same(row(whole, 1), row(slowed, 1))
    for field in whole._fields:
        if field == name:
            way, went = (
                [b - a for a, b in zip(row(getattr(fresh, name).p, 0), row(getattr(x, name).p, 0), strict=True)]
                for x in (whole, slowed)
            )
            assert any(leaf.any() for leaf in way)
            assert all(torch.allclose(0.25 * a, b, atol=1e-7) for a, b in zip(way, went, strict=True))
        else:
            assert same(row(getattr(whole, field), 0), row(getattr(slowed, field), 0)), field


@pytest.mark.parametrize("name", AGENTS)
def test_every_agent_says_which_of_its_networks_act(name: str) -> None:
    kind = AGENTS[name]
    spec = Spec(obs_dim=4, action_dim=2, goal_dim=2 if kind.goals else 0, discrete=not kind.continuous)
    state = kind(kind.Config(), spec).init(torch.Generator().manual_seed(0))
    assert all(isinstance(getattr(state, policy), Net) for policy in kind.policies)
