"""What is written opens in Minari element by element; what is read is checked before it is believed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from hostile import external_link, instead, virtual
from minari.data_collector import EpisodeBuffer

from toolkit.data.minari import dataset_path, read_minari
from toolkit.data.minari_writer import RecordedEpisode, write_minari
from toolkit.tasks import TaskEnv, load_card, make_env
from toolkit.types import ToolkitError

ID = "pointmaze/umaze-test-v0"
LENGTHS = [3, 1, 7]


@pytest.fixture(scope="module")
def env() -> TaskEnv:
    return make_env(load_card("pointmaze-umaze"))


def recorded(lengths: list[int] = LENGTHS) -> list[RecordedEpisode]:
    rng = np.random.default_rng(0)
    widths = {"observation": 4, "achieved_goal": 2, "desired_goal": 2}
    return [
        RecordedEpisode(
            seed=2**31 - 1 - index,
            observations={key: rng.normal(size=(length + 1, width)) for key, width in widths.items()},
            actions=rng.uniform(-1, 1, (length, 2)).astype(np.float32),
            rewards=rng.normal(size=length),
            terminations=np.arange(length) == (length - 1 if index % 2 else -1),
            truncations=np.arange(length) == (-1 if index % 2 else length - 1),
        )
        for index, length in enumerate(lengths)
    ]


def write(env: TaskEnv, root: Path, episodes: list[RecordedEpisode] | None = None, **extra: object) -> Path:
    return write_minari(
        recorded() if episodes is None else episodes,
        ID,
        root,
        observation_space=env.observation_space,
        action_space=env.action_space,
        env_spec=env.env_spec.to_json(),
        metadata={"description": "a test", "requirements": ["mujoco>=3"]},
        **extra,  # type: ignore[arg-type]
    )


@pytest.fixture
def folder(env: TaskEnv, tmp_path: Path) -> Path:
    return write(env, tmp_path)


def test_minari_opens_it_and_finds_every_number(
    env: TaskEnv, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    assert list(minari.list_local_datasets(compatible_minari_version=True)) == [ID]
    dataset = minari.load_dataset(ID)
    assert (dataset.total_episodes, dataset.total_steps, dataset.id) == (3, 11, ID)
    assert (dataset.observation_space, dataset.action_space) == (env.observation_space, env.action_space)
    for mine, theirs in zip(recorded(), dataset.iterate_episodes(), strict=True):
        for key, rows in mine.observations.items():
            np.testing.assert_array_equal(theirs.observations[key], rows)
            assert theirs.observations[key].dtype == rows.dtype
        for key in ("actions", "rewards", "terminations", "truncations"):
            np.testing.assert_array_equal(getattr(theirs, key), getattr(mine, key))
            assert getattr(theirs, key).dtype == getattr(mine, key).dtype
    seeds = [entry["seed"] for entry in dataset.storage.get_episode_metadata(range(3))]
    assert seeds == [episode.seed for episode in recorded()]
    recovered = dataset.recover_environment().unwrapped
    Path(recovered.tmp_xml_file_path).unlink()
    assert recovered.continuing_task is False


def test_reading_back(folder: Path, tmp_path: Path) -> None:
    episodes = read_minari(ID, tmp_path)
    by_path = read_minari(folder)
    assert episodes.lengths.tolist() == LENGTHS
    assert episodes.starts.tolist() == [0, 4, 6, 14]
    for index, mine in enumerate(recorded()):
        first, last = episodes.starts[index], episodes.starts[index + 1] - 1
        for name, key in (("obs", "observation"), ("achieved", "achieved_goal"), ("desired", "desired_goal")):
            np.testing.assert_array_equal(
                getattr(episodes, name)[first : last + 1], mine.observations[key].astype(np.float32)
            )
        np.testing.assert_array_equal(episodes.action[first:last], mine.actions)
        np.testing.assert_array_equal(episodes.reward[first:last], mine.rewards.astype(np.float32))
        np.testing.assert_array_equal(episodes.terminated[first:last], mine.terminations)
        np.testing.assert_array_equal(episodes.truncated[first:last], mine.truncations)
        assert not episodes.action[last].any()
        assert episodes.reward[last] == 0
        assert not episodes.terminated[last]
        assert not episodes.truncated[last]
    for name, rows in episodes.__dict__.items():
        np.testing.assert_array_equal(rows, getattr(by_path, name))


@pytest.mark.filterwarnings("ignore")
def test_minaris_own_files_are_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain observations, asymmetric action bounds, chunked arrays, infos, an episode without an end flag."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    rng = np.random.default_rng(0)
    buffers = [
        EpisodeBuffer(
            observations=rng.normal(size=(length + 1, 3)).astype(np.float32),
            actions=rng.uniform(0, 4, (length, 2)).astype(np.float32),
            rewards=list(rng.normal(size=length)),
            terminations=[False] * length,
            truncations=[False] * length,
            infos={"x": np.zeros(length + 1)},
        )
        for length in (4, 2)
    ]
    dataset = minari.create_dataset_from_buffers(
        "their-own-v3",
        buffer=buffers,
        observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32),
        action_space=gymnasium.spaces.Box(0, 4, (2,), np.float32),
    )
    episodes = read_minari("their-own-v3")
    assert episodes.lengths.tolist() == [4, 2]
    assert (episodes.obs.shape, episodes.achieved.shape, episodes.desired.shape) == ((8, 3), (8, 0), (8, 0))
    np.testing.assert_allclose(episodes.action[:4], dataset[0].actions / 2 - 1, atol=1e-6)
    assert not episodes.action[4].any()
    assert np.flatnonzero(episodes.truncated).tolist() == [3, 6]
    assert not episodes.terminated.any()


def test_two_thousand_episodes(env: TaskEnv, tmp_path: Path) -> None:
    one = recorded([40])
    write(env, tmp_path, one * 2000)
    episodes = read_minari(ID, tmp_path)
    assert (len(episodes), episodes.transitions) == (2000, 80_000)


def test_same_episodes_same_bytes_and_nothing_left_beside(env: TaskEnv, tmp_path: Path) -> None:
    files = [sorted((write(env, tmp_path / name) / "data").iterdir()) for name in ("a", "b")]
    assert [file.name for file in files[0]] == ["main_data.hdf5", "metadata.json"]
    for one, other in zip(*files, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert [path.name for path in (tmp_path / "a" / "pointmaze").iterdir()] == ["umaze-test-v0"]


def test_an_existing_data_set_is_replaced_only_on_demand(env: TaskEnv, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ToolkitError, match="exists already"):
        write(env, tmp_path, recorded([2]))
    assert len(read_minari(folder)) == 3
    write(env, tmp_path, recorded([2]), replace=True)
    assert len(read_minari(folder)) == 1
    assert len(list(folder.parent.iterdir())) == 1


def test_a_write_that_fails_leaves_the_old_data_set(env: TaskEnv, folder: Path, tmp_path: Path) -> None:
    good, *_ = recorded()
    bad = good._replace(rewards=good.rewards[:-1])
    with pytest.raises(ValueError, match="actions: expected 2 rows, got 3"):
        write(env, tmp_path, [good, good._replace(rewards=good.rewards[:-1], observations={})], replace=True)
    with pytest.raises(ValueError, match="expected 3 rows, got 4"):
        write(env, tmp_path, [bad], replace=True)
    assert list(folder.parent.iterdir()) == [folder]
    assert len(read_minari(folder)) == 3


def test_leftovers_of_a_killed_run_go(env: TaskEnv, folder: Path, tmp_path: Path) -> None:
    for state in ("partial", "old"):
        shutil.copytree(folder, folder.with_name(f".{folder.name}.{state}"))
    write(env, tmp_path, replace=True)
    assert list(folder.parent.iterdir()) == [folder]


def test_a_write_killed_between_two_names_loses_nothing(
    env: TaskEnv, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path, target: Path) -> Path:
        if path.name.endswith(".partial"):
            raise KeyboardInterrupt
        return rename(path, target)

    rename = Path.rename
    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        write(env, tmp_path, recorded([2]), replace=True)
    assert len(read_minari(folder)) == 3
    monkeypatch.undo()
    folder.rename(folder.with_name(f".{folder.name}.old"))  # as where there was no time for that
    with pytest.raises(ToolkitError, match="exists already"):
        write(env, tmp_path, recorded([2]))
    assert list(folder.parent.iterdir()) == [folder] and len(read_minari(folder)) == 3


@pytest.mark.parametrize(
    "name", ["../../etc/x-v0", "/etc/x-v0", "a//b-v0", "a/../b-v0", "x", "x-v", "x-v0\n", "a/./x-v0", "x-v0/", ".x-v0"]
)
def test_ids_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ToolkitError, match="expected NAMESPACE/NAME-vNUMBER"):
        dataset_path(name, tmp_path)
    with pytest.raises(ToolkitError):
        read_minari(name, tmp_path)


def test_a_link_out_of_the_root_is_refused(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "pointmaze").mkdir(parents=True)
    (root / "pointmaze" / "umaze-test-v0").symlink_to(folder)
    with pytest.raises(ToolkitError, match="leads out of"):
        read_minari(ID, root)


@pytest.mark.parametrize("name", ["main_data.hdf5", "metadata.json"])
def test_a_file_linked_from_elsewhere_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / "data" / name).rename(tmp_path / name)
    (folder / "data" / name).symlink_to(tmp_path / name)
    with pytest.raises(ToolkitError, match="a link out of the data set's folder"):
        read_minari(folder)


def edit_metadata(folder: Path, **changes: object) -> None:
    path = folder / "data" / "metadata.json"
    metadata = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in metadata.items() if value is not None}))


def edit_file(folder: Path, edit: Callable[[h5py.File], None]) -> None:
    with h5py.File(folder / "data" / "main_data.hdf5", "r+") as file:
        edit(file)
    edit_metadata(folder, sha256=None)


def soft_link(file: h5py.File) -> None:
    del file["episode_1"]
    file["episode_1"] = h5py.SoftLink("/episode_0")


def not_a_number(file: h5py.File) -> None:
    file["episode_2/observations/observation"][4, 1] = np.nan


def ends_early(file: h5py.File) -> None:
    file["episode_2/terminations"][1] = True


def out_of_bounds(file: h5py.File) -> None:
    file["episode_2/actions"][5, 0] = 1.5


def picture(file: h5py.File) -> None:
    for episode in file.values():
        rows = len(episode["rewards"]) + 1
        del episode["observations/observation"]
        episode["observations/observation"] = np.zeros((rows, 3, 4), np.float32)


REWARDS = "episode_0/rewards"
HOSTILE_OR_BROKEN = {
    "soft link": (soft_link, "episode_1: a soft or external link"),
    "external link": (external_link("episode_1/rewards"), "episode_1/rewards: a soft or external link"),
    "virtual": (virtual(REWARDS), "episode_0/rewards: data outside the file"),
    "external storage": (
        instead(REWARDS, shape=(3,), dtype="f8", external=[("/etc/hostname", 0, 24)]),
        "episode_0/rewards: data outside the file",
    ),
    "huge": (instead(REWARDS, shape=(2**40,), dtype="f8", chunks=(1024,)), "declares more data than a file"),
    "objects": (instead(REWARDS, data=["a", "b", "c"]), "expected an array of numbers"),
    "group": (lambda file: (file.__delitem__(REWARDS), file.create_group(REWARDS)), "another kind of object"),
    "goal of nothing": (
        instead("episode_1/observations/achieved_goal", data=h5py.Empty("f4")),
        "episode_1: expected 'achieved_goal'",
    ),
    "missing": (lambda file: file.__delitem__("episode_1/truncations"), "episode_1: expected 'truncations'"),
    "missing episode": (lambda file: file.__delitem__("episode_1"), "expected 'episode_1'"),
    "short": (
        instead("episode_2/observations/desired_goal", data=np.zeros((7, 2))),
        r"episode_2: desired_goal: expected shape \(8, 2\), got \(7, 2\)",
    ),
    "wide": (instead("episode_2/actions", data=np.zeros((7, 3), np.float32)), r"expected shape \(7, 2\), got \(7, 3\)"),
    "column": (instead(REWARDS, data=np.zeros((3, 1))), r"episode_0: rewards: expected shape \(3,\), got \(3, 1\)"),
    "flags": (
        instead("episode_0/terminations", data=np.full(3, np.nan)),
        "episode_0: row 0: terminations: expected true or false",
    ),
    "picture": (picture, r"observation: expected rows of numbers, \(N, D\), got shape \(\d+, 3, 4\)"),
    "nan": (not_a_number, "episode_2: row 4: expected finite"),
    "early end": (ends_early, "episode_2: row 1: terminated or truncated before"),
    "bounds": (out_of_bounds, "episode_2: row 5: an action outside"),
}


@pytest.mark.parametrize("case", HOSTILE_OR_BROKEN)
def test_files_not_to_be_believed_are_refused(folder: Path, case: str) -> None:
    edit, message = HOSTILE_OR_BROKEN[case]
    edit_file(folder, edit)
    with pytest.raises(ToolkitError, match=message) as caught:
        read_minari(folder)
    assert "main_data.hdf5" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"total_episodes": 10**12}, "total_episodes: expected 1 to"),
        ({"total_episodes": 4}, "expected 'episode_3'"),
        ({"total_episodes": "3"}, "total_episodes: expected 1 to"),
        ({"action_space": '{"type": "Discrete", "n": 3}'}, "action_space: expected a Box"),
        ({"action_space": None}, "action_space: expected a Box"),
        ({"action_space": "[" * 100_000}, "action_space: expected a Box"),
        ({"action_space": f'{{"type": "Box", "low": [0], "high": [1{"0" * 400}]}}'}, "action_space: expected a Box"),
        ({"data_format": "arrow"}, "HDF5 format"),
    ],
)
def test_metadata_not_to_be_believed_is_refused(folder: Path, changes: dict[str, object], message: str) -> None:
    edit_metadata(folder, **changes)
    with pytest.raises(ToolkitError, match=message):
        read_minari(folder)


def test_goals_that_are_groups_are_left_out(folder: Path) -> None:
    """As FrankaKitchen's are: a goal for each task by name."""

    def nested(file: h5py.File) -> None:
        for episode in file.values():
            for key in ("achieved_goal", "desired_goal"):
                rows = episode[f"observations/{key}"][:]
                del episode[f"observations/{key}"]
                episode[f"observations/{key}/kettle"], episode[f"observations/{key}/microwave"] = rows, rows[:, :1]

    before = read_minari(folder)
    edit_file(folder, nested)
    episodes = read_minari(folder)
    np.testing.assert_array_equal(episodes.obs, before.obs)
    assert episodes.achieved.shape == episodes.desired.shape == (14, 0)


def test_an_environment_named_by_a_file_is_never_made(folder: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    spec = {"id": "X-v0", "entry_point": "subprocess:check_output", "kwargs": {"args": ["touch", str(canary)]}}
    edit_metadata(folder, env_spec=json.dumps(spec), observation_space=None)
    assert len(read_minari(folder)) == 3
    assert not canary.exists()


def test_damage_is_found(folder: Path) -> None:
    file = folder / "data" / "main_data.hdf5"
    sound = file.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(sound), 20):
        damaged = bytearray(sound)
        damaged[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(damaged)
        with pytest.raises(ToolkitError, match="its bytes differ"):
            read_minari(folder)
    edit_metadata(folder, sha256=None)
    file.write_bytes(sound[: len(sound) // 2])
    with pytest.raises(ToolkitError, match="expected a readable HDF5 file"):
        read_minari(folder)


@pytest.mark.parametrize("missing", ["data/main_data.hdf5", "data/metadata.json", ""])
def test_missing_files_are_named(folder: Path, tmp_path: Path, missing: str) -> None:
    path = folder / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ToolkitError, match=str(folder)):
        read_minari(ID, tmp_path)
