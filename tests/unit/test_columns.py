"""Columns on disk hold what the data set holds, are made again when it changes, and are whole or not there."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np
import pytest
from sampler_reference import make_episodes

from toolkit import recordings
from toolkit.data import columns as module
from toolkit.data.audit import shared
from toolkit.data.columns import columns
from toolkit.data.exporters import to_minari
from toolkit.data.finding import Finding
from toolkit.data.imported import Imported, checked
from toolkit.data.minari import MAIN_FILE, import_minari, minari_parts, read_minari
from toolkit.data.replay import Normalizer
from toolkit.pipeline.plan import _content
from toolkit.pipeline.spec import ImportStage
from toolkit.types import Episodes, ToolkitError

LENGTHS = [3, 1, 7, 20, 5, 2]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return to_minari([made()], "test/set-v0", tmp_path, env_spec=None, metadata={})


def made(scale: float = 1.0) -> Episodes:
    episodes = make_episodes(LENGTHS, goal=2)
    np.clip(episodes.action, -1, 1, out=episodes.action)
    episodes.obs[:] *= scale
    return episodes


def same(one: Imported, other: Imported) -> None:
    for field in fields(Episodes):
        a, b = (getattr(imported.episodes, field.name) for imported in (one, other))
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
    assert one.source.summary() == other.source.summary()
    np.testing.assert_array_equal(one.source.numbers, other.source.numbers)
    assert one.findings == other.findings


@pytest.mark.parametrize("rows", [1, 9, 30, 1000])
def test_they_hold_what_the_data_set_holds(dataset: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART", rows)
    whole = import_minari(dataset)
    found = columns(dataset)
    same(found.part(0, len(LENGTHS)), whole)
    spans = found.spans(12)
    np.testing.assert_array_equal(spans[[0, -1]], [0, len(LENGTHS)])
    assert np.diff(found.starts[spans]).max() < 12 + 1 + max(LENGTHS)
    for first, end in zip(spans[:-1].tolist(), spans[1:].tolist(), strict=True):
        part, chosen = found.part(first, end), checked(whole).select(np.arange(first, end))
        np.testing.assert_array_equal(checked(part).obs, chosen.obs)
        np.testing.assert_array_equal(checked(part).truncated, chosen.truncated)
        np.testing.assert_array_equal(part.episodes.starts, chosen.starts)
        assert part.source.numbers.tolist() == list(range(first, end))


def test_a_broken_episode_is_named_as_when_read_at_once(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(dataset / "data" / MAIN_FILE, "a") as file:
        del file["episode_3/rewards"]
    _forget_hash(dataset)
    monkeypatch.setattr(module, "PART", 15)
    whole, part = import_minari(dataset), columns(dataset).part(0, len(LENGTHS) - 1)
    assert [str(finding) for finding in whole.findings] == ["episode_3: expected 'rewards', which is not there"]
    assert part.findings == whole.findings and part.source.dropped == whole.source.dropped
    assert part.source.numbers.tolist() == [0, 1, 2, 4, 5]


def test_half_the_space(dataset: Path, tmp_path: Path) -> None:
    whole, half = (columns(dataset, stored) for stored in ("float32", "float16"))
    np.testing.assert_allclose(half.part(0, 6).episodes.obs, whole.part(0, 6).episodes.obs, rtol=1e-3)
    assert half.part(0, 6).episodes.obs.dtype == np.float32
    assert (dataset / "columns-float16/obs").stat().st_size * 2 == (dataset / "columns-float32/obs").stat().st_size
    large = to_minari([made(scale=1e6)], "test/large-v0", tmp_path, env_spec=None, metadata={})
    with pytest.raises(ToolkitError, match=r"obs: numbers up to .*, more than float16 holds; expected float32"):
        columns(large, "float16")
    assert sorted(path.name for path in large.iterdir()) == ["data"]


def test_they_are_made_once_and_again_when_the_data_changes(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns(dataset)
    with monkeypatch.context() as patch:
        patch.setattr(module, "minari_parts", None)
        before = columns(dataset)
    to_minari([made(scale=2.0)], "test/set-v0", dataset.parents[1], env_spec=None, metadata={}, replace=True)
    assert not (dataset / "columns-float32").exists()  # they went with the data set that was replaced
    after = columns(dataset)
    np.testing.assert_array_equal(after.part(0, 6).episodes.obs, 2 * before.part(0, 6).episodes.obs)


def test_they_do_not_change_what_a_pipeline_imports(dataset: Path) -> None:
    stage = ImportStage(kind="import", source=str(dataset))
    before = _content(stage)
    columns(dataset)
    assert _content(stage) == before and len(before or ()) == 2


def test_a_file_that_was_changed_is_not_taken(dataset: Path) -> None:
    """By its content, recorded or not."""
    with h5py.File(dataset / "data" / MAIN_FILE, "a") as file:
        file["episode_0/rewards"][0] = 7.0
    with pytest.raises(ToolkitError, match="its bytes differ"):
        columns(dataset)
    _forget_hash(dataset)
    assert columns(dataset).part(0, 1).episodes.reward[0] == 7.0
    with h5py.File(dataset / "data" / MAIN_FILE, "a") as file:
        file["episode_0/rewards"][0] = 8.0
    assert columns(dataset).part(0, 1).episodes.reward[0] == 8.0


def test_what_a_killed_run_left_is_cleared(dataset: Path) -> None:
    (dataset / ".columns-float32.partial").mkdir()
    (dataset / ".columns-float32.partial/obs").write_bytes(b"half")
    (dataset / "columns-float32").mkdir()  # without its manifest
    same(columns(dataset).part(0, 6), import_minari(dataset))
    assert sorted(path.name for path in dataset.iterdir()) == ["columns-float32", "data"]


def test_parts_are_whole_episodes(dataset: Path) -> None:
    assert [len(part.episodes) for part in minari_parts(dataset, 9)] == [3, 1, 2]


def test_an_import_in_parts_is_that_at_once(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = []
    for name, rows in (("once", 1 << 18), ("parts", 9)):
        monkeypatch.setattr(recordings, "PART", rows)
        parts = recordings.open_parts(dataset)
        written = [checked(part) for part in parts]
        assert len(written) == len(list(parts)) == (1 if name == "once" else 3)
        folder = recordings.write(written, f"test/{name}-v0", tmp_path, made={"command": "import", "of": []})
        copies.append((folder / "data" / MAIN_FILE).read_bytes())
        same_places = recordings.read_places(dataset)
        np.testing.assert_array_equal(same_places.achieved, read_minari(dataset).achieved)
        assert same_places.obs.shape == same_places.action.shape == (len(same_places.reward), 0)
    assert copies[0] == copies[1]


def test_a_normaliser_of_parts() -> None:
    obs = np.random.default_rng(0).normal([5.0, -300.0, 0.0], [1e-3, 40.0, 0.0], (1000, 3)).astype(np.float32)
    whole = Normalizer.fit([obs])
    np.testing.assert_array_equal(whole.mean, obs.mean(0, dtype=np.float64).astype(np.float32))
    np.testing.assert_array_equal(whole.std[:2], obs.std(0, dtype=np.float64).astype(np.float32)[:2])
    parts = Normalizer.fit(np.split(obs, [1, 300, 301, 999]))
    np.testing.assert_allclose(parts, whole, rtol=1e-6)


def test_what_every_part_lacks_the_whole_lacks() -> None:
    jump, late = Finding("jump", "far", 3, 7), Finding("jump", "far", 9, 1)
    lost, old = Finding("no-success", "no episode reaches the goal"), Finding("version", "older")
    assert shared([[jump, lost, old], [late, old]]) == [old, jump, late]


def _forget_hash(dataset: Path) -> None:
    file = dataset / "data/metadata.json"
    about = json.loads(file.read_text())
    del about["sha256"]
    file.write_text(json.dumps(about))
