"""Pipeline files: defaults, references between stages, catalogue names, agents' settings, the plan in words."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from toolkit import catalog
from toolkit.agents import CONFIGS, AgentConfig
from toolkit.config import ConfigError, dump, validate
from toolkit.pipeline.blocks import FixedMix
from toolkit.pipeline.load import load_spec
from toolkit.pipeline.outline import outline
from toolkit.pipeline.spec import OfflineStage, OnlineStage, PipelineSpec
from toolkit.pipeline.stages import _refuse_far
from toolkit.types import ToolkitError

HEAD = "name: demo\ntask: pointmaze-medium\nstages:\n"
GOOD = """\
  demos: {kind: collect, recipe: stitch}
  pretrain: {kind: offline, agent: iql, updates: 1e3, config: {expectile: 0.9}}
  finetune: {kind: online, agent: sac, start: pretrain, env_steps: 10_000, warmup_steps: 500}
  check: {kind: evaluate, of: [pretrain, finetune]}
"""


def load(tmp_path: Path, stages: str, overrides: list[str] | None = None) -> PipelineSpec:
    (tmp_path / "p.yaml").write_text(HEAD + stages)
    return load_spec(tmp_path / "p.yaml", overrides or [])


def test_a_good_pipeline(tmp_path: Path) -> None:
    spec = load(tmp_path, GOOD, ["finetune.utd=4", "seeds=[5]"])
    finetune = spec.stages["finetune"]
    assert isinstance(finetune, OnlineStage)
    assert (finetune.utd, finetune.eval_every, finetune.eval_dense_until, spec.seeds) == (4, 500, 10_000, (5,))
    assert finetune.seam.mix == FixedMix(offline=0.5)
    assert (spec.data_of("pretrain"), spec.data_of("finetune")) == ("demos", "demos")
    assert [row.inputs for row in outline(spec)] == [(), ("demos",), ("pretrain", "demos"), ("pretrain", "finetune")]
    assert validate(PipelineSpec, dump(spec)) == (spec, [])


def test_widths_stand_in_every_stage_that_says_nothing_else(tmp_path: Path) -> None:
    stages = GOOD.replace("expectile: 0.9", "hidden: [8]")
    spec = load(tmp_path, stages, ["hidden=[64, 32]"])
    assert spec.stages["pretrain"].config == {"hidden": [8]}  # type: ignore[union-attr]
    assert spec.stages["finetune"].config == {"hidden": [64, 32]}  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="hidden"):
        load(tmp_path, stages, ["hidden=[0]"])
    spec = load(tmp_path, stages, ["fourier=[3]"])
    assert spec.stages["pretrain"].config == {"hidden": [8], "fourier": [3.0]}  # type: ignore[union-attr]
    spec = load(tmp_path, stages, ["fourier=[3]", "pretrain.config.fourier=[]"])
    assert spec.stages["pretrain"].config["fourier"] == []  # type: ignore[union-attr]


def test_another_agent_keeps_the_settings_that_mean_the_same_to_it(tmp_path: Path) -> None:
    stages = GOOD.replace("expectile: 0.9", "expectile: 0.9, hidden: [8], lr: 2e-3, polyak: 0.02")
    spec = load(tmp_path, stages, ["pretrain.agent=cql", "pretrain.config.alpha=2"])
    assert spec.stages["pretrain"].config == {"hidden": [8], "lr": 2e-3, "polyak": 0.02, "alpha": 2.0}  # type: ignore[union-attr]
    turned = load(tmp_path, stages, ["pretrain.config.alpha=2", "pretrain.agent=cql"])
    assert turned == spec
    spec = load(tmp_path, stages, ["pretrain.agent=bc"])  # which has no targets
    assert spec.stages["pretrain"].config == {"hidden": [8], "lr": 2e-3}  # type: ignore[union-attr]
    spec = load(tmp_path, stages, ["pretrain.agent=iql"])  # as it was
    assert "expectile" in spec.stages["pretrain"].config  # type: ignore[union-attr]
    for wrong in ("cqll", "[1]"):
        with pytest.raises(ConfigError, match=r"pretrain\.agent: expected"):
            load(tmp_path, stages, [f"pretrain.agent={wrong}"])


@pytest.mark.parametrize("entry", catalog.entries("pipelines"), ids=lambda entry: entry.name)
def test_the_shipped_pipelines_are_right(entry: catalog.Entry) -> None:
    spec = load_spec(entry.path)
    assert spec.name == entry.name
    assert spec.description


@pytest.mark.parametrize(
    ("stages", "problem"),
    [
        (
            GOOD.replace("recipe: stitch", "recipe: stich"),
            "p.yaml:4: stages.demos.recipe: no recipe 'stich'; did you mean 'st",
        ),
        (
            GOOD.replace("agent: iql", "agent: ipl"),
            f"p.yaml:5: stages.pretrain.agent: expected one of {', '.join(CONFIGS)}; got 'ipl'",
        ),
        (
            GOOD.replace("expectile:", "expectil:"),
            "p.yaml:5: stages.pretrain.config.expectil: expected one of hidden, fourier, lr,",
        ),
        (GOOD.replace("0.9", "1.5"), "p.yaml:5: stages.pretrain.config.expectile: expected less than 1, got 1.5"),
        (GOOD.replace("expectile: 0.9", "lr: 0"), "stages.pretrain.config.lr: expected greater than 0, got 0"),
        (GOOD.replace("expectile: 0.9", "lr: .inf"), "stages.pretrain.config.lr: expected a finite number, got inf"),
        (GOOD.replace("expectile: 0.9", "hidden: [64, 0]"), "stages.pretrain.config.hidden[1]: expected greater than"),
        (
            GOOD.replace("agent: sac", "agent: sac, config: {subset: 3}"),
            "p.yaml:6: stages.finetune.config.subset: expected at most members (2), got 3",
        ),
        (
            GOOD.replace("agent: sac", "agent: rlpd, config: {members: 1}"),
            "p.yaml:6: stages.finetune.config.subset: expected at most members (1), got 2",
        ),
        (GOOD.replace("0.9", "high"), "p.yaml:5: stages.pretrain.config.expectile: expected a number, got 'high'"),
        (
            GOOD.replace("{expectile: 0.9}", "{}, relabel: {value: {own: 0.4}}"),
            "p.yaml:5: stages.pretrain.relabel.value: expected own + current + future of at most 1, got 1.1",
        ),
        (
            GOOD.replace("start: pretrain", "start: pretrian"),
            "before this one (pretrain); got 'pretrian'; did you mean 'pretrai",
        ),
        (
            GOOD.replace("start: pretrain", "start: demos"),
            "p.yaml:6: stages.finetune.start: expected a stage of kind offline",
        ),
        (GOOD.replace("500", "10_000"), "p.yaml:6: stages.finetune.warmup_steps: expected less than env_steps (10000)"),
        (
            GOOD.replace("500", "500, critic_steps: 9_500"),
            "p.yaml:6: stages.finetune.critic_steps: expected less than env_steps (10000), warmup_steps and critic_",
        ),
        (
            GOOD.replace("start: pretrain", "seam: {optimizer: reset}"),
            "p.yaml:6: stages.finetune.seam.optimizer: nothing carries over without a start; expected keep",
        ),
        (
            GOOD.replace("warmup_steps: 500", "envs: 2, utd: 0.25"),
            "p.yaml:6: stages.finetune.utd: expected a whole number of updates for a step of all 2 envs, got 0.25",
        ),
        (
            GOOD.replace("[pretrain, finetune]", "[pretrain, demos]"),
            "p.yaml:7: stages.check.of[1]: expected a stage of kind off",
        ),
        (
            GOOD.replace("[pretrain, finetune]", "[check]"),
            "p.yaml:7: stages.check.of[0]: expected a stage of kind offline or",
        ),
        (GOOD.replace("[pretrain, finetune]", "[]"), "p.yaml:7: stages.check.of: "),
        (GOOD.replace("  demos:", "  task:"), "p.yaml:4: stages.task: expected letters, digits, - and _ and none of"),
        (GOOD.replace("  demos:", "  ../demos:"), "p.yaml:4: stages.../demos: expected letters, digits, - and _"),
        (
            "  fit: {kind: offline, agent: iql, updates: 1}\n",
            "stages.fit.data: expected the name of a stage of kind collect",
        ),
        (
            "  more: {kind: collect, recipe: stitch}\n" + GOOD,
            "stages.pretrain.data: expected the name of a stage of kind collect",
        ),
        (
            GOOD.replace("{expectile: 0.9}", "{expectile: 0.9}, data: check"),
            "p.yaml:5: stages.pretrain.data: expected a stage",
        ),
    ],
)
def test_what_no_single_field_can_know(tmp_path: Path, stages: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, stages)
    assert any(problem in line for line in caught.value.problems), str(caught.value)


def test_a_wrong_name_does_not_hide_a_wrong_agent_or_setting(tmp_path: Path) -> None:
    stages = GOOD.replace("agent: sac, start", "agent: sacc, strat").replace(
        "expectile: 0.9}", "expectil: 0.9}, update: 1"
    )
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, stages)
    for place in (
        "stages.finetune.strat",
        "stages.finetune.agent",
        "stages.pretrain.update",
        "pretrain.config.expectil",
    ):
        assert any(f"{place}: " in line for line in caught.value.problems), str(caught.value)


ALONE = """\
  demos: {kind: collect, recipe: stitch}
  clone: {kind: offline, agent: bc, updates: 10}
  practise: {kind: online, agent: gae, start: clone, seam: {data: drop}, env_steps: 10_000, critic_steps: 2_000}
"""


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("practise.warmup_steps=5", "practise.warmup_steps: gae learns from its newest rollout alone"),
        ("practise.utd=2", "practise.utd: gae learns from its newest rollout alone"),
        ("practise.n_step=2", "practise.n_step: gae learns from its newest rollout alone"),
        ("practise.batch_size=64", "practise.batch_size: gae learns from its newest rollout alone"),
        ("practise.buffer_capacity=64", "practise.buffer_capacity: gae learns from its newest rollout alone"),
        ("practise.seam.data=keep", "practise.seam.data: gae learns from its newest rollout alone; expected drop"),
        ("practise.seam.mix={kind: proportional}", "practise.seam.mix: gae learns from its newest rollout alone"),
        ("clone.agent=gae", "clone.agent: gae learns from what it has just done itself, not from recordings"),
        ("practise.agent=reinforce", "practise.critic_steps: reinforce with advantage returns has no critic"),
        (
            "practise.agent=discrete_cql",
            "practise.critic_steps: discrete_cql acts by its critics and has no other policy",
        ),
        ("practise.agent=sac practise.rollout=64", "practise.rollout: sac learns from all it has done; only reinforce"),
    ],
)
def test_what_means_nothing_to_an_on_policy_agent(tmp_path: Path, setting: str, problem: str) -> None:
    spec = load(tmp_path, ALONE, ["practise.rollout=64"])
    assert outline(spec)[-1].what == "gae: 10,000 env steps for 3 seeds, rollouts of 64 steps"
    assert outline(load(tmp_path, ALONE))[-1].what.endswith("rollouts of the longest episode")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, ALONE, re.split(r" (?=practise\.)", setting))
    assert any(problem in line for line in caught.value.problems), str(caught.value)


def test_a_whole_number_of_updates_is_one_whatever_its_last_bit(tmp_path: Path) -> None:
    load(tmp_path, GOOD, ["finetune.envs=25", "finetune.utd=0.28"])  # 7.000000000000001


def test_what_a_chunk_decides(tmp_path: Path) -> None:
    chunked = ALONE.replace("agent: gae, start: clone, seam: {data: drop}", "agent: qc_sac, envs: 4")
    load(tmp_path, chunked, ["practise.config.chunk=1", "practise.n_step=3"])
    load(tmp_path, chunked, ["practise.buffer_capacity=20"])
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, chunked, ["practise.n_step=5", "practise.buffer_capacity=19"])
    for problem in (
        "practise.n_step: qc_sac adds up as many rewards as its config.chunk has actions (5); remove",
        "practise.buffer_capacity: expected room for a config.chunk of 5 in each of 4 environments; got 19",
    ):
        assert any(problem in line for line in caught.value.problems), str(caught.value)


def test_all_kinds_of_mistakes_at_once(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "name: A\ntask: nowhere\nseeds: [1, 1]\nstages:\n" + GOOD.replace("agent: iql", "agent: x")
    )
    with pytest.raises(ConfigError) as caught:
        load_spec(tmp_path / "p.yaml", ["finetune.udt=4"])
    where = [
        line.removeprefix(f"{tmp_path}/").split(": expected")[0].split(": no ")[0] for line in caught.value.problems
    ]
    assert where == [
        "p.yaml:1: name",
        "p.yaml:2: task",
        "p.yaml:3: seeds",
        "p.yaml:6: stages.pretrain.agent",
        "--set finetune.udt=4: stages.finetune.udt",
    ]


def test_far_starts_are_those_of_the_stage_gone_on_from(tmp_path: Path) -> None:
    more = GOOD.replace("recipe: stitch}", "recipe: stitch}\n  others: {kind: collect, recipe: navigate}")
    more = more.replace("updates: 1e3", "updates: 1e3, data: demos")
    spec = load(tmp_path, more.replace("start: pretrain", "start: pretrain, data: others, starts: far"))
    context: Any = SimpleNamespace(plan=SimpleNamespace(spec=spec))
    _refuse_far(context, "others")
    with pytest.raises(ToolkitError, match=r"finetune\.starts: the recording joins every cell"):
        _refuse_far(context, "demos")


def test_the_mix_is_overridden_piece_by_piece(tmp_path: Path) -> None:
    stages = GOOD.replace("start: pretrain,", "start: pretrain, seam: {mix: {kind: fixed}},")
    spec = load(tmp_path, stages, ["finetune.seam.mix.offline=0.3"])
    assert spec.stages["finetune"].seam.mix == FixedMix(offline=0.3)  # type: ignore[union-attr]
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, GOOD, ["finetune.seam.mix.offline=0.3"])
    assert caught.value.problems == (
        "--set finetune.seam.mix.offline=0.3: stages.finetune.seam.mix.kind: "
        "expected one of fixed, proportional, annealed; got nothing",
    )


def test_a_pipeline_is_read_without_torch() -> None:
    code = """
import sys
from toolkit.agents import CONFIGS
from toolkit.pipeline.load import load_spec
load_spec("offline2online")
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("named", "found"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_threads_that_wait_give_way_unless_told_otherwise(named: dict[str, str], found: str) -> None:
    """Before torch is loaded, through the Python call as through the command line."""
    code = """
import os, sys
class Watch:
    def find_spec(self, name, *_):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"))
            sys.exit()
sys.meta_path.insert(0, Watch())
import toolkit
toolkit.run_pipeline
"""
    kept = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    result = subprocess.run([sys.executable, "-c", code], env=kept | named, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == found


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_hyper_parameter_is_described(config: type[AgentConfig]) -> None:
    for name, field in config.model_fields.items():
        assert field.description, f"{config.__name__}.{name} has no docstring"


def test_the_schema_describes_every_field() -> None:
    definitions: dict[str, Any] = PipelineSpec.model_json_schema()["$defs"]
    for name, model in definitions.items():
        for field, schema in model["properties"].items():
            assert field == "kind" or schema.get("description"), f"{name}.{field} has no docstring"
    assert OfflineStage.model_fields["updates"].description == "Gradient updates of each seed."


def test_stitches_are_counted_on_one_recording(tmp_path: Path) -> None:
    spec = load(tmp_path, GOOD + "  stitch: {kind: stitch, of: [pretrain, finetune]}\n")
    assert outline(spec)[-1].inputs == ("pretrain", "finetune", "demos")
    more = "more: {kind: collect, recipe: navigate}\n  other: {kind: offline, agent: bc, updates: 9, data: more}\n"
    two = GOOD.replace("finetune:", more + "  finetune:")
    with pytest.raises(ConfigError, match="one and the same recording, got demos, more"):
        load(tmp_path, two + "  stitch: {kind: stitch, of: [pretrain, other]}\n")
    with pytest.raises(ConfigError, match="of kind offline or online before this one"):
        load(tmp_path, GOOD + "  stitch: {kind: stitch, of: [demos]}\n")
