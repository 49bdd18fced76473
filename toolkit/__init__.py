"""From scripted demonstrations to a fine-tuned, evaluated robot policy, in one YAML file.

The public names load what they need when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.agents import AGENTS
    from toolkit.assess import evaluate_run
    from toolkit.data.minari import read_minari as load_dataset
    from toolkit.pipeline.runner import run_pipeline
    from toolkit.policy import load_policy
    from toolkit.tasks import load_card, make_env

__version__ = "0.1.0"
__all__ = ["AGENTS", "evaluate_run", "load_card", "load_dataset", "load_policy", "make_env", "run_pipeline"]

_HOME = {
    "AGENTS": "toolkit.agents:AGENTS",
    "evaluate_run": "toolkit.assess:evaluate_run",
    "load_card": "toolkit.tasks:load_card",
    "load_dataset": "toolkit.data.minari:read_minari",
    "load_policy": "toolkit.policy:load_policy",
    "make_env": "toolkit.tasks:make_env",
    "run_pipeline": "toolkit.pipeline.runner:run_pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'toolkit' has no attribute {name!r}")
    module, attribute = _HOME[name].split(":")
    value = globals()[name] = getattr(import_module(module), attribute)
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
