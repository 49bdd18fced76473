"""Runs side by side and the index of a folder of them: what is tested, what is refused, what stands in the page."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from report_fixture import write_run
from test_report import Page, edit

from toolkit.report.compare import LAST, compare_runs, table
from toolkit.report.index import report
from toolkit.report.page import write_report
from toolkit.types import Json, ToolkitError


@pytest.fixture(scope="module")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("whole"), pieces=20)


@pytest.fixture
def runs(_whole: Path, tmp_path: Path) -> list[Path]:
    """Two runs of one pipeline; the second one's `pretrain` is 0.1 better in every seed."""
    found = [Path(shutil.copytree(_whole, tmp_path / name)) for name in ("first", "second")]

    def better(summary: Json) -> None:
        score = summary["stages"]["pretrain"]["success"]
        score["per_seed"] = [seed + 0.1 for seed in score["per_seed"]]

    edit(found[1] / "summary.json", better)
    return found


def rename(run: Path, stages: dict[str, str]) -> None:
    def change(summary: Json) -> None:
        summary["stages"] = {stages.get(name, name): entry for name, entry in summary["stages"].items()}

    edit(run / "summary.json", change)
    (run / "pipeline.yaml").unlink()
    shutil.rmtree(run / "stages")
    (run / "stages").mkdir()


def test_stages_of_one_name_meet(runs: list[Path], tmp_path: Path) -> None:
    found = compare_runs(runs, tmp_path / "side.html")
    assert (found["task"], found["measure"]) == ("pointmaze-medium", "success")
    assert [group["stage"] for group in found["stages"]] == ["clone", "pretrain", "finetune", "evaluate"]
    tests = {row["stage"]: row for row in found["tests"]}
    assert (tests["pretrain"]["run"], tests["pretrain"]["against"]) == ("second", "first")
    assert tests["pretrain"]["difference"] == pytest.approx(0.1)
    assert (tests["pretrain"]["p"], tests["pretrain"]["least_p"]) == (0.25, 0.25)
    assert tests["pretrain"]["p_holm"] == 1.0  # four tests
    assert tests["pretrain"]["chance"] == 1.0
    assert (tests["clone"]["difference"], tests["clone"]["p"], tests["clone"]["chance"]) == (0.0, 1.0, 0.5)
    assert any("cannot give a p below 0.25" in note for note in found["notes"])
    page = Page((tmp_path / "side.html").read_text())
    assert page.sections == ["results", "tests", "learning", "runs"]
    assert "Success, finetune" in page.titles
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert any("+0.1 against first" in line for line in table(found))


def test_other_starts_are_not_tested(runs: list[Path]) -> None:
    config = runs[1] / "pipeline.yaml"
    config.write_text(config.read_text().replace("starts: far", "starts: all"))
    found = compare_runs(runs)
    assert [row["stage"] for row in found["tests"]] == ["clone", "pretrain", "finetune"]
    assert any("evaluate: second began its episodes elsewhere" in note for note in found["notes"])


def test_other_seeds_are_not_paired(runs: list[Path]) -> None:
    edit(runs[1] / "summary.json", lambda summary: summary.update(seeds=[7, 8, 9]))
    row = next(row for row in compare_runs(runs)["tests"] if row["stage"] == "pretrain")
    assert (row["paired"], row["p"], row["p_holm"], row["chance"]) == (False, None, None, 1.0)
    assert row["difference"] == pytest.approx(0.1)


def test_the_last_stages_meet_where_no_name_is_shared(runs: list[Path]) -> None:
    rename(runs[1], {"clone": "a", "pretrain": "b", "finetune": "c", "evaluate": "d"})
    found = compare_runs(runs)
    assert [group["stage"] for group in found["stages"]] == [LAST]
    assert [entry["iqm"] for entry in found["stages"][0]["scores"]] == [
        json.loads((runs[0] / "summary.json").read_text())["stages"]["evaluate"]["success"]["iqm"]
    ] * 2


def test_what_does_not_compare_is_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match="two or more run folders, got 1"):
        compare_runs(runs[:1])
    with pytest.raises(ToolkitError, match="each run once"):
        compare_runs([runs[0], runs[0]])
    with pytest.raises(ToolkitError, match="expected a run folder"):
        compare_runs([runs[0], tmp_path])
    with pytest.raises(ToolkitError, match=r"expected a name that ends in \.html"):
        compare_runs(runs, tmp_path / "side.pdf")
    edit(runs[1] / "summary.json", lambda summary: summary.update(task="pointmaze-large"))
    with pytest.raises(ToolkitError, match="runs of one task, got first pointmaze-medium, second pointmaze-large"):
        compare_runs(runs)
    edit(runs[1] / "summary.json", lambda summary: summary.update(stages={}, baselines={}))
    with pytest.raises(ToolkitError, match="second: this run has no results yet"):
        compare_runs(runs)


def test_an_index_lists_what_is_there(runs: list[Path], tmp_path: Path) -> None:
    write_report(runs[0])
    (tmp_path / "deep" / "er").mkdir(parents=True)
    shutil.move(runs[1], tmp_path / "deep" / "er" / "a run #2")
    (tmp_path / "broken" / "stages").mkdir(parents=True)
    (tmp_path / "broken" / "summary.json").write_text("{")
    answer = report(tmp_path)
    rows: dict[str, Any] = {row["path"]: row for row in answer["runs"]}
    assert sorted(rows) == ["broken", "deep/er/a run #2", "first"]
    assert rows["first"]["result"]["stage"] == "evaluate"
    assert "expected JSON" in rows["broken"]["error"]
    assert [row["report"] for row in rows.values() if row["report"]] == ["first/report.html"]
    write_report(tmp_path / "deep" / "er" / "a run #2")
    page = Page(Path(report(tmp_path)["report"]).read_text())
    assert ("href", "deep/er/a%20run%20%232/report.html") in page.attributes
    assert page.titles == ["Success on pointmaze-medium"]
    assert "finetune 0." in page.text or "finetune 1." in page.text


@pytest.mark.parametrize(
    ("summary", "problem"),
    [
        ('{"seeds": 5, "stages": {"a": {"success": {"iqm": 0.5, "ci95": 5}}}}', "TypeError"),
        ('{"wall_s": 1' + 400 * "0" + "}", "OverflowError"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "RecursionError"),
        (r'{"name": "half a character: \ud800"}', None),
    ],
)
def test_one_odd_folder_does_not_end_an_index(
    runs: list[Path], tmp_path: Path, summary: str, problem: str | None
) -> None:
    odd = tmp_path / os.fsdecode(b"\xff")
    odd.mkdir()
    (odd / "summary.json").write_text(summary)
    (odd / "report.html").touch()
    answer = report(tmp_path)
    (error,) = [row["error"] for row in answer["runs"] if row["path"] == odd.name]
    assert problem in error if problem else error is None
    assert ("href", "%FF/report.html") in Page(Path(answer["report"]).read_text()).attributes
    if problem:
        with pytest.raises(ToolkitError, match=problem):
            report(odd)


def test_a_run_gets_its_report_and_nothing_else_an_index(runs: list[Path], tmp_path: Path) -> None:
    assert report(runs[0]) == {"report": str(runs[0] / "report.html")}
    (tmp_path / "empty").mkdir()
    with pytest.raises(ToolkitError, match="or a folder of runs"):
        report(tmp_path / "empty")
