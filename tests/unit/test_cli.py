"""The command line as a shell sees it: exit codes, what goes to which stream, what a refusal loads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from toolkit.cli import main

TOOLKIT = [sys.executable, "-m", "toolkit"]


def toolkit(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TOOLKIT, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60)


def test_help_names_every_command() -> None:
    result = toolkit("--help")
    assert result.returncode == 0
    for command in ("pipeline", "collect", "evaluate", "list", "report", "compare", "export", "advise"):
        assert f"  {command} " in result.stdout


def test_version() -> None:
    from toolkit import __version__

    assert toolkit("--version").stdout == f"toolkit {__version__}\n"


def test_list_shows_one_line_each(tmp_path: Path) -> None:
    lines = toolkit("list", "envs", cwd=tmp_path).stdout.splitlines()
    assert lines[0] == "envs:"
    assert any(line.split()[0] == "pointmaze-medium" and len(line.split()) > 3 for line in lines[1:])


def test_list_as_json(tmp_path: Path) -> None:
    result = toolkit("list", "--json", cwd=tmp_path)
    found = json.loads(result.stdout)
    assert list(found) == ["envs", "datasets", "pipelines", "agents"]
    assert "stitch" in [row["name"] for row in found["datasets"]]
    assert "iql" in [row["name"] for row in found["agents"]]
    assert all(row["summary"] for rows in found.values() for row in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pipelin"], "Did you mean 'pipeline'?"),
        (["list", "env"], "'envs'"),
        (["pipeline", "nowhere"], "no pipeline 'nowhere'"),
        (["pipeline", "wrong.yaml"], "wrong.yaml:3: stages.fit.udt: expected one of "),
        (["pipeline", "wrong.yaml", "--dry-run"], "did you mean 'utd'?"),
        (["pipeline", "smoke", "--set", "nonsense"], "--set nonsense: expected NAME.NAME=VALUE"),
        (["collect", "nowhere"], "no recipe 'nowhere'"),
        (["collect", "stitch", "--episodes", "0"], "episodes"),
        (["evaluate", "nowhere"], "nowhere: no such folder"),
        (["evaluate", "nowhere", "--video", "film.avi"], "film.avi: expected a name that ends in .mp4 or .gif"),
        (["report", "nowhere"], "nowhere"),
        (["export", "nowhere", "--to", "onnx"], "nowhere: no such folder"),
        (["export", "nowhere", "--to", "keras"], "'torchscript'"),
        (["advise", "nowhere"], "data set id 'nowhere': expected NAMESPACE/NAME"),
        (["advise", "nowhere", "--try", "soon"], "expected a time such as 90s"),
        (["advise", "nowhere", "--try", "1h", "--out", "advice"], "--out advice: expected a file, .yaml"),
        (["advise", "nowhere", "--out", "wrong.yaml"], "--out wrong.yaml: is there already"),
        (["advise", "mine/none-v0"], "mine/none-v0: expected a data set, found nothing; see `toolkit data list"),
        (["compare", "nowhere"], "expected two or more run folders"),
        (["compare", "nowhere", "nobody"], "nowhere: expected a run folder"),
        (["pipeline", "smoke", "--out", "wrong.yaml/run"], "wrong.yaml/run: Not a directory"),
    ],
)
def test_bad_input_exits_with_2_and_writes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(
        "name: wrong\ntask: pointmaze-medium\nstages: {fit: {kind: online, agent: sac, env_steps: 9, udt: 4}}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["toolkit", *arguments])
    with pytest.raises(SystemExit) as left:  # in this process, which has torch: a fresh one takes seconds to load it
        main()
    out, err = capfd.readouterr()
    assert left.value.code == 2
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == [wrong]


@pytest.mark.parametrize("arguments", [["evaluate", "run"], ["report", "run"], ["pipeline", "smoke", "--out", "run"]])
def test_a_run_whose_pipeline_is_no_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    (tmp_path / "run/stages").mkdir(parents=True)
    (tmp_path / "run/pipeline.yaml").write_bytes(b"name: \xff")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["toolkit", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "run/pipeline.yaml: expected UTF-8 text; invalid start byte at byte 6" in capfd.readouterr().err


@pytest.mark.parametrize("arguments", [["wrong.yaml"], ["smoke", "--set", "pretrain.config.expectil=0.9"]])
def test_a_mistake_is_refused_before_anything_large_is_loaded(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "wrong.yaml").write_text("name: wrong\ntask: pointmaze-medium\nstages: {}\nmore: 1\n")
    code = f"""
import sys
from toolkit.cli import main
sys.argv = ["toolkit", "pipeline", *{arguments}]
try:
    main()
except SystemExit as left:
    loaded = {{"torch", "numba", "mujoco", "gymnasium", "minari", "matplotlib"}} & set(sys.modules)
    sys.exit(f"loaded {{loaded}}" if loaded else left.code)
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 2, result.stderr


def test_collect_says_where_it_wrote(tmp_path: Path) -> None:
    result = toolkit("collect", "stitch", "--episodes", "3", "--out", "here", "--workers", "1", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert (tmp_path / answer["dataset"] / "data" / "main_data.hdf5").is_file()
    assert (answer["recipe"], answer["episodes"]) == ("stitch", 3)
    (tmp_path / "datasets").mkdir()
    text = "{name: lucky, description: x, task: pointmaze-umaze, routes: stitch, max_cells: 1, max_episode_steps: 120, "
    text += "controller: {kind: random}, noise: {kind: none}, keep: success, episodes: 20}"
    (tmp_path / "datasets/lucky.yaml").write_text(text)
    lucky = json.loads(toolkit("collect", "lucky", "--workers", "1", "--json", cwd=tmp_path).stdout)
    about = json.loads((tmp_path / lucky["dataset"] / "data/metadata.json").read_text())
    assert lucky["episodes"] == about["total_episodes"] < 20
    again = toolkit("collect", "stitch", "--episodes", "3", "--out", "here", "--workers", "1", cwd=tmp_path)
    assert again.returncode == 2
    assert (
        toolkit(
            "collect", "stitch", "--episodes", "3", "--out", "here", "--workers", "1", "--replace", cwd=tmp_path
        ).stdout.strip()
        == answer["dataset"]
    )


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(tmp_path: Path, number: signal.Signals, code: int) -> None:
    command = [*TOOLKIT, "collect", "navigate", "--episodes", "100000", "--workers", "1"]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # tests run in the background inherit deafness
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heard
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "started" in line:
                break
        process.send_signal(number)
        began = time.perf_counter()
        assert process.wait(20) == code
        assert time.perf_counter() - began < 5
        assert "Traceback" not in process.stderr.read()
    assert not list(tmp_path.glob("data/pointmaze/*")), "nothing half-written stays"


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", -2), ("SIGTERM", 143)])
def test_a_signal_in_a_callback_is_not_lost(name: str, code: int) -> None:
    program = (
        "import signal, time, weakref; from toolkit.cli import listen; listen()\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Thing: pass\n"
        f"thing = Thing(); kept = weakref.ref(thing, lambda _: signal.raise_signal(signal.{name})); del thing\n"
        "time.sleep(10); print('lost')"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (code, "")
    assert "ignored" not in result.stderr


def test_importing_the_package_costs_nothing() -> None:
    code = "import sys, toolkit; assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules); print(dir(toolkit))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    import toolkit

    for name in toolkit.__all__:
        assert repr(name) in result.stdout


def test_public_names_load_when_used() -> None:
    import toolkit

    for name in toolkit.__all__:
        assert getattr(toolkit, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        toolkit.nonsense  # noqa: B018
