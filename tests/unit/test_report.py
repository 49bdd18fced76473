"""The report page: what is shown, what is left out, and that nothing in it comes from elsewhere."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from report_fixture import write_run

from toolkit import strict_yaml
from toolkit.log import MetricsLog
from toolkit.pipeline.seam import switch_summary
from toolkit.report import figures, write_report
from toolkit.report.chart import Curve, curve_figure
from toolkit.report.maze_picture import _simplified
from toolkit.report.run import read_run
from toolkit.report.svg import Axis, area, line, tag, tick_label, value_axis
from toolkit.stats import seed_ci, success_ci
from toolkit.types import ToolkitError

VOID = {"meta", "br", "link", "img", "input", "hr"}
TASK = {"iqm": 0.42, "ci95": [0.1, 0.6], "per_seed": [0.4, 0.44], "episodes": 20}
SECTIONS = ["results", "maze", "learning", "switch", "values", "stages", "configuration"]


class Page(HTMLParser):
    """Checks that tags are balanced and gathers what the tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sections: list[str] = []
        self.titles: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        if name not in VOID:
            self.open.append(name)
        self.attributes += [(key, value or "") for key, value in attributes]
        if name == "section":
            self.sections.append(dict(attributes)["id"] or "")

    def handle_startendtag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.attributes += [(key, value or "") for key, value in attributes]

    def handle_endtag(self, name: str) -> None:
        assert self.open, f"</{name}> closes nothing"
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.text += data
        if self.open[-1:] == ["h3"]:
            self.titles.append(data)


def page_of(folder: Path) -> Page:
    path = write_report(folder)
    assert path == folder / "report.html"
    assert not list(folder.glob("*.partial"))
    text = path.read_text(encoding="utf-8")
    body = re.sub(r"<(style|script)>.*?</\1>", "", text, flags=re.S)
    assert not re.search(r"\bnan\b", body)
    for svg in re.findall(r"<svg.*?</svg>", text, flags=re.S):
        ElementTree.fromstring(svg)
    page = Page(text)
    for key, value in page.attributes:
        if key in ("d", "x", "y", "cx", "cy", "x1", "x2", "y1", "y2", "width", "height", "r"):
            assert "nan" not in value, (key, value)
            assert "inf" not in value, (key, value)
    return page


def edit(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def run(_whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(_whole, tmp_path / "run"))


def test_a_whole_run_shows_everything(run: Path) -> None:
    page = page_of(run)
    assert page.sections == SECTIONS
    assert page.titles == [
        "Success",
        "What the data shows",
        "Routes after pretrain",
        "Routes after evaluate",
        "Success, offline",
        "Success, online",
        "Return, offline",
        "Return, online",
        "Route over shortest, offline",
        "Route over shortest, online",
        "The first steps online",
        "The guard stepped in",
        "Q and truth in the first steps online",
        "Recorded share",
        "Distance to the data",
        "Q and truth, pretrain",
        "Q and truth, finetune",
        "Q loss, clone",
        "V loss, clone",
        "pi loss, clone",
        "Q loss, pretrain",
        "V loss, pretrain",
        "pi loss, pretrain",
        "Q loss, finetune",
        "V loss, finetune",
        "pi loss, finetune",
    ]
    text = " ".join(page.text.split())
    for words in (
        "Success at the end, stage evaluate 0.99",
        "Before going online 0.93 after pretrain",
        "Route 1.11 ×",
        "Time 7:29 1.8 GiB",
        "Before 0.93 success of what went online, interquartile mean over seeds",
        "Dip 0.04 deepest fall of success below that, evaluated every 500 steps",
        "Back after 1,500 environment steps",
        "step 1,000: seed 1 had fallen to 0.62 and went back to step 0 (0.96)",
        "bc (baseline)",
        "fbc (baseline)",
        "online, sac",
        "torch 2.13.0",
        "expectile: 0.7",
        "A choice of 180 recorded pieces.",
        "30 of 30 recorded routes reach the goal",
        "seed 2, reached the goal",
        "Q lay below the true return for 100 % of the episodes",
    ):
        assert words in text, words


def test_the_pieces_are_of_the_recording_that_was_learned_from(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    plan, pieces = run / "pipeline.yaml", run / "stages/collect/pieces.json"
    text = plan.read_text().replace("stages:\n", "stages:\n  other: {kind: collect}\n")
    plan.write_text(text.replace("  pretrain:\n", "  pretrain:\n    data: collect\n"))
    (run / "stages/other").mkdir()
    (run / "stages/other/pieces.json").write_text(pieces.read_text())
    few = json.loads(pieces.read_text())
    pieces.write_text(json.dumps({name: rows[:7] for name, rows in few.items()}))
    assert "A choice of 7 recorded pieces." in write_report(run).read_text(encoding="utf-8")


def test_the_page_needs_nothing_from_elsewhere_and_is_small(run: Path) -> None:
    path = write_report(run)
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 500_000
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text)
    page = Page(text)
    assert not [key for key, _ in page.attributes if key in ("src", "href", "style") or key.startswith("on")]
    policies = [value for key, value in page.attributes if key == "content" and "default-src" in value]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policies[0]


def test_the_same_run_gives_the_same_page(run: Path) -> None:
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_names_are_text(run: Path) -> None:
    hostile = "<script>alert(1)</script>\"'&"
    stage = '<img src=x onerror="alert(2)">'

    def change(summary: Any) -> None:
        summary |= {"name": hostile, "description": hostile, "task": hostile}
        summary["versions"] = {hostile: hostile}
        summary["baselines"][hostile] = summary["baselines"]["bc"]
        summary["stages"][stage] = summary["stages"]["finetune"]

    edit(run / "summary.json", change)
    (run / "pipeline.yaml").write_text(f"# {hostile}\n" + (run / "pipeline.yaml").read_text())
    text = write_report(run).read_text()
    page = page_of(run)
    assert text.count("<script>") == 1
    assert "<img" not in text
    assert page.text.count("<script>alert(1)</script>") >= 7
    assert stage in page.text


def test_an_unfinished_run_shows_what_it_has(run: Path) -> None:
    (run / "summary.json").unlink()
    shutil.rmtree(run / "stages" / "evaluate")
    shutil.rmtree(run / "stages" / "finetune")
    page = page_of(run)
    assert page.sections == ["maze", "learning", "values", "stages", "configuration"]
    assert "offline2online" in page.text
    assert "Routes after pretrain" in page.titles
    assert "Unfinished: 0 of 5 stages are done, collect is next" in page.text
    assert "online, sac" in page.text  # what is still to come stands in the table
    finish(run, "clone", {"success": {"iqm": 0.25, "ci95": [0.1, 0.4], "per_seed": [0.25]}})
    page = page_of(run)
    assert "1 of 5 stages are done, collect is next" in page.text and "0:07" in page.text and "results" in page.sections


def finish(run: Path, stage: str, result: Any) -> None:
    """Leave a manifest, under the key that stands for the stage's settings."""
    (run / "stages" / stage / "manifest.json").write_text(json.dumps({"wall_s": 7.0, "key": stage, "result": result}))


def test_an_interrupted_run_shows_nothing_of_other_settings(run: Path) -> None:
    """Pretraining was to be longer, and the run stopped before it: what went on from it is as old."""
    (run / "summary.json").unlink()
    shutil.rmtree(run / "stages" / "evaluate")
    number = {"success": {"iqm": 0.25, "ci95": [0.1, 0.4], "per_seed": [0.25]}}
    switch = {"dip": 0.125, "recovery_env_steps": 1500, "regret": 0.031, "before": 0.9}
    finish(run, "collect", {})
    finish(run, "clone", number)
    finish(run, "pretrain", number)
    finish(run, "finetune", number | {"switch": switch})
    found = read_run(run)  # without keys, as older runs are, all counts
    assert found.unfinished == "4 of 5 stages are done, evaluate is next"
    assert found.switch == switch and found.after is not None and found.after.name == "finetune"
    keys = {"collect": "collect", "clone": "clone", "pretrain": "longer", "finetune": "after longer", "evaluate": ""}
    (run / "keys.json").write_text(json.dumps(keys))
    (run / "stages" / "removed").mkdir()
    (run / "stages" / "removed" / "manifest.json").write_text(json.dumps({"key": "removed", "result": {}}))
    found = read_run(run)
    assert found.unfinished == "2 of 5 stages are done, pretrain is next" and found.switch == {}
    assert [stage.name for stage in found.stages] == ["collect", "clone", "pretrain", "finetune", "evaluate"]
    assert [stage.name for stage in found.stages if stage.score or stage.rows or stage.routes] == ["clone"]
    page_of(run)


def test_offline_only(run: Path) -> None:
    def change(summary: Any) -> None:
        for name in ("finetune", "evaluate"):
            del summary["stages"][name]
        del summary["switch"]

    edit(run / "summary.json", change)
    for name in ("finetune", "evaluate"):
        shutil.rmtree(run / "stages" / name)
    page = page_of(run)
    assert page.sections == [name for name in SECTIONS if name != "switch"]
    assert "Success, stage pretrain" in page.text
    assert "Success, online" not in page.titles


def test_agents_side_by_side_have_no_single_result_and_share_a_picture(run: Path) -> None:
    def change(summary: Any) -> None:
        summary["stages"] = {
            "sac": summary["stages"]["clone"] | {"agent": "sac"},
            "pretrain": summary["stages"]["pretrain"],
        }
        summary["baselines"] = {}
        summary["return_range"] = [-100, 0]

    edit(run / "summary.json", change)
    shutil.rmtree(run / "stages")
    for name, growth in (("sac", 4.0), ("pretrain", 0.0)):
        with MetricsLog(run / "stages" / name / "metrics.jsonl") as log:
            for step in range(0, 5001, 500):
                value = np.full(3, -40 + 10 ** (growth * step / 5000))
                log.write("offline", step, {"q_policy": value, "true_return": [-60.0] * 3})
    page = page_of(run)
    assert page.titles[:2] == ["Success", "Q on policy, compared"]
    assert "Success at the end" not in page.text
    assert page.text.count("Shaded: the returns that are possible.") == 2  # compared, and SAC's own


def test_a_run_without_success_speaks_of_returns(run: Path) -> None:
    def change(summary: Any) -> None:
        for stage in [*summary["stages"].values(), *summary["baselines"].values()]:
            if success := stage.get("success"):
                returns = [-1000.0 * rate for rate in success["per_seed"]]
                middle = {"iqm": -1000 * success["iqm"], "ci95": [min(returns) - 50, max(returns) + 50]}
                stage |= {"success": None, "return": {**middle, "per_seed": returns}, "path_ratio": None}
        summary["switch"] = {"before": -75.0, "dip": 12.5, "recovery_env_steps": 1500, "regret": 30.0}

    edit(run / "summary.json", change)
    for path in run.rglob("routes.json"):
        path.unlink()
    for path in run.rglob("metrics.jsonl"):
        path.write_text(
            re.sub(r'"eval/(success|path_ratio)": \[[^]]*\]', r'"eval/\1": [null, null, null]', path.read_text())
        )
    page = page_of(run)
    assert page.titles[:3] == ["Return", "Return, offline", "Return, online"]
    assert "maze" not in page.sections and "switch" in page.sections
    text = " ".join(page.text.split())
    assert "Return at the end, stage evaluate −99" in text
    assert "Before −75.0 return of what went online, interquartile mean over seeds Dip 12.5" in text
    assert "Regret 30.0 mean of what return is lacking to that over all evaluations online" in text
    assert "Return at every evaluation after the switch" in text
    assert "Success" not in text


def test_the_switch_is_that_of_the_stage_that_goes_on(run: Path) -> None:
    """As in `locomotion`, which begins with practice from scratch."""
    found = read_run(run)
    (online,) = found.curves("online")
    scratch = replace(online, name="behaviour", start="")
    for going_on in (replace(online, start="pretrain"), replace(online, name="twice", start="pretrain")):
        assert replace(found, stages=[scratch, online, going_on]).switched == [going_on]
    assert replace(found, stages=[scratch]).switched == [scratch] and not replace(found, stages=[]).switched


def test_a_stage_from_scratch_is_no_switch(run: Path) -> None:
    plan = strict_yaml.parse((run / "pipeline.yaml").read_text(), "").value
    del plan["stages"]["finetune"]["start"]
    (run / "pipeline.yaml").write_text(strict_yaml.render(plan))
    edit(run / "summary.json", lambda summary: summary["stages"]["finetune"].pop("start"))
    edit(run / "summary.json", lambda summary: summary.update(switch={}, baselines={}))
    found = read_run(run)
    assert found.before is None and found.after is not None and found.after.name == "evaluate"
    assert 'class="regret"' not in write_report(run).read_text()
    text = " ".join(page_of(run).text.split())
    for words in ("Before going online", "before the switch", "after the switch", "falls short"):
        assert words not in text, words
    assert "Success at every evaluation: thick the interquartile mean" in text


def test_the_picture_of_the_switch_shades_what_its_numbers_say(run: Path) -> None:
    """Of five seeds one collapses: neither is it in the numbers, nor shaded, but its line is there."""
    with MetricsLog(run / "stages" / "finetune" / "metrics.jsonl") as log:
        for step in (0, 500, 1000):
            log.write("online", step, {"eval/success": [1.0, 1.0, 1.0, 1.0, 0.2]})
    edit(run / "summary.json", lambda summary: summary.update(switch=switch_summary(read_run(run).switched[0].rows)))
    found = read_run(run)
    assert (found.switch["before"], found.switch["dip"], found.switch["regret"]) == (1.0, 0.0, 0.0)
    figure = figures.switch_figure(found)
    assert figure is not None
    shaded = re.search(r'class="regret" d="([^"]*)"', figure.svg)
    assert shaded is not None
    assert len(set(re.findall(r"[ML]\S+ ([\d.]+)", shaded[1]))) == 1, "a flat line"
    assert figure.svg.count('class="seed') == 5


def test_the_level_before_is_that_of_the_stage_that_went_online(run: Path) -> None:
    """As in an unfinished `locomotion`: the practice from scratch is shown, and what is to go online was measured."""
    found = replace(read_run(run), switch={})
    (online,) = found.curves("online")
    figure = figures.switch_figure(found)
    assert figure is not None and "before the switch" in figure.svg
    figure = figures.switch_figure(replace(found, stages=[replace(online, start="")]))
    assert figure is not None and "before the switch" not in figure.svg


def test_a_level_that_the_returns_do_not_reach_lies_on_the_edge(run: Path) -> None:
    figure = figures.switch_figure(replace(read_run(run), measure="return", switch={"before": 1e4}))
    assert figure is not None
    (height,) = re.findall(r'viewBox="0 0 \d+ (\d+)"', figure.svg)
    levels = re.findall(r'class="level"[^>]* y1="([-\d.]+)"', figure.svg)
    assert levels and all(0 <= float(level) <= float(height) for level in levels)


def test_what_the_switch_cost_needs_no_picture(run: Path) -> None:
    (run / "stages" / "finetune" / "metrics.jsonl").unlink()
    page = page_of(run)
    text = " ".join(page.text.split())
    assert "switch" in page.sections and "The first steps online" not in page.titles
    assert "Regret 0.03" in text and "went back to step 0 (0.96)" in text
    edit(run / "summary.json", lambda summary: summary.update(switch={}))
    assert "The guard stepped in" in page_of(run).titles


def test_a_baseline_of_the_main_agent_hides_nothing(run: Path) -> None:
    edit(run / "summary.json", lambda summary: summary["stages"]["clone"].update(agent="iql"))
    edit(run / "summary.json", lambda summary: summary.update(baselines={"iql": summary["baselines"]["bc"]}))
    found = read_run(run)
    assert found.before is not None and found.before.name == "pretrain"
    figure = figures.score_figure(found)
    assert figure is not None
    assert re.findall(r"[;:] (.*?) [\d.]+(?=[;\"])", figure.svg.split(">")[0]) == [
        "iql (baseline)",
        "pretrain",
        "finetune",
        "evaluate",
    ]


def test_success_in_each_task_of_the_card(run: Path) -> None:
    edit(
        run / "summary.json",
        lambda summary: summary["stages"]["pretrain"].update(tasks={"task1": TASK | {"iqm": 0.31}, "task2": TASK}),
    )
    edit(
        run / "summary.json",
        lambda summary: summary["stages"]["evaluate"].update(tasks={"task2": TASK | {"iqm": 0.87}}),
    )
    text = " ".join(Page(write_report(run).read_text()).text.split())
    assert "Success by task Taskpretrainevaluate task10.31 0.10 to 0.60– task20.42" in text
    assert "0.87 0.10 to 0.60" in text


def test_without_a_maze_or_versions(run: Path) -> None:
    for path in run.rglob("routes.json"):
        path.unlink()
    edit(run / "summary.json", lambda summary: summary.pop("versions"))
    (run / "pipeline.yaml").unlink()
    assert page_of(run).sections == [name for name in SECTIONS if name not in ("maze", "configuration")]


def test_one_seed(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path, seeds=1))
    assert page.sections == SECTIONS
    assert "seed 0" in page.text


def test_missing_numbers(run: Path) -> None:
    def change(summary: Any) -> None:
        summary["stages"]["pretrain"]["success"] = {"iqm": None, "ci95": [None, None], "per_seed": [None] * 3}
        summary["stages"]["finetune"]["success"]["ci95"] = [math.nan, math.nan]
        summary["stages"]["finetune"]["path_ratio"] = math.nan
        summary["stages"]["evaluate"] = {"kind": "evaluate", "wall_s": None, "success": None}
        summary["switch"] = {"dip": math.nan, "recovery_env_steps": None, "regret": None, "before": None}
        summary["peak_rss_mb"] = math.nan

    edit(run / "summary.json", change)
    with MetricsLog(run / "stages" / "pretrain" / "metrics.jsonl") as log:
        log.write("offline", 0, {"eval/success": [math.nan] * 3, "q_policy": [math.nan, 1.0, 2.0]})
        log.write("offline", 10, {"eval/success": [math.nan, 0.5, 0.6], "q_policy": [math.inf] * 3})
    page = page_of(run)
    assert "switch" in page.sections
    assert "Success, stage finetune" in page.text
    edit(run / "summary.json", lambda summary: summary["stages"]["finetune"].update(success={"iqm": math.nan}))
    assert "stage finetune" not in page_of(run).text


@pytest.mark.parametrize("content", ["", "{}", '{"phase": "offline", "step": 0, "eval/success": [0.5, 0.5, 0.5]}\n'])
def test_short_metrics(run: Path, content: str) -> None:
    for path in run.rglob("metrics.jsonl"):
        path.write_text(content)
    page_of(run)


def test_a_large_run_stays_small(tmp_path: Path) -> None:
    run = write_run(tmp_path, seeds=10, pieces=3000)
    for stage in ("clone", "pretrain"):
        with MetricsLog(run / "stages" / stage / "metrics.jsonl") as log:
            for step in range(0, 20_000, 5):
                log.write("offline", step, {"loss/Q": np.full(10, math.sin(step)), "q_data": np.full(10, -step / 100)})
    page_of(run)
    assert (run / "report.html").stat().st_size < 2_000_000


def test_folders_without_a_run_and_broken_files_are_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match="expected a run folder"):
        write_report(tmp_path / "nothing")
    (run / "summary.json").write_text("{")
    with pytest.raises(ToolkitError, match=r"summary\.json: expected JSON"):
        write_report(run)


def test_axes_have_round_ticks_inside() -> None:
    assert Axis(-0.02, 1.04, 0, 100).ticks() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert Axis(0, 20_000, 0, 100).ticks() == [0, 5000, 10_000, 15_000, 20_000]
    for low, high in [(-61.3, -35.2), (0, 1e-6), (1e6, 1.1e6), (-3, 900)]:
        axis = Axis(low, high, 0, 100)
        assert 3 <= len(axis.ticks()) <= 6
        assert all(low <= value <= high for value in axis.ticks())
    bent = value_axis(np.array([-50.0, -40.0, 3e6]), 200, 0)
    assert bent.bend
    assert 0.0 in bent.ticks()
    assert 4 <= len(bent.ticks()) <= 8
    assert np.all(np.diff(bent(np.array([-50.0, 0.0, 10.0, 1e6]))) < 0)  # upwards on the page
    assert [tick_label(v) for v in (0.25, 0, 500, 5000, 2.5e6, -1e4)] == ["0.25", "0", "500", "5k", "2.5M", "-10k"]
    assert tick_label(math.nan) == "–"


def test_paths_break_at_missing_values() -> None:
    xs, ys = np.arange(4.0), np.array([1.0, np.nan, 2.0, 3.0])
    assert line(xs, ys) == "M0.0 1.0M2.0 2.0L3.0 3.0"
    assert area(xs, ys, ys + 1) == "M0.0 2.0L2.0 3.0L3.0 4.0L3.0 3.0L2.0 2.0L0.0 1.0Z"
    assert area(xs[:1], ys[:1], ys[:1]) == ""


def test_elements_escape_everything() -> None:
    assert tag("text", "<b>", class_='"x"', stroke_width=1.0) == (
        '<text class="&#34;x&#34;" stroke-width="1">&lt;b&gt;</text>'
    )


def test_curves_summarise_seeds() -> None:
    values = np.array([[0.0, 1.0, 2.0], [1.0, 1.0, np.nan]])
    curve = Curve("x", 1, np.array([0.0, 10.0]), values)
    assert curve.iqm.tolist() == [1.0, 1.0]
    low, high = curve.interval
    assert (low[0], high[0]) == seed_ci(values[0])
    assert np.isnan([low[1], high[1]]).all(), "a seed without a value"
    assert np.isnan(Curve("x", 1, np.array([0.0]), np.array([[1.0]])).interval).all()
    assert Curve("x", 1, np.array([0.0]), np.array([[1.0, 1.0, 1.0, 1.0, 0.2]])).iqm == [1.0]
    many = Curve("x", 1, np.arange(5000.0), np.zeros((5000, 2))).thinned()
    assert len(many.steps) == 240
    assert many.steps[-1] == 4999
    assert curve_figure("t", "", [Curve("x", 1, np.arange(2.0), np.full((2, 3), np.nan))], "steps") is None


def test_seeds_that_all_arrive_are_not_certain_to() -> None:
    steps, values = np.array([0.0, 10.0, 20.0]), np.array([[0.9, 1.0, 0.95], [1.0] * 3, [1.0] * 3])
    low, high = Curve("x", 1, steps, values, np.array([20.0, 20.0, np.nan])).interval
    played = np.arange(20) < np.array([[18], [20], [19]])
    assert [(low[i], high[i]) for i in (0, 1)] == [success_ci(played), success_ci(np.ones((3, 20)))]
    assert low[1] < 0.95 and high[1] == 1.0
    assert np.isnan([low[2], high[2]]).all(), "played how often is not known"


def test_a_curve_says_where_it_ends_or_that_it_has_no_value_there(run: Path) -> None:
    steps = np.arange(2.0)
    figure = curve_figure(
        "t", "", [Curve(n, 1, steps, np.array([[0.5], [v]])) for n, v in (("a", math.nan), ("b", 0))], "s"
    )
    assert figure is not None
    assert "a ends without a value, b ends at 0" in figure.svg
    found = read_run(run)
    (pretrain,) = [stage for stage in found.stages if stage.name == "pretrain"]
    assert pretrain.episodes(np.array([0.0, 4_500.0, 5_000.0])).tolist() == [20, 20, 100]


def test_simplified_lines_stay_close() -> None:
    at = np.linspace(0, 6, 400)
    points = np.stack([100 * at, 60 * np.sin(at)], axis=1)
    kept = _simplified(points, 1.0)
    assert len(kept) < 60
    back = np.interp(points[:, 0], kept[:, 0], kept[:, 1])
    assert np.abs(back - points[:, 1]).max() < 1.5
    assert _simplified(points[:1], 1.0).shape == (1, 2)
    assert _simplified(np.zeros((0, 2)), 1.0).shape == (0, 2)


def test_films_are_linked_beside_the_page(run: Path) -> None:
    (run / "videos").mkdir()
    for name in ("a film #1.gif", "notes.txt"):
        (run / "videos" / name).write_text("")
    page = page_of(run)
    assert [value for key, value in page.attributes if key == "href"] == ["videos/a%20film%20%231.gif"]
    assert "videos/a film #1.gif" in page.text
