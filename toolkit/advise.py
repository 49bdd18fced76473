"""What a recording is like, and which algorithm to begin with (level 3).

The rules are those of the lecture note's section on which algorithm to use: filtered behaviour cloning as a first try,
IQL where pieces must be joined and before fine-tuning online, CQL where values would be too high; with what
measurements of this package add. Each recommendation says which measurement led to it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from toolkit.data.diversity import diversity
from toolkit.data.finding import errors
from toolkit.data.imported import Imported, acting, checked
from toolkit.recordings import check, relabelled, succeeded
from toolkit.stitch_score import stitches_needed
from toolkit.stitching import Stitches, exits
from toolkit.tasks import TaskCard, unseen_env
from toolkit.types import Episodes, FloatArray, Json, ToolkitError

GOOD = 0.9  # share of successful episodes from which plain imitation is worth it
STITCHED = 0.1  # share that needs a stitch, of the starts that the data joins, above which imitation falls short
NARROW = 0.3  # diversity of actions below which a critic sees too little of what it judges
FAST = {"lr": 2e-3, "polyak": 0.02}  # for some thousand updates of small networks, as in offline2online.yaml
ALIKE = 0.9  # share of steps with one and the same reward from which only arriving pays
FEW = 20  # successful episodes below which filtering leaves too little to imitate
SOMEWHERE = "no episode gets to its goal, but all get somewhere: goals are drawn anew from where they get"
# Practice. Where only arriving pays, a good policy is soon perfect and soon lost, as in offline2online.yaml; where each
# step pays there is more to gain, and what is gentle there loses here (docs/your-robot.md), so as in locomotion.yaml.
GENTLE: Json = {
    "config": {"lr": 1e-3, "lr_policy": 2e-5, "polyak": 0.02, "entropy_backup": False},
    "seam": {"optimizer": "reset", "temperature": 0.02},
    "env_steps": 5_000, "envs": 2, "utd": 4, "n_step": 5, "warmup_steps": 500, "critic_steps": 500,
}  # fmt: skip
BOLD: Json = {
    "config": {"lr": 1e-3, "lr_policy": 3e-4, "polyak": 0.02},
    "seam": {
        "optimizer": "reset", "temperature": 0.02,
        "mix": {"kind": "annealed", "offline": 0.5, "offline_end": 0.25, "over_steps": 10_000},
    },
    "env_steps": 15_000, "n_step": 1, "warmup_steps": 1_000, "critic_steps": 2_000,
}  # fmt: skip


@dataclass(frozen=True)
class Advice:
    """One algorithm, what it is good for here, and where to start."""

    agent: str
    role: str  # first try, choice or alternative
    reasons: tuple[str, ...]
    config: Json

    def json(self) -> Json:
        """Plain values."""
        return {"agent": self.agent, "role": self.role, "reasons": list(self.reasons), "config": self.config}


def facts(imported: Imported, card: TaskCard | None) -> Json:
    """What there is to know of the episodes under the task's rule or, without one, as they are.

    Returns, success, diversity of actions; in a maze the stitches that starts need, and what imitation can know. Raises
    ToolkitError where the audit finds errors.
    """
    findings = check(imported, card)
    if found := errors(findings):
        raise ToolkitError(f"{imported.source.path}: {found[0]} ({len(found)} errors; see `toolkit data validate`)")
    episodes = checked(imported) if card is None else relabelled(checked(imported), card)
    warnings = dict(Counter(finding.rule for finding in findings))
    return _measured(episodes, card) | {"warnings": warnings}


def _measured(episodes: Episodes, card: TaskCard | None) -> Json:
    low, middle, high = np.quantile(episodes.returns, [0.1, 0.5, 0.9]).tolist()
    success = succeeded(episodes, card)
    hot, paid = (rows[acting(episodes.starts)] for rows in (episodes.action, episodes.reward))
    found: Json = {
        "episodes": len(episodes),
        "transitions": episodes.transitions,
        "longest": int(episodes.lengths.max()),
        "horizon": int(episodes.lengths.max()) if card is None else card.max_episode_steps,
        "return": {"low": low, "median": middle, "high": high, "spread": float(np.ptp(episodes.returns))},
        "success_share": None if success is None else float(success.mean()),
        "successes": None if success is None else int(success.sum()),
        "discrete": _one_hot(hot) if card is None else unseen_env(card).sizes.discrete,
        "reward": None if card is None else card.reward.rule,
        "paid_alike": float(np.unique(paid, return_counts=True)[1].max() / len(paid)),
        "goal_shown": card is not None and card.goal.observed and card.reward.rule == "sparse",
        "goal_fixed": card is not None and card.goal.cell is not None,
        "action_diversity": diversity(episodes),
        "stitches": None,
        "best_guess": None,
    }
    if card is not None and card.in_maze:
        found["stitches"] = _stitches(episodes, card)
        found["best_guess"] = exits(episodes, card.maze)["best_guess"]
    return found


def _one_hot(action: FloatArray) -> bool:
    """Whether actions (N, A) look like choices."""
    return bool((action.max(axis=1) == 1).all() and (action.sum(axis=1) == 1).all() and action.shape[1] > 1)


def _stitches(episodes: Episodes, card: TaskCard) -> Json:
    """Starts, or pairs of start and goal, by the stitches they need; `beyond` are those that the data does not join.

    `share` is of those that it joins: no algorithm gets from the others to the goal by the data alone.
    """
    needed = Counter(count for count, _, _ in stitches_needed(card, Stitches(episodes, card.maze)))
    beyond = needed.pop(-1, 0)
    share = 1 - needed[0] / needed.total() if needed else 0.0
    return {"starts": {str(count): needed[count] for count in sorted(needed)}, "share": share, "beyond": beyond}


def advise(found: Json, online: bool = False) -> list[Advice]:
    """Algorithms to begin with, the cheapest first; the one to believe in has the role `choice`."""
    if found["discrete"]:
        why = "actions are choices, and it is the one that learns from recordings of these"
        further = "fine-tuning goes on with the same agent, in a stage for you to add, as in ladder-discrete.yaml"
        return [Advice("discrete_cql", "choice", (why, further) if online else (why,), {})]
    if found["success_share"] == 0.0 and found["reward"] == "sparse" and not _hindsight(found):
        why = (
            "no episode gets to the goal, so nothing in the data says where it is: no algorithm learns the task from it"
        )
        mend = "record episodes that arrive, or choose a goal that lies on their way; to imitate is all that is left"
        return [Advice("bc", "choice", (why, mend), {})]
    if found["return"]["spread"] == 0 and found["success_share"] in (None, 0.0) and not _hindsight(found):
        why = "all returns are alike: nothing in the data says that one way is better than another"
        return [Advice("bc", "choice", (why,), {})]
    chosen = [_first(found)]
    good = _imitation_will_do(found)
    if good and not online:
        chosen[0] = Advice(chosen[0].agent, "choice", (*chosen[0].reasons, *good), chosen[0].config)
    iql = _iql(found, online, "alternative" if good and not online else "choice")
    chosen.append(iql)
    if found["goal_shown"] and _most_stitches(found) > 1:
        why = (
            f"the goal is shown, and some ways take {_most_stitches(found)} stitches: a level above proposes waypoints"
        )
        chosen.append(Advice("hiql", "alternative", (why,), {}))
    chosen.append(_conservative(found, online))
    return chosen


def _first(found: Json) -> Advice:
    """Filtered behaviour cloning by success, by return where there is too little of that, or plain."""
    share, count = found["success_share"], found["successes"]
    if _hindsight(found):
        return Advice("bc", "first try", (SOMEWHERE, "to imitate the ways there costs little"), {})
    if share is not None and share >= GOOD:
        return Advice("bc", "first try", (f"{share:.0%} of the episodes succeed: there is little to filter out",), {})
    if share is not None and count >= FEW:
        why = f"{count} of {found['episodes']} episodes succeed; to imitate these alone costs little"
        return Advice("filtered_bc", "first try", (why,), {})
    if (
        share is not None and found["reward"] == "sparse"
    ):  # where each step costs the same, the best tenth by return is the shortest pieces
        why = f"{count} of {found['episodes']} episodes succeed: too few to imitate these alone"
        return Advice("bc", "first try", (why, "to imitate all costs little"), {})
    spread = found["return"]
    why = f"returns go from {spread['low']:.4g} to {spread['high']:.4g}; the best tenth is worth imitating"
    few = "" if share is None else f"only {count} episodes succeed, so the choice goes by return"
    return Advice("filtered_bc", "first try", tuple(filter(None, (few, why))), {"by": "return", "top": 0.1})


def _imitation_will_do(found: Json) -> tuple[str, ...]:
    """Why nothing beyond imitation is called for; empty where something is."""
    stitches, share = found["stitches"], found["success_share"]
    if share is None or share < GOOD or _must_stitch(found):
        return ()
    if not stitches:
        return ("most episodes succeed as they are",)
    single, joined = stitches["starts"].get("0", 0), sum(stitches["starts"].values())
    return (f"{single} of the {joined} {_ways(found)} that the data joins need no stitch",) if joined else ()


def _must_stitch(found: Json) -> bool:
    return bool(found["stitches"] and found["stitches"]["share"] > STITCHED)


def _hindsight(found: Json) -> bool:
    """Whether the data says something only for goals drawn anew: none is reached, and policies see theirs."""
    return bool(found["goal_shown"]) and found["success_share"] == 0.0


def _ways(found: Json) -> str:
    """What stitches are counted for."""
    return "starts" if found["goal_fixed"] else "pairs of start and goal"


def _iql(found: Json, online: bool, role: str) -> Advice:
    stitches, hard, reasons = found["stitches"], _must_stitch(found), []
    if hard:
        needed = f"{stitches['share']:.0%} of the {_ways(found)} that the data joins need a stitch"
        reasons.append(f"{needed}: imitation does not get there, values that travel backwards do")
    if stitches and stitches["beyond"]:
        beyond = f"for {stitches['beyond']} {_ways(found)} no chain of trajectories leads to the goal"
        reasons.append(f"{beyond}: only learning online helps there")
    if _hindsight(found):
        reasons.append(SOMEWHERE)
    if found["best_guess"] is not None and found["best_guess"] < 0.7:
        guess = f"at junctions the commonest way out is the right one {found['best_guess']:.0%} of the time"
        reasons.append(f"{guess}: whoever imitates has to guess")
    if found["success_share"] is not None and 0 < found["success_share"] < GOOD:
        lost = f"{1 - found['success_share']:.0%} of the episodes end without success"
        reasons.append(f"{lost}: what is good in them has to be learned")
    if online:
        reasons.append("online fine-tuning follows, and for pretraining before it this is the first choice")
    reasons.append("it learns from recorded actions alone, so its values are not of actions nobody took")
    config: Json = {"expectile": 0.9 if stitches else 0.7, "beta": 5.0 if stitches else 3.0, **FAST}
    return Advice("iql", role, tuple(reasons), config)


def _conservative(found: Json, online: bool) -> Advice:
    agent = "calql" if online and not _hindsight(found) else "cql"  # Cal-QL's returns know nothing of goals drawn anew
    why = "one number to tune, alpha; several times slower"
    narrow = (
        f"like places see like actions (diversity {found['action_diversity']:.2f}), so values of others are guesses"
    )
    return Advice(agent, "alternative", (narrow, why) if found["action_diversity"] < NARROW else (why,), {})


def _most_stitches(found: Json) -> int:
    return max((int(count) for count in (found["stitches"] or {}).get("starts", {})), default=0)


def networks(found: Json) -> Json:
    """Settings of all networks: in a maze they see waves of the place too, since values leak through thin walls."""
    return {"hidden": [128, 128], **({"fourier": [3]} if found["stitches"] else {})}


def horizon(found: Json) -> Json:
    """How far values look ahead: a maze's ways are long."""
    return {"gamma": 0.995 if found["horizon"] > 200 else 0.99, "n_step": 20 if found["stitches"] else 5}


def goals(found: Json) -> Json:
    """Goals drawn anew, where that can be done."""
    return {"relabel": {}} if _hindsight(found) else {}


def stages(found: Json, advice: list[Advice], online: bool) -> Json:
    """Stages of a pipeline to start from: for the first try and the choice, and fine-tuning after it."""
    common: Json = ({"starts": "far"} if _must_stitch(found) and found["goal_fixed"] else {}) | goals(found)
    made: Json = {}
    for one in advice:
        if one.role == "alternative":
            continue
        learns = {} if one.agent in ("bc", "filtered_bc") else {**horizon(found), "lr_schedule": "cosine"}
        updates = 8_000 if learns else 3_000
        config = {"config": one.config} if one.config else {}
        made[one.agent] = {"kind": "offline", "agent": one.agent, **config, "updates": updates, **learns, **common}
    start = next((one.agent for one in advice if one.role == "choice"), None)
    if online and start == "iql":
        tuning = GENTLE if found["paid_alike"] > ALIKE else BOLD
        made["finetune"] = {
            "kind": "online", "agent": "sac", "start": start, **tuning, "gamma": horizon(found)["gamma"], **common,
        }  # fmt: skip
    return made


def lines(result: Json) -> list[str]:
    """Measurements, recommendations and the pipeline for a terminal."""
    found = result["facts"]
    spread, stitches = found["return"], found["stitches"]
    text = [f"{found['episodes']:,} episodes, {found['transitions']:,} transitions, the longest {found['longest']:,}"]
    middle = f"{spread['low']:.4g} to {spread['high']:.4g} (the middle 80 %)"
    text.append(f"return           {middle}, median {spread['median']:.4g}")
    if found["success_share"] is not None:
        text.append(f"success          {found['success_share']:.3f} of the episodes")
    if stitches:
        counts = [f"{count}: {pairs}" for count, pairs in stitches["starts"].items()]
        counts += [f"no chain leads there: {stitches['beyond']}"] if stitches["beyond"] else []
        text.append(f"stitches needed  {', '.join(counts)} ({_ways(found)})")
    text.append(f"action diversity {found['action_diversity']:.2f} (0: one action in each place, 1: any)")
    text += [f"warning          {rule}: {count}" for rule, count in found["warnings"].items()]
    for one in result["advice"]:
        text += ["", f"{one['role']}: {one['agent']}", *(f"  - {reason}" for reason in one["reasons"])]
    if "pilots" in result:
        text += ["", f"pilots, {result['pilots']['seconds_each']:.0f} s each, best first:"]
        text += [f"  {pilot_line(pilot)}" for pilot in result["pilots"]["ranking"]]
    if result["task"] is None:
        text += ["", "with your task card's name in place of TASK:"]
    if "out" in result:
        return [*text, "", f"the pipeline is in {result['out']}"]
    return [*text, "", *result["pipeline"].rstrip().split("\n")]


def pilot_line(pilot: Json) -> str:
    """One pilot's result."""
    if "failed" in pilot:
        return f"{pilot['agent']:14}failed: {pilot['failed']}"
    value = pilot[pilot["measure"]]
    low, high = value["ci95"]
    interval = "" if low is None else f" ({low:.3g} to {high:.3g})"
    return f"{pilot['agent']:14}{pilot['measure']} {value['iqm']:.3g}{interval}, {pilot['updates']:,} updates"
