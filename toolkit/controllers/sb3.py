"""A policy that Stable-Baselines3 saved, as a controller. Its weights are read; nothing in the file is run."""

from __future__ import annotations

import io
import json
import pickletools
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from toolkit.controllers.scripted import Action
from toolkit.types import Floats, Json, Observation, ToolkitError

_MAX_BYTES = 2**28  # of the weights: packed, unpacked, and as the numbers they become here
_MAX_TEXT = 2**24  # of what describes the model, or its weights
_PICKLED = re.compile(r"collections OrderedDict|torch\._utils _rebuild_tensor_v2|torch \w+Storage")  # a state dict's
_LOG_STD_MIN, _LOG_STD_MAX = -20.0, 2.0  # as SAC has it
_OBJECTS = ("policy_kwargs", "action_space")
_ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {"ReLU": lambda x: np.maximum(x, 0.0), "Tanh": np.tanh}


class _Head(NamedTuple):
    """Where an algorithm keeps its policy: hidden layers, last layer, and what bounds its actions."""

    hidden: str
    last: str
    activation: str
    squashed: bool  # by tanh to [-1, 1]; else cut to the simulator's bounds


_HEADS = (
    _Head("actor.latent_pi", "actor.mu", "ReLU", True),  # SAC, TQC
    _Head("actor.mu", "", "ReLU", True),  # TD3, DDPG: the last of its layers
    _Head("mlp_extractor.policy_net", "action_net", "Tanh", False),  # PPO, A2C
)


class Sb3Controller:
    """Acts as the saved policy: greedily, or with `stochastic` as it did while it learned."""

    def __init__(self, path: Path, control_dim: int, stochastic: bool) -> None:
        about, weights = _read(path)
        self._path = path
        head = next((head for head in _HEADS if f"{head.hidden}.0.weight" in weights), None)
        if head is None or about.get("use_sde") or any(name.startswith("features_extractor") for name in weights):
            raise ToolkitError(f"{path}: expected an MLP policy of SAC, TD3, PPO or the like, without gSDE")
        hidden = sorted(_layers(weights, head.hidden))
        self._layers = [_linear(weights, f"{head.hidden}.{number}") for number in hidden]
        if head.last:
            self._layers.append(_linear(weights, head.last))
        _check_fit(path, self._layers, control_dim)
        self._activation = _activation(path, about, head.activation)
        self._bounds = None if head.squashed else _bounds(path, about, control_dim)
        self._log_std = _log_std(weights, self._layers[-1][0]) if stochastic else None
        if stochastic and self._log_std is None:
            raise ToolkitError(
                f"{path}: a deterministic policy; expected stochastic: false, and noise where it is wanted"
            )
        if self._log_std is not None:
            _check_fit(path, [*self._layers[:-1], self._log_std], control_dim)
        self._rng = np.random.default_rng()

    def reset(self, rng: np.random.Generator, observation: Observation, steps: int) -> None:
        """Check what is seen against what the policy was made for."""
        self._rng = rng
        self._seen(observation)

    def act(self, observation: Observation) -> Action:
        """The policy's action, as a share of the simulator's bounds."""
        x = self._seen(observation)
        for w, b in self._layers[:-1]:
            x = self._activation(w @ x + b)
        w, b = self._layers[-1]
        mean = w @ x + b
        if self._log_std is not None:
            w, b = self._log_std
            log_std = w @ x + b
            std = np.exp(np.clip(log_std, _LOG_STD_MIN, _LOG_STD_MAX))
            mean = mean + std * self._rng.standard_normal(len(mean))
        if self._bounds is None:
            return tuple(np.tanh(mean).tolist())
        low, high = self._bounds
        return tuple(((2 * mean - high - low) / (high - low)).tolist())

    def _seen(self, observation: Observation) -> Floats:
        """What the policy sees: the observation, or of a task with a goal all three in the order of their names."""
        wanted = self._layers[0][0].shape[1]
        plain: Floats = observation["observation"]
        if len(plain) == wanted:
            return plain
        joined = np.concatenate([observation[key] for key in sorted(observation)])
        if len(joined) != wanted:
            raise ToolkitError(
                f"{self._path}: sees {wanted} numbers, the task shows {len(plain)} (with goals {len(joined)})"
            )
        return joined


def _read(path: Path) -> tuple[Json, dict[str, Floats]]:
    """Settings, as far as they are plain JSON, and weights."""
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            about: Json = json.loads(_member(archive, "data", _MAX_TEXT))
            packed = _member(archive, "policy.pth", _MAX_BYTES)
        if not isinstance(about, dict) or not all(isinstance(about.get(key) or {}, dict) for key in _OBJECTS):
            raise ValueError(f"data: expected a JSON object, and objects in it as {' and '.join(_OBJECTS)}")
        _check_weights(packed)
        # tensors alone: torch refuses everything else that a pickle could hold
        stored = torch.load(io.BytesIO(packed), map_location="cpu", weights_only=True)
        if 8 * sum(tensor.numel() for tensor in stored.values()) > _MAX_BYTES:  # one stored number can fill a tensor
            raise ValueError(f"policy.pth: expected at most {_MAX_BYTES // 8} numbers; refused")
        return about, {str(name): tensor.double().numpy() for name, tensor in stored.items()}
    except Exception as error:  # what a damaged or made-up file provokes
        reason = str(error).partition("\n")[0][:200]
        raise ToolkitError(f"{path}: expected a model saved by Stable-Baselines3 ({reason})") from None


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """A file in the archive. Raises ValueError where it is too large, or packed so that its size is not to be known."""
    info = archive.getinfo(name)
    if info.file_size > most or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name}: expected at most {most} bytes, stored or deflated; refused")
    with archive.open(info) as file:
        return file.read(info.file_size)  # without its size all that is packed would be unpacked at once


def _check_weights(packed: bytes) -> None:
    """Raises ValueError where unpacking the tensors, or calling what their pickle names, would take much memory."""
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        if sum(info.file_size for info in archive.infolist()) > _MAX_BYTES:
            raise ValueError(f"policy.pth: expected at most {_MAX_BYTES} bytes unpacked; refused")
        (pickled,) = (name for name in archive.namelist() if name.lower().endswith("/data.pkl"))
        for op, named, _ in pickletools.genops(_member(archive, pickled, _MAX_TEXT)):
            if op.name == "GLOBAL" and not _PICKLED.fullmatch(str(named)):
                raise ValueError(f"policy.pth: expected tensors alone, found {named}; refused")


def _layers(weights: dict[str, Floats], prefix: str) -> set[int]:
    found = (re.fullmatch(rf"{re.escape(prefix)}\.(\d+)\.weight", name) for name in weights)
    return {int(match[1]) for match in found if match}


def _linear(weights: dict[str, Floats], name: str) -> tuple[Floats, Floats]:
    """Weights and biases of a layer; what is missing is empty, and fits nothing."""
    return weights.get(f"{name}.weight", np.zeros(0)), weights.get(f"{name}.bias", np.zeros(0))


def _check_fit(path: Path, layers: list[tuple[Floats, Floats]], control_dim: int) -> None:
    """Raises ToolkitError where a layer takes other numbers than the one before it gives, or the task the last's."""
    given = layers[0][0].shape[-1:]
    for w, b in layers:
        if w.ndim != 2 or w.shape[1:] != given or w.shape[:1] != b.shape:
            raise ToolkitError(
                f"{path}: a layer of weights {w.shape} and biases {b.shape}: expected layers that fit each other"
            )
        given = b.shape
    if given != (control_dim,):
        raise ToolkitError(f"{path}: acts with {given[0]} numbers, the task takes {control_dim}")


def _log_std(weights: dict[str, Floats], last: Floats) -> tuple[Floats, Floats] | None:
    """Weights, zero where it does not depend on the state, and biases of a layer like the last one."""
    if "actor.log_std.weight" in weights:
        return _linear(weights, "actor.log_std")
    return (np.zeros_like(last), weights["log_std"]) if "log_std" in weights else None


def _activation(path: Path, about: Json, usual: str) -> Callable[[Floats], Floats]:
    given = str((about.get("policy_kwargs") or {}).get("activation_fn", usual))
    name = given.rstrip("'>").rpartition(".")[2]  # of <class 'torch.nn.modules.activation.ReLU'>
    if name not in _ACTIVATIONS:
        raise ToolkitError(f"{path}: activation {name}: expected one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _bounds(path: Path, about: Json, control_dim: int) -> tuple[Floats, Floats]:
    """Of the action space, which is written out beside what only a pickle would restore."""
    space: Any = about.get("action_space") or {}
    try:
        low, high = (np.array(str(space.get(key, "")).strip("[]").split(), np.float64) for key in ("low", "high"))
    except ValueError:  # no numbers
        low = high = np.zeros(0)
    if not len(low) == len(high) == control_dim or not np.all((low < high) & np.isfinite(high - low)):
        raise ToolkitError(f"{path}: action_space: expected bounds of {control_dim} numbers, low below high")
    return low, high
