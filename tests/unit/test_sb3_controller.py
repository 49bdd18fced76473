"""A saved Stable-Baselines3 policy drives as that library's own `predict` says, and its file runs no code."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hostile import Bomb
from stable_baselines3 import PPO, SAC, TD3

from toolkit.collect import collect
from toolkit.config import dump
from toolkit.controllers import Recipe, load_recipe
from toolkit.controllers.sb3 import Sb3Controller
from toolkit.data.minari import read_minari
from toolkit.pipeline.plan import make_plan
from toolkit.strict_yaml import render
from toolkit.tasks import load_card
from toolkit.types import ToolkitError

BOX = spaces.Box(-np.inf, np.inf, (5,), np.float32)
GOAL = spaces.Box(-np.inf, np.inf, (2,), np.float32)


class Blank(gymnasium.Env[Any, Any]):
    """Spaces alone."""

    def __init__(self, goals: bool) -> None:
        seen = {"observation": BOX, "achieved_goal": GOAL, "desired_goal": GOAL}
        self.observation_space: Any = spaces.Dict(seen) if goals else BOX
        self.action_space: Any = spaces.Box(
            np.array([-2.0, 0.0, -1.0], np.float32), np.array([2.0, 1.0, 3.0], np.float32)
        )


def saved(kind: Any, path: Path, goals: bool = False, **settings: Any) -> Any:
    model = kind("MultiInputPolicy" if goals else "MlpPolicy", Blank(goals), seed=0, **settings)
    with torch.no_grad():  # actions all over their range
        for name, weights in model.policy.named_parameters():
            if name.startswith(("actor", "action_net")):
                weights.mul_(3.0)
    model.save(path)
    return model


@pytest.mark.parametrize("goals", [False, True])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (SAC, {}),
        (TD3, {}),
        (PPO, {}),
        (PPO, {"policy_kwargs": {"activation_fn": torch.nn.ReLU, "net_arch": [32]}}),
        (SAC, {"policy_kwargs": {"net_arch": [24, 16, 8]}}),
    ],
)
def test_it_acts_as_the_library_does(kind: Any, settings: dict[str, Any], goals: bool, tmp_path: Path) -> None:
    model = saved(kind, tmp_path / "model.zip", goals, **settings)
    controller = Sb3Controller(tmp_path / "model.zip", 3, stochastic=False)
    rng = np.random.default_rng(0)
    low, high = model.action_space.low, model.action_space.high
    for _ in range(20):
        seen = {
            "observation": rng.normal(size=5),
            "achieved_goal": rng.normal(size=2),
            "desired_goal": rng.normal(size=2),
        }
        controller.reset(rng, seen, 10)
        played = low + (np.clip(controller.act(seen), -1, 1) + 1) / 2 * (high - low)
        single = {key: value.astype(np.float32) for key, value in seen.items()}
        expected, _ = model.predict(single if goals else single["observation"], deterministic=True)
        np.testing.assert_allclose(played, expected, atol=1e-5)


@pytest.mark.parametrize("kind", [SAC, PPO])
def test_with_its_noise_it_acts_as_spread_as_it_did(kind: Any, tmp_path: Path) -> None:
    model = saved(kind, tmp_path / "model.zip")
    controller = Sb3Controller(tmp_path / "model.zip", 3, stochastic=True)
    seen = {"observation": np.full(5, 0.1)}
    controller.reset(np.random.default_rng(0), seen, 10)
    mine = np.clip([controller.act(seen) for _ in range(4_000)], -1, 1)
    low, high = model.action_space.low, model.action_space.high
    many = np.repeat(seen["observation"][None].astype(np.float32), 4_000, 0)
    theirs = (model.predict(many, deterministic=False)[0] - low) / (high - low) * 2 - 1
    np.testing.assert_allclose(mine.mean(0), theirs.mean(0), atol=0.05)
    np.testing.assert_allclose(mine.std(0), theirs.std(0), atol=0.05)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    saved(TD3, tmp_path / "model.zip")
    with pytest.raises(ToolkitError, match="acts with 3 numbers, the task takes 2"):
        Sb3Controller(tmp_path / "model.zip", 2, stochastic=False)
    with pytest.raises(ToolkitError, match="a deterministic policy"):
        Sb3Controller(tmp_path / "model.zip", 3, stochastic=True)
    controller = Sb3Controller(tmp_path / "model.zip", 3, stochastic=False)
    with pytest.raises(ToolkitError, match="sees 5 numbers, the task shows 4"):
        controller.reset(np.random.default_rng(0), {"observation": np.zeros(4)}, 10)
    saved(SAC, tmp_path / "sde.zip", use_sde=True)
    for name in ("sde.zip", "nowhere.zip"):
        with pytest.raises(ToolkitError, match=f"{name}: expected a"):
            Sb3Controller(tmp_path / name, 3, stochastic=False)


@pytest.mark.parametrize(
    ("kind", "changed", "stochastic"),
    [
        (SAC, {"actor.latent_pi.2.weight": torch.zeros(8, 7)}, False),
        (SAC, {"actor.latent_pi.0.weight": torch.zeros(())}, False),
        (SAC, {"actor.mu.bias": None}, False),
        (SAC, {"actor.mu.weight": None}, False),
        (SAC, {"actor.log_std.weight": torch.zeros(3, 7)}, True),
        (PPO, {"log_std": torch.zeros(2)}, True),
    ],
)
def test_layers_that_do_not_fit_each_other_are_refused(
    kind: Any, changed: dict[str, Any], stochastic: bool, tmp_path: Path
) -> None:
    model = saved(kind, tmp_path / "model.zip", policy_kwargs={"net_arch": [8, 8]})
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        data = archive.read("data")
    weights = {**model.policy.state_dict(), **changed}
    weights = {name: tensor for name, tensor in weights.items() if tensor is not None}
    with pytest.raises(ToolkitError, match=r"odd\.zip: a layer of weights .*: expected layers that fit each other"):
        Sb3Controller(archive_of(tmp_path / "odd.zip", data, stored(weights)), 3, stochastic)


@pytest.mark.parametrize("high", ["[1. 1.]", "[1. 1. ...]", "[1. 1. inf]", "[1. 1. -1.]"])
def test_bounds_that_are_none_are_refused(high: str, tmp_path: Path) -> None:
    model = saved(PPO, tmp_path / "model.zip", policy_kwargs={"net_arch": [8]})
    data = json.dumps({"action_space": {"low": "[-1. -1. -1.]", "high": high}}).encode()
    path = archive_of(tmp_path / "odd.zip", data, stored(model.policy.state_dict()))
    with pytest.raises(ToolkitError, match=r"odd\.zip: action_space: expected bounds of 3 numbers, low below high"):
        Sb3Controller(path, 3, stochastic=False)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    saved(SAC, tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        data = archive.read("data")
    tensors = io.BytesIO()
    torch.save({"actor.mu.weight": Bomb(tmp_path / "canary")}, tensors)
    for number, hostile in enumerate((pickle.dumps(Bomb(tmp_path / "canary")), tensors.getvalue(), b"nothing")):
        with zipfile.ZipFile(tmp_path / f"{number}.zip", "w") as archive:
            archive.writestr("data", data)
            archive.writestr("policy.pth", hostile)
        with pytest.raises(ToolkitError, match="expected a model saved by Stable-Baselines3"):
            Sb3Controller(tmp_path / f"{number}.zip", 3, stochastic=False)
    assert not (tmp_path / "canary").exists()


class Large:
    """A pickle of a few bytes that asks for a terabyte."""

    def __reduce__(self) -> Any:
        return bytearray, (2**40,)


def stored(tensors: Any) -> bytes:
    file = io.BytesIO()
    torch.save(tensors, file)
    return file.getvalue()


def archive_of(path: Path, data: bytes, weights: bytes, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("data", data)
        archive.writestr("policy.pth", weights)
    return path


def deflated(weights: bytes, extra: int) -> bytes:
    """The same tensors, packed, with so many zeros beside them."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(weights)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        new.writestr("archive/data/zeros", bytes(extra))
    return file.getvalue()


def test_a_small_file_that_would_take_much_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved(SAC, tmp_path / "model.zip", policy_kwargs={"net_arch": [8]})
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        data, weights = archive.read("data"), archive.read("policy.pth")
    Sb3Controller(archive_of(tmp_path / "sound.zip", data, deflated(weights, 0)), 3, stochastic=False)
    repeated = stored({**model.policy.state_dict(), "actor.mu.bias": torch.zeros(1).expand(2**40)})
    for hostile, told in (
        (repeated, "at most 33554432 numbers"),
        (stored({"a": Large()}), "found __builtin__ bytearray"),
    ):
        assert len(hostile) < 2**16
        with pytest.raises(ToolkitError, match=told):
            Sb3Controller(archive_of(tmp_path / "hostile.zip", data, hostile), 3, stochastic=False)
    monkeypatch.setattr("toolkit.controllers.sb3._MAX_BYTES", 2**20)
    with pytest.raises(ToolkitError, match="at most 1048576 bytes unpacked"):
        Sb3Controller(archive_of(tmp_path / "packed.zip", data, deflated(weights, 2**20)), 3, stochastic=False)
    with pytest.raises(ToolkitError, match="at most 1048576 bytes, stored"):
        Sb3Controller(archive_of(tmp_path / "large.zip", data, bytes(2**20 + 1)), 3, stochastic=False)
    with pytest.raises(ToolkitError, match="stored or deflated"):
        Sb3Controller(archive_of(tmp_path / "bz2.zip", data, weights, zipfile.ZIP_BZIP2), 3, stochastic=False)


def test_a_file_larger_than_it_says_is_not_unpacked(tmp_path: Path) -> None:
    path, size = tmp_path / "model.zip", 2**24
    archive_of(path, bytes(size), b"")
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", size), struct.pack("<I", 10)))
    tracemalloc.start()
    with pytest.raises(ToolkitError, match="expected a model saved by Stable-Baselines3"):
        Sb3Controller(path, 3, stochastic=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 2


@pytest.mark.parametrize("data", [[], {"policy_kwargs": "ReLU"}, {"action_space": [1]}])
def test_settings_of_another_kind_are_refused(tmp_path: Path, data: Any) -> None:
    saved(PPO, tmp_path / "model.zip", policy_kwargs={"net_arch": [8]})
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        weights = archive.read("policy.pth")
    path = archive_of(tmp_path / "odd.zip", json.dumps(data).encode(), weights)
    with pytest.raises(ToolkitError, match="expected a JSON object, and objects in it as policy_kwargs and action_sp"):
        Sb3Controller(path, 3, stochastic=False)


def test_it_records_demonstrations(tmp_path: Path) -> None:
    SAC("MlpPolicy", "Pendulum-v1", seed=0, policy_kwargs={"net_arch": [16]}).save(tmp_path / "model.zip")
    controller = {"kind": "sb3", "path": str(tmp_path / "model.zip")}
    fields = {**dump(load_recipe("random")), "task": "pendulum", "episodes": 4, "max_episode_steps": 20}
    recipe = Recipe.model_validate(fields | {"controller": controller})
    episodes = read_minari(collect(recipe, load_card("pendulum"), tmp_path, workers=2))
    assert len(episodes) == 4
    saved(SAC, tmp_path / "other.zip")  # of three numbers and other observations
    wrong = Recipe.model_validate(fields | {"controller": controller | {"path": str(tmp_path / "other.zip")}})
    with pytest.raises(ToolkitError, match=r"other\.zip: acts with 3 numbers, the task takes 1"):
        collect(wrong, load_card("pendulum"), tmp_path / "wrong", workers=2)


def test_another_model_in_the_file_makes_the_recording_anew(tmp_path: Path) -> None:
    recipe = {**dump(load_recipe("random")), "name": "replayed", "task": "pendulum"}
    recipe["controller"] = {"kind": "sb3", "path": str(tmp_path / "model.zip")}
    (tmp_path / "replayed.yaml").write_text(render(recipe))
    stages = f"stages:\n  collect: {{kind: collect, recipe: {tmp_path / 'replayed.yaml'}, episodes: 4}}\n"
    (tmp_path / "p.yaml").write_text(f"name: p\ndescription: d\ntask: pendulum\n{stages}")
    keys = []
    for seed in (0, 1, 1):
        model = SAC("MlpPolicy", "Pendulum-v1", seed=seed, policy_kwargs={"net_arch": [8]})
        if len(keys) < 2:
            model.save(tmp_path / "model.zip")
        keys.append(make_plan(tmp_path / "p.yaml").keys["collect"])
    assert keys[0] != keys[1] == keys[2]
    (tmp_path / "model.zip").unlink()
    with pytest.raises(ToolkitError, match=r"model\.zip: expected a model"):
        make_plan(tmp_path / "p.yaml")
