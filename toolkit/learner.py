"""All seeds of a run as one program: the only place that knows the seed axis, compilation and precision (level 3)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from toolkit import heap, nn
from toolkit.agents import Agent
from toolkit.data.replay import unpack
from toolkit.data.rollout import unpack_rollout
from toolkit.types import Batch, FloatArray, Metrics, Rollout

Compile = Literal["auto", "on", "off"]
Precision = Literal["auto", "fp32", "bf16"]

# Fewer updates than these do not pay for being traced and compiled.
_TRACE_WORTH, _COMPILE_WORTH = 120, 1_500

_SHAPING = {"view", "_unsafe_view", "expand", "detach"}  # operators that leave the numbers as they are


def compiles(compile: Compile, updates: int) -> bool:
    """Whether so many updates are compiled; `auto` asks whether they are worth it and there is a compiler."""
    worth = updates >= _COMPILE_WORTH and shutil.which("g++") is not None
    return compile == "on" or (compile == "auto" and worth)


def has_bf16_units() -> bool:
    """Whether this machine multiplies bfloat16 matrices faster than others: a GPU in hardware, AMX, or AMD's AVX-512.

    With AVX-512's instructions compiled updates take 0.40 of the time of fp32 on Zen 5 and 0.46 (CQL) to 0.68 (FQL) on
    Zen 4, but twice as long on Intel's Emerald Rapids without its AMX. `precision: bf16` asks for them there too.
    """
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    amd = torch.cpu._is_avx512_bf16_supported() and "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return bool(torch.cpu._is_amx_tile_supported()) or amd


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
        self.compiled = compiles(compile, updates)
        if self.device.type == "cpu":
            heap.settle()
        self._traced = self.compiled or updates >= _TRACE_WORTH
        self._state = stack([agent.init(torch.Generator().manual_seed(seed)) for seed in seeds], self.device)
        self._policy_share: Tensor | None = None  # (S,) of the way an update moves each seed's policy
        self._transfer = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        self._full = self._build(agent.update)
        self._critic = self._build(agent.update_critic)

    @property
    def state(self) -> Any:
        """The whole of what is learned: a pytree of tensors with a leading S axis. The next update may change them."""
        return self._state

    @state.setter
    def state(self, state: Any) -> None:
        # what is given may share memory with itself or with something of the caller's, and updates write over it
        own = partial(torch.Tensor.to, device=self.device, copy=True, memory_format=torch.contiguous_format)
        self._state = pytree.tree_map(own, state)

    def _build(self, update: Callable[..., Any]) -> Callable[..., Any]:
        spec, waypoint = self.agent.spec, self.agent.waypoint_steps > 0
        on_policy = self.agent.cfg.on_policy

        def step(state: Any, packed: Tensor, lr_scale: Tensor) -> Any:
            if on_policy:
                return update(state, self._seen(unpack_rollout(packed, lr_scale, spec)))
            return update(state, self._seen(unpack(packed, lr_scale, spec, waypoint, self.agent.chunk)))

        seeds = torch.vmap(step, in_dims=(0, 0, None))
        return Traced(seeds, self.device, self.compiled) if self._traced else seeds

    def _seen(self, b: Batch | Rollout) -> Batch | Rollout:
        """The observations as the networks see them."""
        features = self.agent.features
        seen = b._replace(obs=features(b.obs), next_obs=features(b.next_obs))
        if isinstance(seen, Batch) and isinstance(b, Batch):
            seen = seen._replace(policy_obs=features(b.policy_obs) if self.agent.spec.goal_dim else seen.obs)
        return seen

    def update(self, packed: Tensor, lr_scale: Tensor, critic_only: bool = False) -> Metrics:
        """One update of every seed from packed batches (S, B, W), or rollouts (S, T, N, W), of its kind of agent.

        The metrics are (S,) tensors on the device, to be read before the next update.
        """
        nn.set_matmul_dtype(self.dtype)
        metrics: Metrics
        slowed = self.agent.policies if self._policy_share is not None else ()
        before = {name: pytree.tree_map(torch.clone, getattr(self._state, name).p) for name in slowed}
        self._state, metrics = (self._critic if critic_only else self._full)(self._state, packed, lr_scale)
        if self._policy_share is not None:
            self._slow(before, self._policy_share)
        return metrics

    def slow_policies(self, lr: Sequence[float]) -> None:
        """From now on each seed's policy learns at so many times its rate, (S,); the other networks as before."""
        self._policy_share = torch.tensor(lr, device=self.device)

    def _slow(self, before: dict[str, Any], share: Tensor) -> None:
        """Take the policies back to a share of their last step: what Adam adds is proportional to the learning rate."""
        for name, old in before.items():
            for k, w in getattr(self._state, name).p.items():
                w.copy_(torch.lerp(old[k], w, share.reshape(-1, *[1] * (w.dim() - 1))))

    def receive(self, drawn: Tensor) -> Tensor:
        """Drawn batches on the device, free to be overwritten where they were; a GPU goes on with updates meanwhile."""
        if self._transfer is None:
            return drawn
        with torch.cuda.stream(self._transfer):
            there = drawn.to(self.device)
        computing = torch.cuda.current_stream(self.device)
        computing.wait_stream(self._transfer)
        there.record_stream(computing)
        return there

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

    def greedy(self, obs: FloatArray) -> FloatArray:
        """Actions without noise for normalised observations, (S, N, O) -> (S, N, A)."""
        noise = torch.zeros((*obs.shape[:-1], self.agent.act_noise_dim), device=self.device)
        return np.asarray(self.act(torch.from_numpy(obs).to(self.device), noise).cpu().numpy(), np.float32)

    def values(self, obs: FloatArray, action: FloatArray) -> FloatArray:
        """`q` of arrays: normalised observations and actions, (S, N, O), (S, N, A) -> (S, N)."""
        q = self.q(torch.from_numpy(obs).to(self.device), torch.from_numpy(action).to(self.device))
        return np.asarray(q.cpu().numpy(), np.float32)


class Traced:
    """An update as the list of operations it is made of, which run one by one or as a compiled program.

    Without vmap, gradients and an agent's Python between them the operations take a third of the time. Nothing but the
    shapes of a batch can change from call to call, so nothing else is checked. The new state is written over the old.
    """

    def __init__(self, update: Callable[..., Any], device: torch.device, compiled: bool) -> None:
        self._update, self._compiled, self._device = update, compiled, device
        self._programs: dict[tuple[torch.Size, ...], Callable[..., Metrics]] = {}
        self._state: Any = None
        self._leaves: list[Tensor] = []

    def __call__(self, state: Any, *batch: Tensor) -> tuple[Any, Metrics]:
        """The state, which is the new one now, and the metrics."""
        if state is not self._state:
            self._state, self._leaves = state, pytree.tree_leaves(state)
        shapes = tuple(x.shape for x in batch)
        if shapes not in self._programs:
            program = self._trace([x.to(self._device) for x in batch])
            self._programs[shapes] = _Recorded(program) if self._device.type == "cuda" else program
        return state, self._programs[shapes](*self._leaves, *batch)

    def _trace(self, batch: list[Tensor]) -> Callable[..., Metrics]:
        size, structure = len(self._leaves), pytree.tree_structure(self._state)
        program: Callable[..., Any]
        names: list[str] = []

        def flat(*inputs: Tensor) -> tuple[Tensor, ...]:
            new, metrics = self._update(pytree.tree_unflatten(inputs[:size], structure), *inputs[size:])
            for old, leaf in zip(inputs[:size], pytree.tree_leaves(new), strict=True):
                old.copy_(leaf)
            names.extend(metrics)
            return tuple(metrics.values())

        inputs = [*self._leaves, *batch]
        graph = make_fx(flat, tracing_mode="fake")(*inputs)
        if self._compiled:
            program = self._compile(graph, inputs)
        else:
            _shorten(graph.graph)
            graph.recompile()
            program = graph
        return lambda *inputs: dict(zip(names, program(*inputs), strict=True))

    def _compile(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        if self._device.type == "cuda":
            unguarded: dict[str, Any] = {"guard_filter_fn": torch.compiler.skip_all_guards_unsafe}
            return torch.compile(graph, fullgraph=True, dynamic=False, options=unguarded)
        from torch._inductor import compile as compile_graph  # here, since it takes seconds

        # torch.compile would read the graph as Python and trace it once more, which takes a quarter of the time.
        # The calls of the kernels in C++ too are a fifth faster with networks as small as these; in a file of their own
        # the compiler is through in half the time.
        how = {"cpp_wrapper": True, "cpp_wrapper_build_separate": True}
        with torch.no_grad():
            return cast(Callable[..., Any], compile_graph(graph, inputs, how))


def _shorten(graph: torch.fx.Graph) -> None:
    """Call PyTorch's own functions in place of the operators' handles, which take a third longer to do the same.

    What only repeats a shape, as half of the views that products leave behind do, is left out.
    """
    graph.eliminate_dead_code()
    for node in graph.nodes:
        if not isinstance(node.target, torch._ops.OpOverload):
            continue
        name = node.target.overloadpacket.__name__
        if name in _SHAPING:
            given, made = (x.meta["val"] for x in (node.args[0], node))
            if given.shape == made.shape and given.stride() == made.stride():
                node.replace_all_uses_with(node.args[0])
                graph.erase_node(node)
            else:
                node.op, node.target = "call_method", name.removeprefix("_unsafe_")
        elif isinstance(function := getattr(torch, name, None), BuiltinFunctionType):
            node.target = function


class _Recorded:
    """A program that changes its first inputs in place, as a CUDA graph: a GPU gets all its kernels in one call.

    They would take longer to launch one by one than to run.
    """

    def __init__(self, program: Callable[..., Any]) -> None:
        self._program = program
        self._state: tuple[Tensor, ...] = ()
        self._batch: tuple[Tensor, ...] = ()
        self._result: Any = None
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *inputs: Tensor) -> Any:
        size = len(inputs) - 2  # the batch and the share of the learning rate come last
        state, batch = inputs[:size], inputs[size:]
        graph = self._graph
        if graph is None or any(mine is not given for mine, given in zip(self._state, state, strict=True)):
            graph = self._graph = self._record(state, batch)
        for mine, given in zip(self._batch, batch, strict=True):
            mine.copy_(given, non_blocking=True)
        graph.replay()
        return self._result

    def _record(self, state: tuple[Tensor, ...], batch: tuple[Tensor, ...]) -> torch.cuda.CUDAGraph:
        """Anew for another state, since a graph knows its inputs by their place in memory."""
        device = state[0].device
        self._state, self._batch = state, tuple(x.to(device, copy=True) for x in batch)
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):  # libraries set themselves up at the first call, which cannot be recorded
            self._program(*[x.clone() for x in state], *self._batch)
        torch.cuda.current_stream(device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._result = self._program(*self._state, *self._batch)
        return graph


def stack(states: list[Any], device: torch.device) -> Any:
    """Join the states of single seeds along a new leading axis."""
    return pytree.tree_map(lambda *leaves: torch.stack(leaves).to(device).contiguous(), *states)
