"""The one table of names, shapes and units. Imports nothing of this package (level 0).

Letters in shape comments at line ends:

    S  seeds trained together          U  updates sampled in one call
    B  rows of one training batch      N  environments stepped together
    O  numbers in a policy's input     A  numbers in an action
    G  numbers in a goal               R  rows of a data set
    T  transitions of one episode      E  episodes, or members of a critic ensemble

Names that mean one thing everywhere:

    gamma       discount per environment step
    discount    gamma^n * (1 - terminated): what multiplies the bootstrapped value
    terminated  the task ended here (goal reached): no value follows
    truncated   only the recording ended here (time limit): value does follow
    polyak      share of the online network mixed into its target at each update
    expectile   IQL's asymmetry, above 0.5 leans towards the best action in the data
    beta        inverse temperature; always multiplies the advantage
    alpha       weight of a conservative or behaviour-cloning penalty; in TD3+BC, as in its paper, of the critic instead
    temperature SAC's weight of the entropy
    utd         critic updates per environment step
    env_step    transitions one seed has taken in the simulator
    grad_step   updates one seed has made
    action      always in [-1, 1] inside the package; the task scales it to the simulator's bounds
    chunk       h actions decided on at once and played in a row, side by side: h A numbers
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # torch takes seconds to import, and a wrong configuration should be refused before that
    import torch

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]  # of any kind of number
Observation = dict[str, npt.NDArray[Any]]  # `observation`; with goals `achieved_goal` and `desired_goal` too
Metrics: TypeAlias = "dict[str, torch.Tensor]"
Json = dict[str, Any]
Progress: TypeAlias = Callable[[int, int], None]  # hears how much is done, and of how much

SWITCH_STEPS = 10_000  # environment steps after the switch in which a fall counts as its dip, and that are drawn apart

# Stands for "return not known yet": below any value, so that a lower bound made of it does nothing.
NO_RETURN = -1e6


@dataclass(frozen=True)
class Spec:
    """What a network needs to know of a task: sizes of its input and of its actions."""

    obs_dim: int
    action_dim: int
    goal_dim: int = 0  # the last numbers of the input, where the policy sees its goal; 0 where it does not
    discrete: bool = False  # an action is one of `action_dim` choices, as one-hot numbers; the largest one counts
    position_dim: int = 0  # the first numbers of the input, where they are a place in a maze; 0 elsewhere


class Batch(NamedTuple):
    """One training batch of one seed; with a leading S axis outside `vmap`.

    `reward` is the discounted sum over the n steps between `obs` and `next_obs`, `discount` is
    gamma^n * (1 - terminated). `waypoint` is empty (size 0) for an agent without `waypoint_steps`.
    """

    obs: torch.Tensor  # (B, O)
    action: torch.Tensor  # (B, A)
    reward: torch.Tensor  # (B,)
    discount: torch.Tensor  # (B,)
    next_obs: torch.Tensor  # (B, O)
    mc_return: torch.Tensor  # (B,) discounted return, `TaskCard.cut_value` after a time limit; NO_RETURN while it runs
    next_action: torch.Tensor  # (B, A)
    policy_obs: torch.Tensor  # (B, O) `obs` with the goal drawn for the policy; the same where no goal is observed
    waypoint: torch.Tensor  # (B, O) state `agent.waypoint_steps` ahead on the way there, its achieved goal at the end
    noise: torch.Tensor  # (B, agent.noise_dim) standard normal numbers, all the randomness of an update
    lr_scale: torch.Tensor  # () learning rate as a share of the configured one
    taken: torch.Tensor | None = None  # (B,) actions of a chunk before the task ended; None where an action is one


class Rollout(NamedTuple):
    """What N environments of one seed did in T steps under the present policy; with a leading S axis outside `vmap`.

    `next_obs` is what truly followed, never what a reset put there.
    """

    obs: torch.Tensor  # (T, N, O)
    action: torch.Tensor  # (T, N, A)
    next_obs: torch.Tensor  # (T, N, O)
    action_noise: torch.Tensor  # (T, N, A) standard normal numbers that `act` made the action from
    reward: torch.Tensor  # (T, N)
    discount: torch.Tensor  # (T, N) gamma * (1 - terminated)
    last: torch.Tensor  # (T, N) 1 where the episode ended, terminated or truncated, else 0
    noise: torch.Tensor  # (T, N, agent.noise_dim) standard normal numbers, all the randomness of an update
    lr_scale: torch.Tensor  # () learning rate as a share of the configured one


@dataclass(frozen=True)
class Episodes:
    """E episodes stored back to back in R = sum(T_e + 1) rows.

    The last row of an episode holds only its final observation: its action is zero, its reward 0 and its flags
    are False. Row `starts[e]` is the first of episode e and `starts[E] == R`.
    """

    obs: FloatArray  # (R, D) the "observation" part, without the goal
    achieved: FloatArray  # (R, G) G is 0 where the task has no goal
    desired: FloatArray  # (R, G)
    action: FloatArray  # (R, A) in [-1, 1]
    reward: FloatArray  # (R,)
    terminated: BoolArray  # (R,)
    truncated: BoolArray  # (R,)
    starts: IntArray  # (E + 1,)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> IntArray:
        """Transitions of each episode, (E,)."""
        return np.diff(self.starts) - 1

    @property
    def transitions(self) -> int:
        """Transitions in all."""
        return int(self.starts[-1]) - len(self)

    @property
    def returns(self) -> npt.NDArray[np.float64]:
        """Sum of the rewards of each episode, (E,)."""
        return np.add.reduceat(self.reward.astype(np.float64), self.starts[:-1])

    @property
    def ended(self) -> BoolArray:
        """Which episodes terminate, (E,)."""
        return np.logical_or.reduceat(self.terminated, self.starts[:-1])

    def select(self, episodes: npt.ArrayLike) -> Episodes:
        """The named episodes, in that order; `episodes` holds indices or a mask of length E."""
        index = np.asarray(episodes)
        index = np.flatnonzero(index) if index.dtype == np.bool_ else index.astype(np.int64)
        sizes = np.diff(self.starts)[index]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        rows = np.repeat(self.starts[:-1][index] - starts[:-1], sizes) + np.arange(starts[-1])
        return Episodes(
            self.obs[rows],
            self.achieved[rows],
            self.desired[rows],
            self.action[rows],
            self.reward[rows],
            self.terminated[rows],
            self.truncated[rows],
            starts,
        )


class ToolkitError(Exception):
    """Something the user can mend; the message says what, where and how. The command line exits with `exit_code`."""

    exit_code = 2


class Failed(ToolkitError):
    """Nothing is wrong with what was asked for, but it cannot be done now, or did not work out."""

    exit_code = 1
