"""What every agent in the registry must keep, and golden numbers of its first updates."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from toolkit import nn
from toolkit.agents import AGENTS, CONFIGS, Agent
from toolkit.learner import Learner, stack
from toolkit.pipeline.material import make_agent
from toolkit.types import Batch, Rollout, Spec

SPEC = Spec(obs_dim=5, action_dim=2)
GOAL_SPEC = Spec(obs_dim=5, action_dim=2, goal_dim=2)
# Options that change which code runs get golden numbers of their own.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in AGENTS} | {
    "bc_deterministic": ("bc", {"policy": "deterministic"}),
    "bc_goals": ("bc", {}),
    "awac_goals": ("awac", {}),
    "ivl_goals": ("ivl", {}),
    "td3_bc_goals": ("td3_bc", {}),
    "rebrac_goals": ("rebrac", {}),
    "iql_goals": ("iql", {}),
    "iql_ddpgbc": ("iql", {"extraction": "ddpgbc"}),
    "iql_layer_norm": ("iql", {"layer_norm": True}),
    "sac_ensemble": (
        "sac",
        {"members": 4, "subset": 2, "layer_norm": True, "actor_q": "mean", "entropy_backup": False},
    ),
    "cql_lagrange": ("cql", {"gap": 0.8}),
    "actor_critic_q_discrete": ("actor_critic_q", {}),
    "gae_discrete": ("gae", {"normalize": True, "entropy": 0.01}),
    "calql_lagrange": ("calql", {"gap": -2.6, "entropy_backup": True, "members": 4, "subset": 2, "replacement": True}),
    "iql_ddpgbc_goals": ("iql", {"extraction": "ddpgbc"}),
    "sac_goals": ("sac", {}),
    "cql_goals": ("cql", {}),
    "hiql_places": ("hiql", {"places": True}),
    "qc_goals": ("qc", {"chunk": 3, "target_q": "min"}),
}
GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(autouse=True)
def _float32() -> None:
    nn.set_matmul_dtype(torch.float32)
    torch.set_num_threads(1)


def make(variant: str, hidden: tuple[int, ...] = (16, 16)) -> Agent[Any]:
    name, options = VARIANTS[variant]
    kind = AGENTS[name]
    discrete = not kind.continuous or variant.endswith("_discrete")
    spec = replace(GOAL_SPEC if kind.goals or variant.endswith("_goals") else SPEC, discrete=discrete)
    spec = replace(spec, position_dim=2 if variant.endswith("_places") else 0)
    return make_agent(name, {"hidden": hidden, **options}, spec)


def test_the_registry_names_the_settings_each_agent_reads() -> None:
    assert {name: kind.Config for name, kind in AGENTS.items()} == CONFIGS


def batch(agent: Agent[Any], seed: int, rows: int = 32) -> Batch | Rollout:
    """A random batch, or of an on-policy agent a rollout of 4 environments.

    The numbers come from NumPy, whose streams do not change between versions.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    O, A = agent.spec.obs_dim, agent.spec.action_dim
    normal = lambda *shape: torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))  # noqa: E731
    ends = torch.from_numpy(rng.random(rows) < 0.1)
    b = Batch(
        obs := normal(rows, O), torch.tanh(normal(rows, A)), normal(rows) - 1.0, torch.where(ends, 0.0, 0.99),
        normal(rows, O), normal(rows), torch.tanh(normal(rows, A)), obs, normal(rows, 0),
        normal(rows, agent.noise_dim), torch.tensor(1.0),
    )  # fmt: skip
    G = agent.spec.goal_dim
    if G:
        b = b._replace(policy_obs=torch.cat([obs[:, :-G], normal(rows, G)], 1))
    if agent.waypoint_steps:
        b = b._replace(waypoint=normal(rows, O))
    if agent.spec.discrete:
        choose = lambda: torch.nn.functional.one_hot(torch.from_numpy(rng.integers(A, size=rows)), A).float()  # noqa: E731
        b = b._replace(action=choose(), next_action=choose())
    if agent.chunk > 1:
        b = b._replace(taken=torch.from_numpy(rng.integers(1, agent.chunk + 1, size=rows)).float())
    if agent.cfg.on_policy:
        last = (b.discount == 0.0) | torch.from_numpy(rng.random(rows) < 0.1)
        columns = (b.obs, b.action, b.next_obs, normal(rows, A), b.reward, b.discount, last.float(), b.noise)
        return Rollout(*(x.unflatten(0, (-1, 4)) for x in columns), b.lr_scale)
    return b


def inputs(agent: Agent[Any], seed: int) -> torch.Tensor:
    """Observations, (32, O)."""
    return batch(agent, seed).obs.reshape(-1, agent.spec.obs_dim)


def run(agent: Agent[Any], updates: int, seed: int = 0) -> tuple[Any, dict[str, torch.Tensor]]:
    state = agent.init(torch.Generator().manual_seed(seed))
    metrics: dict[str, torch.Tensor] = {}
    for step in range(updates):
        state, metrics = agent.update(state, batch(agent, step))
    return state, metrics


@pytest.mark.parametrize("variant", VARIANTS)
def test_update_is_pure_and_changes_every_network(variant: str) -> None:
    agent = make(variant)
    state = agent.init(torch.Generator().manual_seed(0))
    before = pytree.tree_map(torch.clone, state)
    first, metrics = agent.update(state, batch(agent, 0))
    second, _ = agent.update(state, batch(agent, 0))
    same = lambda a, b: all(torch.equal(x, y) for x, y in zip(*map(pytree.tree_leaves, (a, b)), strict=True))  # noqa: E731
    assert same(state, before), "the state that came in was changed"
    assert same(first, second), "the same input gave another output"
    for field, old, new in zip(state._fields, state, first, strict=True):
        if field == "log_penalty" and "lagrange" not in variant:
            continue
        if field == "pi_old":
            assert same(old, new), "the frozen policy moved"
            continue
        assert not same(old, new), f"{field} did not move"
    assert metrics and all(torch.isfinite(x).all() and x.shape == () for x in metrics.values())
    shapes = lambda s: [(x.shape, x.dtype) for x in pytree.tree_leaves(s)]  # noqa: E731
    assert shapes(first) == shapes(state)


@pytest.mark.parametrize("variant", VARIANTS)
def test_actions_are_bounded_and_greedy_without_noise(variant: str) -> None:
    agent = make(variant)
    state, _ = run(agent, 3)
    obs = 3 * inputs(agent, 9)
    nothing = torch.zeros(len(obs), agent.act_noise_dim)
    noise = torch.randn(nothing.shape, generator=torch.Generator().manual_seed(0))
    greedy = agent.act(state, obs, nothing)
    assert greedy.shape == (32, 2 * agent.chunk) and (greedy.abs() <= 1).all()
    assert torch.equal(greedy, agent.act(state, obs, nothing))
    assert (agent.act(state, obs, noise).abs() <= 1).all()
    assert torch.equal(greedy, agent.act(state, obs, noise)) == (variant == "bc_deterministic")
    if agent.spec.discrete:
        assert ((greedy == 0) | (greedy == 1)).all() and (greedy.sum(-1) == 1).all()
    seeds = stack([state, run(agent, 3, seed=1)[0]], torch.device("cpu"))
    together = agent.act(seeds, obs.expand(2, -1, -1), noise.expand(2, -1, -1))
    torch.testing.assert_close(together[0], agent.act(state, obs, noise), rtol=1e-4, atol=1e-5)
    assert agent.q(state, obs, greedy).shape == (32,)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_critics_share_of_an_update_leaves_the_policy_alone(variant: str) -> None:
    agent = make(variant)
    state = agent.init(torch.Generator().manual_seed(0))
    if type(agent).update_critic is Agent.update_critic:
        assert agent.policy_every == 1, "every update of this agent moves the policy"
        critics = not agent.online or getattr(agent.cfg, "whole_episodes", False) or set(agent.policies) <= {"Q"}
        assert critics, "a policy beside critics must be able to stay as it is"
        return
    after, _ = agent.update_critic(state, batch(agent, 0))
    leaves = lambda s, name: pytree.tree_leaves(getattr(s, name))  # noqa: E731
    moved = {
        name
        for name in state._fields
        if not all(torch.equal(x, y) for x, y in zip(leaves(state, name), leaves(after, name), strict=True))
    }
    critics = {"Q", "V", "d"} & set(state._fields)  # REINFORCE has none
    assert (moved & critics or not critics) and not moved & {*agent.policies, "pi", "pi_targ"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_seed_axis_changes_nothing(variant: str) -> None:
    """Three seeds in one program make the updates that each makes alone."""
    agent = make(variant)
    learner = Learner(agent, [0, 1, 2], 10, compile="off", precision="fp32", device=torch.device("cpu"))
    for step in range(3):
        packed = torch.stack([pack(batch(agent, 100 * step + seed), agent.spec.goal_dim) for seed in range(3)])
        learner.update(packed, torch.tensor(1.0))
    for seed in range(3):
        state = agent.init(torch.Generator().manual_seed(seed))
        for step in range(3):
            state, _ = agent.update(state, batch(agent, 100 * step + seed))
        for alone, together in zip(pytree.tree_leaves(state), pytree.tree_leaves(learner.state), strict=True):
            torch.testing.assert_close(alone, together[seed], rtol=1e-3, atol=1e-4)


@pytest.mark.timeout(600)  # the compiler takes most of it
@pytest.mark.parametrize("variant", ["iql", "wsrl", "cql_lagrange", "rebrac", "gae", "pex", "discrete_cql"])
def test_compiled_equals_eager(variant: str) -> None:
    eager, compiled = _learnt(variant, ("off", 10), ("on", 10))
    for one, other in zip(compiled, eager, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "variant", ["iql", "wsrl", "cql_lagrange", "rebrac", "gae", "pex", "discrete_cql", "hiql", "qc"]
)
def test_traced_equals_eager(variant: str) -> None:
    eager, traced = _learnt(variant, ("off", 10), ("off", 1_000_000))
    for one, other in zip(traced, eager, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def _learnt(variant: str, *modes: tuple[Literal["on", "off"], int]) -> list[list[torch.Tensor]]:
    """States after three updates, for each way of `compile` and planned updates."""
    agent = make(variant, hidden=(16,))  # every further layer is the same code once more
    states = []
    for mode, updates in modes:
        learner = Learner(agent, [0, 1], updates, compile=mode, precision="fp32", device=torch.device("cpu"))
        given = learner.state
        learner.state = given
        for step in range(3):
            packed = torch.stack([pack(batch(agent, 100 * step + seed), agent.spec.goal_dim) for seed in range(2)])
            learner.update(packed, torch.tensor(1.0))
        states.append(pytree.tree_leaves(learner.state))
        for kept, fresh in zip(pytree.tree_leaves(given), pytree.tree_leaves(_initial(agent)), strict=True):
            assert torch.equal(kept, fresh), "what was assigned is not the learner's to change"
    return states


def _initial(agent: Agent[Any]) -> Any:
    return Learner(agent, [0, 1], 10, compile="off", device=torch.device("cpu")).state


@pytest.mark.parametrize("variant", VARIANTS)
def test_golden_numbers(variant: str) -> None:
    """Ten updates give the numbers they gave before.

    For a new agent, or after a change that is meant to alter them: `UPDATE_GOLDEN=1 pytest tests/contract`, with the
    reason in the commit.
    """
    agent = make(variant)
    state, metrics = run(agent, 10)
    norms = {
        f"{field}": float(sum(x.double().square().sum() for x in pytree.tree_leaves(part)) ** 0.5)
        for field, part in zip(state._fields, state, strict=True)
    }
    action = agent.act(state, inputs(agent, 77)[:1], torch.ones(1, agent.act_noise_dim))[0].tolist()
    got = {"metrics": {k: float(v) for k, v in metrics.items()}, "norms": norms, "action": action}
    golden = GOLDEN / f"{variant}.json"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(json.dumps(got, indent=1, sort_keys=True) + "\n")
    assert golden.is_file(), f"{golden} is missing: UPDATE_GOLDEN=1 pytest tests/contract makes it"
    want = json.loads(golden.read_text())
    assert got["metrics"] == pytest.approx(want["metrics"], rel=2e-3, abs=1e-4)
    assert got["norms"] == pytest.approx(want["norms"], rel=1e-4)
    assert got["action"] == pytest.approx(want["action"], abs=1e-3)


@pytest.mark.parametrize(("chunked", "plain"), [("qc", "fql"), ("qc_sac", "rlpd")])
def test_chunks_of_one_action_are_none(chunked: str, plain: str) -> None:
    """The same first updates, to the last bit."""
    cfg = CONFIGS[chunked](hidden=(16, 16), chunk=1).model_dump()
    ours = make_agent(chunked, cfg, SPEC)
    theirs = make_agent(plain, {name: value for name, value in cfg.items() if name != "chunk"}, SPEC)
    states = [pytree.tree_leaves(run(agent, 3)[0]) for agent in (ours, theirs)]
    assert all(torch.equal(x, y) for x, y in zip(*states, strict=True))


def pack(b: Batch | Rollout, goal_dim: int) -> torch.Tensor:
    if isinstance(b, Rollout):
        scalars = [x.unsqueeze(-1) for x in (b.reward, b.discount, b.last)]
        return torch.cat([b.obs, b.action, b.next_obs, b.action_noise, *scalars, b.noise], -1)
    scalars = [x[:, None] for x in (b.reward, b.discount, b.mc_return, b.taken) if x is not None]
    goal = b.policy_obs[:, b.policy_obs.shape[1] - goal_dim :]
    return torch.cat([b.obs, b.action, b.next_obs, b.next_action, *scalars, goal, b.waypoint, b.noise], 1)
