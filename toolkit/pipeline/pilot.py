"""Short trainings of several algorithms on one recording, each as long by the clock, to see which one gets on."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Callable
from pathlib import Path

from toolkit.advise import Advice, advise, facts, goals, horizon, networks, stages
from toolkit.console import judged_by
from toolkit.data.imported import checked
from toolkit.data.minari import MAIN_FILE
from toolkit.evaluate import evaluate
from toolkit.learner import Learner
from toolkit.pipeline.goals import goal_rule
from toolkit.pipeline.material import make_agent, material_from, task_sizes
from toolkit.pipeline.spec import OfflineStage
from toolkit.pipeline.watch import summarise
from toolkit.recordings import open_data, reading
from toolkit.strict_yaml import render
from toolkit.tasks import TaskCard, relabel
from toolkit.train import Hooks, OfflinePlan, offline_loop
from toolkit.types import Episodes, Json, ToolkitError

SEEDS = [0, 1]
EPISODES = 25  # of each seed
COMPILED = 120.0  # seconds from which a compilation is repaid
FOREVER = 1 << 30  # updates that no pilot gets to make


class _TimeIsUp(Exception):
    """A pilot has had its seconds."""


class _Clock(Hooks):
    """Watches nothing but the time."""

    def __init__(self, seconds: float) -> None:
        self.step, self._end = 0, time.monotonic() + seconds

    def tick(self, step: int) -> None:
        """Stop when the time is up."""
        self.step = step
        if time.monotonic() > self._end:
            raise _TimeIsUp


def advise_on(
    name: str,
    root: Path,
    card: TaskCard | None = None,
    online: bool = False,
    seconds: float | None = None,
    achieved: str | None = None,
    called: str = "advised",
    task: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Json:
    """What `toolkit advise` answers: measurements, recommendations, a starting recipe as YAML, and a ranking of pilots.

    `seconds` are for all pilots together, of which those that fail come last and say why; `achieved` is FIRST:END, the
    numbers of an observation that are the achieved goal; the pipeline is `called` so and its task `task`, or the card's
    name; `say` hears what goes on.
    Raises ToolkitError where the recording has errors.
    """
    imported = open_data(name, root, options=reading(card, achieved))
    found = facts(imported, card)
    advice = advise(found, online)
    made = stages(found, advice, online)
    result: Json = {"dataset": str(imported.source.path), "task": card.name if card else None, "facts": found}
    result["advice"] = [one.json() for one in advice]
    name = task or (card.name if card else "TASK")
    head = {"name": called, "task": name, "seeds": [0, 1, 2], **networks(found)}
    result["pipeline"] = _pipeline(head, made, imported.source.path, achieved)
    if seconds is not None:
        if card is None:
            raise ToolkitError("--try: expected --task too, which says where the policies are to be measured")
        each = seconds / len(advice)
        ranking = []
        for one in advice:
            say(f"{one.agent}: {each:.0f} s")
            try:
                ranking.append(run_pilot(one, card, checked(imported), found, each))
            except ToolkitError as error:  # it may have diverged; the others go on
                ranking.append({"agent": one.agent, "failed": str(error)})
        ranking.sort(key=_worth, reverse=True)
        result["pilots"] = {"seconds_each": each, "ranking": ranking}
    return result


def _worth(pilot: Json) -> float:
    """What pilots are ranked by; those that failed come last."""
    return -math.inf if "failed" in pilot else float(pilot[pilot["measure"]]["iqm"])


def run_pilot(one: Advice, card: TaskCard, episodes: Episodes, found: Json, seconds: float) -> Json:
    """Train one algorithm for so many seconds and play; the numbers depend on how fast the machine is.

    Raises ToolkitError where the training diverges, or there is nothing for the algorithm to learn from.
    """
    begun = time.monotonic()
    common = horizon(found) | goals(found)
    agent = make_agent(one.agent, {**networks(found), **one.config}, task_sizes(card))
    if agent.waypoint_steps:
        common.setdefault("relabel", {})
    stage = OfflineStage(kind="offline", agent=one.agent, updates=FOREVER, **common)
    whole = stage.relabel is not None
    material = material_from(card, relabel(card, episodes, whole), agent, stage.gamma, whole=whole)
    assert material.replay is not None
    learner = Learner(agent, SEEDS, FOREVER, "auto" if seconds >= COMPILED else "off")
    plan = OfflinePlan(
        stage.updates, stage.batch_size, stage.n_step, stage.gamma, stage.lr_schedule,
        log_every=FOREVER, eval_every=FOREVER, relabel=goal_rule(card, stage, agent),
    )  # fmt: skip
    clock = _Clock(seconds - (time.monotonic() - begun))
    with contextlib.suppress(_TimeIsUp):
        offline_loop(learner, material.replay, material.normalizer, plan, clock)
    played = evaluate(
        lambda inputs: learner.greedy(material.normalizer(inputs)),
        card,
        seeds=len(SEEDS),
        episodes=EPISODES,
        starts=material.far_starts or None,
    )
    outcome = summarise(played)
    measure = judged_by(outcome)
    return {"agent": one.agent, "updates": clock.step, "measure": measure, measure: outcome[measure], "seeds": SEEDS}


def parse_seconds(text: str) -> float:
    """90s, 5m, 1h or plain seconds. Raises ToolkitError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    seconds = float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
    if not seconds:
        raise ToolkitError(f"--try {text}: expected a time such as 90s, 5m or 1h")
    return seconds


def _pipeline(head: Json, made: Json, file: Path, achieved: str | None) -> str:
    """The stages as a pipeline that takes the recording as it is."""
    source = file.parents[1] if file.name == MAIN_FILE else file
    recording = {"kind": "import", "source": str(source), **({"achieved": achieved} if achieved else {})}
    return render(head | {"stages": {"recording": recording} | made})
