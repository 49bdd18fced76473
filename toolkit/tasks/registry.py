"""Gymnasium's registry with gymnasium-robotics, OGBench's mazes and yours in it: all environments a card can name."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import gymnasium

from toolkit.config import nearest
from toolkit.files import source_file
from toolkit.types import ToolkitError

_GROUP = "toolkit.envs"
_LIBRARIES = {"gymnasium", "gymnasium_robotics", "ogbench", "toolkit"}
_OF_OGBENCH = re.compile(r"(visual-)?(pointmaze|antmaze|humanoidmaze|antsoccer)-")
_OGBENCH = re.compile(r"(pointmaze|antmaze)-(medium|large|giant)-v0")


def registry_spec(env_id: str) -> gymnasium.envs.registration.EnvSpec:
    """The registered specification of `env_id`.

    An installed package brings environments by an entry point of `toolkit.envs`: a module that registers them. Raises
    ToolkitError for an unknown one, or where OGBench is missing.
    """
    if _OF_OGBENCH.match(env_id):
        _register_ogbench(env_id)
    with contextlib.redirect_stderr(io.StringIO()):  # the import prints a notice about unrelated environments
        import gymnasium_robotics
    gymnasium.register_envs(gymnasium_robotics)
    failed = "" if env_id in gymnasium.registry else _register_installed(env_id)  # which takes milliseconds
    if env_id not in gymnasium.registry:
        family = re.split(r"[_-]", env_id)[0]
        alike = sorted(name for name in gymnasium.registry if re.split(r"[_-]", name)[0] == family)
        known = f"; known of its kind: {', '.join(alike)}" if alike else nearest(env_id, gymnasium.registry)
        raise ToolkitError(
            f"env_id {env_id!r} is registered neither by gymnasium, nor by gymnasium-robotics, nor by an entry point "
            f"of {_GROUP}{known}{failed}"
        )
    spec = gymnasium.spec(env_id)
    if callable(spec.entry_point):
        raise ToolkitError(
            f"env_id {env_id!r} is registered with a class; expected entry_point as text, 'module:Class', by which a "
            "recording can name it"
        )
    return spec


def make(env_id: str, arguments: Mapping[str, Any], limit: int | None = None) -> Any:
    """A registered environment, with a time limit of `limit` steps (its own with None, none with -1).

    Raises ToolkitError for an unknown one, and for arguments that it does not take.
    """
    registry_spec(env_id)
    try:
        return gymnasium.make(env_id, limit, disable_env_checker=True, **arguments)
    except Exception as error:  # of whatever kind, it is not this package's
        raise ToolkitError(
            f"{env_id} cannot be made with {dict(arguments) or 'no arguments'}: {type(error).__name__}: {error}"
        ) from error


def source_of(env_id: str) -> Path | None:
    """The file of an environment's class, where neither a library nor this package brings it."""
    module = str(registry_spec(env_id).entry_point).partition(":")[0]
    return None if module.split(".")[0] in _LIBRARIES else source_file(module)


def _register_installed(env_id: str) -> str:
    """Import what installed packages bring until one has registered `env_id`; what failed, in words."""
    failed = ""
    for point in entry_points(group=_GROUP):
        if env_id in gymnasium.registry:
            break
        try:
            point.load()
        except Exception as error:
            failed += f"; {point.name} = {point.value} cannot be imported ({type(error).__name__}: {error})"
    return failed


def _register_ogbench(env_id: str) -> None:
    """Its environments come with its import. Raises ToolkitError for those that are no plain maze."""
    if not _OGBENCH.fullmatch(env_id):
        raise ToolkitError(
            f"env_id {env_id!r}: of OGBench's, expected pointmaze or antmaze, then medium, large or giant, "
            "such as antmaze-medium-v0"
        )
    try:
        import ogbench  # noqa: F401
    except ImportError as error:
        raise ToolkitError(f"env_id {env_id!r} is OGBench's: pip install ogbench ({error})") from error
