"""Networks as explicit parameters: dictionaries of tensors, pure functions, Adam inside `Net` (level 1).

Every layer carries a leading axis of members where a network is an ensemble, so that E critics are one batched
product. Paper symbols: s observation, a action, r reward, Q V critics, pi policy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from toolkit.types import Batch, Metrics

Params = dict[str, Tensor]
Loss = Callable[[Params], tuple[Tensor, Metrics]]

_LOG_STD_MIN, _LOG_STD_MAX = -5.0, 2.0
_LOG_BETA1, _LOG_BETA2 = math.log(0.9), math.log(0.999)
_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
_matmul_dtype = torch.float32


def set_matmul_dtype(dtype: torch.dtype) -> None:
    """Choose float32 or bfloat16 for the products of hidden layers; weights, outputs and losses stay float32."""
    global _matmul_dtype
    _matmul_dtype = dtype


class Net(NamedTuple):
    """Parameters with their Adam moments (Kingma & Ba, arXiv:1412.6980) and step count."""

    p: Params
    m: Params
    v: Params
    t: Tensor  # () updates made

    def descend(self, loss: Loss, lr: Tensor | float) -> tuple[Net, Metrics]:
        """One Adam step on `loss(p) -> (scalar, metrics)`; returns the new network and the metrics."""
        grads, (_, metrics) = torch.func.grad_and_value(loss, has_aux=True)(self.p)
        return self.adam(grads, lr), metrics

    def adam(self, grads: Params, lr: Tensor | float) -> Net:
        """Adam with the usual betas 0.9, 0.999 and epsilon 1e-8."""
        t = self.t + 1
        # exp, which the compiler computes once a network; powers it would compute anew for every few weights
        m = {k: torch.lerp(self.m[k], g, 0.1) for k, g in grads.items()}
        v = {k: torch.lerp(self.v[k], g * g, 0.001) for k, g in grads.items()}
        step, root = lr / (1 - torch.exp(t * _LOG_BETA1)), torch.rsqrt(1 - torch.exp(t * _LOG_BETA2))
        p = {k: w - step * m[k] / (torch.sqrt(v[k]) * root + 1e-8) for k, w in self.p.items()}
        return Net(p, m, v, t)


def optimised(p: Params) -> Net:
    """Wrap parameters with zero Adam moments."""
    return Net(
        p,
        {k: torch.zeros_like(w) for k, w in p.items()},
        {k: torch.zeros_like(w) for k, w in p.items()},
        torch.zeros(()),
    )


def polyak(target: Params, online: Params, share: float) -> Params:
    """Move the target a `share` of the way to the online parameters."""
    return {k: torch.lerp(w, online[k], share) for k, w in target.items()}


def init_mlp(
    sizes: Sequence[int],
    generator: torch.Generator,
    members: int | None = None,
    layer_norm: bool = False,
    last_gain: float = 1.0,
) -> Params:
    """Orthogonal weights (gain sqrt 2, last layer `last_gain`), zero biases.

    `members` adds a leading ensemble axis; `layer_norm` adds a LayerNorm before each hidden activation.
    """
    p: Params = {}
    layers = len(sizes) - 1
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        gain = last_gain if i == layers - 1 else math.sqrt(2.0)
        w = torch.stack([_orthogonal(fan_in, fan_out, gain, generator) for _ in range(members or 1)])
        b = torch.zeros(members or 1, fan_out)
        p[f"w{i}"], p[f"b{i}"] = w, b
        if layer_norm and i < layers - 1:
            p[f"g{i}"], p[f"h{i}"] = torch.ones_like(b), torch.zeros_like(b)
    return p if members else {k: x[0] for k, x in p.items()}


def _orthogonal(fan_in: int, fan_out: int, gain: float, generator: torch.Generator) -> Tensor:
    x = torch.randn(max(fan_in, fan_out), min(fan_in, fan_out), generator=generator)
    q, r = torch.linalg.qr(x)
    w: Tensor = q * torch.sign(torch.diagonal(r)) * gain
    return (w if fan_in >= fan_out else w.T).contiguous()


def mlp(p: Params, x: Tensor) -> Tensor:
    """Forward pass with ReLU: (..., in) -> (..., out), or (B, in) -> (E, B, out) where parameters are an ensemble's."""
    layers = sum(k.startswith("w") for k in p)
    for i in range(layers):
        # bfloat16 has steps of 0.5 near 100, too coarse for the last layer: values differ by the reward of a step
        last = i == layers - 1
        x = _product(x, p[f"w{i}"], torch.float32 if last else _matmul_dtype) + _row(p[f"b{i}"])
        if not last:
            if f"g{i}" in p:  # whose shape is fixed, also for a tracer
                x = F.layer_norm(x, p[f"g{i}"].shape[-1:]) * _row(p[f"g{i}"]) + _row(p[f"h{i}"])
            x = F.relu(x)
    return x


def _product(x: Tensor, w: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.matmul(x, w) if dtype is torch.float32 else torch.matmul(x.to(dtype), w.to(dtype)).float()


def _row(b: Tensor) -> Tensor:
    return b.unsqueeze(-2) if b.dim() > 1 else b


def q_values(p: Params, s: Tensor, a: Tensor) -> Tensor:
    """Critics on states and actions: an ensemble (B, O), (B, A) -> (E, B), a single one (..., O), (..., A) -> (...)."""
    return mlp(p, torch.cat([s, a], -1)).squeeze(-1)


def td_loss(p: Params, y: Tensor, b: Batch) -> tuple[Tensor, Metrics]:
    """Squared temporal difference of an ensemble to its targets `y` (B,), summed over the critics."""
    q = q_values(p, b.obs, b.action)  # (E, B)
    loss = ((q - y) ** 2).mean(-1).sum()
    return loss, {"loss/Q": loss.detach(), "q": q.mean().detach()}


class Gaussian(NamedTuple):
    """The policy's two heads: `mean` before the squashing, `log_std`; each (..., A).

    Behaviour-cloning losses read it as a normal around tanh(mean) in action space: recorded actions that lie
    on the bounds keep a finite likelihood. Soft actor-critic reads it as the squashed normal tanh(mean + std z).
    The greedy action, tanh(mean), is the same in both, so a network moves between them unchanged. Each agent draws from
    the one that it fits: squashed draws keep about 1 - tanh(mean)^2 of a spread that was fitted around tanh(mean), and
    who imitates them loses more of it each time.
    """

    mean: Tensor
    log_std: Tensor

    @property
    def mode(self) -> Tensor:
        """Greedy action, (..., A)."""
        return torch.tanh(self.mean)

    def log_prob(self, a: Tensor) -> Tensor:
        """Log density of `a` under the normal around tanh(mean), (...)."""
        z = (a - self.mode) * torch.exp(-self.log_std)
        return (-0.5 * z * z - self.log_std - _HALF_LOG_2PI).sum(-1)

    def draw_around(self, z: Tensor) -> Tensor:
        """Sample of the normal around tanh(mean) from standard normal `z`, cut at the bounds, (..., A)."""
        return (self.mode + torch.exp(self.log_std) * z).clamp(-1.0, 1.0)

    def draw(self, z: Tensor) -> Tensor:
        """Squashed sample from standard normal `z`, (..., A)."""
        return torch.tanh(self.unsquashed(z))

    def sample(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The same with its log density (SAC, arXiv:1812.05905, appendix C)."""
        u = self.unsquashed(z)
        log_prob = (-0.5 * z * z - self.log_std - _HALF_LOG_2PI).sum(-1)
        return torch.tanh(u), log_prob - _log_slope(u).sum(-1)

    def played(self, a: Tensor, z: Tensor) -> Tensor:
        """Log density of the squashed sample `a` that was made from `z` with these numbers, (...).

        The sample stays where it fell, only its density moves with the parameters. It is found again from `z`: where
        tanh comes near the bounds, `a` does not tell it.
        """
        return self.squashed_log_prob(self.unsquashed(z).detach())

    def squashed_log_prob(self, u: Tensor) -> Tensor:
        """Log density of the action tanh(u) under the squashed normal, (...); a gradient moves the density alone."""
        z = (u - self.mean) * torch.exp(-self.log_std)
        log_prob = (-0.5 * z * z - self.log_std - _HALF_LOG_2PI).sum(-1)
        return log_prob - _log_slope(u).sum(-1)

    def entropy(self, z: Tensor) -> Tensor:
        """Of the squashed normal, estimated from standard normal `z`, (...)."""
        return -self.sample(z)[1]

    def unsquashed(self, z: Tensor) -> Tensor:
        """What `draw` squashes, (..., A)."""
        return self.mean + torch.exp(self.log_std) * z


def _log_slope(u: Tensor) -> Tensor:
    """log(1 - tanh(u)^2) in the form that does not underflow."""
    return 2.0 * (math.log(2.0) - u - F.softplus(-2.0 * u))


class Categorical(NamedTuple):
    """The policy over A choices, with the methods of `Gaussian`; actions are one-hot, (..., A)."""

    logits: Tensor

    def log_prob(self, a: Tensor) -> Tensor:
        """Log probability of the choices, (...)."""
        return (F.log_softmax(self.logits, -1) * a).sum(-1)

    def draw(self, z: Tensor) -> Tensor:
        """One-hot choices from standard normal `z`, (..., A); zeros give the likeliest.

        The largest logit plus Gumbel noise is a draw (Gumbel 1954); -log(-log of the normal's distribution function)
        makes it of `z`.
        """
        gumbel = -torch.log(-torch.special.log_ndtr(z))
        return one_hot(self.logits + gumbel)

    def played(self, a: Tensor, z: Tensor) -> Tensor:
        """Log probability of the choices that were made, (...)."""
        return self.log_prob(a)

    def entropy(self, z: Tensor) -> Tensor:
        """Exact, (...)."""
        log_p = F.log_softmax(self.logits, -1)
        return -(log_p.exp() * log_p).sum(-1)


def one_hot(score: Tensor) -> Tensor:
    """1 at the largest of the last axis, the first of equals, and 0 elsewhere."""
    places = torch.arange(score.shape[-1], device=score.device)
    return (places == score.argmax(-1, keepdim=True)).to(score.dtype)


def init_policy(
    obs_dim: int, action_dim: int, hidden: Sequence[int], generator: torch.Generator, layer_norm: bool = False
) -> Params:
    """Policy network with small last layer: it starts near zero mean and unit standard deviation."""
    return init_mlp([obs_dim, *hidden, 2 * action_dim], generator, layer_norm=layer_norm, last_gain=0.01)


def policy(p: Params, s: Tensor) -> Gaussian:
    """The policy's distribution at `s`, (..., O) -> heads of (..., A)."""
    mean, log_std = mlp(p, s).chunk(2, -1)
    return Gaussian(mean, _LOG_STD_MIN + 0.5 * (_LOG_STD_MAX - _LOG_STD_MIN) * (1 + torch.tanh(log_std + 0.45)))
