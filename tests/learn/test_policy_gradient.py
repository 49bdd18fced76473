"""The on-policy ladder against exact gradients, exact values and a task it can learn in seconds."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from traced import traced

from toolkit.agents import AGENTS, Agent
from toolkit.agents.policy_gradient import VState, lambda_advantage
from toolkit.data.replay import Normalizer
from toolkit.data.rollout import RolloutBuffer, unpack_rollout
from toolkit.learner import Learner
from toolkit.nn import Gaussian
from toolkit.on_policy import OnPolicyPlan, on_policy_loop
from toolkit.train import Hooks, Practice, online_state
from toolkit.types import FloatArray, Rollout, Spec

LADDER = ["reinforce", "reinforce_baseline", "actor_critic_mc", "actor_critic_td", "actor_critic_q", "gae"]
GAMMA = 0.9


def table(name: str, states: int, actions: int, **config: Any) -> tuple[Agent[Any], Any]:
    """An agent whose networks are tables: states are one-hot, there is no hidden layer; in float64."""
    kind = AGENTS[name]
    agent = kind(kind.Config(**{"hidden": ()} | config), Spec(states, actions, discrete=True))
    state = agent.init(torch.Generator().manual_seed(0))
    return agent, torch.utils._pytree.tree_map(lambda leaf: leaf.double(), state)


def rollout(s: Any, a: Any, r: Any, s_next: Any, terminated: Any, last: Any, sizes: Spec, gamma: float) -> Rollout:
    """From numbers of states and actions, (T, N) each."""
    one_hot = lambda x, n: torch.nn.functional.one_hot(torch.as_tensor(x), n).double()  # noqa: E731
    number = lambda x: torch.as_tensor(np.asarray(x, np.float64))  # noqa: E731
    S, A = sizes.obs_dim, sizes.action_dim
    noise = torch.zeros(*np.shape(s), A, dtype=torch.float64)
    discount = gamma * (1.0 - number(terminated))
    return Rollout(
        one_hot(s, S), one_hot(a, A), one_hot(s_next, S), noise, number(r), discount, number(last), noise[..., :0],
        torch.tensor(1.0, dtype=torch.float64),
    )  # fmt: skip


# Two states, two actions: P[s, a] is the chance of going to state 1, R[s, a] the reward; three steps from state 0.
P = np.array([[0.2, 0.7], [0.9, 0.4]])
R = np.array([[1.0, -0.5], [0.3, 2.0]])
HORIZON = 3


def exact_return(logits: Tensor) -> Tensor:
    """Of the policy with this table of logits, (2, 2), by going backwards."""
    pi, p, r = torch.softmax(logits, -1), torch.as_tensor(P), torch.as_tensor(R)
    v = torch.zeros(2, dtype=torch.float64)
    for _ in range(HORIZON):
        v = (pi * (r + (1 - p) * v[0] + p * v[1])).sum(-1)
    return v[0]


def gradient(agent: Agent[Any], state: Any, b: Rollout, chance: Tensor | float = 1.0) -> dict[str, Tensor]:
    """Of the policy's loss, as `update` follows it; `chance` weighs the trajectories."""
    advantage, weight, _ = agent.judge(state, b)  # type: ignore[attr-defined]
    loss = lambda p: agent.loss_pi(p, advantage, chance * weight, b)[0]  # type: ignore[attr-defined]  # noqa: E731
    return torch.func.grad(loss)(state.pi.p)


@pytest.mark.parametrize("name", ["reinforce", "reinforce_baseline", "actor_critic_mc"])
def test_the_gradient_is_that_of_the_exact_return(name: str) -> None:
    """All trajectories, weighted by their probability; no baseline changes what they amount to."""
    agent, state = table(name, 2, 2)
    logits = torch.tensor([[0.3, -0.4], [-0.2, 0.5]], dtype=torch.float64)
    state = state._replace(pi=state.pi._replace(p={"w0": logits, "b0": torch.zeros(2, dtype=torch.float64)}))
    paths = [((0, *path[:2]), path, acts) for path in product((0, 1), repeat=3) for acts in product((0, 1), repeat=3)]
    s, s_next, a = (np.array(x).T for x in zip(*paths, strict=True))
    pi = torch.softmax(logits, -1).numpy()
    chance = torch.as_tensor((pi[s, a] * np.where(s_next == 1, P[s, a], 1 - P[s, a])).prod(0))
    assert float(chance.sum()) == pytest.approx(1.0)
    ends = np.zeros(s.shape)
    ends[-1] = 1.0
    b = rollout(s, a, R[s, a], s_next, ends, ends, agent.spec, gamma=1.0)
    got = -HORIZON * gradient(agent, state, b, chance)["w0"]  # the loss is a mean over steps
    h = 1e-5
    for index in product((0, 1), repeat=2):
        step = torch.zeros(2, 2, dtype=torch.float64)
        step[index] = h
        want = (exact_return(logits + step) - exact_return(logits - step)) / (2 * h)
        assert float(got[index]) == pytest.approx(float(want), abs=1e-8)


def sampled(rng: np.random.Generator, pi: FloatArray, offset: float, envs: int, spec: Spec) -> Rollout:
    s, rows = np.zeros(envs, np.int64), []
    for t in range(HORIZON):
        a = (rng.random(envs) < pi[s, 1]).astype(np.int64)
        s_next = (rng.random(envs) < P[s, a]).astype(np.int64)
        ends = np.full(envs, float(t == HORIZON - 1))
        rows.append((s, a, R[s, a] + offset, s_next, ends, ends))
        s = s_next
    return rollout(*(np.stack(x) for x in zip(*rows, strict=True)), spec, gamma=1.0)


def test_a_baseline_cuts_the_variance_and_leaves_the_mean() -> None:
    pi, moments = np.full((2, 2), 0.5, np.float32), {}
    for name in ("reinforce", "reinforce_baseline"):
        agent, state = table(name, 2, 2)
        state = state._replace(pi=state.pi._replace(p={k: torch.zeros_like(w) for k, w in state.pi.p.items()}))
        rng = np.random.default_rng(0)
        found = [gradient(agent, state, sampled(rng, pi, 2.0, 16, agent.spec))["w0"].flatten() for _ in range(400)]
        moments[name] = (torch.stack(found).mean(0), torch.stack(found).var(0).sum())
    plain, baseline = moments["reinforce"], moments["reinforce_baseline"]
    assert baseline[1] < 0.5 * plain[1]
    torch.testing.assert_close(baseline[0], plain[0], atol=4 * float((plain[1] / 400).sqrt()), rtol=0.0)


def test_likelihood_of_the_action_played() -> None:
    """The density of the squashed sample, and its slope in the parameters with the sample held fast."""
    mean, log_std = torch.tensor([[0.3]], dtype=torch.float64), torch.tensor([[-0.5]], dtype=torch.float64)
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    dist = Gaussian(mean.expand(9, 1), log_std.expand(9, 1))
    a, log_prob = dist.sample(z)
    torch.testing.assert_close(dist.played(a, z), log_prob)
    u = torch.atanh(a)[:, 0]
    normal = torch.distributions.Normal(0.3, float(torch.exp(log_std)))
    torch.testing.assert_close(dist.played(a, z), normal.log_prob(u) - torch.log(1 - a[:, 0] ** 2))
    slope = torch.func.grad(lambda m: Gaussian(m, dist.log_std).played(a, z).sum())(dist.mean)
    torch.testing.assert_close(slope, z / torch.exp(log_std))


def walk(rng: np.random.Generator, steps: int, envs: int, spec: Spec) -> Rollout:
    """A random walk over five states from the middle; leaving on the right pays 1 (Sutton & Barto, example 6.2)."""
    s, rows = np.full(envs, 2), []
    for _ in range(steps):
        a = rng.integers(2, size=envs)
        to = s + 2 * a - 1
        out = (to < 0) | (to > 4)
        rows.append((s, a, to == 5, to.clip(0, 4), out, out))
        s = np.where(out, 2, to)
    return rollout(*(np.stack(x) for x in zip(*rows, strict=True)), spec, gamma=1.0)


def walk_values() -> FloatArray:
    """Exact V by a linear solve."""
    stay = 0.5 * (np.eye(5, k=1) + np.eye(5, k=-1))
    return np.linalg.solve(np.eye(5) - stay, np.array([0, 0, 0, 0, 0.5])).astype(np.float32)


def test_monte_carlo_is_unbiased_and_temporal_differences_vary_less() -> None:
    exact, targets = walk_values(), {}
    for name, v in product(("actor_critic_mc", "actor_critic_td"), ("exact", "nothing")):
        agent, state = table(name, 5, 2)
        w = torch.as_tensor(exact, dtype=torch.float64)[:, None] * (v == "exact")
        V = state.V._replace(p={"w0": w, "b0": torch.zeros(1, dtype=torch.float64)})
        b = walk(np.random.default_rng(0), 400, 64, agent.spec)
        y = agent.judge(VState(V, state.pi), b)[2][:200]  # type: ignore[attr-defined]  # their episodes end before 400
        at = b.obs[:200].argmax(-1)
        targets[name, v] = np.array([(y[at == s].mean(), y[at == s].var()) for s in range(5)]).T
    mean, variance = 0, 1
    for v in ("exact", "nothing"):
        assert targets["actor_critic_mc", v][mean] == pytest.approx(exact, abs=0.03)
    assert targets["actor_critic_td", "exact"][mean] == pytest.approx(exact, abs=0.03)
    assert np.abs(targets["actor_critic_td", "nothing"][mean] - exact).max() > 0.3
    assert (targets["actor_critic_mc", "exact"][variance] > 1.5 * targets["actor_critic_td", "exact"][variance]).all()


@pytest.mark.parametrize("name", ["actor_critic_td", "actor_critic_q"])
def test_temporal_differences_converge_to_the_exact_values(name: str) -> None:
    """Three states, two actions, every transition once; the policy is uniform for V, any for Q, and stays as it is."""
    rng = np.random.default_rng(0)
    to, r = rng.integers(3, size=(3, 2)), rng.normal(size=(3, 2))
    # Q of one-hot states and actions is no table without a hidden layer
    how = {"lr": 0.03} if name == "actor_critic_td" else {"lr": 0.003, "hidden": (64,)}
    agent, state = table(name, 3, 2, **how)
    logits = np.zeros((3, 2)) if name == "actor_critic_td" else rng.normal(size=(3, 2))
    pi_params = {"w0": torch.tensor(logits), "b0": torch.zeros(2, dtype=torch.float64)}
    state = state._replace(pi=state.pi._replace(p=pi_params))
    s, a = (x.reshape(1, -1) for x in np.indices((3, 2)))
    nothing = np.zeros(s.shape)
    b = rollout(s, a, r[s, a], to[s, a], nothing, nothing, agent.spec, GAMMA)
    change = traced(agent.update_critic, Rollout)
    for step in range(300):
        decay = torch.tensor(1.0 if step < 150 else 0.1, dtype=torch.float64)
        for _ in range(agent.policy_every):
            state, _ = change(state, b._replace(lr_scale=decay))
    assert torch.equal(state.pi.p["w0"], torch.as_tensor(logits))
    pi = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    move = np.zeros((3, 3))
    for i, j in product(range(3), range(2)):
        move[i, to[i, j]] += pi[i, j]
    v = np.linalg.solve(np.eye(3) - GAMMA * move, (pi * r).sum(1))
    got = agent.q(state, b.obs, b.action)[0]
    want = v[s[0]] if name == "actor_critic_td" else (r + GAMMA * v[to])[s[0], a[0]]
    assert got.numpy() == pytest.approx(want, abs=5e-3)


def random_rollout(steps: int = 37, envs: int = 3) -> tuple[Rollout, Tensor, Tensor]:
    rng = np.random.default_rng(1)
    normal = lambda: torch.as_tensor(rng.normal(size=(steps, envs)))  # noqa: E731
    terminated, truncated = rng.random((steps, envs)) < 0.1, rng.random((steps, envs)) < 0.1
    zero = np.zeros((steps, envs), np.int64)
    b = rollout(zero, zero, normal(), zero, terminated, terminated | truncated, Spec(1, 1), GAMMA)
    return b, normal(), normal()


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.95, 1.0])
def test_generalised_advantages_by_definition(decay: float) -> None:
    """Equation 16 as sums, to the last digits; lambda = 1 is Monte Carlo, lambda = 0 the one-step error."""
    b, v, v_next = random_rollout()
    got = lambda_advantage(v, v_next, b, decay)
    steps, envs = b.reward.shape
    delta = b.reward + b.discount * v_next - v
    for t, n in product(range(steps), range(envs)):
        end = next((k for k in range(t, steps) if b.last[k, n]), steps - 1)
        terms = [(decay * GAMMA) ** (k - t) * float(delta[k, n]) for k in range(t, end + 1)]
        assert float(got[t, n]) == pytest.approx(sum(terms), rel=1e-12, abs=1e-12)
        if decay == 0.0:
            assert float(got[t, n]) == float(delta[t, n])
    same_v_next = torch.cat([v[1:], v_next[-1:]])
    b, v_next = b._replace(discount=torch.full_like(v, GAMMA)), torch.where(b.last > 0, v_next, same_v_next)
    if decay == 1.0:  # returns to go, with what follows the end of an episode or of the rollout
        got = lambda_advantage(v, v_next, b, 1.0)
        g = torch.zeros_like(v)
        for t in reversed(range(steps)):
            after = v_next[t] if t == steps - 1 else torch.where(b.last[t] > 0, v_next[t], g[t + 1])
            g[t] = b.reward[t] + GAMMA * after
        torch.testing.assert_close(got, g - v, rtol=1e-12, atol=1e-12)


def test_the_ends_of_the_interpolation_are_the_rungs_beside_it() -> None:
    b, _, _ = random_rollout()
    for name, decay in (("actor_critic_mc", 1.0), ("actor_critic_td", 0.0)):
        rung, state = table(name, 1, 1)
        between, _ = table("gae", 1, 1, gae_lambda=decay)
        for ours, theirs in zip(rung.judge(state, b), between.judge(state, b), strict=True):  # type: ignore[attr-defined]
            assert torch.equal(ours, theirs)


def test_without_a_critic_unfinished_episodes_teach_nothing() -> None:
    agent, state = table("reinforce", 1, 1)
    b, _, _ = random_rollout()
    b = b._replace(last=torch.zeros_like(b.last))
    b.last[20, 0] = b.last[5, 1] = 1.0
    weight = agent.judge(state, b)[1]  # type: ignore[attr-defined]
    assert weight.sum(0).tolist() == [21.0, 6.0, 0.0]
    assert weight[:21, 0].all() and weight[:6, 1].all()


@pytest.mark.parametrize("ending", ["truncated", "terminated"])
@pytest.mark.parametrize("name", LADDER[2:])
def test_a_time_limit_does_not_end_the_value_and_a_termination_does(name: str, ending: str) -> None:
    """Reward 1 for ever, cut into ten steps: worth 1 / (1 - gamma) = 10; called terminated it is worth far less."""
    kind, sizes = AGENTS[name], Spec(1, 1)
    agent = kind(kind.Config(hidden=(), lr=0.05, gae_lambda=0.8), sizes)
    buffer = RolloutBuffer(sizes, [0], steps=25, envs=4, noise_dim=agent.noise_dim)
    state, rng = agent.init(torch.Generator().manual_seed(0)), np.random.default_rng(0)
    ones, nothing, count = np.ones((4, 1), np.float32), np.zeros(4, np.bool_), np.array([0, 3, 5, 8])
    for update in range(60):
        while not buffer.full:
            count = count % 10 + 1
            flags = {"terminated": nothing, "truncated": nothing} | {ending: count == 10}
            action = rng.uniform(-1, 1, (4, 1)).astype(np.float32)
            buffer.store(ones, action, ones, 0 * ones, ones[:, 0], **flags, gamma=GAMMA)
        b = unpack_rollout(buffer.take(update), torch.tensor(1.0), sizes)
        for _ in range(agent.policy_every):
            state, _ = agent.update_critic(state, type(b)(*(x[0] for x in b[:-1]), b.lr_scale))
    value = float(agent.q(state, torch.ones(1, 1), torch.zeros(1, 1)))
    assert value == pytest.approx(10.0, rel=0.03) if ending == "truncated" else value < 7.0


class Line:
    """What `Practice` needs of a pool: a point on a line, moved by the action, paid by its nearness to 0; 16 steps."""

    def __init__(self, lanes: int, discrete: bool) -> None:
        self.lanes, self.discrete, self.action_dim = lanes, discrete, 2 if discrete else 1
        self.inputs, self.achieved = np.zeros((lanes, 2), np.float32), np.zeros((lanes, 0), np.float32)
        self.reward, self.total = np.zeros(lanes, np.float32), np.zeros(lanes)
        self.steps = np.zeros(lanes, np.int64)
        self.terminated, self.truncated, self.is_success = (np.zeros(lanes, np.bool_) for _ in range(3))

    def __len__(self) -> int:
        return self.lanes

    def reset(self, lane: int, seed: int) -> None:
        self.inputs[lane] = np.random.default_rng(seed).uniform(-1, 1), 1.0
        self.truncated[lane], self.total[lane], self.steps[lane] = False, 0.0, 0

    def step(self, actions: FloatArray, active: Any = None) -> None:
        on = np.ones(self.lanes, np.bool_) if active is None else active
        force = actions[:, 1] - actions[:, 0] if self.discrete else actions[:, 0]
        self.inputs[on, 0] = (self.inputs[:, 0] + 0.3 * force)[on].clip(-2, 2)
        self.reward[on] = -(self.inputs[on, 0] ** 2)
        self.total[on] += self.reward[on]
        self.steps[on] += 1
        self.truncated[on] = self.steps[on] == 16


class Watch(Hooks):
    """Keeps the state at one step."""

    def __init__(self, save_at: int = -1) -> None:
        self.save_at = save_at
        self.saved: Any = None
        self.snapshot: Callable[[], Any]  # of the loop that is watched

    def log(self, step: int, values: Any) -> None:
        assert all(np.isfinite(x).all() for x in values.values())

    def tick(self, step: int) -> None:
        if step == self.save_at:
            tensors, meta = self.snapshot()
            agent = torch.utils._pytree.tree_map(torch.clone, tensors["agent"])
            self.saved = (agent, {k: np.array(x) for k, x in tensors["practice"].items()}, deepcopy(meta))


def trained(name: str, discrete: bool, env_steps: int, hooks: Watch, begin: Any = None) -> Learner:
    kind, seeds, envs = AGENTS[name], [0, 1], 8
    config = kind.Config(hidden=(16,), lr=1e-2, lr_policy=2e-2, entropy=0.001)
    agent = kind(config, Spec(2, 2 if discrete else 1, discrete=discrete))
    learner = Learner(agent, seeds, 1_000, compile="off", precision="fp32", device=torch.device("cpu"))
    unscaled = Normalizer(np.zeros(2, np.float32), np.ones(2, np.float32))
    practice = Practice(Line(len(seeds) * envs, discrete), unscaled, seeds)  # type: ignore[arg-type]
    memory = RolloutBuffer(agent.spec, seeds, 16, envs, agent.noise_dim)
    if begin is not None:
        learner.state, tensors, meta = begin
        practice.restore(tensors, meta["practice"])
        memory.restore(tensors)
    plan = OnPolicyPlan(env_steps, 0, GAMMA, "constant", 1 << 20, ())
    hooks.snapshot = partial(online_state, learner, practice, memory)
    on_policy_loop(learner, practice, memory, plan, hooks)
    return learner


def played(learner: Learner) -> float:
    """Mean reward of greedy play from fixed starts."""
    pool, total = Line(2 * 8, learner.agent.spec.discrete), 0.0
    for lane in range(len(pool)):
        pool.reset(lane, lane % 8)
    for _ in range(16):
        obs = torch.from_numpy(pool.inputs.reshape(2, 8, 2).copy())
        action = learner.act(obs, torch.zeros(2, 8, learner.agent.spec.action_dim))
        pool.step(action.numpy().reshape(16, -1))
        total += float(pool.reward.mean())
    return total / 16


@pytest.mark.parametrize(
    ("name", "discrete"), [(name, False) for name in LADDER] + [("reinforce", True), ("actor_critic_q", True)]
)
def test_every_rung_learns(name: str, discrete: bool) -> None:
    before = played(trained(name, discrete, 0, Watch()))
    after = played(trained(name, discrete, 16 * 8 * 40, Watch()))
    assert after > 0.5 * before and after > -0.15


def test_stopped_in_the_middle_of_a_rollout_it_goes_on_to_the_same_bits() -> None:
    whole = Watch(save_at=8 * 23)
    straight = trained("gae", False, 8 * 70, whole)
    resumed = trained("gae", False, 8 * 70, Watch(), begin=whole.saved)
    leaves = torch.utils._pytree.tree_leaves
    assert all(torch.equal(a, b) for a, b in zip(leaves(straight.state), leaves(resumed.state), strict=True))
