"""Checkpoints: nothing is lost, nothing is mixed, nothing damaged is believed."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import pytest
import safetensors.torch
import torch

from toolkit import checkpoint
from toolkit.checkpoint import CheckpointError, CheckpointWarning, flatten, load, save, unflatten
from toolkit.files import canonical
from toolkit.types import ToolkitError


class Net(NamedTuple):
    p: dict[str, torch.Tensor]
    t: torch.Tensor


class State(NamedTuple):
    pi: Net
    extra: tuple[Any, ...]


def make_state(value: float = 0.0) -> State:
    return State(
        Net({"w0": torch.full((3, 2), value), "b0": torch.zeros(0, 2)}, torch.tensor(7.0)),
        (torch.randn(2, 3).T, [torch.tensor([1.5, -2.25], dtype=torch.bfloat16)], np.arange(3, dtype=np.uint64)),
    )


def every_dtype() -> dict[str, Any]:
    kinds = ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"]
    tensors: dict[str, Any] = {kind: np.arange(5, dtype=kind) for kind in kinds}
    shared = torch.randn(4, 4)
    return tensors | {
        "bool": np.array([True, False]),
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0, 4),
        "strided": shared.T,
        "alias": shared,
        "part": shared[1:3, ::2],
        "numpy/strided": np.arange(12.0).reshape(3, 4)[:, ::2],
        "bfloat16": torch.randn(3).bfloat16(),
        "ünï/cödé": torch.ones(1),
    }


def test_every_type_and_shape_comes_back(tmp_path: Path) -> None:
    tensors, meta = every_dtype(), {"step": 3, "text": "päth", "nested": {"list": [1, 2.5, None, True]}}
    made = save(tmp_path / "c", tensors, meta)
    for where in (tmp_path / "c", made):
        loaded, found = load(where)
        assert found == meta
        assert loaded.keys() == tensors.keys()
        for name, value in tensors.items():
            expected = torch.as_tensor(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value
            assert loaded[name].dtype == expected.dtype
            assert loaded[name].shape == expected.shape
            assert torch.equal(loaded[name], expected), name


def test_the_file_is_ordinary_safetensors(tmp_path: Path) -> None:
    made = save(tmp_path, every_dtype(), {})
    assert safetensors.torch.load_file(made / "tensors.safetensors").keys() == every_dtype().keys()


def test_same_content_same_bytes(tmp_path: Path) -> None:
    one = save(tmp_path / "a", {"x": torch.ones(3), "y": torch.zeros(2)}, {"a": 1})
    two = save(tmp_path / "b", {"y": torch.zeros(2), "x": torch.ones(3)}, {"a": 1})
    for name in ("tensors.safetensors", "meta.json", "manifest.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_two_newest_stay(tmp_path: Path) -> None:
    for step in range(5):
        save(tmp_path, {"x": torch.tensor(step)}, {"step": step})
    assert sorted(os.listdir(tmp_path)) == ["000004", "000005"]
    assert load(tmp_path)[1] == {"step": 4}
    assert checkpoint.exists(tmp_path)
    assert not checkpoint.exists(tmp_path / "none")


def test_tree_round_trip(tmp_path: Path) -> None:
    state = make_state(2.0)
    flat = flatten(state)
    assert set(flat) == {"pi/p/w0", "pi/p/b0", "pi/t", "extra/0", "extra/1/0", "extra/2"}
    save(tmp_path, flat, {})
    again = unflatten(load(tmp_path)[0], make_state())
    assert isinstance(again, State)
    assert isinstance(again.pi, Net)
    assert isinstance(again.extra[1], list)
    assert isinstance(again.extra[2], np.ndarray)
    for name, value in flatten(again).items():
        assert np.array_equal(_numpy(value), _numpy(flat[name]))


def _numpy(value: Any) -> Any:
    return value.float().numpy() if isinstance(value, torch.Tensor) else value


def test_unflatten_names_what_does_not_fit() -> None:
    flat = dict(flatten(make_state()))
    flat["pi/p/w0"] = torch.zeros(4, 2)
    flat["pi/t"] = torch.zeros((), dtype=torch.float64)
    flat["new"] = flat.pop("extra/0")
    with pytest.raises(ToolkitError) as error:
        unflatten(flat, make_state())
    for part in ("missing extra/0", "unexpected new", "pi/p/w0 is float32[4, 2], expected float32[3, 2]", "pi/t"):
        assert part in str(error.value)


def test_what_is_no_tensor_is_refused() -> None:
    with pytest.raises(TypeError, match="a/b"):
        flatten({"a": {"b": 1.0}})
    with pytest.raises(TypeError):
        flatten({"a/b": torch.ones(1)})


# --- crashes ---------------------------------------------------------------------------------------------------


class Crash(BaseException):
    """What a kill looks like from inside: nothing may tidy up after it."""


def crash_at_line(step: int, call: Callable[[], Any]) -> bool:
    """Run `call` and die before the `step`-th line of the module; False when it finished first."""
    left = step

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename != checkpoint.__file__:
            return None
        if event == "line":
            left -= 1
            if left < 0:
                raise Crash
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except Crash:
        return True
    finally:
        sys.settrace(before)
    return False


def crash_at_call(step: int, monkeypatch: pytest.MonkeyPatch, call: Callable[[], Any]) -> bool:
    """The same before or in the middle of the `step`-th call that changes the disk; removals stop half way."""
    left = step

    def arm(name: str) -> None:
        real = getattr(os, name)

        def shim(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Crash
            return real(*arguments, **named)

        patch.setattr(os, name, shim)

    with monkeypatch.context() as patch:
        for name in ("mkdir", "open", "fsync", "close", "rename", "unlink", "rmdir"):
            arm(name)
        try:
            call()
        except Crash:
            return True
    return False


def check_old_or_new(folder: Path, old: int | None, new: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if old is None and not checkpoint.exists(folder):
            return
        tensors, meta = load(folder)
    assert meta["step"] in (old, new)
    assert torch.equal(tensors["x"], torch.full((1000,), float(meta["step"])))


def write(folder: Path, step: int) -> Path:
    return save(folder, {"x": torch.full((1000,), float(step))}, {"step": step})


@pytest.mark.parametrize("present", [0, 1, 2])
@pytest.mark.parametrize("kind", ["line", "call"])
def test_crash_anywhere_leaves_old_or_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, present: int, kind: str
) -> None:
    for at in range(400):
        folder = tmp_path / str(at)
        for step in range(present):
            write(folder, step)
        old = present - 1 if present else None

        def attempt(folder: Path = folder) -> Path:
            return write(folder, 10)

        crashed = crash_at_line(at, attempt) if kind == "line" else crash_at_call(at, monkeypatch, attempt)
        check_old_or_new(folder, old, 10)
        write(folder, 11)  # the next save works and clears what the crash left
        assert load(folder)[1]["step"] == 11
        assert not [name for name in os.listdir(folder) if name.startswith(".")]
        assert len(os.listdir(folder)) <= checkpoint.KEEP
        shutil.rmtree(folder)
        if not crashed:
            assert at > 5
            return
    pytest.fail("the save never finished")


def test_crash_in_the_middle_of_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 0)

    def half(path: Path, chunks: Any) -> Any:
        data = b"".join(chunks)
        path.write_bytes(data[: len(data) // 2])
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_write", half)
        with pytest.raises(Crash):
            write(tmp_path, 1)
    check_old_or_new(tmp_path, 0, 0)
    write(tmp_path, 2)
    assert sorted(os.listdir(tmp_path)) == ["000001", "000002"]


# --- damage ----------------------------------------------------------------------------------------------------


def copy_of_two(tmp_path: Path) -> tuple[Path, Path]:
    folder = tmp_path / "c"
    write(folder, 0)
    return folder, write(folder, 1)


def expect_fallback(folder: Path) -> None:
    with pytest.warns(CheckpointWarning, match="000002"):
        tensors, meta = load(folder)
    assert meta["step"] == 0
    assert torch.equal(tensors["x"], torch.zeros(1000))


@pytest.mark.parametrize("name", ["tensors.safetensors", "meta.json", "manifest.json"])
def test_truncation_is_found(tmp_path: Path, name: str) -> None:
    folder, newest = copy_of_two(tmp_path)
    whole = (newest / name).read_bytes()
    lengths = {0, 1, 7, 8, len(whole) - 1} | set(random.Random(0).sample(range(len(whole)), min(60, len(whole))))
    for length in lengths:
        (newest / name).write_bytes(whole[:length])
        expect_fallback(folder)
    (newest / name).write_bytes(whole + b" ")
    expect_fallback(folder)
    (newest / name).unlink()
    if name != "manifest.json":
        expect_fallback(folder)


@pytest.mark.parametrize("name", ["tensors.safetensors", "meta.json", "manifest.json"])
def test_flipped_bits_are_found(tmp_path: Path, name: str) -> None:
    folder, newest = copy_of_two(tmp_path)
    whole = (newest / name).read_bytes()
    rng = random.Random(1)
    for _ in range(150):
        at, bit = rng.randrange(len(whole)), rng.randrange(8)
        (newest / name).write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
        expect_fallback(folder)


def test_all_damaged_or_none_there(tmp_path: Path) -> None:
    folder, newest = copy_of_two(tmp_path)
    for directory in folder.iterdir():
        (directory / "meta.json").write_text("{}")
    with pytest.raises(ToolkitError, match=r"no intact checkpoint.*000002.*000001"):
        load(folder)
    with pytest.raises(ToolkitError, match="no intact checkpoint"):
        load(newest)
    with pytest.raises(ToolkitError, match="no checkpoint here"):
        load(tmp_path / "none")


def test_a_damaged_one_does_not_push_out_the_good_one(tmp_path: Path) -> None:
    folder, newest = copy_of_two(tmp_path)
    (newest / "tensors.safetensors").write_bytes(b"cut")
    write(folder, 2)
    assert sorted(os.listdir(folder)) == ["000001", "000003"]
    assert load(folder)[1]["step"] == 2


# --- hostility -------------------------------------------------------------------------------------------------


def seal(directory: Path, manifest: dict[str, Any] | None = None) -> None:
    """Write a manifest that agrees with the files, as an attacker would."""
    entries = {}
    for name in ("tensors.safetensors", "meta.json"):
        data = (directory / name).read_bytes()
        entries[name] = {"bytes": len(data), "sha256": checkpoint.hashlib.sha256(data).hexdigest()}
    (directory / "manifest.json").write_bytes(canonical({"schema": 1, "files": entries} | (manifest or {})))


def header(entries: dict[str, Any]) -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("tensors.safetensors", (1 << 60).to_bytes(8, "little") + b"{}"),
        ("tensors.safetensors", b""),
        ("tensors.safetensors", b"\x80\x05cos\nsystem\n."),
        ("tensors.safetensors", lambda: header({str(i): 0 for i in range(1_500_000)})),
        ("tensors.safetensors", header({"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}})),
        ("tensors.safetensors", header({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}) + b"1234"),
        ("tensors.safetensors", header({"x": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}) + bytes(8)),
        ("meta.json", b"[" * 100_000),
        ("meta.json", b"[1]"),
        ("meta.json", b"\xff"),
    ],
    ids=["header-2^60", "empty", "pickle", "many-entries", "huge", "short", "negative", "deep", "list", "not-utf8"],
)
def test_hostile_files_are_refused_at_once(tmp_path: Path, name: str, data: bytes | Callable[[], bytes]) -> None:
    directory = write(tmp_path, 0)
    (directory / name).write_bytes(data() if callable(data) else data)
    seal(directory)
    began = time.process_time()
    with pytest.raises(CheckpointError):
        load(tmp_path)
    assert time.process_time() - began < 1.0


def test_hostile_manifests_are_refused(tmp_path: Path) -> None:
    directory = write(tmp_path, 0)
    for change in ({"schema": 2}, {"files": {"../../etc/passwd": {"bytes": 1, "sha256": ""}}}, {"files": []}):
        seal(directory, change)
        with pytest.raises(CheckpointError):
            load(tmp_path)


def test_links_and_pipes_are_refused(tmp_path: Path) -> None:
    directory = write(tmp_path, 0)
    target = directory / "meta.json"
    target.rename(tmp_path / "elsewhere.json")
    target.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(CheckpointError, match="not a plain file"):
        load(directory)
    target.unlink()
    os.mkfifo(target)
    with pytest.raises(CheckpointError, match="not a plain file"):
        load(directory)


# --- a disk that refuses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_full_disk_says_so_and_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    write(tmp_path, 0)

    def full(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ToolkitError, match=r"cannot write a checkpoint into .*needs 4,\d\d\d bytes") as error:
            write(tmp_path, 1)
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == ["000001"]
    assert load(tmp_path)[1]["step"] == 0


def test_really_full_disk(tmp_path: Path) -> None:
    """A limit on file size makes the kernel refuse in the middle of a write."""
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    write(tmp_path, 0)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        try:
            write(tmp_path, 1)
        except ToolkitError as error:
            os._exit(42 if "File too large" in str(error) else 43)
        finally:
            os._exit(44)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
    assert os.listdir(tmp_path) == ["000001"]


def test_read_only_folder_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("a file in the way")
    with pytest.raises(ToolkitError, match="cannot write a checkpoint into"):
        write(tmp_path / "c", 0)


def test_a_small_save_takes_milliseconds(tmp_path: Path) -> None:
    tensors = {f"pi/p/w{i}": torch.zeros(64, 64) for i in range(30)}
    save(tmp_path, tensors, {})
    took = []
    for _ in range(5):
        began = time.process_time()
        save(tmp_path, tensors, {})
        took.append(time.process_time() - began)
    assert min(took) < 0.2
