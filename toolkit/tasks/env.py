"""A task card as a Gymnasium environment."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any, Protocol

import gymnasium
import numpy as np
import numpy.typing as npt

from toolkit.maze import Maze
from toolkit.tasks.actions import Choices, Scaled
from toolkit.tasks.antmaze import AntMaze
from toolkit.tasks.card import TaskCard
from toolkit.tasks.mazes import family
from toolkit.tasks.ogbench import OgbenchAnt, OgbenchPoint
from toolkit.tasks.plain import Own, Plain
from toolkit.tasks.pointmaze import PointMaze
from toolkit.types import Observation, Spec

_MAZES: dict[str, type[PointMaze | AntMaze | OgbenchPoint | OgbenchAnt]] = {
    "PointMaze": PointMaze,
    "AntMaze": AntMaze,
    "pointmaze": OgbenchPoint,
    "antmaze": OgbenchAnt,
}


class Simulator(Protocol):
    """What moves: it knows neither the card's reward nor its time limit."""

    observation_space: gymnasium.spaces.Dict
    actions: Scaled | Choices
    env_spec: Any
    own: Own

    def reset(self, rng: np.random.Generator, options: dict[str, Any]) -> Observation:
        """Begin an episode that `rng` and `options` determine."""

    def step(self, action: Any) -> Observation:
        """Take what `actions.apply` made of an action."""

    def mujoco(self) -> Any:
        """The environment inside that holds MuJoCo's model and data. Raises ToolkitError where there is none."""

    def observe(self) -> Observation:
        """What the present state looks like."""

    def twin(self) -> Any:
        """An independent simulator of the same task."""

    def render(self) -> Any:
        """A picture."""

    def close(self) -> None:
        """Free what it holds."""


class TaskEnv(gymnasium.Env[Observation, Any]):
    """Dict observations: `observation`, and in tasks with goals `achieved_goal` and `desired_goal`.

    Actions lie in [-1, 1] and are scaled to the simulator's bounds; of discrete ones `step` takes the index or one
    number for each choice, of which the largest counts. Reward and success follow the card; success terminates, or
    with rule `env` what the simulator says; `card.max_episode_steps` truncates, and `info["is_success"]` is always
    there: None where the task does not say what success is. `reset(seed=..., options=...)`: the seed and the options
    together determine the whole reset; a maze takes `start_cell` and `goal_cell`, both may be left out.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012 (gymnasium declares it so)

    def __init__(self, card: TaskCard, render_mode: str | None = None) -> None:
        self.card = card
        self.render_mode = render_mode
        self.maze: Maze | None = card.maze if card.in_maze else None
        kind = _MAZES[family(card.env_id)] if card.in_maze else Plain
        self._simulator: Simulator = kind(card, render_mode)
        self.actions = self._simulator.actions
        self.observation_space: Any = self._simulator.observation_space
        self.action_space = self.actions.space
        # what a step asks for, looked up once
        self._apply: Any = self.actions.apply
        self._own, self._dense = card.reward.rule == "env", card.reward.rule == "dense"
        self._price, self._prize, self._limit = card.reward.step, card.reward.success, card.max_episode_steps
        self._near = 1.01 * card.goal.radius
        self._noise, self._delay = card.physics.noise, card.physics.delay
        self._late: deque[Any] = deque()  # actions that have not come through yet
        self._steps = 0

    @property
    def sizes(self) -> Spec:
        """Sizes of a policy's input and of an action."""
        goal = self.achieved_dim * self.card.goal.observed
        state, acting = self.observation_space["observation"], self.actions
        position = self.achieved_dim if self.maze else 0
        return Spec(state.shape[0] + goal, acting.dim, goal, acting.discrete, position)

    @property
    def achieved_dim(self) -> int:
        """Numbers in an achieved goal, whether the policy sees goals or not; 0 in a task without."""
        goal = self.observation_space.get("achieved_goal")
        return 0 if goal is None else int(goal.shape[0])

    @property
    def env_spec(self) -> Any:
        """The registered specification of the simulated environment, with its arguments and the card's time limit."""
        return replace(self._simulator.env_spec, max_episode_steps=self._limit)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        observation = self._simulator.reset(self.np_random, options or {})
        self._steps = 0
        self._late = deque(np.zeros(self.actions.dim, np.float32) for _ in range(self._delay))
        success = self._simulator.own.success if self._own else self._reached(observation)
        return self._blurred(observation) if self._noise else observation, {"is_success": success}

    def step(self, action: npt.NDArray[np.float32] | int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Apply one action in [-1, 1], (A,); what lies outside is clipped by the simulator."""
        if self._delay:
            self._late.append(np.array(action))
            action = self._late.popleft()
        observation = self._simulator.step(self._apply(action))
        self._steps += 1
        reward, terminated, over, success = self._simulator.own
        if not self._own:
            over = over or terminated  # without success nothing ends but the recording, as in relabelled data
            success = terminated = self._reached(observation)
            reward = self._prize if success else self._price
            if self._dense:
                reward = float(self.card.pay(observation["achieved_goal"], observation["desired_goal"]))
        truncated = not terminated and (over or self._steps >= self._limit)
        if self._noise:
            observation = self._blurred(observation)
        return observation, reward, terminated, truncated, {"is_success": success}

    def state_sizes(self) -> tuple[int, int]:
        """Numbers in MuJoCo's `qpos` and `qvel`. Raises ToolkitError where the task is not simulated by it."""
        model = self._simulator.mujoco().model
        return int(model.nq), int(model.nv)

    def put(self, qpos: npt.NDArray[np.float64], qvel: npt.NDArray[np.float64]) -> Observation:
        """Go to a state of MuJoCo's, (nq,) and (nv,), whatever came before; what it looks like."""
        self._simulator.mujoco().set_state(qpos, qvel)
        self._steps = 0
        return self._simulator.observe()

    def qpos(self) -> npt.NDArray[np.float64]:
        """MuJoCo's present position, (nq,)."""
        return np.array(self._simulator.mujoco().data.qpos)

    def twin(self) -> TaskEnv:
        """An independent environment of the same task, which shares what it can; it cannot render."""
        twin = object.__new__(TaskEnv)
        twin.__dict__.update(self.__dict__)
        twin._simulator = self._simulator.twin()
        twin._np_random = None
        return twin

    def render(self) -> Any:
        """A frame (H, W, 3) uint8, where the environment was made with render_mode="rgb_array"."""
        return self._simulator.render()

    def close(self) -> None:
        """Free the renderer."""
        self._simulator.close()

    def _blurred(self, observation: Observation) -> Observation:
        """The state with noise; goals, reward and success are of the true one."""
        state = observation["observation"]
        noise = self._noise * self.np_random.standard_normal(state.shape)
        return {**observation, "observation": (state + noise).astype(state.dtype)}

    def _reached(self, observation: Observation) -> bool:
        """The card's rule; most steps are so far off that a glance at the coordinates answers it."""
        achieved, desired = observation["achieved_goal"], observation["desired_goal"]
        for x, y in zip(achieved.tolist(), desired.tolist(), strict=True):
            if abs(x - y) > self._near:
                return False
        return bool(self.card.reached(achieved, desired))


def make_env(card: TaskCard, render_mode: str | None = None) -> TaskEnv:
    """The environment a card describes; `render_mode="rgb_array"` for pictures."""
    return TaskEnv(card, render_mode)
