"""Gymnasium's registry with gymnasium-robotics in it: the only environments a card can name."""

from __future__ import annotations

import contextlib
import io
import re

import gymnasium

from toolkit.config import nearest
from toolkit.types import ToolkitError


def registry_spec(env_id: str) -> gymnasium.envs.registration.EnvSpec:
    """The registered specification of `env_id`. Raises ToolkitError for an unknown one."""
    with contextlib.redirect_stderr(io.StringIO()):  # the import prints a notice about unrelated environments
        import gymnasium_robotics
    gymnasium.register_envs(gymnasium_robotics)
    if env_id not in gymnasium.registry:
        family = re.split(r"[_-]", env_id)[0]
        alike = sorted(name for name in gymnasium.registry if re.split(r"[_-]", name)[0] == family)
        known = f"; known of its kind: {', '.join(alike)}" if alike else nearest(env_id, gymnasium.registry)
        raise ToolkitError(f"env_id {env_id!r} is registered neither by gymnasium nor by gymnasium-robotics{known}")
    return gymnasium.spec(env_id)
