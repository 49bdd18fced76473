"""A policy as a Stable-Baselines3 SAC that `SAC.load` opens, for the task's own environment and its Dict observations.

The normaliser is folded into the first layer: w' = w / std, b' = b - mean w / std; numbers of an observation that the
policy does not see get zeros. SAC's greedy action is tanh(mean), as ours is. Its noise is another: our standard
deviation is bounded by a tanh, SAC's is cut, so the exported one is constant, the mean of ours. Critics come along
where the agent has critics of SAC's form, and the entropy temperature where it has one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from toolkit.nn import Params, policy
from toolkit.policy import Policy
from toolkit.tasks import TaskCard, make_env
from toolkit.types import FloatArray, IntArray, ToolkitError

Layers = list[tuple[Tensor, Tensor]]  # weights (in, out) and biases (out,) of each layer

BUFFER = 100_000  # of a SAC that trains on; `SAC.load(..., buffer_size=...)` changes it


def write_sb3(ours: Policy, path: Path) -> None:
    """Raises ToolkitError where the agent is no squashed Gaussian policy of linear layers and ReLU."""
    from stable_baselines3 import SAC

    state, spec = ours.state, ours.agent.spec
    pi = _gaussian(ours)
    env = make_env(ours.card)
    seen, width = _seen(env.observation_space, ours.card)
    critics = _critics(state, spec.obs_dim + spec.action_dim)
    layers, qs = _layers(pi), [_layers(p) for p in critics]
    arch = {"pi": [len(b) for _, b in layers[:-1]], "qf": [len(b) for _, b in (qs or [layers])[0][:-1]]}
    temperature = float(state.log_alpha.p["log_alpha"].exp()) if hasattr(state, "log_alpha") else None
    model = SAC(
        "MultiInputPolicy",
        env,
        buffer_size=BUFFER,
        ent_coef="auto" if temperature is None else f"auto_{temperature}",
        policy_kwargs={"net_arch": arch, "activation_fn": nn.ReLU, "n_critics": len(qs) or 2},
        device="cpu",
        seed=ours.seeds[ours.seed],
    )
    actor: Any = model.actor
    *hidden, (w, b) = _unnormalised(layers, ours, seen, width)
    mean, _ = w.chunk(2, 1)
    _fill([layer for layer in actor.latent_pi if isinstance(layer, nn.Linear)], hidden)
    _fill([actor.mu], [(mean, b[: spec.action_dim])])
    _fill([actor.log_std], [(torch.zeros_like(mean), _log_std(ours, pi))])
    networks: Any = [*model.critic.q_networks, *model.critic_target.q_networks]
    for network, layer in zip(networks, 2 * qs, strict=bool(qs)):  # without critics of its own SAC keeps fresh ones
        _fill([part for part in network if isinstance(part, nn.Linear)], _unnormalised(layer, ours, seen, width))
    model.save(path)


def read_sb3(path: Path, observation: FloatArray, card: TaskCard) -> FloatArray:
    """Actions (N, A) of a saved SAC for policy inputs (N, O)."""
    from stable_baselines3 import SAC

    model = SAC.load(path, device="cpu")
    space: Any = model.observation_space
    seen, width = _seen(space, card)
    whole = np.zeros((len(observation), width), np.float32)
    whole[:, seen] = observation
    ends = np.cumsum([part.shape[0] for part in space.spaces.values()])
    parts = dict(zip(space.spaces, np.split(whole, ends[:-1], axis=1), strict=True))
    return np.asarray(model.predict(parts, deterministic=True)[0])


def _gaussian(ours: Policy) -> Params:
    """The network of the policy, or why it is none that SAC has."""
    state, name = ours.state, ours.agent_name
    why = ""
    if ours.agent.spec.discrete:
        why = "its actions are choices, and SAC's are numbers"
    elif ours.agent.chunk > 1:
        why = "it decides on several actions at once"
    elif ours.agent.input_dim > ours.agent.spec.obs_dim:
        why = "its networks see Fourier features beside the observation, and SAC's do not"
    elif not hasattr(state, "pi"):
        why = "its policy is no single network"
    elif any(key.startswith("g") for key in state.pi.p):
        why = "its policy has LayerNorm, which SAC's has not"
    elif not torch.equal(_greedy(ours), policy(state.pi.p, _probe(ours)).mode):
        why = "its greedy action is not the tanh of its policy's mean alone"
    if why:
        raise ToolkitError(f"{name} cannot be a Stable-Baselines3 SAC: {why}; torchscript and onnx take every agent")
    p: Params = state.pi.p
    return p


def _probe(ours: Policy) -> Tensor:
    """Normalised observations, (64, O)."""
    return torch.randn(64, ours.agent.spec.obs_dim, generator=torch.Generator().manual_seed(0))


def _greedy(ours: Policy) -> Tensor:
    s = _probe(ours)
    return ours.agent.act(ours.state, s, torch.zeros(len(s), ours.agent.act_noise_dim))


def _log_std(ours: Policy, pi: Params) -> Tensor:
    """Mean of the policy's own, (A,)."""
    return policy(pi, _probe(ours)).log_std.mean(0)


def _critics(state: Any, inputs: int) -> list[Params]:
    """The members of an ensemble of critics as SAC has them; none where the agent keeps others."""
    Q = state.Q.p if hasattr(state, "Q") else {}
    if "w0" not in Q or Q["w0"].dim() != 3 or Q["w0"].shape[1] != inputs or "g0" in Q:
        return []
    return [{name: leaf[place] for name, leaf in Q.items()} for place in range(len(Q["w0"]))]


def _layers(p: Params) -> Layers:
    return [(p[f"w{i}"], p[f"b{i}"]) for i in range(sum(name.startswith("w") for name in p))]


def _unnormalised(layers: Layers, ours: Policy, seen: IntArray, width: int) -> Layers:
    """Layers that take raw observations, of `width` numbers, in place of normalised ones."""
    (w, b), rest, size = layers[0], layers[1:], len(ours.mean)
    scaled = w[:size].double() / ours.std.double()[:, None]
    wide = torch.zeros(width + len(w) - size, w.shape[1], dtype=torch.float64)
    wide[torch.from_numpy(seen)] = scaled
    wide[width:] = w[size:].double()  # actions, which a critic sees behind the observation
    return [(wide.float(), (b.double() - ours.mean.double() @ scaled).float()), *rest]


def _seen(space: Any, card: TaskCard) -> tuple[IntArray, int]:
    """Places of the policy's inputs among the numbers of a Dict observation, as SAC joins them, and their number."""
    sizes = {key: int(part.shape[0]) for key, part in space.spaces.items()}
    ends = np.cumsum(list(sizes.values()))
    places = dict(zip(sizes, np.split(np.arange(ends[-1]), ends[:-1]), strict=True))
    return card.policy_input(places).astype(np.int64), int(ends[-1])


def _fill(linear: list[nn.Linear], layers: Layers) -> None:
    with torch.no_grad():
        for layer, (w, b) in zip(linear, layers, strict=True):
            layer.weight.copy_(w.T)
            layer.bias.copy_(b)
