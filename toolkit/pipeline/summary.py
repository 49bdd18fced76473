"""What a run came to, from the manifests of its stages."""

from __future__ import annotations

import platform
import resource
import sys
from importlib.metadata import PackageNotFoundError, version

import toolkit
from toolkit.pipeline.context import Plan
from toolkit.pipeline.spec import OfflineStage, OnlineStage
from toolkit.types import Json

PACKAGES = (
    "torch", "numpy", "numba", "mujoco", "gymnasium", "gymnasium-robotics", "ogbench", "minari", "stable-baselines3",
)  # fmt: skip


def summarise_run(plan: Plan, manifests: dict[str, Json], wall_s: float) -> Json:
    """The content of `summary.json`."""
    spec = plan.spec
    stages = {name: _entry(manifest) for name, manifest in manifests.items()}
    switches = [entry["switch"] for entry in stages.values() if entry.get("switch")]
    return {
        "name": spec.name,
        "description": spec.description,
        "task": plan.card.name,
        "seeds": list(spec.seeds),
        "stages": stages,
        "baselines": _baselines(plan, stages),
        "switch": switches[-1] if switches else {},
        "return_range": _return_range(plan),
        "wall_s": round(wall_s, 3),
        "peak_rss_mb": round(max([peak_rss_mb(), *(entry["peak_rss_mb"] for entry in manifests.values())]), 1),
        "versions": versions(),
    }


def _entry(manifest: Json) -> Json:
    config = manifest["config"]
    about = {key: config[key] for key in ("agent", "start") if config.get(key)}
    return {"kind": manifest["kind"], **about, "wall_s": manifest["wall_s"], **manifest["result"]}


def _return_range(plan: Plan) -> list[float] | None:
    """Lowest and highest discounted return that the card's rewards allow: a Q outside of it is an error.

    None where the simulator pays.
    """
    stages = plan.spec.stages.values()
    gamma = max((stage.gamma for stage in stages if isinstance(stage, OfflineStage | OnlineStage)), default=0.0)
    found = plan.card.return_range(gamma)
    return list(found) if found else None


def _baselines(plan: Plan, stages: dict[str, Json]) -> Json:
    """Offline stages beside the one that goes on online; none where nothing goes on.

    Each is called by its agent, or by its own name where the agent alone could mean another stage too.
    """
    spec = plan.spec.stages
    starts = {stage.start for stage in spec.values() if isinstance(stage, OnlineStage) and stage.start}
    offline = {name: stage.agent for name, stage in spec.items() if isinstance(stage, OfflineStage)}
    called = [*offline.values(), *(name for name in offline if name != offline[name])]
    found: Json = {}
    for name, agent in offline.items():
        if starts and name not in starts and stages.get(name, {}).get("return"):
            label = agent if called.count(agent) == 1 else name
            found[label] = {"stage": name, **{key: stages[name][key] for key in ("success", "return", "path_ratio")}}
    return found


def peak_rss_mb() -> float:
    """Most memory this process has held, and the largest of its children beside it, in MiB: an upper bound."""
    unit = 1024 if sys.platform == "linux" else 1024 * 1024
    return sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / unit


def versions() -> Json:
    """Of this package, Python and what the numbers depend on."""
    found = {"toolkit": toolkit.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
