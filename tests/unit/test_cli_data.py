"""`toolkit data` as a shell sees it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import h5py
import minari
import numpy as np
import pytest
from typer.testing import CliRunner

from tests.unit.test_importers import after, d4rl_arrays, flat, ogbench_arrays, truth
from toolkit.cli import app
from toolkit.collect import collect
from toolkit.controllers import load_recipe
from toolkit.data.imported import acting
from toolkit.data.minari import read_minari
from toolkit.recordings import choose, merge
from toolkit.tasks import load_card, relabel
from toolkit.types import Episodes, ToolkitError

CARD = load_card("pointmaze-umaze")


def data(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["data", *arguments])
    assert result.exit_code == code, result.output
    if "--json" in arguments and result.stdout:
        return json.loads(result.stdout)
    return result.stdout if code == 0 or result.stdout else result.stderr


def same(one: Episodes, other: Episodes) -> None:
    for name, rows in one.__dict__.items():
        np.testing.assert_array_equal(getattr(other, name), rows, err_msg=name)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = load_recipe("navigate").model_copy(update={"episodes": 8})
    return collect(recipe, CARD, tmp_path_factory.mktemp("data") / "root", seed=3)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_list_and_show(recorded: Path, here: Path) -> None:
    root = str(recorded.parents[1])
    (entry,) = data("list", root, "--json")["datasets"]
    assert (entry["id"], entry["total_episodes"]) == ("pointmaze/umaze-navigate-v0", 8)
    assert "8 episodes" in data("list", root)
    (recorded.parents[1] / "link").symlink_to(recorded.parents[1])
    assert len(data("list", root, "--json")["datasets"]) == 1
    shown = data("show", entry["id"], "--root", root, "--task", CARD.name, "--out", "pictures", "--json")
    episodes = relabel(CARD, read_minari(recorded))
    assert (shown["episodes"], shown["transitions"]) == (len(episodes), episodes.transitions)
    assert shown["length"]["max"] == episodes.lengths.max()
    picture = ElementTree.parse(here / shown["picture"]).getroot()
    assert len(picture.findall("{*}path")) >= len(episodes)
    assert "success 0.625 of the episodes" in data("show", str(recorded), "--task", CARD.name)
    assert "success" not in data("show", str(recorded))  # an end may as well be a fall
    assert "expected --task too" in data("show", str(recorded), "--out", "x", code=2)


def test_validate(recorded: Path, here: Path) -> None:
    report = data("validate", str(recorded), "--task", CARD.name, "--json")
    assert (report["errors"], report["warnings"]) == (0, 0)
    arrays = d4rl_arrays(truth(), next_observations=after(truth()), actions=2 * flat(truth(), "action"))
    arrays["rewards"] = arrays["rewards"].copy()
    arrays["rewards"][4] = np.nan
    np.savez(here / "bad.npz", **arrays)
    report = data("validate", "bad.npz", "--json", code=2)
    rules = {finding["rule"] for finding in report["findings"]}
    assert rules == {"not-finite", "action-bounds"} and report["findings"][0]["severity"] == "error"
    cases = sum(finding["cases"] for finding in report["findings"] if finding["rule"] == "action-bounds")
    told = data("validate", "bad.npz", code=2)
    assert cases > 5 and told.count("error    action-bounds") == 6 and f"and {cases - 5} more; --json has more" in told
    assert "1 error, " in data("validate", "bad.npz", "--waive", "action-bounds", code=2)
    data("validate", "bad.npz", "--waive", "action-bounds", "--waive", "not-finite")
    data("validate", "bad.npz", "--action-bounds", "-2,2", "--waive", "not-finite")
    assert "expected the name of a rule" in data("validate", "bad.npz", "--waive", "nan", code=2)
    (here / "none.npz").write_bytes(b"PK")
    assert data("validate", "none.npz", "--json", code=2)["findings"][0]["rule"] == "unreadable"


def log_of(width: int) -> dict[str, np.ndarray]:
    """Four episodes of ten steps, cut off, as somebody logs them."""
    states = np.random.default_rng(0).normal(size=(4, 11, width)).astype(np.float32)
    return {
        "observations": states[:, :-1].reshape(40, width),
        "next_observations": states[:, 1:].reshape(40, width),
        "rewards": states[:, 1:, 0].reshape(40),
        "terminals": np.zeros(40),
        "timeouts": np.arange(40) % 10 == 9,
    }


def test_actions_without_bounds_are_in_the_simulator_s(here: Path) -> None:
    """As whoever logs a pendulum, whose torque goes from -2 to 2, has them; and what is exported says its bounds."""
    (here / "envs").mkdir(exist_ok=True)
    card = "{name: wide, description: x, env_id: Pendulum-v1, max_episode_steps: 200, reward: {rule: env}}"
    (here / "envs" / "wide.yaml").write_text(card)
    torque = np.random.default_rng(1).uniform(-2, 2, (40, 1)).astype(np.float32)
    np.savez(here / "log.npz", actions=torque, **log_of(3))
    data("convert", "log.npz", "mine/log-v0", "--task", "wide")
    data("merge", "mine/both-v0", "log.npz", "log.npz", "--task", "wide")
    data("split", "log.npz", "mine/first-v0", "--episodes", "0:2", "--task", "wide")
    for name, rows in (("log", slice(0, 40)), ("both", slice(0, 40)), ("first", slice(0, 20))):
        found = read_minari(here / f"data/mine/{name}-v0")
        moved = found.action[acting(found.starts)][: len(torque[rows])]
        np.testing.assert_array_equal(moved, (torque / 2)[rows], err_msg=name)
    for flags in ([], ["--task", "wide"]):  # in either bounds the file means the same
        data("convert", "mine/log-v0", "log.hdf5", "--to", "d4rl", "--replace", *flags)
        data("convert", "log.hdf5", "mine/back-v0", "--replace", "--task", "wide")
        same(read_minari(here / "data/mine/back-v0"), read_minari(here / "data/mine/log-v0"))
    assert "--action-bounds LOW,HIGH" in data("validate", "log.npz", code=2)


def test_a_log_that_does_not_fit_the_task_is_told_of(here: Path) -> None:
    np.savez(here / "log.npz", actions=np.zeros((40, 3), np.float32), **log_of(4))
    (finding,) = data("validate", "log.npz", "--task", "hopper", "--json", code=2)["findings"]
    assert finding["rule"] == "task-shape" and finding["text"] == "task hopper has observations of 11 numbers; got 4"
    np.savez(here / "log.npz", actions=np.zeros((40, 2), np.float32), **log_of(11))
    assert "actions: expected 3 numbers, got 2" in data("validate", "log.npz", "--task", "hopper", code=2)
    np.savez(here / "log.npz", actions=np.zeros((40, 2), np.float32), **log_of(4))
    assert "expected data with achieved goals, got 0" in data("validate", "log.npz", "--task", CARD.name, code=2)
    assert "0 errors" in data("validate", "log.npz", "--task", CARD.name, "--achieved", "0:2")


def test_what_a_user_says_counts_or_is_refused(recorded: Path, here: Path) -> None:
    low, high = np.full(1, -1.0), np.full(1, 1.0)
    np.savez(here / "own.npz", actions=np.full((40, 1), 1.5, np.float32), action_low=low, action_high=high, **log_of(3))
    assert "outside the bounds" in data("show", "own.npz", code=2)
    data("convert", "own.npz", "mine/own-v0", "--action-bounds=-3,3")
    assert (read_minari(here / "data/mine/own-v0").action.max()) == 0.5
    for arguments, words in (
        (["mine/own-v0", "--action-bounds=-3,3"], "a recording of format minari has its own"),
        (["own.npz", "--filter", "train"], "expected a robomimic file, got one of format npz"),
    ):
        assert words in data("show", *arguments, code=2)


def test_choices_are_logged_by_number(here: Path) -> None:
    np.savez(here / "log.npz", actions=np.arange(40) % 2, **log_of(4))
    data("convert", "log.npz", "mine/log-v0", "--task", "cartpole")
    found = read_minari(here / "data/mine/log-v0")
    np.testing.assert_array_equal(found.action[acting(found.starts)], np.eye(2, dtype=np.float32)[np.arange(40) % 2])
    np.savez(here / "log.npz", actions=np.arange(40) % 3, **log_of(4))
    told = data("validate", "log.npz", "--task", "cartpole", code=2)
    assert "expected numbers of choices, 0 to 1" in told


def test_convert_there_and_back(recorded: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Minari to D4RL to Minari: the same episodes; Minari itself opens what is written."""
    data("convert", str(recorded), "walk.hdf5", "--to", "d4rl")
    data("convert", "walk.hdf5", "mine/walk-v0", "--task", CARD.name)
    back = here / "data/mine/walk-v0"
    one, other = read_minari(recorded), read_minari(back)
    for name in ("obs", "achieved", "desired", "action", "reward", "terminated", "truncated", "starts"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(here / "data"))
    opened = minari.load_dataset("mine/walk-v0")
    assert opened.total_episodes == 8 and opened.env_spec.id == CARD.env_id
    assert opened.env_spec.max_episode_steps == CARD.max_episode_steps
    np.testing.assert_array_equal(next(opened.iterate_episodes()).observations["observation"], one.obs[: one.starts[1]])
    assert "exists already" in data("convert", "walk.hdf5", "mine/walk-v0", code=2)
    assert "exists already" in data("convert", str(recorded), "walk.hdf5", "--to", "d4rl", code=2)
    data("convert", "walk.hdf5", "mine/walk-v0", "--replace")
    assert minari.load_dataset("mine/walk-v0").env_spec is None
    with h5py.File(here / "walk.hdf5") as file:
        assert sorted(file) == [
            "action_high",
            "action_low",
            "actions",
            "infos",
            "next_observations",
            "observations",
            "rewards",
            "terminals",
            "timeouts",
        ]


def test_convert_to_ogbench_and_relabel(recorded: Path, here: Path) -> None:
    data("convert", str(recorded), "walk.npz", "--to", "ogbench")
    with np.load(here / "walk.npz") as file:
        assert np.flatnonzero(file["terminals"]).tolist() == (read_minari(recorded).starts[1:] - 1).tolist()
    data("relabel", "walk.npz", "mine/goal-v0", "--task", CARD.name, "--achieved", "0:2")
    one, other = relabel(CARD, read_minari(recorded)), read_minari(here / "data/mine/goal-v0")
    same(one, other)
    assert "expected data with achieved goals" in data("relabel", "walk.npz", "mine/b-v0", "--task", CARD.name, code=2)


def test_plain_observations_open_in_minari(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(here / "play.npz", **ogbench_arrays(truth()))
    data("convert", "play.npz", "their/play-v0")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(here / "data"))
    first = minari.load_dataset("their/play-v0")[0]
    np.testing.assert_array_equal(first.observations, truth()[0].obs)
    assert first.truncations[-1]


def test_merge_and_split(recorded: Path, here: Path) -> None:
    whole = read_minari(recorded)
    data("split", str(recorded), "part/a-v0", "part/b-v0", "--share", "0.25", "--seed", "1")
    a, b = (read_minari(here / f"data/part/{name}-v0") for name in "ab")
    assert (len(a), len(b)) == (2, 6)
    data("split", str(recorded), "part/c-v0", "--episodes", "2:5")
    same(whole.select([2, 3, 4]), read_minari(here / "data/part/c-v0"))
    data("merge", "part/all-v0", "part/a-v0", "part/b-v0")
    joined = read_minari(here / "data/part/all-v0")
    assert joined.transitions == whole.transitions
    same(merge([a, b]), joined)
    ended = np.logical_or.reduceat(whole.terminated, whole.starts[:-1])
    assert choose(whole, success=bool(ended[0]), span="0:4", share=1.0).tolist() == [
        e for e in range(4) if ended[e] == ended[0]
    ]
    for arguments in ({"span": "3"}, {"span": "9:10"}, {"span": ":"}):
        with pytest.raises(ToolkitError):
            choose(whole, **arguments)  # type: ignore[arg-type]
    np.savez(here / "play.npz", **ogbench_arrays(truth()))
    assert "of one width" in data("merge", "part/x-v0", "part/a-v0", "play.npz", code=2)


def test_split_writes_both_or_none(recorded: Path, here: Path) -> None:
    data("split", str(recorded), "part/there-v0", "--episodes", "0:1")
    before = read_minari(here / "data/part/there-v0")
    for names, told in (
        (["part/a-v0", "part/a-v0"], "part/a-v0: expected another name"),
        (["part/a-v0", "part/a-v0/b-v0"], "none inside another"),
        (["part/a-v0/b-v0", "part/a-v0"], "none inside another"),
        (["part/a-v0", "part/there-v0"], "exists already"),
        (["part/a-v0", "part/there-v0/b-v0"], "there-v0, a data set itself"),
        (["part/a-v0", "../b-v0"], "expected NAMESPACE/NAME-vNUMBER"),
    ):
        assert told in data("split", str(recorded), *names, "--episodes", "0:2", code=2)
        assert [path.name for path in (here / "data/part").iterdir()] == ["there-v0"]
    same(before, read_minari(here / "data/part/there-v0"))
    data("split", str(recorded), "part/a-v0", "part/there-v0", "--episodes", "0:2", "--replace")
    assert [len(read_minari(here / f"data/part/{name}-v0")) for name in ("a", "there")] == [2, 6]


def test_only_a_data_set_is_replaced(recorded: Path, here: Path) -> None:
    (here / "data/runs-v0").mkdir(parents=True)
    (here / "data/runs-v0/notes").write_text("mine")
    data("split", str(recorded), "there-v0", "--episodes", "0:1")
    (here / "data/link-v0").symlink_to(here / "data/there-v0")
    for name in ("runs-v0", "link-v0"):
        assert "no data set, or a link" in data("convert", str(recorded), name, "--replace", code=2)
    assert (here / "data/runs-v0/notes").read_text() == "mine"


@pytest.mark.parametrize("text", ["NaN", "1e999", "-Infinity", "[NaN]"])
def test_what_json_cannot_say_is_left_out_of_a_list(here: Path, text: str) -> None:
    (here / "root/odd-v0/data").mkdir(parents=True)
    (here / "root/odd-v0/data/metadata.json").write_text(f'{{"total_steps": {text}, "description": "odd"}}')
    (entry,) = data("list", str(here / "root"), "--json")["datasets"]
    assert (entry["total_steps"], entry["description"]) == (None, "odd")


@pytest.mark.parametrize("name", ["../x-v0", "/tmp/x-v0", "a/../../x-v0", "x"])
def test_targets_that_lead_elsewhere_are_refused(recorded: Path, here: Path, name: str) -> None:
    assert "expected NAMESPACE/NAME-vNUMBER" in data("convert", str(recorded), name, code=2)
