"""Every format, as its own reader has it, element by element, with bootstrapping where the recording says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import h5py
import numpy as np
import pytest
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.save_util import save_to_pkl

from toolkit.data.exporters import to_d4rl
from toolkit.data.imported import Imported, checked
from toolkit.data.importers import detect, read_data, unpickle
from toolkit.data.importers.lerobot import filled
from toolkit.data.importers.options import Options, columns, pair
from toolkit.data.importers.sb3 import from_buffer
from toolkit.data.untrusted_npz import read_npz
from toolkit.types import ToolkitError

ENDS = ("terminated", "truncated", "cut")


class Truth(NamedTuple):
    """What really happened in one episode of T steps."""

    obs: np.ndarray  # (T + 1, 4)
    action: np.ndarray  # (T, 2)
    reward: np.ndarray  # (T,)
    end: str


def truth(count: int = 7, seed: int = 0, ends: tuple[str, ...] = ENDS[:2]) -> list[Truth]:
    """Smooth walks that begin far from each other; the ends take turns."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(count):
        length = int(rng.integers(3, 12))
        walk = 100 * rng.normal(size=4) + np.cumsum(rng.uniform(0.5, 1, (length + 1, 4)), axis=0)
        end = ends[index % len(ends)]
        reward = np.where(np.arange(length) == length - 1, float(end == "terminated"), 0.0)
        action = rng.uniform(-1, 1, (length, 2)).astype(np.float32)
        made.append(Truth(walk.astype(np.float32), action, reward.astype(np.float32), end))
    return made


def flat(episodes: list[Truth], key: str) -> np.ndarray:
    return np.concatenate([getattr(e, key) for e in episodes])


def before(episodes: list[Truth]) -> np.ndarray:
    return np.concatenate([e.obs[:-1] for e in episodes])


def after(episodes: list[Truth]) -> np.ndarray:
    return np.concatenate([e.obs[1:] for e in episodes])


def marks(episodes: list[Truth], end: str) -> np.ndarray:
    return np.concatenate([(np.arange(len(e.reward)) == len(e.reward) - 1) & (e.end == end) for e in episodes])


def same(found: Imported, episodes: list[Truth], stood_in: bool = False, shortened: bool = False) -> None:
    """`shortened`: only a terminated episode has its last step; `stood_in`: but not its outcome."""
    read = checked(found)
    assert len(read) == len(episodes)
    for index, e in enumerate(episodes):
        rows = slice(read.starts[index], read.starts[index + 1])
        length = len(e.reward) - (shortened and e.end != "terminated")
        obs = e.obs[: length + 1].copy()
        if stood_in and e.end == "terminated":
            obs[-1] = obs[-2]
        np.testing.assert_array_equal(read.obs[rows], obs)
        np.testing.assert_array_equal(read.action[rows][:-1], e.action[:length])
        np.testing.assert_array_equal(read.reward[rows][:-1], e.reward[:length])
        last = np.arange(length) == length - 1
        np.testing.assert_array_equal(read.terminated[rows][:-1], last & (e.end == "terminated"))
        np.testing.assert_array_equal(read.truncated[rows][:-1], last & (e.end != "terminated"))
        final = read.starts[index + 1] - 1
        assert not (read.action[final].any() or read.reward[final] or read.terminated[final] or read.truncated[final])


def write_h5(path: Path, arrays: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        for name, rows in arrays.items():
            file[name] = rows
    return path


def d4rl_arrays(episodes: list[Truth], **more: Any) -> dict[str, Any]:
    return {
        "observations": before(episodes),
        "actions": flat(episodes, "action"),
        "rewards": flat(episodes, "reward"),
        "terminals": marks(episodes, "terminated"),
        "timeouts": marks(episodes, "truncated"),
        **more,
    }


def without(arrays: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: rows for key, rows in arrays.items() if key not in names}


# D4RL


def test_d4rl_drops_what_has_no_outcome(tmp_path: Path) -> None:
    episodes = truth()
    path = write_h5(tmp_path / "data.hdf5", d4rl_arrays(episodes))
    assert detect(path) == "d4rl"
    found = read_data(path)
    same(found, episodes, stood_in=True, shortened=True)
    assert found.source.ends == {"terminated": 4, "truncated": 3, "both": 0, "cut": 0}
    assert found.source.dropped[0][:2] == (3, "last steps")
    assert "4 terminated episodes end in a copy" in found.source.notes[0]


def test_d4rl_with_next_observations_loses_nothing(tmp_path: Path) -> None:
    episodes = truth(ends=ENDS)
    path = write_h5(tmp_path / "data.hdf5", d4rl_arrays(episodes, next_observations=after(episodes)))
    found = read_data(path)
    with h5py.File(path) as file:
        rows = np.delete(np.arange(found.episodes.starts[-1]), found.episodes.starts[1:] - 1)
        np.testing.assert_array_equal(found.episodes.obs[rows], file["observations"])
        np.testing.assert_array_equal(found.episodes.obs[rows + 1], file["next_observations"])
    same(found, episodes)
    assert not found.source.dropped
    assert found.source.ends["cut"] == 2 and not found.findings  # told apart by next_observations alone


@pytest.mark.parametrize("hint", ["next_observations", "jumps"])
def test_d4rl_without_timeouts_is_split_by_jumps(tmp_path: Path, hint: str) -> None:
    episodes = truth(20)
    arrays = without(d4rl_arrays(episodes), "timeouts")
    if hint == "next_observations":
        arrays[hint] = after(episodes)
    found = read_data(write_h5(tmp_path / "data.hdf5", arrays))
    if hint == "next_observations":
        same(found, episodes)
    else:
        same(found, episodes, stood_in=True, shortened=True)
    assert any("told apart by" in note for note in found.source.notes)


def test_d4rl_rewards_in_a_column_and_a_file_that_never_terminates(tmp_path: Path) -> None:
    episodes = truth(ends=("truncated",))
    path = write_h5(tmp_path / "kitchen.hdf5", d4rl_arrays(episodes, rewards=flat(episodes, "reward")[:, None]))
    found = read_data(path)
    same(found, episodes, shortened=True)
    assert any("no step is terminal" in note for note in found.source.notes)
    assert any("second axis" in note for note in found.source.notes)


def test_maze2d_timeouts_are_reached_goals(tmp_path: Path) -> None:
    """One motion, whose goal changes: the row after a timeout is its outcome, and nothing is dropped before the end."""
    walk = np.cumsum(np.random.default_rng(0).uniform(0.5, 1, (40, 4)), axis=0).astype(np.float32)
    reached = np.isin(np.arange(40), [9, 24])
    goal = np.repeat(np.array([[1, 2], [3, 4], [5, 6]], np.float32), [10, 15, 15], axis=0)
    arrays = {
        "observations": walk,
        "actions": np.zeros((40, 2), np.float32),
        "rewards": reached.astype(np.float32),
        "terminals": np.zeros(40, bool),
        "timeouts": reached,
        "infos/goal": goal,
    }
    found = read_data(write_h5(tmp_path / "maze2d.hdf5", arrays))
    read = checked(found)
    assert read.lengths.tolist() == [10, 15, 14]
    np.testing.assert_array_equal(read.obs[10], walk[10])
    np.testing.assert_array_equal(read.achieved[:10], walk[:10, :2])
    assert not read.terminated.any()
    assert "2 timeouts mean that a goal was reached" in " ".join(found.source.notes)


def test_maze2d_rows_that_repeat_are_left_out(tmp_path: Path) -> None:
    """As D4RL's generator leaves them: after a goal the observation is shown again, though the simulator moved on."""
    walk = np.cumsum(np.random.default_rng(0).uniform(0.5, 1, (40, 4)), axis=0).astype(np.float32)
    walk[10], walk[25] = walk[9], walk[24]
    reached = np.isin(np.arange(40), [9, 24])
    arrays = {
        "observations": walk,
        "actions": np.arange(80, dtype=np.float32).reshape(40, 2) / 80,
        "rewards": reached.astype(np.float32),
        "terminals": np.zeros(40, bool),
        "timeouts": reached,
        "infos/goal": np.repeat(np.array([[1, 2], [3, 4], [5, 6]], np.float32), [10, 15, 15], axis=0),
    }
    found = read_data(write_h5(tmp_path / "maze2d.hdf5", arrays))
    read = checked(found)
    # the step after which a goal was reached has no outcome in the file, and the row after it two steps' motion
    assert read.lengths.tolist() == [9, 13, 13]
    np.testing.assert_array_equal(read.obs, np.concatenate([walk[:10], walk[11:25], walk[26:]]))
    np.testing.assert_array_equal(read.desired[read.starts[1:] - 1], [[1, 2], [3, 4], [5, 6]])
    assert found.source.dropped[0][:2] == (2, "steps")


def test_d4rl_keeps_what_was_achieved(tmp_path: Path) -> None:
    """Where a goal is not the begin of an observation, as with an arm that pushes a block."""
    episodes = checked(
        read_data(write_h5(tmp_path / "data.hdf5", d4rl_arrays(truth(), next_observations=after(truth()))))
    )
    achieved = episodes.obs[:, 1:3] + 1
    whole = replace(episodes, achieved=achieved, desired=np.ones_like(achieved))
    read = checked(read_data(to_d4rl(whole, tmp_path / "there.hdf5")))
    np.testing.assert_array_equal(read.achieved, achieved)
    np.testing.assert_array_equal(read.desired, whole.desired)
    named = checked(read_data(tmp_path / "there.hdf5", options=Options(achieved=columns("0:2"))))
    np.testing.assert_array_equal(named.achieved, episodes.obs[:, :2])


def test_both_flags_are_kept_and_terminal_wins(tmp_path: Path) -> None:
    episodes = truth(2, ends=("terminated",))
    arrays = d4rl_arrays(episodes, timeouts=marks(episodes, "terminated"))
    found = read_data(write_h5(tmp_path / "data.hdf5", arrays))
    assert found.source.ends["both"] == 2
    same(found, episodes, stood_in=True)


# OGBench


def ogbench_arrays(episodes: list[Truth]) -> dict[str, Any]:
    return {
        "observations": flat(episodes, "obs"),
        "actions": np.concatenate([np.vstack([e.action, np.full((1, 2), 9.0)]) for e in episodes]).astype(np.float32),
        "terminals": np.concatenate([np.arange(len(e.obs)) == len(e.reward) for e in episodes]).astype(np.float32),
    }


def test_ogbench_as_its_own_loader_has_it(tmp_path: Path) -> None:
    episodes = [e._replace(reward=np.zeros_like(e.reward)) for e in truth(ends=("truncated",))]
    arrays = ogbench_arrays(episodes)
    np.savez(tmp_path / "walk-v0.npz", **arrays, qpos=arrays["observations"])
    assert detect(tmp_path / "walk-v0.npz") == "ogbench"
    found = read_data(tmp_path / "walk-v0.npz")
    same(found, episodes)
    # its loader: s is every row but last ones, s' every row but first ones, an end where the next row is a last one
    kept = (1 - arrays["terminals"]) > 0
    nexts = np.concatenate([[False], kept[:-1]])
    ends = np.concatenate([arrays["terminals"][1:], [1.0]])[kept]
    read = found.episodes
    rows = np.delete(np.arange(read.starts[-1]), read.starts[1:] - 1)
    np.testing.assert_array_equal(read.obs[rows], arrays["observations"][kept])
    np.testing.assert_array_equal(read.obs[rows + 1], arrays["observations"][nexts])
    np.testing.assert_array_equal(read.action[rows], arrays["actions"][kept])
    np.testing.assert_array_equal(read.truncated[rows], ends > 0)
    assert not found.source.rewarded and "qpos" in found.source.notes[0]


def test_goals_from_columns(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **ogbench_arrays(truth(2)))
    read = read_data(tmp_path / "x.npz", options=Options(achieved=columns("0:2"))).episodes
    np.testing.assert_array_equal(read.achieved, read.obs[:, :2])
    np.testing.assert_array_equal(read.desired[0], read.obs[read.starts[1] - 1, :2])
    with pytest.raises(ToolkitError, match="expected columns of 4 numbers"):
        read_data(tmp_path / "x.npz", options=Options(achieved=columns("3:5")))


# plain


def test_plain_npz(tmp_path: Path) -> None:
    episodes = truth()
    arrays = d4rl_arrays(episodes, next_observations=after(episodes))
    renamed = {{"terminals": "terminated", "timeouts": "truncated"}.get(k, k): v for k, v in arrays.items()}
    np.savez_compressed(tmp_path / "mine.npz", **renamed)
    assert detect(tmp_path / "mine.npz") == "npz"
    same(read_data(tmp_path / "mine.npz"), episodes)
    np.savez(tmp_path / "half.npz", **without(renamed, "rewards"))
    with pytest.raises(ToolkitError, match="found no 'rewards'"):
        read_data(tmp_path / "half.npz", "npz")


def test_what_a_log_calls_otherwise_is_asked_for_or_noted(tmp_path: Path) -> None:
    """Steps with rewards are no OGBench file, whatever they are called."""
    arrays = d4rl_arrays(truth(), next_observations=after(truth()))
    np.savez(tmp_path / "a.npz", **without(arrays, "rewards", "next_observations"), reward=arrays["rewards"])
    with pytest.raises(ToolkitError, match="found no 'rewards'; did you mean 'reward'"):
        read_data(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", **without(arrays, "next_observations"), next_obs=arrays["next_observations"])
    assert "not read: next_obs; did you mean 'next_observations'?" in read_data(tmp_path / "b.npz").source.notes
    np.savez(tmp_path / "c.npz", **arrays, terminated=arrays["terminals"])
    with pytest.raises(ToolkitError, match="two words for one array"):
        read_data(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", **without(arrays, "rewards"), rewards=np.ones((len(arrays["rewards"]), 3)))
    with pytest.raises(ToolkitError, match="rewards: expected one number a step"):
        read_data(tmp_path / "d.npz")


def test_achieved_says_where_goals_are(tmp_path: Path) -> None:
    arrays = d4rl_arrays(truth(), next_observations=after(truth()))
    wanted = np.zeros((len(arrays["rewards"]), 2), np.float32)
    np.savez(tmp_path / "a.npz", **arrays, goals=wanted)
    for place, options in ((slice(0, 2), Options()), (slice(1, 3), Options(achieved=slice(1, 3)))):
        episodes = read_data(tmp_path / "a.npz", options=options).episodes
        np.testing.assert_array_equal(episodes.achieved, episodes.obs[:, place])
        assert not episodes.desired.any()
    with pytest.raises(ToolkitError, match="goals: expected 3 numbers, as columns 0:3"):
        read_data(tmp_path / "a.npz", options=Options(achieved=slice(0, 3)))
    np.savez(tmp_path / "b.npz", **arrays)
    notes = read_data(tmp_path / "b.npz", options=Options(achieved=slice(0, 2))).source.notes
    assert "no goals in the file: an episode's is where it ended, so that every one gets there" in notes


def test_action_bounds_scale(tmp_path: Path) -> None:
    episodes = truth()
    arrays = d4rl_arrays(episodes, next_observations=after(episodes), actions=2 * flat(episodes, "action"))
    np.savez(tmp_path / "wide.npz", **arrays)
    same(read_data(tmp_path / "wide.npz", options=Options(bounds=pair("-2,2"))), episodes)
    with pytest.raises(ToolkitError, match="an action outside the bounds"):
        checked(read_data(tmp_path / "wide.npz"))
    low, high = np.full(2, -2.0), np.full(2, 2.0)
    for bounds, told in (
        ({"action_low": high, "action_high": low}, "the low below the high"),
        ({"action_low": low, "action_high": np.full(2, np.inf)}, "expected finite bounds"),
        ({"action_low": low}, "action_low and action_high, or neither; found action_low alone"),
    ):
        np.savez(tmp_path / "odd.npz", **arrays, **bounds)
        with pytest.raises(ToolkitError, match=told):
            read_data(tmp_path / "odd.npz")


def test_flags_are_one_or_the_other_and_something_must_be_left(tmp_path: Path) -> None:
    episodes = truth()
    np.savez(tmp_path / "nan.npz", **d4rl_arrays(episodes, terminals=marks(episodes, "terminated") * np.nan))
    with pytest.raises(ToolkitError, match="terminals: expected 0 or 1, got nan"):
        read_data(tmp_path / "nan.npz")
    ends = np.ones(sum(len(e.reward) for e in episodes), bool)
    np.savez(tmp_path / "single.npz", **d4rl_arrays(episodes, terminals=~ends, timeouts=ends))
    with pytest.raises(ToolkitError, match=r"at least one episode with a transition, got none .*without an outcome"):
        read_data(tmp_path / "single.npz")


# robomimic


def write_robomimic(path: Path, episodes: list[Truth], policy: int = 2, **keep: bool) -> Path:
    """`policy` as in its converter: done at success (0), at the end (1), at both (2)."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": {}})
        for index, e in enumerate(episodes):
            demo = data.create_group(f"demo_{index}")
            end = np.arange(len(e.reward)) == len(e.reward) - 1
            demo["actions"], demo["rewards"] = e.action, e.reward
            demo["dones"] = ((end & (policy > 0)) | ((e.reward > 0) & (policy != 1))).astype(np.int64)
            demo["states"] = np.hstack([e.obs[:-1], e.obs[:-1]])
            if keep.get("obs", True):
                demo["obs/b"], demo["obs/a"] = e.obs[:-1, 1:], e.obs[:-1, :1]
                demo["obs/image"] = np.zeros((len(e.reward), 4, 4, 3), np.uint8)
            if keep.get("next_obs", True):
                demo["next_obs/b"], demo["next_obs/a"] = e.obs[1:, 1:], e.obs[1:, :1]
        file["mask/few"] = np.array([b"demo_10", b"demo_2"])
    return path


@pytest.mark.parametrize("policy", [0, 1, 2])
@pytest.mark.parametrize("next_obs", [True, False])
def test_robomimic_in_the_order_of_numbers(tmp_path: Path, policy: int, next_obs: bool) -> None:
    episodes = truth(12)
    path = write_robomimic(tmp_path / "demos.hdf5", episodes, policy, next_obs=next_obs)
    assert detect(path) == "robomimic"
    found = read_data(path)
    same(found, episodes, stood_in=not next_obs, shortened=not next_obs)
    assert found.source.env_id == "Lift" and "image" in found.source.notes[1]
    few = read_data(path, options=Options(part="few"))
    same(few, [episodes[2], episodes[10]], stood_in=not next_obs, shortened=not next_obs)
    assert few.source.numbers.tolist() == [2, 10]


def test_robomimic_stops_at_the_first_success_and_falls_back_on_states(tmp_path: Path) -> None:
    long = truth(1)[0]._replace(end="terminated")
    reward = np.zeros_like(long.reward)
    reward[-2:] = 1
    path = write_robomimic(tmp_path / "demos.hdf5", [long._replace(reward=reward)], 0, obs=False, next_obs=False)
    found = read_data(path)
    read = checked(found)
    assert read.lengths.tolist() == [len(reward) - 1] and read.obs.shape[1] == 8
    assert np.flatnonzero(read.terminated).tolist() == [len(reward) - 2]
    assert found.source.dropped[0] == (1, "steps", "after the first success of their demonstration")


def test_robomimic_actions_in_other_bounds(tmp_path: Path) -> None:
    episodes = truth(3)
    path = write_robomimic(tmp_path / "demos.hdf5", [e._replace(action=2 * e.action) for e in episodes])
    same(read_data(path, options=Options(bounds=pair("-2,2"), said=True)), episodes)
    for unsaid in (Options(), Options(bounds=pair("-2,2"))):  # those of a simulator that it was not recorded in
        with pytest.raises(ToolkitError, match="an action outside the bounds"):
            checked(read_data(path, options=unsaid))


# LeRobot


def write_lerobot(folder: Path, episodes: list[Truth], version: str, **more: Callable[[Truth], Any]) -> Path:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")

    def frames(chosen: list[int]) -> Any:
        parts = [episodes[index] for index in chosen]
        columns = {
            "observation.state": pa.array(list(before(parts)), pa.list_(pa.float32(), 4)),
            "action": pa.array(list(flat(parts, "action")), pa.list_(pa.float32())),
            "episode_index": np.repeat(chosen, [len(e.reward) for e in parts]),
            **{name: np.concatenate([value(e) for e in parts]) for name, value in more.items()},
        }
        return pa.table(columns)

    info: dict[str, Any] = {
        "codebase_version": version,
        "total_episodes": len(episodes),
        "chunks_size": 3,
        "features": {
            "observation.images.top": {"dtype": "video", "shape": [3, 4, 4]},
            "action": {"dtype": "float32", "shape": [2]},
            "observation.state": {"dtype": "float32", "shape": [4]},
            **{name: {"dtype": "float32", "shape": [1]} for name in more},
        },
    }
    (folder / "meta").mkdir(parents=True)
    if version.startswith("v2"):
        info["data_path"] = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
        for index in range(len(episodes)):
            path = folder / f"data/chunk-{index // 3:03d}/episode_{index:06d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(frames([index]), path)
    else:
        info["data_path"] = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
        halves = np.array_split(np.arange(len(episodes)), 2)
        for number, chosen in enumerate(halves):
            path = folder / f"data/chunk-000/file-{number:03d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(frames(chosen.tolist()), path)
        about = folder / "meta/episodes/chunk-000/file-000.parquet"
        about.parent.mkdir(parents=True)
        of = np.repeat([0, 1], [len(half) for half in halves])
        pq.write_table(pa.table({"data/chunk_index": np.zeros_like(of), "data/file_index": of}), about)
    (folder / "meta/info.json").write_text(json.dumps(info))
    return folder


def reward_of(e: Truth) -> np.ndarray:
    return e.reward


def done_of(e: Truth) -> np.ndarray:
    return (np.arange(len(e.reward)) == len(e.reward) - 1) & (e.end == "terminated")


def end_of(e: Truth) -> np.ndarray:
    return np.arange(len(e.reward)) == len(e.reward) - 1


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_lerobot(tmp_path: Path, version: str) -> None:
    episodes = truth()
    folder = write_lerobot(tmp_path / "set", episodes, version, **{"next.reward": reward_of, "next.done": done_of})
    assert detect(folder) == "lerobot"
    found = read_data(folder)
    same(found, episodes, stood_in=True, shortened=True)
    import pyarrow.parquet as pq

    for file in sorted(folder.glob("data/**/*.parquet"))[:1]:
        table = pq.read_table(file)
        first = table["episode_index"].to_numpy() == 0
        rows = np.array(table["action"].to_pylist(), np.float32)[first]
        np.testing.assert_array_equal(
            found.episodes.action[: found.episodes.lengths[0]], rows[: found.episodes.lengths[0]]
        )


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_lerobot_without_rewards_and_with_done_at_every_end(tmp_path: Path, version: str) -> None:
    episodes = [e._replace(reward=0 * e.reward, end="truncated") for e in truth()]
    found = read_data(write_lerobot(tmp_path / "set", episodes, version, **{"next.done": end_of}))
    same(found, episodes, shortened=True)
    assert not found.source.rewarded and "no episode terminates" in found.source.notes[1]


def test_lerobot_features_of_one_number(tmp_path: Path) -> None:
    """They are stored without an axis of their own."""
    gripper = {"observation.gripper": lambda e: e.obs[:-1, 0], "next.done": done_of}
    folder = write_lerobot(tmp_path / "set", truth(), "v3.0", **gripper)
    found = read_data(folder)
    np.testing.assert_array_equal(found.episodes.obs[:, 4], found.episodes.obs[:, 0])
    info = json.loads((folder / "meta/info.json").read_text())
    info["features"]["observation.gripper"]["shape"] = 3  # not LeRobot's: it is left out
    (folder / "meta/info.json").write_text(json.dumps(info))
    assert read_data(folder).episodes.obs.shape[1] == 4


@pytest.mark.parametrize("kind", ["ArrowInvalid", "ArrowCapacityError", "ArrowKeyError", "ArrowTypeError"])
def test_lerobot_whatever_arrow_says_of_a_file_is_put_into_words(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_lerobot(tmp_path / "set", truth(), "v3.0")
    import pyarrow.parquet

    def fail(*arguments: Any, **settings: Any) -> Any:
        raise getattr(pyarrow.lib, kind)("it is broken")

    monkeypatch.setattr(pyarrow.parquet, "ParquetFile", fail)
    with pytest.raises(ToolkitError, match=r"expected a readable Parquet file; .*it is broken"):
        read_data(folder)


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_lerobot_files_that_differ_and_names_that_are_none(tmp_path: Path, version: str) -> None:
    folder = write_lerobot(tmp_path / "set", truth(), version)
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = max(folder.glob("data/**/*.parquet"))
    table = pq.read_table(file)
    wider = pa.array([[*row, 0.0] for row in table["action"].to_pylist()], pa.list_(pa.float32()))
    pq.write_table(table.set_column(table.schema.get_field_index("action"), "action", wider), file)
    with pytest.raises(ToolkitError, match="set: action: expected rows of equally many numbers in every file"):
        read_data(folder)
    for meta in folder.glob("meta/episodes/**/*.parquet"):
        table = pq.read_table(meta)
        pq.write_table(table.set_column(0, "data/chunk_index", pa.array([[0, 0]] * len(table))), meta)
        with pytest.raises(ToolkitError, match="data/chunk_index: expected one number a step"):
            read_data(folder)
    info = json.loads((folder / "meta/info.json").read_text())
    for name in ("a\0b", "a\ud800b"):
        (folder / "meta/info.json").write_text(json.dumps(info | {"codebase_version": "v2.1", "data_path": name}))
        with pytest.raises(ToolkitError, match="expected the name of a file"):
            read_data(folder)


def test_lerobot_success_tells_more_than_done(tmp_path: Path) -> None:
    more = {"next.reward": reward_of, "next.done": end_of, "next.success": done_of}
    same(read_data(write_lerobot(tmp_path / "set", truth(), "v3.0", **more)), truth(), stood_in=True, shortened=True)


@pytest.mark.parametrize(
    "template",
    [
        "{episode_index.__class__}",
        "{0}",
        "{episode_index!r}",
        "{episode_index:>999999999}",
        "{other:03d}",
        "{episode_index",
        7,
    ],
)
def test_templates_take_whole_numbers_only(template: Any) -> None:
    with pytest.raises(ToolkitError, match="data_path"):
        filled(template, {"episode_index": 1})
    assert filled("a/{episode_index:03d}/{episode_index}.p", {"episode_index": 7}) == "a/007/7.p"


# Stable-Baselines3


def fill(buffer: Any, episodes: list[Truth], envs: int, wrap: Callable[[np.ndarray], Any]) -> None:
    """Each environment plays the episodes in order, a few further on than the one before it."""
    streams = []
    for env in range(envs):
        order = episodes[env:] + episodes[:env]
        streams.append([(e, t) for e in order for t in range(len(e.reward))])
    for step in range(min(len(stream) for stream in streams)):
        at = [stream[step] for stream in streams]
        done = np.array([t == len(e.reward) - 1 for e, t in at])
        buffer.add(
            wrap(np.array([e.obs[t] for e, t in at])),
            wrap(np.array([e.obs[t + 1] for e, t in at])),
            np.array([e.action[t] for e, t in at]),
            np.array([e.reward[t] for e, t in at]),
            done,
            [{"TimeLimit.truncated": bool(d and e.end == "truncated")} for d, (e, _) in zip(done, at, strict=True)],
        )


SPACE = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
ACTIONS = gymnasium.spaces.Box(-3, 3, (2,), np.float32)


@pytest.mark.parametrize(("size", "envs", "lean"), [(1000, 1, False), (31, 1, False), (60, 2, False), (31, 1, True)])
def test_sb3_buffer_as_it_samples(tmp_path: Path, size: int, envs: int, lean: bool) -> None:
    """Every transition that the buffer can sample is there once with its mask, in order, and no other."""
    settings = {"optimize_memory_usage": True, "handle_timeout_termination": False} if lean else {}
    buffer = ReplayBuffer(size, SPACE, ACTIONS, device="cpu", n_envs=envs, **settings)
    fill(buffer, truth(), envs, lambda obs: obs)
    save_to_pkl(tmp_path / "buffer.pkl", buffer)
    assert detect(tmp_path / "buffer.pkl") == "sb3"
    with pytest.raises(ToolkitError, match="--trust-pickle"):
        read_data(tmp_path / "buffer.pkl")
    if lean:
        found = read_data(tmp_path / "buffer.pkl", options=Options(trust_pickle=True))
    else:  # what the process apart does, in this one
        unpickle.main(str(tmp_path / "buffer.pkl"), str(tmp_path / "arrays.npz"))
        found = from_buffer(tmp_path / "buffer.pkl", read_npz(tmp_path / "arrays.npz"))
    read = checked(found)
    stored = buffer.buffer_size if buffer.full else buffer.pos
    rows = np.arange(stored)
    if lean and buffer.full:
        rows = np.delete(rows, buffer.pos)
    expected = []
    for env in range(envs):
        for row in rows:
            nexts = buffer.observations[(row + 1) % size] if lean else buffer.next_observations[row]
            mask = buffer.dones[row, env] * (1 - buffer.timeouts[row, env])
            obs, action = buffer.observations[row, env], buffer.actions[row, env]
            expected.append([*obs, *action, buffer.rewards[row, env], mask, *nexts[env]])
    moving = np.delete(np.arange(read.starts[-1]), read.starts[1:] - 1)
    parts = (read.obs[moving], read.action[moving], read.reward[moving, None], read.terminated[moving, None])
    mine = np.hstack([*parts, read.obs[moving + 1]]).astype(np.float64)
    np.testing.assert_array_equal(np.unique(mine, axis=0), np.unique(np.array(expected, np.float64), axis=0))
    assert not found.findings
    if not lean and size == 1000:
        same(found, truth())


def test_sb3_dict_buffer(tmp_path: Path) -> None:
    box = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    space = gymnasium.spaces.Dict({"observation": SPACE, "achieved_goal": box, "desired_goal": box})
    buffer = DictReplayBuffer(1000, space, ACTIONS, device="cpu")
    episodes = truth()
    fill(buffer, episodes, 1, lambda o: {"observation": o, "achieved_goal": o[:, :2], "desired_goal": 0 * o[:, :2]})
    save_to_pkl(tmp_path / "buffer.pkl", buffer)
    found = read_data(tmp_path / "buffer.pkl", options=Options(trust_pickle=True))
    same(found, episodes)
    np.testing.assert_array_equal(found.episodes.achieved, found.episodes.obs[:, :2])


# what is none of these


def test_unknown_things_are_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    for path, message in (
        (tmp_path / "text", "expected HDF5"),
        (tmp_path, "expected a Minari folder"),
        (tmp_path / "nothing", "found nothing"),
    ):
        with pytest.raises(ToolkitError, match=message):
            read_data(path)
    with pytest.raises(ToolkitError, match="did you mean 'minari'"):
        read_data(tmp_path, "minar")
    for text in ("2", "2,1", "a,b", "nan,1", "-inf,1"):
        with pytest.raises(ToolkitError, match="--action-bounds"):
            pair(text)
    for text in ("2", "2:1", "-1:2", "a:b"):
        with pytest.raises(ToolkitError, match="--achieved"):
            columns(text)
