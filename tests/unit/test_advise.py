"""Advice follows from what a recording is like: each rule on data made for it, and pilots on a small maze."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.advise import Advice, advise, diversity, facts, lines, stages
from toolkit.collect import collect
from toolkit.controllers import load_recipe
from toolkit.pipeline.pilot import advise_on, parse_seconds
from toolkit.recordings import open_data, write
from toolkit.tasks import TaskCard, load_card
from toolkit.types import Episodes, Json, ToolkitError

FACTS: Json = {
    "episodes": 100,
    "transitions": 5000,
    "longest": 90,
    "horizon": 300,
    "return": {"low": -90.0, "median": -60.0, "high": -20.0, "spread": 70.0},
    "success_share": 0.4,
    "successes": 40,
    "discrete": False,
    "reward": "sparse",
    "paid_alike": 0.99,
    "goal_shown": False,
    "goal_fixed": True,
    "action_diversity": 0.6,
    "stitches": {"starts": {"0": 20}, "share": 0.0, "beyond": 0},
    "best_guess": None,
    "warnings": {},
}


def told(online: bool = False, **changed: Any) -> dict[str, Advice]:
    return {one.agent: one for one in advise(FACTS | changed, online)}


def test_mixed_data_is_filtered_first_and_then_iql() -> None:
    found = told()
    assert [(one.agent, one.role) for one in found.values()] == [
        ("filtered_bc", "first try"),
        ("iql", "choice"),
        ("cql", "alternative"),
    ]
    assert "40 of 100 episodes succeed" in found["filtered_bc"].reasons[0]
    assert found["iql"].config["expectile"] == 0.9
    assert told(stitches=None)["iql"].config["expectile"] == 0.7, "no maze, no long ways"


def test_good_data_that_needs_no_stitch_is_imitated() -> None:
    found = told(success_share=0.97, successes=97)
    assert (found["bc"].role, found["iql"].role) == ("choice", "alternative")
    assert told(True, success_share=0.97, successes=97)["iql"].role == "choice", "practice follows"


def test_what_must_be_joined_goes_to_iql() -> None:
    stitches = {"starts": {"0": 5, "1": 10, "2": 5}, "share": 0.75, "beyond": 2}
    found = told(success_share=0.95, successes=95, stitches=stitches, best_guess=0.4, goal_shown=True)
    reasons = " ".join(found["iql"].reasons)
    assert found["iql"].role == "choice"
    for words in ("75% of the starts", "for 2 starts no chain", "40% of the time"):
        assert words in reasons
    assert found["iql"].config["expectile"] == 0.9
    assert "2 stitches" in found["hiql"].reasons[0]
    made = stages(FACTS | {"stitches": stitches}, list(found.values()), online=True)
    assert list(made) == ["bc", "iql", "finetune"]
    assert made["iql"]["gamma"] == 0.995, "the task's time limit counts, not the length of the pieces"
    assert made["iql"]["starts"] == "far" and made["finetune"]["start"] == "iql"
    assert made["finetune"]["config"]["lr_policy"] == 2e-5
    bold = stages(FACTS | {"paid_alike": 0.1}, list(found.values()), online=True)["finetune"]
    assert bold["config"]["lr_policy"] == 3e-4 and bold["env_steps"] > made["finetune"]["env_steps"]


def test_reasons_are_true_of_what_little_must_be_stitched() -> None:
    good = {"success_share": 0.97, "successes": 97}
    few = told(**good, stitches={"starts": {"0": 46, "1": 4}, "share": 0.08, "beyond": 0})
    assert few["bc"].role == "choice"
    assert "46 of the 50 starts that the data joins need no stitch" in few["bc"].reasons
    pairs = told(**good, goal_fixed=False, stitches={"starts": {"0": 9}, "share": 0.0, "beyond": 3})
    assert "9 of the 9 pairs of start and goal that the data joins need no stitch" in pairs["bc"].reasons
    assert "for 3 pairs of start and goal no chain" in pairs["iql"].reasons[0]
    assert told(**good, stitches={"starts": {}, "share": 0.0, "beyond": 9})["iql"].role == "choice"


def test_goals_that_none_reaches_are_drawn_anew() -> None:
    same = {"low": -90.0, "median": -90.0, "high": -90.0, "spread": 0.0}
    lost: Json = {"success_share": 0.0, "successes": 0, "goal_shown": True, "goal_fixed": False}
    for spread in (same, FACTS["return"]):
        found = told(True, **lost, **{"return": spread})
        assert {name: one.role for name, one in found.items()} == {
            "bc": "first try",
            "iql": "choice",
            "cql": "alternative",  # Cal-QL's returns are those of the recorded goals
        }
        assert "goals are drawn anew" in found["iql"].reasons[0]
        made = stages(FACTS | lost, list(found.values()), online=True)
        assert all(made[name]["relabel"] == {} for name in ("bc", "iql", "finetune"))
    assert "relabel" not in stages(FACTS, list(told().values()), online=False)["iql"]


def test_other_cases() -> None:
    assert list(told(discrete=True)) == ["discrete_cql"]
    same = {"low": 0.0, "median": 0.0, "high": 0.0, "spread": 0.0}
    alike = told(**{"return": same, "success_share": 0.0, "successes": 0})
    assert list(alike) == ["bc"] and "no episode gets to the goal" in alike["bc"].reasons[0]
    alike = told(**{"return": same, "success_share": None, "successes": None, "stitches": None})
    assert list(alike) == ["bc"] and "all returns are alike" in alike["bc"].reasons[0]
    assert "iql" in told(**{"return": same, "success_share": 1.0})
    lost = told(success_share=0.0, successes=0)
    assert list(lost) == ["bc"] and "no episode gets to the goal" in lost["bc"].reasons[0]
    assert "iql" in told(success_share=0.0, successes=0, reward="dense")
    few = told(success_share=0.03, successes=3, reward="dense")
    assert few["filtered_bc"].config == {"by": "return", "top": 0.1}
    assert "only 3 episodes succeed" in few["filtered_bc"].reasons[0]
    # by return the shortest pieces would be the best, wherever they go
    assert "too few to imitate" in told(success_share=0.03, successes=3, reward="sparse")["bc"].reasons[0]
    assert "filtered_bc" in told(success_share=None, successes=None, stitches=None)
    assert "calql" in told(online=True)
    assert "diversity 0.10" in told(action_diversity=0.1)["cql"].reasons[0]


def random_walk(noise: float) -> Episodes:
    """Twenty episodes whose action is a function of the place, plus noise."""
    random = np.random.default_rng(0)
    rows = 20 * 51
    obs = random.uniform(-1, 1, (rows, 2)).astype(np.float32)
    action = (np.sin(2 * obs) + noise * random.normal(size=obs.shape)).astype(np.float32)
    flags = np.zeros(rows, np.bool_)
    empty = np.zeros((rows, 0), np.float32)
    starts = np.arange(0, rows + 1, 51)
    return Episodes(obs, empty, empty, action, np.zeros(rows, np.float32), flags, flags, starts)


def test_diversity_tells_one_way_from_any() -> None:
    assert diversity(random_walk(0.0)) < 0.15
    assert 0.3 < diversity(random_walk(0.4)) < 0.8
    assert diversity(random_walk(50.0)) == pytest.approx(1.0, abs=0.1)
    assert diversity(random_walk(0.0).select([0])) == 0.0, "no other episode to compare with"


def test_diversity_does_not_depend_on_where_zero_is() -> None:
    episodes = random_walk(0.0)
    moved = replace(episodes, obs=episodes.obs + np.float32(1000.0))
    assert diversity(moved) == pytest.approx(diversity(episodes), abs=0.01)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    recipe = load_recipe("stitch").model_copy(update={"episodes": 60})
    return collect(recipe, load_card("pointmaze-umaze"), root, workers=1)


def test_a_recording_from_end_to_end(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.pipeline.pilot.EPISODES", 3)
    monkeypatch.setattr("toolkit.pipeline.pilot.advise", lambda *of: advise(*of)[:2])  # a pilot of CQL takes seconds
    card = load_card("pointmaze-umaze")
    result = advise_on(str(recording), Path("data"), card, seconds=2.0)
    assert 50 < result["facts"]["episodes"] <= 60  # those that begin at the goal are no episodes of the task
    assert result["facts"]["stitches"]["share"] > 0.1
    assert {one["agent"]: one["role"] for one in result["advice"]}["iql"] == "choice"
    assert f"source: {recording}" in result["pipeline"] and "task: pointmaze-umaze" in result["pipeline"]
    assert "fourier:" in result["pipeline"]
    ranking = result["pilots"]["ranking"]
    assert sorted(pilot["agent"] for pilot in ranking) == sorted(one["agent"] for one in result["advice"])
    rates = [pilot["success"]["iqm"] for pilot in ranking]
    assert rates == sorted(rates, reverse=True)
    assert all(pilot["updates"] > 0 for pilot in ranking)
    text = "\n".join(lines(result))
    assert "stitches needed  0: " in text and "choice: iql" in text and "pilots, " in text


def test_a_pilot_that_fails_leaves_the_others(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_pilot(one: Advice, *_: Any) -> Json:
        if one.agent == "bc":
            raise ToolkitError("training has diverged")
        return {
            "agent": one.agent, "updates": 1, "measure": "success",
            "success": {"iqm": float(one.agent == "cql"), "ci95": [None, None]},
        }  # fmt: skip

    monkeypatch.setattr("toolkit.pipeline.pilot.run_pilot", run_pilot)
    result = advise_on(str(recording), Path("data"), load_card("pointmaze-umaze"), seconds=1.0)
    assert [pilot["agent"] for pilot in result["pilots"]["ranking"]] == ["cql", "iql", "bc"]
    assert any("bc            failed: training has diverged" in line for line in lines(result))


WAY = [(1, 1), (1, 2), (1, 3), (2, 3), (3, 3), (3, 2), (3, 1)]  # through pointmaze-umaze


def recorded(root: Path, card: TaskCard, *ways: list[tuple[int, int]], goal: tuple[int, int] = (3, 1)) -> str:
    """A data set of episodes that go from cell to cell in ten steps each, with actions drawn at random."""
    corners = [card.maze.cell_to_xy(np.array(way)) for way in ways]
    paths = [np.concatenate([*np.linspace(c[:-1], c[1:], 10, endpoint=False, axis=1), c[-1:]]) for c in corners]
    starts = np.cumsum([0, *map(len, paths)])
    places, final = np.concatenate(paths).astype(np.float32), starts[1:] - 1
    action = np.random.default_rng(0).uniform(-1, 1, places.shape).astype(np.float32)
    action[final] = 0.0
    none, cut = np.zeros(len(places), np.bool_), np.zeros(len(places), np.bool_)
    cut[final - 1] = True
    goals = np.tile(card.maze.cell_to_xy(goal).astype(np.float32), (len(places), 1))
    obs = np.concatenate([places, np.zeros_like(places)], axis=1)
    episodes = Episodes(obs, places, goals, action, np.zeros(len(places), np.float32), none, cut, starts)
    write([episodes], "made/up-v0", root, made={"command": "made", "of": ["test"]}, card=card)
    return "made/up-v0"


def test_starts_that_no_data_is_about_need_no_stitch(tmp_path: Path) -> None:
    """Whole routes from the three cells nearest to the goal: the cells before them are in no episode."""
    card = load_card("pointmaze-umaze")
    name = recorded(tmp_path, card, *[WAY[place:] for place in (3, 4, 5) for _ in range(8)])
    result = advise_on(name, tmp_path, card)
    assert result["facts"]["stitches"] == {"starts": {"0": 3}, "share": 0.0, "beyond": 3}
    assert [(one["agent"], one["role"]) for one in result["advice"][:2]] == [("bc", "choice"), ("iql", "alternative")]
    assert "starts: far" not in result["pipeline"], "there are none, so the stage could not run"
    assert "stitches needed  0: 3, no chain leads there: 3 (starts)" in lines(result)
    with_nothing = recorded(tmp_path / "short", card, WAY[:3], WAY[:2])
    assert advise_on(with_nothing, tmp_path / "short", card)["facts"]["stitches"]["beyond"] == 6


def test_data_that_reaches_no_goal_it_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of equal length too: what the advice says can be run, and its pilots draw goals anew."""
    from toolkit.pipeline.plan import make_plan

    monkeypatch.setattr("toolkit.pipeline.pilot.EPISODES", 2)
    monkeypatch.setattr("toolkit.pipeline.pilot.advise", lambda *of: advise(*of)[:2])
    card = load_card("pointmaze-umaze-gc")
    name = recorded(tmp_path, card, *[WAY[:4]] * 8)
    result = advise_on(name, tmp_path, card, online=True, seconds=1.0)
    assert result["facts"]["return"]["spread"] == result["facts"]["success_share"] == 0.0
    assert [pilot["updates"] > 0 for pilot in result["pilots"]["ranking"]] == [True, True]
    (tmp_path / "advised.yaml").write_text(result["pipeline"])
    made = make_plan(tmp_path / "advised.yaml").spec.stages
    assert all(made[name].relabel is not None for name in ("bc", "iql", "finetune"))


def test_the_recipe_is_a_pipeline(recording: Path, tmp_path: Path) -> None:
    from toolkit.pipeline.load import load_spec

    result = advise_on(str(recording), Path("data"), load_card("pointmaze-umaze"), online=True)
    (tmp_path / "advised.yaml").write_text(result["pipeline"])
    assert list(load_spec(tmp_path / "advised.yaml").stages) == ["recording", "bc", "iql", "finetune"]
    mine = advise_on(str(recording), Path("data"), load_card("pointmaze-umaze"), task="/home/me/mine.yaml")
    assert "task: /home/me/mine.yaml" in mine["pipeline"]


def test_without_a_task_it_speaks_of_what_it_sees(recording: Path) -> None:
    result = advise_on(str(recording), Path("data"))
    assert "fourier:" not in result["pipeline"]
    assert result["facts"]["success_share"] is None  # an end may as well be a fall
    assert result["facts"]["stitches"] is None
    with pytest.raises(ToolkitError, match="expected --task too"):
        advise_on(str(recording), Path("data"), seconds=1.0)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("5m", 300), ("0.5h", 1800)])
def test_times(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "5 minutes", "-1m", "0"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ToolkitError, match="expected a time such as 90s"):
        parse_seconds(text)


def test_facts_need_no_card(recording: Path) -> None:
    imported = open_data(str(recording), Path("data"))
    found = facts(imported, None)
    assert found["episodes"] == 60
    assert found["stitches"] is None and 0 < found["action_diversity"] < 1.5
