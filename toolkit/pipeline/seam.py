"""The seam between offline and online training: what lives on, what is mixed, what the switch cost.

| what | rule |
|---|---|
| networks | fields of the same name in both states, or what the agent's `carries` names; targets go with critics |
| optimiser | Adam's moments of the networks carried: kept, or zero |
| temperature | the online agent's own start, a number, or the offline one with its optimiser |
| learning rate | each stage has its own schedule, from its own first step |
| normaliser | the offline stage's, frozen |
| data | `offline_share` gives the part of each batch that comes from the recording |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from toolkit.checkpoint import flatten
from toolkit.config import Problem, one_of
from toolkit.nn import Net
from toolkit.pipeline.blocks import AnnealedMix, FixedMix, Mix, ProportionalMix
from toolkit.pipeline.spec import OnlineStage, Seam
from toolkit.stats import iqm
from toolkit.strict_yaml import dotted
from toolkit.types import SWITCH_STEPS, Json, ToolkitError

TEMPERATURE = "log_alpha"
SPARSE = 2_000  # environment steps between two evaluations after those in which a dip would show
TOLERANCE = 0.02  # so far below the success before the switch, or such a share of the return, counts as back


class SeamError(ToolkitError):
    """What keeps a stage from going on; `problem` says where in the stage to mend it."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(f"{dotted(problem.keys)}: {problem.text}" if problem.keys else problem.text)


def carry(offline: Any, online: Any, seam: Seam, carries: Mapping[str, str] | None = None) -> Any:
    """The online agent's state with what the seam takes over from the offline one; both NamedTuples, any seeds.

    `carries` is the online agent's own: its networks that take over one of another name, which then does not go to its
    namesake. Raises SeamError, with a place in the online stage, for a network that one of them lacks or whose
    shapes differ.
    """
    sources = _carried(offline, online, seam, carries or {})
    taken = {name: _moments(getattr(offline, source), seam) for name, source in sources.items()}
    for name, source in sources.items():
        target = f"{name}_targ"
        if hasattr(online, target):
            earlier = getattr(offline, f"{source}_targ", getattr(offline, source).p)
            _same_shapes(target, earlier, getattr(online, target))
            taken[target] = earlier
    if seam.temperature is not None:
        taken[TEMPERATURE] = _temperature(offline, online, seam)
    # copies: nothing of the offline state may change under the online one's hands
    return pytree.tree_map(torch.clone, online._replace(**taken))


def _carried(offline: Any, online: Any, seam: Seam, carries: Mapping[str, str]) -> dict[str, str]:
    """The online agent's networks to fill and the offline ones that fill them, their shapes checked."""
    known, wanted = _networks(offline), _networks(online)
    if seam.carry == "auto":
        own = {name: name for name in wanted if name in known and name not in carries.values()}
        sources = own | dict(carries)
    else:
        for name in seam.carry:
            if name not in wanted:
                raise SeamError(Problem(("seam", "carry"), one_of(wanted, name)))
        sources = {name: carries.get(name, name) for name in seam.carry}
    for name, source in sources.items():
        if source not in known:
            place = ("start",) if seam.carry == "auto" else ("seam", "carry")
            text = f"{name} goes on from the offline agent's network {source}: {one_of(known, source)}"
            raise SeamError(Problem(place, text))
        _same_shapes(name, getattr(offline, source).p, getattr(online, name).p)
    if not sources and seam.carry == "auto":
        text = (
            f"the offline agent has {', '.join(known)} and the online one {', '.join(wanted)}: nothing carries over; "
            f"expected a stage whose agent shares a network, or null"
        )
        raise SeamError(Problem(("start",), text))
    return sources


def _networks(state: Any) -> list[str]:
    fields = zip(state._fields, state, strict=True)
    return [name for name, value in fields if isinstance(value, Net) and name != TEMPERATURE]


def _same_shapes(name: str, offline: Any, online: Any) -> None:
    """Raise with the first tensor that does not fit, and the settings that decide on it."""
    ours, theirs = ({k: list(v.shape) for k, v in flatten(tree).items()} for tree in (offline, online))
    if ours == theirs:
        return
    first = next(k for k in sorted(ours.keys() | theirs.keys()) if ours.get(k) != theirs.get(k))
    got, expected = (shapes.get(first, "absent") for shapes in (ours, theirs))
    text = (
        f"network {name} cannot carry over: its {first} is {got} offline and {expected} online (seeds first, then "
        f"members, where there are several); give both stages the same config.hidden, config.members, config.chunk, "
        f"config.layer_norm and config.policy_layer_norm, or name what to carry in seam.carry"
    )
    raise SeamError(Problem((), text))


def _moments(net: Net, seam: Seam) -> Net:
    if seam.optimizer == "keep":
        return net
    return Net(net.p, *pytree.tree_map(torch.zeros_like, (net.m, net.v, net.t)))


def _temperature(offline: Any, online: Any, seam: Seam) -> Net:
    if not hasattr(online, TEMPERATURE):
        raise SeamError(Problem(("seam", "temperature"), "the online agent has none; expected null"))
    if seam.temperature == "keep":
        if not hasattr(offline, TEMPERATURE):
            text = "the offline agent has none to keep; expected a number or null"
            raise SeamError(Problem(("seam", "temperature"), text))
        return _moments(getattr(offline, TEMPERATURE), seam)
    fresh: Net = getattr(online, TEMPERATURE)
    assert isinstance(seam.temperature, float)
    return fresh._replace(p={k: torch.full_like(v, math.log(seam.temperature)) for k, v in fresh.p.items()})


def offline_share(mix: Mix, data_rows: int) -> Callable[[int, int], float]:
    """The mixing policy as a function (env_step, rows of online data) -> share of a batch from the recording."""

    def share(env_step: int, online_rows: int) -> float:
        match mix:
            case FixedMix():
                return mix.offline
            case ProportionalMix():
                return data_rows / (data_rows + online_rows)
            case AnnealedMix():
                done = min(env_step / mix.over_steps, 1.0)
                return mix.offline + done * (mix.offline_end - mix.offline)

    return share


def evaluation_steps(stage: OnlineStage) -> tuple[int, ...]:
    """Environment steps to evaluate at: dense at first, so that a dip cannot hide, then sparser, and the last one."""
    dense_until = min(stage.eval_dense_until, stage.env_steps)
    dense = list(range(stage.eval_every, dense_until + 1, stage.eval_every))
    apart = stage.eval_every_later or max(SPARSE, stage.eval_every)
    later = range(dense_until + apart, stage.env_steps, apart)
    return tuple(sorted({*dense, *later, stage.env_steps}))


def switch_summary(rows: Iterable[Json]) -> Json:
    """What the switch cost, from the online stage's metrics: every evaluation is a row with `eval/success` (S,).

    `before` is the success at environment step 0, interquartile mean over seeds; `dip` the deepest fall below it in
    the first 10,000 steps; `recovery_env_steps` the first evaluation after the deepest point that is back within 0.02,
    0 without a fall of that size, null if it never is; `regret` the mean of 1 - success over all evaluations. Where no
    success is known all is said of the return: back is within 2 % of it, and regret the mean of what is lacking to it.
    """
    found = list(rows)
    success = _levels(found, "success")
    known = success or _levels(found, "return")
    if not known or known[0][0] != 0:
        return {}
    before, after = known[0][1], known[1:]
    tolerance = TOLERANCE if success else TOLERANCE * abs(before)
    lacking = [1.0 - value if success else max(0.0, before - value) for _, value in after]
    early = [value for step, value in after if step <= SWITCH_STEPS]
    lowest = min(early, default=before)
    enough = before - tolerance - 1e-9
    # by order and not by step: what a guard rolled back is played again at the same one
    later = after[early.index(lowest) + 1 :] if early else []
    back = [step for step, value in later if value >= enough]
    recovery = 0 if lowest >= enough else back[0] if back else None
    return {
        "before": before,
        "dip": max(0.0, before - lowest),
        "recovery_env_steps": recovery,
        "regret": float(np.mean(lacking)) if lacking else 0.0,
    }


def _levels(rows: Iterable[Json], measure: str) -> list[tuple[int, float]]:
    """Environment step and interquartile mean over seeds of every evaluation in which it is known."""
    column = f"eval/{measure}"
    found = [(int(row["step"]), float(iqm(row[column]))) for row in rows if column in row]
    return [(step, value) for step, value in found if not math.isnan(value)]
