"""The other kind of simulator behind `TaskEnv`: any Gymnasium environment."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.envs.mujoco.mujoco_env import MujocoEnv

from toolkit.tasks.actions import Choices, Scaled
from toolkit.tasks.card import TaskCard
from toolkit.tasks.registry import make
from toolkit.types import Observation, ToolkitError

_GOALS = ("observation", "achieved_goal", "desired_goal")


class Own(NamedTuple):
    """What an environment itself says of a step."""

    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    success: bool | None = None  # None where it does not say


class Plain:
    """A registered environment without its time limit; its own word on the last step stands in `own`.

    Observations are a Box, which becomes a Dict with the key `observation`, or a Dict with goals as Fetch has it. Where
    the goals are those of several tasks by name, as in FrankaKitchen, they never change: none is shown, and success
    is that every task has been done.
    """

    def __init__(self, card: TaskCard, render_mode: str | None = None) -> None:
        self._card, self.own = card, Own()
        arguments = card.env_kwargs if render_mode is None else {**card.env_kwargs, "render_mode": render_mode}
        self._env: Any = make(card.env_id, arguments, limit=-1)  # the time limit is the card's
        card.physics.alter(getattr(self._env.unwrapped, "model", None), card.name)
        self.env_spec = self._env.spec
        self._tasks = _tasks(self._env.observation_space)
        self.observation_space = self._observed(self._env.observation_space)
        self.actions = self._acting(self._env.action_space)

    def reset(self, rng: np.random.Generator, options: dict[str, Any]) -> Observation:
        """Start an episode from a seed drawn from `rng`; takes no options."""
        if options:
            raise ToolkitError(f"reset options {sorted(options)}: expected none, task {self._card.name} is no maze")
        observation, info = self._env.reset(seed=int(rng.integers(2**31)))
        self.own = Own(success=self._success(info))
        return self._seen(observation)

    def step(self, action: Any) -> Observation:
        """Apply an action in the environment's own terms; numbers out of its bounds are clipped."""
        if not self.actions.discrete:
            space = self._env.action_space
            action = np.clip(action, space.low, space.high).astype(space.dtype)
        observation, reward, terminated, truncated, info = self._env.step(action)
        self.own = Own(float(reward), bool(terminated), bool(truncated), self._success(info))
        return self._seen(observation)

    def mujoco(self) -> Any:
        """The environment inside that holds MuJoCo's model and data. Raises ToolkitError where there is none."""
        if not isinstance(self._env.unwrapped, MujocoEnv):
            raise ToolkitError(f"task {self._card.name}: expected a MuJoCo environment whose state can be set")
        return self._env.unwrapped

    def observe(self) -> Observation:
        """What the present state looks like."""
        return self._seen(self.mujoco()._get_obs())

    def twin(self) -> Plain:
        """Another one, made anew: nothing is known of what environments could share."""
        return Plain(self._card)

    def render(self) -> Any:
        """A picture as the render mode has it."""
        return self._env.render()

    def close(self) -> None:
        """Free what the environment holds."""
        self._env.close()

    def _observed(self, space: Any) -> spaces.Dict:
        if self._tasks:
            space = space["observation"]
        goals = isinstance(space, spaces.Dict)
        parts = {key: space.get(key) for key in _GOALS} if goals else {"observation": space}
        if not all(isinstance(part, spaces.Box) and len(part.shape) == 1 for part in parts.values()):
            raise ToolkitError(
                f"task {self._card.name}: {self._card.env_id} has observations {space}; expected a Box of one axis, "
                f"or a Dict of such with {', '.join(_GOALS)}"
            )
        if goals != self._card.goal.observed:
            has, expected = ("sets goals", "true") if goals else ("has no goals", "false")
            raise ToolkitError(f"task {self._card.name}: {self._card.env_id} {has}; expected goal.observed: {expected}")
        return spaces.Dict(parts)

    def _acting(self, space: Any) -> Scaled | Choices:
        if isinstance(space, spaces.Discrete):
            count = int(space.n)
            return Choices(np.eye(count), range(int(space.start), int(space.start) + count))
        if isinstance(space, spaces.Box):
            try:
                return Scaled(space)
            except ToolkitError as error:
                raise ToolkitError(f"task {self._card.name}: {self._card.env_id}: {error}") from None
        raise ToolkitError(f"task {self._card.name}: action space {space}: expected a Box or Discrete")

    def _seen(self, observation: Any) -> Observation:
        """Copies: an environment may go on writing into what it handed out."""
        if not isinstance(observation, dict):
            observation = {"observation": observation}
        return {key: np.array(observation[key]) for key in self.observation_space}

    def _success(self, info: dict[str, Any]) -> bool | None:
        if self._tasks:
            return len(info["episode_task_completions"]) == self._tasks
        word: npt.NDArray[Any] | None = info.get("is_success", info.get("success"))
        return None if word is None else bool(word)


def _tasks(space: Any) -> int:
    """How many tasks by name an environment has; 0 where its goals are numbers or there are none."""
    goals = space.get("desired_goal") if isinstance(space, spaces.Dict) else None
    return len(goals) if isinstance(goals, spaces.Dict) else 0
