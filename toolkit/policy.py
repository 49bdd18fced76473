"""A trained policy, from a checkpoint alone, on any machine (level 3)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from toolkit import checkpoint, config, nn, strict_yaml
from toolkit.agents import AGENTS, Agent
from toolkit.maze import Cell
from toolkit.strict_yaml import dotted
from toolkit.tasks import Chunks, TaskCard
from toolkit.tensor_file import Leaf
from toolkit.types import FloatArray, Json, Spec, ToolkitError

STATE, MEAN, STD = "agent/", "normalizer/mean", "normalizer/std"


def describe(
    agent_name: str, agent: Agent[Any], card: TaskCard, seeds: Sequence[int], far_starts: Sequence[Cell] = ()
) -> Json:
    """What a checkpoint's meta data must hold under "policy" for `load_policy` to read it."""
    return {
        "agent": agent_name,
        "config": agent.cfg.model_dump(mode="json"),
        "spec": asdict(agent.spec),
        "task": config.dump(card),
        "seeds": [int(seed) for seed in seeds],
        "far_starts": [[int(row), int(col)] for row, col in far_starts],
    }


def policy_tensors(state: Any, mean: Leaf, std: Leaf) -> dict[str, Leaf]:
    """The tensors that belong to it: the agent's state stacked over S seeds, and the normaliser, (O,) each."""
    return checkpoint.flatten({"agent": state, "normalizer": {"mean": mean, "std": std}})


class Policy:
    """S policies of one run, one for each seed, behind the normaliser they were trained with.

    `act` serves all seeds at once, for `evaluate`; `predict` is Stable-Baselines3's protocol for the one at position
    `seed`. Inputs are what `card.policy_input` makes of an observation, actions lie in [-1, 1].
    """

    def __init__(self, tensors: Mapping[str, Leaf], meta: Json, seed: int = 0) -> None:
        self.agent_name, self.agent, self.card = read_description(meta)
        about = meta["policy"]
        try:
            self.seeds = [int(s) for s in about["seeds"]]
            if not all(0 <= s < 2**31 for s in self.seeds):
                raise ValueError(f"seeds {self.seeds}")
            self.far_starts: list[Cell] = [(int(row), int(col)) for row, col in about["far_starts"]]
        except (KeyError, TypeError, ValueError) as error:
            raise _unknown(error) from error
        spec = self.agent.spec
        if not 0 <= seed < len(self.seeds):
            raise ToolkitError(f"seed {seed}: expected a position from 0 to {len(self.seeds) - 1}, of {self.seeds}")
        self.seed = seed
        # copies: aligned memory of torch's own, so that a product has the same bits wherever the tensors came from
        kept = {k: torch.as_tensor(v).detach().cpu().clone() for k, v in tensors.items() if k.startswith(STATE)}
        fresh, seeds = fresh_state(self.agent, tensors), len(self.seeds)
        like = torch.utils._pytree.tree_map(lambda leaf: leaf.expand(seeds, *leaf.shape), fresh)
        self._state = checkpoint.unflatten({k[len(STATE) :]: v for k, v in kept.items()}, like)
        self.mean, self.std = (_vector(tensors, name, spec.obs_dim) for name in (MEAN, STD))
        self._meta = {"policy": about}
        self._one = _pick(self._state, seed)
        self._noise = torch.Generator().manual_seed(self.seeds[seed])

    def __reduce__(self) -> tuple[Any, ...]:
        tensors = policy_tensors(self._state, self.mean, self.std)
        return Policy, ({name: np.asarray(leaf) for name, leaf in tensors.items()}, self._meta, self.seed)

    @property
    def state(self) -> Any:
        """The agent's state of the seed that `predict` speaks for, without a seed axis."""
        return torch.utils._pytree.tree_map(lambda leaf: leaf[0], self._one)

    @property
    def states(self) -> Any:
        """The agent's states, stacked over the seeds."""
        return self._state

    def act(self, inputs: FloatArray) -> FloatArray:
        """Greedy actions of every seed, (S, N, O) -> (S, N, A), or (S, N, h A) of an agent that decides on chunks."""
        return self._act(self._state, inputs, None)

    def decide(self, inputs: FloatArray) -> npt.NDArray[Any]:
        """What `predict` plays, without noise: (N, O) -> actions (N, A), chunks (N, h A), or choices (N,)."""
        action = self._act(self._one, inputs[None], None)[0]
        return np.asarray(action.argmax(-1) if self.agent.spec.discrete else action)

    def predict(
        self,
        observation: npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]],
        state: tuple[npt.NDArray[Any], ...] | None = None,
        episode_start: npt.NDArray[Any] | None = None,
        deterministic: bool = True,
    ) -> tuple[npt.NDArray[Any], tuple[npt.NDArray[Any], ...] | None]:
        """Actions for one observation or a batch, Dict or flat (the policy's input), (..., O) -> (..., A).

        Actions lie in [-1, 1], as the task's environment takes them; discrete ones are the numbers of choices, (...).
        `state` of a policy that decides on chunks is what it still has to play, to be handed in again with the masks
        (...) of `episode_start`; without it each call looks anew. Other policies have no memory, and hand it back.
        """
        if isinstance(observation, Mapping):
            inputs = self.card.policy_input({key: np.asarray(value) for key, value in observation.items()})
        else:
            inputs = np.asarray(observation, np.float32)
        self._check(inputs)
        batch = inputs.reshape(1, -1, inputs.shape[-1])
        noise = None if deterministic else self._noise
        action, state = self._now(lambda: self._act(self._one, batch, noise)[0], state, episode_start, batch.shape[1])
        if self.agent.spec.discrete:
            return action.argmax(-1).reshape(inputs.shape[:-1]), state
        return action.reshape(*inputs.shape[:-1], -1), state

    def q(self, inputs: FloatArray, action: FloatArray) -> FloatArray:
        """The agent's estimate of the discounted return, (S, N, O), (S, N, A) -> (S, N); NaN where it keeps none.

        Actions are as `act` gives them.
        """
        nn.set_matmul_dtype(torch.float32)
        with torch.no_grad():
            value = torch.vmap(self.agent.q)(self._state, self._seen(inputs), torch.as_tensor(action))
        return np.asarray(value.numpy(), np.float32)

    def _now(
        self,
        decide: Callable[[], FloatArray],
        state: tuple[npt.NDArray[Any], ...] | None,
        episode_start: npt.NDArray[Any] | None,
        lanes: int,
    ) -> tuple[FloatArray, tuple[npt.NDArray[Any], ...] | None]:
        """The action that comes now in each lane, (N, A), and the state to go on with: chunks and steps into them."""
        if self.agent.chunk == 1:
            return decide(), state
        pending, steps = state or (None, np.zeros(lanes, np.int64))
        if len(steps) != lanes:
            raise ToolkitError(f"state of {len(steps)} episodes: expected that of the {lanes} observed; pass None anew")
        if episode_start is not None:
            steps = np.where(np.reshape(episode_start, -1), 0, steps)
        chunks = Chunks(self.agent.spec.action_dim // self.agent.chunk, pending)
        action = chunks.now(steps, decide)
        assert chunks.pending is not None
        return action, (chunks.pending, steps + 1)

    @torch.no_grad()
    def _act(self, state: Any, inputs: FloatArray, noise: torch.Generator | None) -> FloatArray:
        self._check(inputs)
        nn.set_matmul_dtype(torch.float32)
        shape = (*inputs.shape[:-1], self.agent.act_noise_dim)
        z = torch.zeros(shape) if noise is None else torch.randn(shape, generator=noise)
        action = self.agent.act(state, self._seen(inputs), z)
        return np.asarray(action.numpy(), np.float32)

    def _check(self, inputs: FloatArray) -> None:
        if inputs.shape[-1:] != (self.agent.spec.obs_dim,):
            raise ToolkitError(
                f"observation of shape {inputs.shape}: expected {self.agent.spec.obs_dim} numbers in the last place, "
                f"as the simulator of task {self.card.name} gave in training, or a Dict observation of it"
            )

    def _seen(self, inputs: FloatArray) -> torch.Tensor:
        return self.agent.features((torch.as_tensor(inputs) - self.mean) / self.std)


def read_description(meta: Json) -> tuple[str, Agent[Any], TaskCard]:
    """Name of the algorithm, agent and task in a checkpoint's meta data; ToolkitError for what this version lacks."""
    try:
        about = meta["policy"]
        name, cfg, spec, task = str(about["agent"]), about["config"], _sizes(about["spec"]), about["task"]
        kind = AGENTS[name]
    except (KeyError, TypeError, ValueError) as error:
        raise _unknown(error) from error
    return name, kind(_valid(kind.Config, cfg), spec), _valid(TaskCard, task)


def _sizes(about: Any) -> Spec:
    spec = Spec(**about)
    numbers = (spec.obs_dim, spec.action_dim, spec.goal_dim, spec.position_dim)
    if any(type(n) is not int or n < 0 for n in numbers) or spec.goal_dim + spec.position_dim > spec.obs_dim:
        raise ValueError(f"sizes {about}")
    return spec


def fresh_state(agent: Agent[Any], tensors: Mapping[str, Leaf]) -> Any:
    """A state of the agent's shapes, without a seed axis; ToolkitError where the tensors cannot be meant for it."""
    _check_sizes(agent, tensors)
    return agent.init(torch.Generator().manual_seed(0))


def _unknown(error: Exception) -> ToolkitError:
    return ToolkitError(f"this checkpoint holds no policy this version knows: {error!r}")


def load_policy(run_or_checkpoint: str | Path, seed: int = 0) -> Policy:
    """The policy of a run folder (its last trained stage), a stage's folder or a checkpoint folder.

    `seed` is the position, in the run's list of seeds, of the one `predict` speaks for. Raises ToolkitError when
    nothing there holds a policy, or it is damaged.
    """
    place = find_checkpoint(run_or_checkpoint)
    tensors, meta = checkpoint.load(place)
    try:
        return Policy(tensors, meta, seed)
    except ToolkitError as error:
        raise ToolkitError(f"{place}: {error}") from error


def find_checkpoint(run_or_checkpoint: str | Path) -> Path:
    """The checkpoint folder meant by a run, a stage or a checkpoint folder."""
    folder = Path(run_or_checkpoint)
    if not folder.is_dir():
        raise ToolkitError(f"{folder}: no such folder; expected a run, one of its stages or a checkpoint")
    trained = trained_stages(folder)
    if checkpoint.exists(folder / "checkpoint"):
        return folder / "checkpoint"
    if trained:
        return trained[-1] / "checkpoint"
    whole = folder.resolve()
    if whole.parent.name == "stages" and whole.name in stage_names(whole.parents[1]):  # it has a manifest of its own
        told = ", ".join(stage.name for stage in trained_stages(whole.parents[1])) or "none yet"
        raise ToolkitError(f"{folder}: this stage leaves no policy; stages of the run that do: {told}")
    if checkpoint.exists(folder):
        return folder
    raise ToolkitError(
        f"{folder}: no checkpoint here; expected a run with a trained stage, a stage or a checkpoint folder"
    )


def trained_stages(run: Path) -> list[Path]:
    """Folders of a run's stages that keep a checkpoint, in the order of its pipeline."""
    stages = [run / "stages" / name for name in stage_names(run)]
    return [stage for stage in stages if checkpoint.exists(stage / "checkpoint")]


def stage_names(run: Path) -> list[str]:
    """Names of a run's stages, in the order of its pipeline."""
    resolved = run / "pipeline.yaml"
    if not resolved.is_file():
        return []
    value = strict_yaml.read(resolved).value
    stages = value.get("stages") if isinstance(value, dict) else None
    return [str(name) for name in stages] if isinstance(stages, dict) else []


def _valid(model: Any, value: Any) -> Any:
    made, problems = config.validate(model, value)
    if made is None:
        keys, text = problems[0]
        raise ToolkitError(f"this checkpoint's {model.__name__} does not fit this version: {dotted(keys)}: {text}")
    return made


def _check_sizes(agent: Agent[Any], tensors: Mapping[str, Leaf]) -> None:
    """Refuse networks larger than the tensors at hand, before memory is asked for them, and chunks of half actions."""
    if agent.spec.action_dim % agent.chunk:
        raise ToolkitError(f"this checkpoint's {agent.spec.action_dim} numbers are no {agent.chunk} actions in a row")
    widths = [agent.input_dim, *agent.cfg.hidden, getattr(agent.cfg, "latent_dim", agent.spec.action_dim)]
    held = sum(int(np.prod(tuple(leaf.shape))) for leaf in tensors.values())
    if min(widths) < 1 or sum(a * b for a, b in itertools.pairwise(widths)) * getattr(agent.cfg, "members", 1) > held:
        raise ToolkitError(f"this checkpoint's tensors do not hold networks of {widths} units")


def _vector(tensors: Mapping[str, Leaf], name: str, size: int) -> torch.Tensor:
    if name not in tensors or tuple(tensors[name].shape) != (size,):
        raise ToolkitError(f"this checkpoint's {name} is missing or not of {size} numbers")
    return torch.as_tensor(tensors[name]).detach().float().cpu().clone()


def _pick(state: Any, seed: int) -> Any:
    """The state of one seed, with a leading axis of 1."""
    return torch.utils._pytree.tree_map(lambda leaf: leaf[seed : seed + 1].clone(), state)
