"""The model card beside an exported policy: what it is, what it can do, how to use it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from toolkit import checkpoint
from toolkit.console import number
from toolkit.files import read_json
from toolkit.pipeline.folder import MANIFEST
from toolkit.pipeline.summary import versions
from toolkit.policy import Policy
from toolkit.strict_yaml import render
from toolkit.tasks import make_env
from toolkit.tasks.actions import Scaled
from toolkit.types import Json

LOADING = {
    "torchscript": """\
import torch

policy = torch.jit.load("{file}")
action = policy(torch.zeros(1, {inputs}))  # raw observations, one a row
""",
    "onnx": """\
import numpy as np
import onnxruntime

policy = onnxruntime.InferenceSession("{file}")
action = policy.run(None, {{"observation": np.zeros((1, {inputs}), np.float32)}})[0]
""",
    "safetensors": """\
import numpy as np
from toolkit.export.formats import load_safetensors

policy = load_safetensors("{file}")
action, _ = policy.predict(np.zeros((1, {inputs}), np.float32))
""",
    "sb3": """\
import toolkit
from stable_baselines3 import SAC

policy, env = SAC.load("{file}"), toolkit.make_env(toolkit.load_card("{task}"))
action, _ = policy.predict(env.reset(seed=0)[0], deterministic=True)
""",
}
REMARKS = {
    "safetensors": "The weights by name; `w0`, `b0` are the first layer, for inputs less `normalizer/mean` over "
    "`normalizer/std`. The header's `policy` says, as JSON, what they belong to.",
    "sb3": "A SAC for the task's Dict observations. Its greedy action is the policy's; its noise is constant, the mean "
    "of the policy's own. `SAC.load` runs code from the file: open only what you trust.",
}


def model_card(policy: Policy, source: Path, to: str, file: str, difference: float) -> str:
    """Markdown about a policy from the checkpoint folder `source`, exported as `file`."""
    _, meta = checkpoint.load(source)
    code = LOADING[to].format(file=file, inputs=policy.agent.spec.obs_dim, task=policy.card.name)
    manifest = read_json(source.parent / MANIFEST) or {}
    parts = [
        f"# {policy.agent_name} on {policy.card.name}",
        _line(policy.card.description),
        "## Numbers\n\n" + "\n".join(_numbers(policy, meta.get("result") or manifest.get("result") or {})),
        "## Data\n\n" + "\n".join(_data(source.parent, manifest)),
        "## Input and output\n\n" + "\n".join(_shapes(policy)),
        f"## Use\n\n```python\n{code}```",
    ]
    if to in REMARKS:
        parts.append(REMARKS[to])
    parts.append(
        f"Read again, the file acted as the policy did on 1,000 observations; largest difference {difference:.1e}."
    )
    parts.append(f"## Settings\n\nAgent:\n\n```yaml\n{render(policy.agent.cfg.model_dump(mode='json'))}```")
    if manifest.get("config"):
        parts.append(f"Stage {manifest.get('stage')}:\n\n```yaml\n{render(manifest['config'])}```")
    found = manifest.get("versions") or versions()
    parts.append("## Versions\n\n" + ", ".join(f"{name} {version}" for name, version in found.items()))
    return "\n\n".join(part for part in parts if part) + "\n"


def _numbers(policy: Policy, result: Json) -> Iterator[str]:
    """Results of the run's seeds, and of the one that was exported."""
    seeds, place = policy.seeds, policy.seed
    yield f"Seed {seeds[place]} of {', '.join(map(str, seeds))}; intervals are at 95 % over the seeds of the run."
    rows = [(name, result[name]) for name in ("success", "return") if isinstance(result.get(name), dict)]
    if not rows:
        yield "Not measured."
        return
    yield "\n| | middle of the seeds | interval | this seed |\n|---|---|---|---|"
    for name, found in rows:
        middle, low, high, own = (number(x) for x in (found["iqm"], *found["ci95"], found["per_seed"][place]))
        yield f"| {name} | {middle} | {low} to {high} | {own} |"
    if episodes := (result.get("success") or {}).get("episodes"):
        yield f"\n{episodes} episodes a seed."


def _data(stage: Path, manifest: Json) -> Iterator[str]:
    """Recordings that the stage, or one it went on from, learned from; not what lies behind a recorded policy."""
    waiting, known, found = list(manifest.get("inputs") or []), set(), False
    while waiting:
        name = waiting.pop(0)
        source = read_json(stage.parent / name / MANIFEST) or {}
        if name in known:
            continue
        known.add(name)
        result, config = source.get("result") or {}, source.get("config") or {}
        if "dataset" not in result:
            waiting += source.get("inputs") or []
            continue
        found = True
        origin = config.get("recipe") or config.get("source") or f"stage {config.get('of')}"
        yield (
            f"- {_line(origin)}: {result.get('episodes'):,} episodes, "
            f"{result.get('transitions'):,} transitions (`{result['dataset']}`)"
        )
    if not found:
        yield "Not known from this checkpoint."


def _shapes(policy: Policy) -> Iterator[str]:
    """What goes in and what comes out, in the simulator's terms."""
    spec, env = policy.agent.spec, make_env(policy.card)
    goal = f", the last {spec.goal_dim} of them the goal" if spec.goal_dim else ""
    yield f"- In: {spec.obs_dim} numbers as `{policy.card.env_id}` gives them{goal}; the normaliser is inside."
    if isinstance(env.actions, Scaled):
        low, high = env.actions.bounds
        yield f"- Out: {spec.action_dim} numbers in [-1, 1], which stand for {low} to {high} in the simulator."
        if (chunk := policy.agent.chunk) > 1:
            yield f"- These are {chunk} actions of {env.actions.dim} numbers, to be played one after the other."
    else:
        yield f"- Out: the number of one of {spec.action_dim} choices."
    env.close()


def _line(text: object) -> str:
    """On one line, and without what Markdown would take for HTML."""
    return " ".join(str(text or "").split()).replace("<", "&lt;")
