"""What must hold on a GPU as well; skipped where there is none."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch.utils import _pytree as pytree

from benchmarks.kill9 import differences, fingerprint
from tests.contract.test_agents import VARIANTS, batch, make, pack
from toolkit.agents import Agent
from toolkit.learner import Learner
from toolkit.pipeline.runner import run_pipeline

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that PyTorch can use"),
    pytest.mark.timeout(300),
]
ROOT = Path(__file__).parents[2]
TRACED, EAGER = 1_000_000, 10  # planned updates
# critics alone and whole updates are programs of their own on the same memory
CRITIC_ONLY = (False, True, True, False, False)


def learner(agent: Agent[Any], updates: int, device: str = "cuda", compile: Literal["on", "off"] = "off") -> Learner:
    return Learner(agent, [0, 1], updates, compile, "fp32", torch.device(device))


def train(learner: Learner, begin: int = 0) -> dict[str, torch.Tensor]:
    metrics: dict[str, torch.Tensor] = {}
    for step, critic_only in enumerate(CRITIC_ONLY, begin):
        examples = [batch(learner.agent, 100 * step + seed) for seed in range(2)]
        drawn = torch.stack([pack(b, learner.agent.spec.goal_dim) for b in examples])
        # a share of the learning rate that changes from update to update
        metrics = learner.update(learner.receive(drawn), torch.tensor(1.0 - 0.1 * step), critic_only)
    return {name: value.clone() for name, value in metrics.items()}


def assert_close(one: Any, other: Any) -> None:
    for a, b in zip(pytree.tree_leaves(one), pytree.tree_leaves(other), strict=True):
        torch.testing.assert_close(a.cpu(), b.cpu(), rtol=1e-3, atol=2e-4)


def assert_equal(one: Any, other: Any) -> None:
    assert all(torch.equal(a, b) for a, b in zip(*map(pytree.tree_leaves, (one, other)), strict=True))


@pytest.mark.parametrize("variant", VARIANTS)
def test_recorded_equals_eager_equals_the_cpu(variant: str) -> None:
    agent = make(variant)
    recorded, eager, cpu = learner(agent, TRACED), learner(agent, EAGER), learner(agent, EAGER, "cpu")
    metrics = [train(each) for each in (recorded, eager, cpu)]
    assert_close(recorded.state, eager.state)
    assert_close(eager.state, cpu.state)
    assert_close(metrics[0], metrics[1])


@pytest.mark.parametrize("variant", ["iql", "sac", "cql", "gae"])
def test_compiled_equals_eager(variant: str) -> None:
    agent = make(variant)
    compiled, eager = learner(agent, TRACED, compile="on"), learner(agent, EAGER)
    train(compiled), train(eager)
    assert_close(compiled.state, eager.state)


def test_a_state_that_is_given_stays_the_callers() -> None:
    mine = learner(make("sac"), TRACED)
    train(mine)
    kept = pytree.tree_map(torch.clone, mine.state)
    mine.state = kept
    before = pytree.tree_map(torch.clone, kept)
    train(mine)
    first = pytree.tree_map(torch.clone, mine.state)
    assert_equal(kept, before)
    mine.state = kept
    train(mine)
    assert_equal(mine.state, first)


def test_a_slowed_policy() -> None:
    """A policy at no rate at all stays where it was, and the critics go on."""
    mine = learner(make("sac"), TRACED)
    train(mine)
    before = pytree.tree_map(torch.clone, mine.state)
    mine.slow_policies([0.0, 1.0])
    train(mine)
    for old, new in zip(pytree.tree_leaves(before.pi.p), pytree.tree_leaves(mine.state.pi.p), strict=True):
        assert torch.equal(old[0], new[0]) and not torch.equal(old[1], new[1])
    assert not torch.equal(pytree.tree_leaves(before.Q.p)[0][0], pytree.tree_leaves(mine.state.Q.p)[0][0])


def test_batches_are_received_before_they_are_overwritten() -> None:
    """The sampler may write the next ones at once, while the GPU is still busy with those before."""
    mine, drawn = learner(make("bc"), TRACED), torch.zeros(8, 2, 4096, 64)
    received = []
    for i in range(20):
        drawn.fill_(float(i))
        received.append(mine.receive(drawn).sum() * 1.0)
    assert [float(x) for x in received] == [float(i) * drawn.numel() for i in range(20)]


def test_a_pipeline_learns_and_ends_in_the_same_bytes_after_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ["pretrain.compile=auto", "finetune.compile=auto"]
    run = lambda name: run_pipeline(ROOT / "pipelines/smoke.yaml", tmp_path / name, overrides, progress="none")  # noqa: E731
    summary = run("whole")
    assert summary["stages"]["evaluate"]["success"]["iqm"] >= 0.9
    update, calls = Learner.update, iter(range(1 << 30))

    def interrupted(*given: Any, **named: Any) -> Any:
        if next(calls) == 2_600:  # in the middle of practice
            os.kill(os.getpid(), signal.SIGTERM)
        return update(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "update", interrupted)
        with pytest.raises(SystemExit):
            run("stopped")
    run("stopped")
    assert differences(fingerprint(tmp_path / "whole"), fingerprint(tmp_path / "stopped")) == []
