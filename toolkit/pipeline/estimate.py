"""How long and how large a run will be, from a small table of measured rates."""

from __future__ import annotations

from typing import Any, NamedTuple

from toolkit.agents import CONFIGS
from toolkit.catalog import DATA
from toolkit.learner import compiles
from toolkit.pipeline.context import Plan
from toolkit.pipeline.seam import evaluation_steps
from toolkit.pipeline.spec import (
    CollectStage,
    EvaluateStage,
    ImportStage,
    OfflineStage,
    OnlineStage,
    RecordStage,
    StitchStage,
)
from toolkit.recordings import find_data
from toolkit.tasks import TaskCard
from toolkit.tasks.mazes import family
from toolkit.types import Json

# Seed-updates a second: bc, iql, cql and sac measured on two cores with bf16 units, hidden layers of 256, batch 256;
# the others by the passes through a network that they make beside these. Other machines: a factor of two either way.
UPDATES = {
    **dict.fromkeys(("bc", "filtered_bc"), 1600.0),
    **dict.fromkeys(("awr", "discrete_cql"), 1000.0),
    **dict.fromkeys(("td3", "td3_bc"), 600.0),
    **dict.fromkeys(("iql", "ivl"), 520.0),
    **dict.fromkeys(("sac", "awac", "pex"), 420.0),
    **dict.fromkeys(("rebrac", "hiql"), 350.0),
    "qrl": 300.0,
    **dict.fromkeys(("fql", "qc"), 230.0),
    **dict.fromkeys(("rlpd", "wsrl", "qc_sac"), 100.0),
    **dict.fromkeys(("cql", "calql"), 60.0),
}
IMPORTED = 2e7  # bytes of a recording a second
COPIED = 1e5  # transitions out of a buffer a second
STARTING = 3.0  # seconds until a stage works
COMPILING = 25.0  # seconds it takes
EAGER = 0.4  # speed without it
STITCHES = 4  # groups of starts
ROW_BYTES, NET_BYTES = 160, 4 * 70_000  # of a recorded transition on disk; of one network of 256 by 256


class Pace(NamedTuple):
    """How fast a robot is simulated and gets on."""

    rate: float = 9000.0  # environment steps a second, one process
    episode: int | None = None  # steps of an average one; None for the time limit's
    piece: int | None = None  # of an average recorded one


PACES = {
    "PointMaze": Pace(9000.0, 90, 60),
    "AntMaze": Pace(1000.0, 290, 150),
    "pointmaze": Pace(4000.0, 110, 45),
    "antmaze": Pace(1000.0, 260, 95),
}


def estimate(plan: Plan) -> Json:
    """Seconds and megabytes of each stage."""
    seeds = len(plan.spec.seeds)
    return {name: _stage(plan, name, stage, seeds) for name, stage in plan.spec.stages.items()}


def _stage(plan: Plan, name: str, stage: Any, seeds: int) -> Json:
    pace = PACES.get(family(plan.card.env_id), Pace())
    episode = pace.episode or plan.card.max_episode_steps
    config = plan.resolved["stages"][name].get("config", {})
    match stage:
        case CollectStage():
            recipe = plan.recipes[name]
            transitions = recipe.episodes * min(pace.piece or episode, recipe.max_episode_steps)
            return _entry(STARTING + transitions / pace.rate, transitions * ROW_BYTES)
        case ImportStage():
            path = find_data(stage.source, DATA)
            length = sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]))
            return _entry(STARTING + length / IMPORTED, length)
        case RecordStage():
            source: Any = plan.spec.stages[stage.of]
            steps = seeds * (stage.env_steps or source.env_steps)
            return _entry(STARTING + steps / (pace.rate if stage.env_steps else COPIED), steps * ROW_BYTES)
        case OfflineStage():
            evaluations = 1 + stage.updates // stage.eval_every if stage.eval_every else 0
            played = seeds * (stage.final_episodes + evaluations * stage.eval_episodes) * episode
            return _entry(_updating(stage, stage.updates, seeds) + played / pace.rate, _weights(config, seeds))
        case OnlineStage():
            updates = planned_updates(stage, plan.card)
            evaluations = len(evaluation_steps(stage))
            played = seeds * (stage.final_episodes + evaluations * stage.eval_episodes) * episode
            stepping = (seeds * stage.env_steps + played) / pace.rate
            size = _weights(config, seeds) + seeds * stage.env_steps * ROW_BYTES
            return _entry(_updating(stage, updates, seeds) + stepping, size)
        case EvaluateStage():
            played = seeds * stage.episodes * len(stage.of) * (2 if stage.starts == "far" else 1) * episode
            return _entry(STARTING + played / pace.rate, 200_000)
        case StitchStage():
            played = seeds * stage.episodes * (1 + len(stage.of)) * STITCHES * episode
            return _entry(STARTING + played / pace.rate, 200_000)
    raise TypeError(stage)


def planned_updates(stage: OnlineStage, card: TaskCard) -> int:
    """Updates an online stage will make of each seed."""
    if CONFIGS[stage.agent].on_policy:
        config: Any = CONFIGS[stage.agent].model_validate(stage.config)
        rollouts = stage.env_steps // (stage.envs * (stage.rollout or card.max_episode_steps))
        return int(rollouts * config.updates_per_rollout)
    return round((stage.env_steps - stage.warmup_steps) * stage.utd)


def _updating(stage: OfflineStage | OnlineStage, updates: int, seeds: int) -> float:
    compiled = compiles(stage.compile, updates)
    rate = UPDATES.get(stage.agent, 300.0) * 256 / stage.batch_size * (1.0 if compiled else EAGER)
    return STARTING + (COMPILING if compiled else 0.0) + seeds * updates / rate


def _weights(config: Json, seeds: int) -> float:
    """Two checkpoints: four networks with their optimiser's memory, and a target."""
    members = int(config.get("members", 2))
    return 2 * seeds * NET_BYTES * (3 * (2 + members) + members)


def _entry(seconds: float, size: float) -> Json:
    return {"seconds": round(seconds, 1), "megabytes": round(size / 1e6, 1)}
