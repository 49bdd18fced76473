"""A pipeline file to a specification that is right in itself and in what it names."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from toolkit import catalog
from toolkit.agents import CONFIGS
from toolkit.agents.configs import AgentConfig, DiscreteCQLConfig, PolicyGradientConfig
from toolkit.config import Problem, Strict, load_model, nearest, one_of, validate
from toolkit.pipeline.spec import (
    CollectStage,
    EvaluateStage,
    ImportStage,
    OfflineStage,
    OnlineStage,
    PipelineSpec,
    RecordingStage,
    RecordStage,
    Seam,
    Stage,
    StitchStage,
    TrainingStage,
    before,
    data_of,
    recordings_before,
)
from toolkit.strict_yaml import Keys
from toolkit.types import Json, ToolkitError

# Of an online stage, what only agents with a buffer use.
_NOT_ON_POLICY = ("batch_size", "n_step", "relabel", "utd", "warmup_steps", "buffer_capacity", "guard")


class _One(Strict):
    """A stage by itself."""

    stage: Stage


def load_spec(file: str | Path, overrides: Sequence[str] = ()) -> PipelineSpec:
    """Read a pipeline by name or path and check all that its file, the catalogue and the agents can tell.

    Loads no torch, so that a mistake is refused at once. Raises ConfigError.
    """
    path = catalog.find("pipelines", file)
    spec = load_model(path, PipelineSpec, overrides, lambda raw: list(_problems(raw)))
    return spec.model_copy(update={"stages": {name: _networks(stage, spec) for name, stage in spec.stages.items()}})


def _networks(stage: Stage, spec: PipelineSpec) -> Stage:
    """The stage with what the pipeline says of all networks, where its own `config` says nothing."""
    if not isinstance(stage, OfflineStage | OnlineStage):
        return stage
    shared = {name: list(value) for name in ("hidden", "fourier") if (value := getattr(spec, name)) is not None}
    return stage.model_copy(update={"config": {**shared, **stage.config}})


def _problems(raw: Json) -> Iterator[Problem]:
    yield from _catalogue("envs", ("task",), raw.get("task"))
    blocks = raw.get("stages")
    if not isinstance(blocks, dict):
        return
    for name in blocks:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) or name in PipelineSpec.model_fields:
            taken = ", ".join(PipelineSpec.model_fields)
            yield Problem(("stages", name), f"expected letters, digits, - and _ and none of {taken}; got {name!r}")
    # a stage that is wrong in itself is reported by its model, and here only its name counts
    stages = {name: validate(_One, {"stage": block})[0] for name, block in blocks.items()}
    known = {name: one.stage if one else None for name, one in stages.items()}
    for name, stage in known.items():
        keys: Keys = ("stages", name)
        match stage:
            case CollectStage():
                yield from _catalogue("datasets", (*keys, "recipe"), stage.recipe)
            case ImportStage():
                yield from _source((*keys, "source"), stage.source)
            case RecordStage():
                yield from _reference((*keys, "of"), stage.of, name, known, (OfflineStage, OnlineStage))
                yield from _experience(keys, stage, known.get(stage.of))
            case EvaluateStage() | StitchStage():
                for index, source in enumerate(stage.of):
                    yield from _reference((*keys, "of", index), source, name, known, (OfflineStage, OnlineStage))
                if isinstance(stage, StitchStage):
                    yield from _one_recording((*keys, "of"), stage, known)
            case None:
                block = blocks[name] if isinstance(blocks[name], dict) else {}
                if isinstance(agent := block.get("agent"), str):
                    yield from _settings(keys, agent, block.get("config", {}))[1]
            case OfflineStage() | OnlineStage():
                yield from _training(keys, name, stage, known)
                yield from _agent(keys, stage, bool(recordings_before(name, known)))


def _training(keys: Keys, name: str, stage: TrainingStage, known: Mapping[str, Any]) -> Iterator[Problem]:
    if stage.data is not None:
        yield from _reference((*keys, "data"), stage.data, name, known, get_args(RecordingStage))
    if isinstance(stage, OnlineStage):
        if stage.start is not None:
            yield from _reference((*keys, "start"), stage.start, name, known, (OfflineStage,))
        else:
            for setting in ("carry", "optimizer", "temperature"):
                if getattr(stage.seam, setting) != (usual := getattr(Seam(), setting)):
                    text = f"nothing carries over without a start; expected {usual or 'null'}"
                    yield Problem((*keys, "seam", setting), text)
        if (frozen := stage.warmup_steps + stage.critic_steps) >= stage.env_steps:
            longer = "critic_steps" if stage.critic_steps > stage.warmup_steps else "warmup_steps"
            text = f"expected less than env_steps ({stage.env_steps}), warmup_steps and critic_steps together"
            yield Problem((*keys, longer), f"{text}; got {frozen}")
        if not math.isclose(stage.envs * stage.utd, round(stage.envs * stage.utd)):
            text = f"expected a whole number of updates for a step of all {stage.envs} envs, got {stage.utd:g} a step"
            yield Problem((*keys, "utd"), text)
    recordings = recordings_before(name, known)
    needed = isinstance(stage, OfflineStage) or (stage.seam.data == "keep" and len(recordings) > 1)
    if needed and data_of(name, known) is None and None not in known.values():
        names = ", ".join(recordings) or "there is none"
        text = f"expected the name of a stage of kind collect, import or record before this one ({names}), got nothing"
        yield Problem((*keys, "data"), text)


def _experience(keys: Keys, stage: RecordStage, source: Stage | None) -> Iterator[Problem]:
    """Only online training with a buffer leaves something to take."""
    if stage.env_steps is None and isinstance(source, OfflineStage | OnlineStage):
        kept = isinstance(source, OnlineStage) and source.agent in CONFIGS and not CONFIGS[source.agent].on_policy
        if not kept:
            why = f"{stage.of} keeps nothing of what it saw; expected a number of steps for its policies to play"
            yield Problem((*keys, "env_steps"), f"{why}, got null")


def _agent(keys: Keys, stage: TrainingStage, recorded: bool) -> Iterator[Problem]:
    config, problems = _settings(keys, stage.agent, stage.config)
    yield from problems
    if stage.agent in CONFIGS:
        yield from _chunks(keys, stage, getattr(config, "chunk", 1))
        yield from _rollouts(keys, stage, config, recorded)
        if isinstance(stage, OnlineStage) and stage.critic_steps:
            yield from _critics_first(keys, stage.agent, config)


def _settings(keys: Keys, agent: str, config: Any) -> tuple[AgentConfig | None, list[Problem]]:
    """The algorithm's settings, or None, and what is wrong with its name or with them."""
    if agent not in CONFIGS:
        return None, [Problem((*keys, "agent"), one_of(CONFIGS, agent))]
    model, problems = validate(CONFIGS[agent], config)
    return model, [Problem((*keys, "config", *inner), text) for inner, text in problems]


def _chunks(keys: Keys, stage: TrainingStage, chunk: int) -> Iterator[Problem]:
    """Rewards are added up over the chunk, no more and no less, and the buffer holds whole ones."""
    if chunk == 1:
        return
    if stage.n_step != 1:
        text = f"{stage.agent} adds up as many rewards as its config.chunk has actions ({chunk}); remove"
        yield Problem((*keys, "n_step"), text)
    if isinstance(stage, OnlineStage) and stage.buffer_capacity and stage.buffer_capacity < chunk * stage.envs:
        text = f"expected room for a config.chunk of {chunk} in each of {stage.envs} environments; "
        yield Problem((*keys, "buffer_capacity"), f"{text}got {stage.buffer_capacity}")


def _rollouts(keys: Keys, stage: TrainingStage, config: AgentConfig | None, recorded: bool) -> Iterator[Problem]:
    """On-policy agents learn from their newest rollout alone: what shapes other batches has no meaning for them."""
    agent = stage.agent
    if not CONFIGS[agent].on_policy:
        if isinstance(stage, OnlineStage) and stage.rollout is not None:
            names = ", ".join(name for name, kind in CONFIGS.items() if kind.on_policy)
            yield Problem((*keys, "rollout"), f"{agent} learns from all it has done; only {names} have rollouts")
        return
    if isinstance(stage, OfflineStage):
        text = f"{agent} learns from what it has just done itself, not from recordings; make the stage of kind online"
        yield Problem((*keys, "agent"), text)
        return
    default = OnlineStage(kind="online", agent=agent, env_steps=1)
    found: list[Keys] = [(field,) for field in _NOT_ON_POLICY if getattr(stage, field) != getattr(default, field)]
    found += [("seam", "mix")] if stage.seam.mix != default.seam.mix else []
    for inner in found:
        yield Problem((*keys, *inner), f"{agent} learns from its newest rollout alone and makes nothing of it; remove")
    if recorded and stage.seam.data == "keep":
        yield Problem((*keys, "seam", "data"), f"{agent} learns from its newest rollout alone; expected drop")


def _critics_first(keys: Keys, agent: str, config: AgentConfig | None) -> Iterator[Problem]:
    """Critics can learn while the policy stays as it is where there are both."""
    if isinstance(config, PolicyGradientConfig) and config.whole_episodes:
        yield Problem((*keys, "critic_steps"), f"{agent} with advantage {config.advantage} has no critic; remove")
    if isinstance(config, DiscreteCQLConfig):
        yield Problem((*keys, "critic_steps"), f"{agent} acts by its critics and has no other policy; remove")


def _one_recording(keys: Keys, stage: StitchStage, known: Mapping[str, Any]) -> Iterator[Problem]:
    """Stitches are counted on one recording."""
    if all(isinstance(known.get(source), OfflineStage | OnlineStage) for source in stage.of):
        sources = {data_of(source, known) for source in stage.of}
        if len(sources) > 1 or None in sources:
            names = ", ".join(sorted(source or "none" for source in sources))
            yield Problem(keys, f"expected stages that learn from one and the same recording, got {names}")


def _reference(
    keys: Keys, target: str, name: str, known: Mapping[str, Any], kinds: tuple[type[Strict], ...]
) -> Iterator[Problem]:
    """A stage named in another must come before it and be of the right kind; None in `known` may be of any kind."""
    fits = [other for other in before(name, known) if known[other] is None or isinstance(known[other], kinds)]
    if target not in fits:
        words = " or ".join(kind.__name__.removesuffix("Stage").lower() for kind in kinds)
        names = f" ({', '.join(fits)})" if fits else ", of which there is none"
        yield Problem(
            keys, f"expected a stage of kind {words} before this one{names}; got {target!r}{nearest(target, fits)}"
        )


def _source(keys: Keys, source: str) -> Iterator[Problem]:
    if not Path(source).exists() and not (catalog.DATA / source).is_dir():
        yield Problem(keys, f"expected a file, or the id of a data set below {catalog.DATA}/; found no {source}")


def _catalogue(kind: catalog.Kind, keys: Keys, name: Any) -> Iterator[Problem]:
    if isinstance(name, str):
        try:
            catalog.find(kind, name)
        except ToolkitError as error:
            yield Problem(keys, str(error))
