"""Gymnasium's registry with gymnasium-robotics and OGBench's mazes in it: the only environments a card can name."""

from __future__ import annotations

import contextlib
import io
import re

import gymnasium

from toolkit.config import nearest
from toolkit.types import ToolkitError

_OF_OGBENCH = re.compile(r"(visual-)?(pointmaze|antmaze|humanoidmaze|antsoccer)-")
_OGBENCH = re.compile(r"(pointmaze|antmaze)-(medium|large|giant)-v0")


def registry_spec(env_id: str) -> gymnasium.envs.registration.EnvSpec:
    """The registered specification of `env_id`. Raises ToolkitError for an unknown one, or where OGBench is missing."""
    if _OF_OGBENCH.match(env_id):
        _register_ogbench(env_id)
    with contextlib.redirect_stderr(io.StringIO()):  # the import prints a notice about unrelated environments
        import gymnasium_robotics
    gymnasium.register_envs(gymnasium_robotics)
    if env_id not in gymnasium.registry:
        family = re.split(r"[_-]", env_id)[0]
        alike = sorted(name for name in gymnasium.registry if re.split(r"[_-]", name)[0] == family)
        known = f"; known of its kind: {', '.join(alike)}" if alike else nearest(env_id, gymnasium.registry)
        raise ToolkitError(f"env_id {env_id!r} is registered neither by gymnasium nor by gymnasium-robotics{known}")
    return gymnasium.spec(env_id)


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
