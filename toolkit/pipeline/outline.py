"""A pipeline in words: what each stage will do, and which stages it goes on from."""

from __future__ import annotations

from typing import NamedTuple

from toolkit.agents import CONFIGS
from toolkit.pipeline.spec import (
    CollectStage,
    EvaluateStage,
    ImportStage,
    OfflineStage,
    OnlineStage,
    PipelineSpec,
    RecordStage,
    Stage,
    StitchStage,
)


class Row(NamedTuple):
    """One stage in words."""

    stage: str
    kind: str
    what: str
    inputs: tuple[str, ...]


def outline(spec: PipelineSpec) -> list[Row]:
    """What the pipeline will do, stage by stage."""
    return [
        Row(name, stage.kind, _what(stage, len(spec.seeds)), spec.inputs(name)) for name, stage in spec.stages.items()
    ]


def _what(stage: Stage, seeds: int) -> str:
    match stage:
        case CollectStage():
            return f"record {stage.episodes or 'all'} episodes of {stage.recipe}"
        case ImportStage():
            return f"take the recording {stage.source}"
        case RecordStage(env_steps=None):
            return f"record what {stage.of} saw"
        case RecordStage():
            return f"record {stage.env_steps:,} env steps of {stage.of} for {seeds} seeds"
        case OfflineStage():
            return f"{stage.agent}: {stage.updates:,} updates of {stage.batch_size} for {seeds} seeds"
        case OnlineStage():
            if CONFIGS[stage.agent].on_policy:
                length = f"{stage.rollout:,} steps" if stage.rollout else "the longest episode"
                return f"{stage.agent}: {stage.env_steps:,} env steps for {seeds} seeds, rollouts of {length}"
            warm = f", the first {stage.warmup_steps:,} frozen" if stage.warmup_steps else ""
            return f"{stage.agent}: {stage.env_steps:,} env steps for {seeds} seeds, {stage.utd:g} updates a step{warm}"
        case EvaluateStage():
            return f"{stage.episodes} episodes a seed from {stage.starts} starts"
        case StitchStage():
            return f"{stage.episodes} episodes a seed for each number of stitches"
