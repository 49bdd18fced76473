"""What a training stage learns from and starts from: data, normaliser, far starts, earlier weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from toolkit import checkpoint
from toolkit.agents import AGENTS, Agent
from toolkit.data.finding import Finding
from toolkit.data.imported import checked
from toolkit.data.minari import import_minari
from toolkit.data.replay import Normalizer, Replay
from toolkit.data.sampler import LEFT
from toolkit.data.window import Recording
from toolkit.learner import stack
from toolkit.maze import Cell
from toolkit.policy import MEAN, STATE, STD
from toolkit.recordings import check
from toolkit.stitching import coverage
from toolkit.tasks import TaskCard, relabel, unseen_env
from toolkit.types import BoolArray, Episodes, FloatArray, Json, Spec, ToolkitError

SAMPLE = 256  # transitions of the data on which the critics are watched


@dataclass(frozen=True)
class Material:
    """Everything a training stage takes from the stages before it."""

    normalizer: Normalizer
    far_starts: list[Cell]
    replay: Recording | None  # the episodes the agent keeps, normalised
    findings: tuple[Finding, ...] = ()  # warnings about the recording


@dataclass(frozen=True)
class Trained:
    """What an earlier stage's checkpoint holds for a later one."""

    state: Any  # stacked over seeds
    normalizer: Normalizer
    far_starts: list[Cell]


def make_agent(name: str, config: Json, spec: Spec) -> Agent[Any]:
    """An agent from its name and settings, both checked before, for a task's sizes: of its actions a chunk is made."""
    kind = AGENTS[name]
    cfg = kind.Config.model_validate(config)
    return kind(cfg, replace(spec, action_dim=spec.action_dim * getattr(cfg, "chunk", 1)))


def task_sizes(card: TaskCard) -> Spec:
    """Sizes of the task's policy input and action."""
    return unseen_env(card).sizes


def load_trained(folder: Path, agent: Agent[Any], seeds: list[int]) -> Trained:
    """Weights, normaliser and far starts of a stage's newest checkpoint."""
    tensors, meta = checkpoint.load(folder)
    far = [(int(row), int(col)) for row, col in meta["policy"]["far_starts"]]
    return Trained(restore_state(tensors, agent, len(seeds), torch.device("cpu")), fitted(tensors), far)


def fitted(tensors: dict[str, torch.Tensor]) -> Normalizer:
    """The normaliser in a checkpoint."""
    return Normalizer(np.asarray(tensors[MEAN]), np.asarray(tensors[STD]))


def restore_state(tensors: dict[str, torch.Tensor], agent: Agent[Any], seeds: int, device: torch.device) -> Any:
    """The agent's stacked state, in memory of its own: the same bits must meet the same alignment."""
    like = stack([agent.init(torch.Generator().manual_seed(0))] * seeds, device)
    found = {name[len(STATE) :]: leaf for name, leaf in tensors.items() if name.startswith(STATE)}
    return torch.utils._pytree.tree_map(torch.clone, checkpoint.unflatten(found, like))


def prepare(
    card: TaskCard, dataset: Path | None, agent: Agent[Any], gamma: float, earlier: Trained | None = None,
    whole: bool = False,
) -> Material:  # fmt: skip
    """Read the recording under the task's rule; normaliser and far starts are the `earlier` stage's where there is one.

    For goals drawn anew episodes stay `whole`, and goals are scaled as the positions that they are drawn from.
    Raises ToolkitError where the recording has errors, or the agent keeps no episode.
    """
    if dataset is None:
        width = agent.spec.obs_dim
        normalizer = Normalizer(np.zeros(width, np.float32), np.ones(width, np.float32))
        return Material(normalizer, [], None)
    imported = import_minari(dataset)
    findings = tuple(check(imported, card))
    episodes = relabel(card, checked(imported), whole)
    return material_from(card, episodes, agent, gamma, earlier, whole, findings)


def material_from(
    card: TaskCard, episodes: Episodes, agent: Agent[Any], gamma: float, earlier: Trained | None = None,
    whole: bool = False, findings: tuple[Finding, ...] = (),
) -> Material:  # fmt: skip
    """The same from episodes that follow the task's rule already."""
    normalizer = earlier.normalizer if earlier else Normalizer.fit([drawn_inputs(card, episodes, whole)])
    far = earlier.far_starts if earlier else far_starts(card, episodes)
    kept = episodes.select(chosen(agent, episodes))
    replay = Replay.from_episodes(kept, normalizer(card.inputs(kept)), gamma, card.cut_value(gamma))
    refuse_long_chunks(agent, replay, whole, kept)
    return Material(normalizer, far, replay, findings)


def drawn_inputs(card: TaskCard, episodes: Episodes, whole: bool) -> FloatArray:
    """Policy inputs of all rows, (R, O), with goals as they are drawn."""
    return card.inputs(replace(episodes, desired=episodes.achieved) if whole else episodes)


def far_starts(card: TaskCard, episodes: Episodes) -> list[Cell]:
    """Cells that no single trajectory joins to the task's goal; none without a fixed goal."""
    if card.goal_xy is None:
        return []
    return coverage(episodes, card.maze, card.goal_xy, card.goal.radius).far_starts


def chosen(agent: Agent[Any], episodes: Episodes) -> BoolArray:
    """Which episodes the agent keeps, (E,). Raises ToolkitError where it keeps none."""
    kept = agent.keep(episodes.returns.astype(np.float32), episodes.ended)
    if not kept.any():
        raise ToolkitError(f"of {len(episodes)} episodes the agent keeps none, so it has nothing to learn")
    return kept


def refuse_long_chunks(agent: Agent[Any], replay: Replay, whole: bool, episodes: Episodes) -> None:
    """Raises ToolkitError where no episode has as many steps as the agent decides on at once."""
    if not replay.holds(agent.chunk, cut=not whole):
        longest = int(episodes.lengths.max())
        raise ToolkitError(f"expected a config.chunk of at most the longest episode, {longest} steps")


def sample(replay: Replay, count: int = SAMPLE, chunk: int = 1) -> tuple[FloatArray, FloatArray]:
    """The same transitions at every call: normalised observations (count, O) and the action there, (count, A).

    Of a chunk it is the ones recorded from there on, side by side; behind the episode's last, others.
    """
    rows, size, random = replay.rows[0], replay.spec.action_dim, np.random.Generator(np.random.Philox(key=0))
    chosen = random.choice(np.flatnonzero(replay.begins(chunk)[0]), count)
    ahead, others = np.arange(chunk), random.choice(chosen, (count, chunk))
    taken = np.where(ahead < rows[chosen, LEFT, None], (chosen[:, None] + ahead) % len(rows), others)
    return rows[chosen, -size - replay.spec.obs_dim : -size].copy(), rows[taken, -size:].reshape(count, -1)
