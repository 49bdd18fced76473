"""All seeds of a run as one program: the only place that knows the seed axis, compilation and precision (level 3)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from toolkit import nn
from toolkit.agents import Agent
from toolkit.data.replay import unpack
from toolkit.data.rollout import unpack_rollout
from toolkit.types import Batch, Metrics, Rollout

Compile = Literal["auto", "on", "off"]
Precision = Literal["auto", "fp32", "bf16"]

# Fewer updates than these do not pay for being traced and compiled.
_TRACE_WORTH, _COMPILE_WORTH = 300, 1_500


def has_bf16_units() -> bool:
    """Whether this machine multiplies bfloat16 matrices in hardware (AMX on the CPU, or a CUDA GPU that does)."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_amx_tile_supported())


def default_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Learner:
    """The states of S seeds, stacked, and their update as one (compiled) function."""

    def __init__(
        self,
        agent: Agent[Any],
        seeds: list[int],
        updates: int,
        compile: Compile = "auto",
        precision: Precision = "auto",
        device: torch.device | None = None,
    ) -> None:
        self.agent, self.seeds = agent, seeds
        self.device = device or default_device()
        bf16 = precision == "bf16" or (precision == "auto" and has_bf16_units())
        self.dtype = torch.bfloat16 if bf16 else torch.float32
        self.compiled = compile == "on" or (
            compile == "auto" and updates >= _COMPILE_WORTH and shutil.which("g++") is not None
        )
        self._traced = self.compiled or updates >= _TRACE_WORTH
        self._state = stack([agent.init(torch.Generator().manual_seed(seed)) for seed in seeds], self.device)
        self._policy_share: Tensor | None = None  # (S,) of the way an update moves each seed's policy
        self._full = self._build(agent.update)
        self._critic = self._build(agent.update_critic)

    @property
    def state(self) -> Any:
        """The whole of what is learned: a pytree of tensors with a leading S axis. The next update may change them."""
        return self._state

    @state.setter
    def state(self, state: Any) -> None:
        # what is given may share memory with itself or with something of the caller's, and updates write over it
        self._state = pytree.tree_map(partial(torch.clone, memory_format=torch.contiguous_format), state)

    def _build(self, update: Callable[..., Any]) -> Callable[..., Any]:
        spec, waypoint = self.agent.spec, self.agent.waypoint_steps > 0
        on_policy = self.agent.cfg.on_policy

        def step(state: Any, packed: Tensor, lr_scale: Tensor) -> Any:
            if on_policy:
                return update(state, self._seen(unpack_rollout(packed, lr_scale, spec)))
            return update(state, self._seen(unpack(packed, lr_scale, spec, waypoint)))

        seeds = torch.vmap(step, in_dims=(0, 0, None))
        return _Traced(seeds, self.device, self.compiled) if self._traced else seeds

    def _seen(self, b: Batch | Rollout) -> Batch | Rollout:
        """The observations as the networks see them."""
        features = self.agent.features
        seen = b._replace(obs=features(b.obs), next_obs=features(b.next_obs))
        if isinstance(seen, Batch) and isinstance(b, Batch):
            seen = seen._replace(policy_obs=features(b.policy_obs) if self.agent.spec.goal_dim else seen.obs)
        return seen

    def update(self, packed: Tensor, lr_scale: Tensor, critic_only: bool = False) -> Metrics:
        """One update of every seed from packed batches (S, B, W), or rollouts (S, T, N, W), of its kind of agent.

        The metrics are (S,) tensors on the device.
        """
        nn.set_matmul_dtype(self.dtype)
        if self.compiled and self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
            self._state = pytree.tree_map(torch.clone, self._state)
        metrics: Metrics
        slowed = self.agent.policies if self._policy_share is not None else ()
        before = {name: pytree.tree_map(torch.clone, getattr(self._state, name).p) for name in slowed}
        self._state, metrics = (self._critic if critic_only else self._full)(self._state, packed, lr_scale)
        if self._policy_share is not None:
            self._state = self._slowed(before, self._state, self._policy_share)
        return metrics

    def slow_policies(self, lr: Sequence[float]) -> None:
        """From now on each seed's policy learns at so many times its rate, (S,); the other networks as before."""
        self._policy_share = torch.tensor(lr, device=self.device)

    def _slowed(self, before: dict[str, Any], after: Any, share: Tensor) -> Any:
        """`after` with policies that went a share of the way: what Adam adds is proportional to the learning rate."""
        nets = {}
        for name, old in before.items():
            new = getattr(after, name).p
            p = {k: torch.lerp(old[k], w, share.reshape(-1, *[1] * (w.dim() - 1))) for k, w in new.items()}
            nets[name] = getattr(after, name)._replace(p=p)
        return after._replace(**nets)

    @torch.no_grad()
    def act(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Actions of all seeds in float32, (S, N, O), (S, N, act_noise_dim) -> (S, N, A)."""
        nn.set_matmul_dtype(torch.float32)
        return self.agent.act(self.state, self.agent.features(obs), noise)

    @torch.no_grad()
    def q(self, obs: Tensor, action: Tensor) -> Tensor:
        """The agent's value of actions, (S, N, O), (S, N, A) -> (S, N)."""
        nn.set_matmul_dtype(torch.float32)
        return torch.vmap(self.agent.q)(self.state, self.agent.features(obs), action)


class _Traced:
    """An update as the list of operations it is made of, which run one by one or as a compiled program.

    Without vmap, gradients and an agent's Python between them the operations take two thirds of the time. Nothing but
    the shapes of a batch can change from call to call, so nothing else is checked. Compiled for the CPU, an update
    writes the new state over the old one.
    """

    def __init__(self, update: Callable[..., Any], device: torch.device, compiled: bool) -> None:
        self._update, self._compiled, self._in_place = update, compiled, compiled and device.type == "cpu"
        self._programs: dict[tuple[torch.Size, ...], Callable[..., Any]] = {}

    def __call__(self, state: Any, *batch: Tensor) -> tuple[Any, Metrics]:
        leaves, structure = pytree.tree_flatten(state)
        shapes = tuple(x.shape for x in batch)
        if shapes not in self._programs:
            self._programs[shapes] = self._trace([*leaves, *batch], structure)
        new, metrics = self._programs[shapes](*leaves, *batch)
        return state if self._in_place else pytree.tree_unflatten(new, structure), metrics

    def _trace(self, inputs: list[Tensor], structure: pytree.TreeSpec) -> Callable[..., Any]:
        size, out = structure.num_leaves, structure
        program: Callable[..., Any]

        def flat(*inputs: Tensor) -> tuple[Tensor, ...]:
            nonlocal out
            new, metrics = self._update(pytree.tree_unflatten(inputs[:size], structure), *inputs[size:])
            leaves = pytree.tree_leaves(new)
            if self._in_place:
                for old, leaf in zip(inputs[:size], leaves, strict=True):
                    old.copy_(leaf)
                leaves = []
            results, out = pytree.tree_flatten((leaves, metrics))
            return tuple(results)

        graph = make_fx(flat, tracing_mode="fake")(*inputs)
        if self._compiled:
            program = self._compile(graph, inputs)
        else:
            graph.graph.eliminate_dead_code()
            graph.recompile()
            program = graph
        return lambda *inputs: pytree.tree_unflatten(program(*inputs), out)

    def _compile(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        if not self._in_place:
            how = {"triton.cudagraphs": True, "guard_filter_fn": torch.compiler.skip_all_guards_unsafe}
            return torch.compile(graph, fullgraph=True, dynamic=False, options=how)
        from torch._inductor import compile as compile_graph  # here, since it takes seconds

        # torch.compile would read the graph as Python and trace it once more, which takes a quarter of the time.
        # Kernels and the calls between them as one C++ file: a fifth faster with networks as small as these.
        with torch.no_grad():
            return cast(Callable[..., Any], compile_graph(graph, inputs, {"cpp_wrapper": True}))


def stack(states: list[Any], device: torch.device) -> Any:
    """Join the states of single seeds along a new leading axis."""
    return pytree.tree_map(lambda *leaves: torch.stack(leaves).to(device).contiguous(), *states)
