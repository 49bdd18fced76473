"""The seam: what carries over from offline to online, how batches mix, what a switch cost."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from toolkit.checkpoint import flatten
from toolkit.learner import stack
from toolkit.pipeline.blocks import AnnealedMix, FixedMix, ProportionalMix
from toolkit.pipeline.material import make_agent
from toolkit.pipeline.seam import carry, evaluation_steps, offline_share, switch_summary
from toolkit.pipeline.spec import OnlineStage, Seam
from toolkit.types import Json, Spec, ToolkitError

SPEC = Spec(obs_dim=4, action_dim=2)


def state(agent: str, seeds: tuple[int, ...] = (0, 1), moved: bool = False, **config: Any) -> Any:
    """Stacked state of an agent with small networks; `moved` has Adam moments as after training."""
    made = make_agent(agent, {"hidden": (8,)} | config, SPEC)
    fresh = stack([made.init(torch.Generator().manual_seed(seed)) for seed in seeds], torch.device("cpu"))
    return torch.utils._pytree.tree_map(lambda leaf: leaf + 0.5, fresh) if moved else fresh


def equal(one: Any, other: Any) -> bool:
    ours, theirs = flatten(one), flatten(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


PAIRS = [
    ("iql", "sac", ["Q", "pi"]),
    ("cql", "sac", ["Q", "pi"]),
    ("iql", "iql", ["V", "Q", "pi"]),
    ("bc", "sac", ["pi"]),
    ("bc", "actor_critic_q", ["pi"]),
    ("iql", "gae", ["V", "pi"]),
    ("iql", "reinforce", ["pi"]),
    ("awr", "iql", ["V", "pi"]),
    ("ivl", "sac", ["pi"]),
    ("awac", "sac", ["Q", "pi"]),
    ("td3_bc", "sac", ["Q", "pi"]),
    ("td3_bc", "td3", ["Q", "pi"]),
    ("qc", "qc", ["Q", "flow", "mu"]),
    ("qc_sac", "qc_sac", ["Q", "pi"]),
]


@pytest.mark.parametrize(("before", "after", "carried"), PAIRS)
def test_networks_of_the_same_name_carry_over_whole(before: str, after: str, carried: list[str]) -> None:
    offline, online = state(before, moved=True), state(after, seeds=(7, 8))
    result = carry(offline, online, Seam())
    targets = [f"{name}_targ" for name in carried if f"{name}_targ" in online._fields]
    for name in [*carried, *targets]:
        assert equal(getattr(result, name), getattr(offline, name)), name
    for name in set(online._fields) - {*carried, *targets}:
        assert equal(getattr(result, name), getattr(online, name)), name


def test_the_target_of_a_policy_begins_at_the_policy_that_has_none() -> None:
    offline = state("bc", moved=True)
    assert equal(carry(offline, state("td3_bc"), Seam()).pi_targ, offline.pi.p)


@pytest.mark.parametrize(("before", "config"), [("fql", {}), ("qc", {"chunk": 4})])
def test_chunks_of_other_lengths_do_not_fit(before: str, config: Json) -> None:
    with pytest.raises(ToolkitError, match=r"network Q cannot carry over: its w0 is .*config\.chunk"):
        carry(state(before, **config), state("qc"), Seam())


def test_nothing_is_shared_with_the_offline_state() -> None:
    offline = state("iql")
    result = carry(offline, state("sac"), Seam())
    theirs = {leaf.data_ptr() for leaf in flatten(offline).values()}
    assert not theirs & {leaf.data_ptr() for leaf in flatten(result).values()}


def test_a_reset_optimiser_forgets_its_moments_and_keeps_the_weights() -> None:
    offline = state("iql", moved=True)
    result = carry(offline, state("sac"), Seam(optimizer="reset"))
    for net, source in ((result.Q, offline.Q), (result.pi, offline.pi)):
        assert equal(net.p, source.p)
        assert not any(leaf.any() for leaf in flatten((net.m, net.v, net.t)).values())
        assert net.t.shape == (2,)


def test_named_networks_alone_carry_over_and_a_target_follows_its_critic() -> None:
    offline, online = state("iql", moved=True), state("sac", seeds=(7, 8))
    only_pi = carry(offline, online, Seam(carry=("pi",)))
    assert equal(only_pi.pi, offline.pi)
    assert equal((only_pi.Q, only_pi.Q_targ), (online.Q, online.Q_targ))
    only_q = carry(offline, online, Seam(carry=("Q",)))
    assert equal(only_q.Q_targ, offline.Q_targ)
    assert equal(only_q.pi, online.pi)


def test_a_mismatch_names_network_shapes_and_what_to_set() -> None:
    with pytest.raises(ToolkitError) as caught:
        carry(state("iql"), state("sac", members=10), Seam())
    text = str(caught.value)
    assert "network Q" in text
    for part in ("[2, 2, 8]", "[2, 10, 8]", "config.members", "seam.carry"):
        assert part in text


def test_a_missing_layer_norm_is_a_mismatch() -> None:
    with pytest.raises(ToolkitError, match="absent"):
        carry(state("iql", layer_norm=True), state("sac"), Seam())
    result = carry(state("iql", layer_norm=True), state("sac"), Seam(carry=("pi",)))
    assert result.pi is not None


def test_a_network_neither_has_is_named_with_the_nearest() -> None:
    with pytest.raises(ToolkitError, match=r"^seam\.carry: expected one of .*did you mean 'pi'"):
        carry(state("iql"), state("sac"), Seam(carry=("phi",)))
    with pytest.raises(ToolkitError, match="V"):  # IQL has it, SAC has not
        carry(state("iql"), state("sac"), Seam(carry=("V",)))


def test_temperature_starts_anew_is_set_or_kept() -> None:
    offline, online = state("cql", moved=True), state("sac", temperature=0.3)
    alpha = "log_alpha"
    assert torch.allclose(carry(offline, online, Seam()).log_alpha.p[alpha].exp(), torch.tensor([0.3, 0.3]))
    given = carry(offline, online, Seam(temperature=0.05)).log_alpha
    assert torch.allclose(given.p[alpha], torch.full((2,), math.log(0.05)))
    assert not given.t.any()
    kept = carry(offline, online, Seam(temperature="keep")).log_alpha
    assert equal(kept, offline.log_alpha)
    with pytest.raises(ToolkitError, match="none to keep"):
        carry(state("iql"), online, Seam(temperature="keep"))
    with pytest.raises(ToolkitError, match="online agent has none"):
        carry(offline, state("td3"), Seam(temperature=0.05))


def test_mixing_policies() -> None:
    fixed = offline_share(FixedMix(offline=0.25), 1000)
    assert fixed(0, 1) == fixed(10_000, 5000) == 0.25
    proportional = offline_share(ProportionalMix(), 1000)
    assert proportional(0, 0) == 1.0
    assert proportional(10, 1000) == 0.5
    annealed = offline_share(AnnealedMix(offline=0.5, offline_end=0.1, over_steps=100), 1000)
    assert [annealed(step, 1) for step in (0, 50, 100, 1000)] == pytest.approx([0.5, 0.3, 0.1, 0.1])


def online(**fields: Any) -> OnlineStage:
    return OnlineStage(kind="online", agent="sac", **fields)


def test_evaluations_are_dense_after_the_switch_then_sparse_and_end_at_the_end() -> None:
    stage = online(env_steps=7_100, eval_every=500, eval_dense_until=2_000, eval_every_later=2_000)
    assert evaluation_steps(stage) == (500, 1000, 1500, 2000, 4000, 6000, 7100)
    assert evaluation_steps(online(env_steps=300)) == (300,)
    assert evaluation_steps(online(env_steps=20_000, eval_every=5_000)) == (5_000, 10_000, 15_000, 20_000)
    assert evaluation_steps(online(env_steps=1_000)) == (500, 1000)


def rows(*successes: float, every: int = 500) -> list[Json]:
    return [{"phase": "online", "step": i * every, "eval/success": [s, s]} for i, s in enumerate(successes)]


def test_switch_without_a_dip() -> None:
    assert switch_summary(rows(0.9, 0.9, 1.0)) == pytest.approx(
        {"before": 0.9, "dip": 0.0, "recovery_env_steps": 0, "regret": 0.05}
    )


def test_switch_with_a_dip_and_a_recovery() -> None:
    found = switch_summary(rows(0.9, 0.8, 0.6, 0.7, 0.88, 0.95))
    assert found["dip"] == pytest.approx(0.3)
    assert found["recovery_env_steps"] == 2000  # within 0.02 of what it was
    assert found["regret"] == pytest.approx(1 - (0.8 + 0.6 + 0.7 + 0.88 + 0.95) / 5)


def test_what_is_played_again_at_the_same_step_after_a_roll_back_is_a_recovery() -> None:
    found = switch_summary([*rows(0.9, 0.9, 0.6), *rows(0.9, 0.9, 0.95)[2:]])
    assert found["dip"] == pytest.approx(0.3)
    assert found["recovery_env_steps"] == 1000


def test_a_wobble_within_the_tolerance_is_no_dip_to_recover_from() -> None:
    found = switch_summary(rows(0.9, 0.89, 0.9))
    assert found["dip"] == pytest.approx(0.01)
    assert found["recovery_env_steps"] == 0


def test_switch_that_never_recovers_and_a_fall_long_after() -> None:
    assert switch_summary(rows(0.9, 0.5, 0.6))["recovery_env_steps"] is None
    late = switch_summary(rows(0.9, 0.9, 0.9, 0.2, every=5_000))
    assert late["dip"] == 0.0
    assert late["regret"] > 0.3


def test_the_middle_over_seeds_decides() -> None:
    wild = [{"step": 0, "eval/success": [0.9] * 4}, {"step": 500, "eval/success": [0.0, 0.9, 0.9, 0.9]}]
    assert switch_summary(wild)["dip"] == pytest.approx(0.0)
    collapsed = [{"step": step, "eval/success": [1.0] * 4 + [1.0 if step == 0 else 0.0]} for step in (0, 500, 1000)]
    found = switch_summary(collapsed)
    assert (found["dip"], found["regret"]) == (0.0, 0.0)


def test_without_success_the_return_counts() -> None:
    returns = [-100.0, -108.0, -130.0, -103.0, -80.0]
    found = switch_summary(
        {**row, "eval/return": [r, r]} for row, r in zip(rows(*[math.nan] * 5), returns, strict=True)
    )
    assert found == pytest.approx({"before": -100.0, "dip": 30.0, "recovery_env_steps": 2000, "regret": 10.25})


def test_without_either_there_is_no_switch_to_speak_of() -> None:
    assert switch_summary(rows(math.nan, math.nan)) == {}
