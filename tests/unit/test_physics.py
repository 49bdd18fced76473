"""Changed physics: what each factor does to what moves, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
import torch

from toolkit import checkpoint as checkpoints
from toolkit.agents import AGENTS
from toolkit.assess import evaluate_run
from toolkit.learner import Learner
from toolkit.policy import describe, policy_tensors
from toolkit.report.heat import sweep_page
from toolkit.sweep import sweep_run, table
from toolkit.tasks import EnvPool, Physics, Reward, TaskCard, load_card, make_env
from toolkit.types import FloatArray, Spec, ToolkitError


def card(name: str = "pointmaze-umaze", **physics: Any) -> TaskCard:
    return load_card(name).model_copy(update={"physics": Physics(**physics)})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Untrained policies of two seeds, and a short task."""
    kind = AGENTS["bc"]
    agent = kind(kind.Config(hidden=(8,)), Spec(4, 2))
    learner = Learner(agent, [3, 5], 1, compile="off", precision="fp32", device=torch.device("cpu"))
    tensors = policy_tensors(learner.state, np.zeros(4, np.float32), np.ones(4, np.float32))
    short = card().model_copy(update={"max_episode_steps": 30})
    checkpoints.save(tmp_path / "checkpoint", tensors, {"policy": describe("bc", agent, short, [3, 5])})
    return tmp_path / "checkpoint"


def pushed(steps: int = 20, **physics: Any) -> FloatArray:
    """Observations of a ball that is pushed to the right for some steps, (steps + 1, 4)."""
    env = make_env(card(**physics))
    first, _ = env.reset(seed=0, options={"start_cell": (1, 1)})
    rows = [env.step(np.array([1.0, 0.0], np.float32))[0]["observation"] for _ in range(steps)]
    return np.stack([first["observation"], *rows]).astype(np.float32)


def test_factors_act_as_mechanics_says() -> None:
    usual, speed = pushed(), 2
    acceleration = usual[1, speed]
    assert pushed(1, mass=2.0)[1, speed] == pytest.approx(acceleration / 2, rel=0.15)  # less what damping takes
    assert pushed(1, gain=0.5)[1, speed] == pytest.approx(acceleration / 2, rel=1e-3)
    assert pushed(damping=10.0)[-1, speed] < usual[-1, speed]
    np.testing.assert_array_equal(pushed(mass=1.0, delay=0), usual)


def test_actions_come_late() -> None:
    usual, late = pushed(), pushed(delay=3)
    np.testing.assert_array_equal(late[:4, :2], np.repeat(usual[:1, :2], 4, 0))
    np.testing.assert_allclose(late[3:], usual[:-3], atol=1e-6)


def test_noise_is_on_what_the_policy_sees_and_follows_from_the_seed() -> None:
    quiet, noisy, again = make_env(card()), make_env(card(noise=0.1)), make_env(card(noise=0.1))
    for env in (quiet, noisy, again):
        env.reset(seed=3)
    action = np.array([0.5, -0.5], np.float32)
    rows = [[env.step(action)[0] for _ in range(40)] for env in (quiet, noisy, again)]
    for true, seen, same in zip(*rows, strict=True):
        np.testing.assert_array_equal(seen["achieved_goal"], true["achieved_goal"])
        np.testing.assert_array_equal(seen["observation"], same["observation"])
    errors = np.stack([seen["observation"] - true["observation"] for true, seen in zip(*rows[:2], strict=True)])
    assert errors.std() == pytest.approx(0.1, rel=0.2)


def test_twins_share_the_changed_model_and_not_the_waiting_actions() -> None:
    pool = EnvPool(card(mass=2.0, delay=1), 2)
    for lane in range(2):
        pool.reset(lane, 0, {"start_cell": (1, 1)})
    for _ in range(3):
        pool.step(np.array([[1.0, 0.0], [1.0, 0.0]], np.float32))
    np.testing.assert_array_equal(pool.observation[0], pool.observation[1])
    assert pool.observation[0, 2] == pushed(2, mass=2.0)[2, 2]


def test_other_simulators() -> None:
    heavy, light = (make_env(card("halfcheetah", mass=mass)) for mass in (2.0, 1.0))
    model, usual = (env._simulator._env.unwrapped.model for env in (heavy, light))
    np.testing.assert_allclose(model.body_mass, 2 * usual.body_mass)
    np.testing.assert_allclose(model.body_subtreemass, 2 * usual.body_subtreemass)  # what follows from it
    make_env(card("cartpole", delay=2)).reset(seed=0)
    with pytest.raises(ToolkitError, match="cartpole is not simulated by MuJoCo"):
        make_env(card("cartpole", mass=2.0))


IDLE = {
    "pointmaze-umaze": {"friction"},
    "fetch-reach": {"gain"},  # a mocap body drags the arm
    "fetch-push": {"gain"},
    "fetch-pick-and-place": set(),
    "hopper": set(),
    "ant": set(),
    "Swimmer-v5": {"friction", "damping"},
    "Reacher-v5": {"friction"},
    "Pusher-v5": {"friction"},
    "InvertedPendulum-v5": {"friction"},
}


@pytest.mark.parametrize("task", IDLE)
def test_a_factor_acts_or_is_refused(task: str) -> None:
    usual = named(task)
    for factor in ("mass", "friction", "damping", "gain"):
        changed = usual.model_copy(update={"physics": Physics(**{factor: 1.5})})
        if factor in IDLE[task]:
            with pytest.raises(ToolkitError, match=f"physics.{factor}: changes nothing in task {usual.name}, where"):
                make_env(changed)
        else:
            assert not np.array_equal(shaken(changed), shaken(usual)), factor


def named(task: str) -> TaskCard:
    if not task.endswith("-v5"):
        return load_card(task)
    return TaskCard(name="x", description="", env_id=task, max_episode_steps=99, reward=Reward(rule="env"))


def shaken(of: TaskCard, steps: int = 30) -> FloatArray:
    """What is observed after some random steps, as far as the first end."""
    env, rng = make_env(of), np.random.default_rng(0)
    seen, _ = env.reset(seed=0)
    for _ in range(steps):
        seen, _, terminated, truncated, _ = env.step(rng.uniform(-1, 1, env.actions.dim).astype(np.float32))
        if terminated or truncated:
            break
    return seen["observation"].astype(np.float32)


def world(ball: str, contact: str = "") -> Any:
    """A ball above a floor and a wall, both of which are fixed."""
    return mujoco.MjModel.from_xml_string(
        f"""<mujoco><worldbody>
          <geom name="floor" type="plane" size="1 1 1"/><geom type="box" size="1 1 1"/>
          <body pos="0 0 1"><freejoint/><geom name="ball" size="0.1" {ball}/></body>
        </worldbody><contact>{contact}</contact></mujoco>"""
    )


def test_friction_acts_where_something_touches() -> None:
    apart, pair = 'contype="0" conaffinity="0"', '<pair geom1="floor" geom2="ball" condim="{}"/>'
    double = Physics(friction=2.0)
    for model in (world(apart), world(apart, pair.format(1))):
        with pytest.raises(ToolkitError, match="without friction"):
            double.alter(model, "x")
    for ball in ("", 'contype="0"', 'conaffinity="0"', 'condim="1"'):
        double.alter(world(ball), "x")
    touching, usual = (world(apart, pair.format(3)) for _ in range(2))
    double.alter(touching, "x")
    np.testing.assert_array_equal(touching.pair_friction, 2 * usual.pair_friction)


def test_a_sweep_of_the_recorded_physics_is_the_evaluation_and_the_page_shows_it(checkpoint: Path) -> None:
    found = sweep_run(checkpoint, {"mass": [1.0, 8.0], "delay": [0, 2]}, episodes=2)
    assert [(cell["mass"], cell["delay"]) for cell in found["cells"]] == [(1.0, 0), (1.0, 2), (8.0, 0), (8.0, 2)]
    assert all(len(cell["success"]["per_seed"]) == 2 for cell in found["cells"])
    assert found["cells"][0]["return"] == evaluate_run(checkpoint, episodes=2, workers=1)["return"]
    assert len(table(found)) == 4
    page = sweep_page(found)
    assert page.count("<rect") == 4
    assert page.count("usual") >= 2  # one cell, and the style
    for factors, message in (
        ({}, "one or two of mass"),
        ({"mass": [0.0]}, "--mass"),
        ({"delay": [0.5]}, "--delay"),
        ({"friction": [2.0]}, "without friction"),
        ({"mass": [float("inf")]}, "--mass: expected a finite number"),
        ({"mass": [float("nan")]}, "--mass: expected a finite number"),
        ({"delay": [float("inf")]}, "--delay"),
    ):
        with pytest.raises(ToolkitError, match=message):
            sweep_run(checkpoint, factors, episodes=1)
    with pytest.raises(ToolkitError, match="without friction"):
        sweep_run(checkpoint, {"friction": [1.0, 2.0]}, episodes=1, progress=lambda *_: pytest.fail("it played"))
