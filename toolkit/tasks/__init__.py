"""Tasks: a card in `envs/` becomes a Gymnasium environment, and recorded data gets the same goal and reward rule."""

from toolkit.tasks.card import Goal, Reward, Start, TaskCard, load_card
from toolkit.tasks.chunks import Chunks
from toolkit.tasks.env import TaskEnv, make_env
from toolkit.tasks.physics import Physics
from toolkit.tasks.pool import EnvPool, episode_seed, step_seconds, try_out, unseen_env
from toolkit.tasks.relabel import goals_missing, relabel

__all__ = [
    "Chunks",
    "EnvPool",
    "Goal",
    "Physics",
    "Reward",
    "Start",
    "TaskCard",
    "TaskEnv",
    "episode_seed",
    "goals_missing",
    "load_card",
    "make_env",
    "relabel",
    "step_seconds",
    "try_out",
    "unseen_env",
]
