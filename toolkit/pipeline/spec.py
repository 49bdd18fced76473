"""What a pipeline file may say. Every field's docstring is its description in errors and in the JSON schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt

from toolkit.agents import CONFIGS
from toolkit.agents.configs.base import Hidden
from toolkit.config import Discount, Seed, Strict
from toolkit.pipeline.blocks import FixedMix, GuardRule, Mix, RelabelGoals

T = TypeVar("T")

# Settings that mean the same to every algorithm that has them.
_SHARED = frozenset({"hidden", "fourier", "lr", "polyak"})


def _different(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) < len(values):
        raise ValueError(f"expected each value once, got {list(values)}")
    return values


class Seam(Strict):
    """What of the offline stage lives on in the online one."""

    carry: Literal["auto"] | tuple[str, ...] = "auto"
    """Networks that carry over, by name; auto takes each one the two agents share in name and shape."""
    optimizer: Literal["keep", "reset"] = "keep"
    """Adam's moments of the networks carried over."""
    temperature: PositiveFloat | Literal["keep"] | None = None
    """Entropy temperature at the switch: a number, keep the offline one, or null for the online agent's own start."""
    data: Literal["keep", "drop"] = "keep"
    """Whether the data set stays in the training batches."""
    mix: Mix = FixedMix()
    """How a batch divides between the data set and the new experience."""


class CollectStage(Strict):
    """Record demonstrations with a scripted controller."""

    kind: Literal["collect"]
    recipe: str
    """Name in the catalogue, or path, of the recipe in `datasets/`."""
    episodes: PositiveInt | None = None
    """Episodes to record; null records as many as the recipe says."""
    seed: Seed = 0
    """Seed of everything drawn while recording."""
    workers: PositiveInt | Literal["auto"] = "auto"
    """Processes; the recording does not depend on it."""


class ImportStage(Strict):
    """Take a recording that is there already."""

    kind: Literal["import"]
    source: str
    """Path of a recording in any format that `toolkit data` reads, or id of a data set below `data/`; a replay buffer,
    which is a pickle, goes through `toolkit data convert --trust-pickle` first."""
    achieved: Annotated[str, Field(pattern=r"^[0-9]+:[0-9]+$")] | None = None
    """Numbers of an observation that are the achieved goal, FIRST:END, in a file without goals."""


class RecordStage(Strict):
    """Record what a trained stage does, or all that it saw while it learned."""

    kind: Literal["record"]
    of: str
    """Training stage whose policies act."""
    env_steps: PositiveInt | None = None
    """Steps of each seed, played by the finished policies with the noise of their training; null takes what an online
    stage saw while it learned."""


class WindowRule(Strict):
    """A recording that passes through memory, from columns on disk that are made of it once."""

    rows: PositiveInt
    """Rows in memory at once, a transition each; a recording with no more is held as a whole."""
    stored: Literal["float32", "float16"] = "float32"
    """What is seen and done, on disk; float16 takes half the space, and leaves three digits."""


class _Training(Strict):
    """What offline and online training have in common."""

    agent: str
    """Algorithm, as `toolkit list agents` names it."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Hyper-parameters of the algorithm; its own defaults for the rest."""
    data: str | None = None
    """Collect, import or record stage whose recording to train on; null means the only one before this stage."""
    window: WindowRule | None = None
    """For a recording larger than memory; null holds all of it."""
    batch_size: PositiveInt = 256
    """Transitions in one update of one seed."""
    gamma: Discount = 0.99
    """Discount per environment step."""
    n_step: PositiveInt = 1
    """Rewards added up before the value of the state that follows is trusted."""
    relabel: RelabelGoals | None = None
    """Goals drawn anew, on tasks that show their goal; null keeps the recorded ones."""
    lr_schedule: Literal["constant", "cosine"] = "constant"
    """Course of the learning rate over this stage."""
    log_every: PositiveInt = 500
    """Updates, in the simulator environment steps of each seed, between two lines in the metrics file."""
    eval_episodes: PositiveInt = 20
    """Episodes of each seed in an evaluation on the way."""
    final_episodes: PositiveInt = 100
    """Episodes of each seed in the evaluation at the end."""
    starts: Literal["far", "all"] = "all"
    """Where evaluations begin: far are the cells that no single recorded trajectory joins to the goal."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile; auto weighs the compilation against the planned updates."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Products of hidden layers; auto takes bf16 where the hardware has units for it. All else stays in fp32."""
    checkpoint_every_s: PositiveFloat = 20.0
    """Seconds between two checkpoints: a kill loses at most this much training, or the evaluation it breaks off."""


class OfflineStage(_Training):
    """Train on the recording alone."""

    kind: Literal["offline"]
    updates: PositiveInt
    """Gradient updates of each seed."""
    eval_every: PositiveInt | None = None
    """Updates between two evaluations; null evaluates only at the end."""


class OnlineStage(_Training):
    """Train in the simulator, from scratch or from where an offline stage ended."""

    kind: Literal["online"]
    start: str | None = None
    """Offline stage to go on from; null starts from scratch."""
    seam: Seam = Seam()
    """What carries over from `start` and `data`."""
    env_steps: PositiveInt
    """Steps of each seed in the simulator."""
    envs: PositiveInt = 1
    """Environments of each seed, stepped together."""
    utd: PositiveFloat = 1
    """Critic updates per environment step; less than 1 where `envs` times as many are a whole number."""
    rollout: PositiveInt | None = None
    """Steps of each environment between two updates of an on-policy agent; null is the task's longest episode."""
    warmup_steps: NonNegativeInt = 0
    """Environment steps at the beginning with the policy frozen and nothing trained."""
    critic_steps: NonNegativeInt = 0
    """Environment steps after the warm-up in which the policy stays frozen and only the critics learn to judge it."""
    buffer_capacity: PositiveInt | None = None
    """Transitions of new experience kept for each seed; null keeps all."""
    guard: GuardRule | None = None
    """What to do when success falls; null lets it fall, {} takes the guard's defaults."""
    eval_every: PositiveInt = 500
    """Environment steps between two evaluations at first, so that a dip at the switch cannot hide."""
    eval_dense_until: NonNegativeInt = 10_000
    """Environment steps that count as "at first"."""
    eval_every_later: PositiveInt | None = None
    """Environment steps between two evaluations after that; null is 2,000, or `eval_every` where that is more."""

    @property
    def capacity(self) -> int:
        """Transitions of new experience kept for each seed. An episode takes one more, so twice the steps hold all."""
        return self.buffer_capacity or 2 * self.env_steps


class EvaluateStage(Strict):
    """Measure finished policies, all with the same seeds; from far starts each in the cells of its own recording."""

    kind: Literal["evaluate"]
    of: tuple[str, ...] = Field(min_length=1)
    """Training stages whose policies to measure."""
    episodes: PositiveInt = 100
    """Episodes of each seed."""
    starts: Literal["far", "all"] = "all"
    """Where episodes begin: far are the cells that no single recorded trajectory joins to the goal."""
    workers: PositiveInt | Literal["auto"] = "auto"
    """Processes; the result does not depend on it."""


class StitchStage(Strict):
    """Measure finished policies against the number of trajectories that had to be joined."""

    kind: Literal["stitch"]
    of: tuple[str, ...] = Field(min_length=1)
    """Training stages whose policies to measure; all of them learned from the same recording."""
    episodes: PositiveInt = 50
    """Episodes of each seed for each number of stitches."""
    workers: PositiveInt | Literal["auto"] = "auto"
    """Processes; the result does not depend on it."""


TrainingStage = OfflineStage | OnlineStage
RecordingStage = CollectStage | ImportStage | RecordStage
Stage = Annotated[RecordingStage | TrainingStage | EvaluateStage | StitchStage, Field(discriminator="kind")]


class PipelineSpec(Strict):
    """One pipeline: a task, seeds trained together, and stages carried out in the order they stand."""

    shortcut, decisive = "stages", "agent"

    name: str = Field(pattern=r"^[a-z0-9]+([-_][a-z0-9]+)*$")
    """Lower-case words joined by - or _; names the run folder."""
    description: str = ""
    """What it shows; `toolkit list` prints the first line."""
    task: str
    """Name in the catalogue, or path, of the task card in `envs/`."""
    seeds: Annotated[tuple[Seed, ...], AfterValidator(_different)] = Field((0, 1, 2), min_length=1)
    """Seeds trained at once; results come with an interval over them."""
    hidden: Hidden | None = None
    """Widths of the hidden layers in every stage whose `config` says nothing else, so that networks fit each other at
    the seam; null leaves them to the algorithms."""
    fourier: tuple[PositiveFloat, ...] | None = None
    """Frequencies of the Fourier features of places in a maze, in every stage; as with `hidden`."""
    stages: dict[str, Stage] = Field(min_length=1)
    """Name of each stage and what it does."""

    @classmethod
    def overridden(cls, block: dict[str, Any], value: Any, given: Callable[..., bool]) -> None:
        """With another algorithm only those settings stay that mean the same to it."""
        if isinstance(config := block.get("config"), dict):
            shared = _SHARED & CONFIGS[value].model_fields.keys() if isinstance(value, str) and value in CONFIGS else ()
            block["config"] = {key: config[key] for key in config if key in shared or given("config", key)}

    def data_of(self, name: str) -> str | None:
        """The stage whose recording a training stage learns from, None where there is none."""
        return data_of(name, self.stages)

    def inputs(self, name: str) -> tuple[str, ...]:
        """The stages that a stage goes on from."""
        match self.stages[name]:
            case CollectStage() | ImportStage():
                return ()
            case RecordStage(of=source):
                return (source,)
            case EvaluateStage(of=of):
                return of
            case StitchStage(of=of):
                return (*of, *filter(None, [self.data_of(of[0])]))
            case stage:
                start = stage.start if isinstance(stage, OnlineStage) else None
                return tuple(source for source in (start, self.data_of(name)) if source)


def data_of(name: str, stages: Mapping[str, Any]) -> str | None:
    """Written, else inherited from the stage gone on from, else the only recording before this stage."""
    stage = stages[name]
    if stage.data is not None:
        return str(stage.data)
    if isinstance(stage, OnlineStage) and isinstance(stages.get(stage.start or ""), OfflineStage):
        return data_of(str(stage.start), stages)
    recordings = recordings_before(name, stages)
    return recordings[0] if len(recordings) == 1 else None


def recordings_before(name: str, stages: Mapping[str, Any]) -> list[str]:
    """Stages that leave a recording and come before a stage."""
    return [other for other in before(name, stages) if isinstance(stages[other], RecordingStage)]


def before(name: str, stages: Mapping[str, Any]) -> list[str]:
    """Stages that come before a stage."""
    names = list(stages)
    return names[: names.index(name)]
