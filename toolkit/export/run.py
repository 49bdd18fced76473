"""Write a run's policy in another program's format, read it again, and believe it only if both act alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolkit.export import formats
from toolkit.export.card import model_card
from toolkit.export.sb3 import read_sb3, write_sb3
from toolkit.files import write_text
from toolkit.policy import Policy, find_checkpoint, load_policy
from toolkit.tasks import TaskCard
from toolkit.types import FloatArray, Json, ToolkitError

OBSERVATIONS = 1000
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Format:
    """How a format is written and read."""

    file: str
    write: Callable[[Policy, Path], None]
    read: Callable[[Path, FloatArray, TaskCard], formats.Actions]


FORMATS = {
    "torchscript": Format("policy.pt", formats.write_torchscript, formats.read_torchscript),
    "onnx": Format("policy.onnx", formats.write_onnx, formats.read_onnx),
    "safetensors": Format("policy.safetensors", formats.write_safetensors, formats.read_safetensors),
    "sb3": Format("policy.zip", write_sb3, read_sb3),
}


def export_run(run: Path, to: str, out: Path | None = None, seed: int = 0) -> Json:
    """Write the policy at position `seed` of a run, a stage or a checkpoint, with a model card (.md) beside it.

    `out` is a folder, by default `export/FORMAT` in the one given. The file is read again and has to act as the policy
    does on 1,000 observations, to 1e-5, before it gets its name. Raises ToolkitError where the agent cannot be written
    so, a package is missing, or the two differ.
    """
    if to not in FORMATS:
        raise ToolkitError(f"--to {to}: expected one of {', '.join(FORMATS)}")
    policy, form = load_policy(run, seed), FORMATS[to]
    folder = out or Path(run) / "export" / to
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / form.file
    unfinished = path.with_name(f".{path.stem}.tmp{path.suffix}")
    try:
        form.write(policy, unfinished)
        observations = draw(policy)
        difference = differs(form.read(unfinished, observations, policy.card), policy.decide(observations))
        if not difference <= TOLERANCE:
            raise ToolkitError(
                f"{to}: the file was written, and read again its actions differ by {difference:.2g}; expected at most "
                f"{TOLERANCE:g}. Nothing was kept; another format may do"
            )
        about = model_card(policy, find_checkpoint(run), to, form.file, difference)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()
    card = path.with_name(f"{form.file}.md")
    write_text(card, about)
    return {
        "file": str(path),
        "card": str(card),
        "format": to,
        "bytes": path.stat().st_size,
        "agent": policy.agent_name,
        "task": policy.card.name,
        "seed": policy.seeds[seed],
        "observations": OBSERVATIONS,
        "largest_difference": difference,
    }


def draw(policy: Policy) -> FloatArray:
    """Observations spread as those the policy was trained on, and twice as far, (1000, O)."""
    random = np.random.Generator(np.random.Philox(key=0))
    z = random.standard_normal((OBSERVATIONS, policy.agent.spec.obs_dim))
    z[OBSERVATIONS // 2 :] *= 2
    return np.asarray(policy.mean.numpy() + policy.std.numpy() * z, np.float32)


def differs(theirs: formats.Actions, ours: formats.Actions) -> float:
    """The largest difference between two lists of actions; infinite where they are of other shapes."""
    if theirs.shape != ours.shape:
        return float("inf")
    return float(np.abs(theirs.astype(np.float64) - ours.astype(np.float64)).max())
