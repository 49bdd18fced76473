"""Files made to do harm are refused in words, at once, and nothing outside them is touched."""

from __future__ import annotations

import json
import pickle
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hostile import Bomb, external_link, instead, virtual

from tests.unit.test_importers import d4rl_arrays, ogbench_arrays, truth, write_h5, write_lerobot, write_robomimic
from toolkit.data.importers import read_data
from toolkit.types import ToolkitError

SECONDS, MEGABYTES = 1.0, 200


def npz(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/") + ".npy", content)
    return path


def npy(shape: tuple[int, ...], descr: str = "<f4", content: bytes = b"") -> bytes:
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def objects_in_npz(tmp: Path, canary: Path) -> Path:
    rows = np.empty(1, object)
    rows[0] = Bomb(canary)
    arrays = d4rl_arrays(truth()) | {"observations": rows}
    np.savez(tmp / "x.npz", **arrays)
    return tmp / "x.npz"


def huge_in_npz(tmp: Path, canary: Path) -> Path:
    names = ("observations", "actions", "terminals")
    return npz(tmp / "x.npz", **{name: npy((2**40, 4)) for name in names})


def zip_bomb(tmp: Path, canary: Path) -> Path:
    zeros = npy((2**21, 4), content=bytes(2**25))
    return npz(tmp / "x.npz", observations=zeros, actions=zeros, terminals=zeros)


def many_entries(tmp: Path, canary: Path) -> Path:
    with zipfile.ZipFile(tmp / "x.npz", "w") as archive:
        for index in range(5000):
            archive.writestr(f"a{index}.npy", b"")
    return tmp / "x.npz"


def names_that_lead_out(tmp: Path, canary: Path) -> Path:
    return npz(tmp / "x.npz", **{"..__..__x": npy((1,))})


def made_up_header(tmp: Path, canary: Path) -> Path:
    return npz(tmp / "x.npz", **{name: npy((1,), "__import__('os')") for name in ("observations", "terminals")})


def a_pickle(tmp: Path, canary: Path) -> Path:
    (tmp / "x.pkl").write_bytes(pickle.dumps(Bomb(canary)))
    return tmp / "x.pkl"


def disguised(tmp: Path, canary: Path) -> Path:
    (tmp / "x.hdf5").write_bytes(pickle.dumps(Bomb(canary)))
    return tmp / "x.hdf5"


def hdf5(edit: Callable[[h5py.File], Any], layout: str = "d4rl") -> Callable[[Path, Path], Path]:
    def make(tmp: Path, canary: Path) -> Path:
        path = tmp / "x.hdf5"
        write_h5(path, d4rl_arrays(truth())) if layout == "d4rl" else write_robomimic(path, truth(12))
        with h5py.File(path, "r+") as file:
            edit(file)
        return path

    return make


def expanding_piece(file: h5py.File) -> None:
    """A piece of 8 bytes that is 256 MiB once it is unpacked, in a file that is large enough for it by its size."""
    del file["rewards"]
    rewards = file.create_dataset("rewards", (1,), "f8", chunks=(1,), maxshape=(None,), compression="gzip")
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(2**20)) for _ in range(256)) + packer.flush()
    rewards.id.write_direct_chunk((0,), packed)


def compressed_twice(file: h5py.File) -> None:
    """LZF behind DEFLATE: what one makes of a few bytes, the other multiplies."""
    del file["rewards"]
    filters = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    filters.set_chunk((4,))
    filters.set_filter(h5py.h5z.FILTER_LZF, h5py.h5z.FLAG_OPTIONAL)
    filters.set_deflate(9)
    h5py.h5d.create(file.id, b"rewards", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((4,)), filters)


def huge_piece_of(file: h5py.File) -> None:
    del file["rewards"]
    file.create_dataset("rewards", (1,), "f8", chunks=(2**24,), maxshape=(None,), compression="gzip")


def many_names(file: h5py.File) -> None:
    for number in range(100_001):
        file.id.links.create_hard(b"%d" % number, file.id, b"rewards")


def deep_groups(file: h5py.File) -> None:
    """Deeper than a walk by recursion survives."""
    group = file.create_group("deep").id
    for _ in range(20_000):
        group = h5py.h5g.create(group, b"a")
    instead("rewards", data=["a"])(file)


def mask_of_objects(file: h5py.File) -> None:
    del file["data/demo_3/actions"]
    file["data/demo_3/actions"] = ["a", "b"]


def lerobot(template: Any = None, edit: Callable[[Path], Any] = lambda folder: None) -> Callable[[Path, Path], Path]:
    def make(tmp: Path, canary: Path) -> Path:
        folder = write_lerobot(tmp / "set", truth(), "v2.1")
        info = json.loads((folder / "meta/info.json").read_text())
        if template is not None:
            info["data_path"] = template.replace("CANARY", str(canary))
        (folder / "meta/info.json").write_text(json.dumps(info))
        edit(folder)
        return folder

    return make


def linked_out(folder: Path) -> None:
    file = folder / "data/chunk-000/episode_000000.parquet"
    file.rename(folder.parent / "outside.parquet")
    file.symlink_to(folder.parent / "outside.parquet")


def no_footer(folder: Path) -> None:
    file = folder / "data/chunk-000/episode_000000.parquet"
    file.write_bytes(file.read_bytes()[:-20])


def long_runs(folder: Path) -> None:
    """A few kilobytes that declare a billion numbers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = folder / "data/chunk-000/episode_000000.parquet"
    rows = 2**22
    zeros = pa.array(np.zeros(rows, np.float32))
    lists = pa.FixedSizeListArray.from_arrays(zeros, 4)
    columns = {"observation.state": lists, "action": lists, "episode_index": np.zeros(rows // 4, np.int64)}
    pq.write_table(pa.table(columns), file, compression="zstd")
    (folder / "data/chunk-000/episode_000001.parquet").write_bytes(file.read_bytes())
    (folder / "data/chunk-000/episode_000002.parquet").write_bytes(file.read_bytes())


def many_episodes(folder: Path) -> None:
    info = json.loads((folder / "meta/info.json").read_text()) | {"total_episodes": 10**12}
    (folder / "meta/info.json").write_text(json.dumps(info))


CASES: dict[str, tuple[Callable[[Path, Path], Path], str]] = {
    "objects in npz": (objects_in_npz, "expected numbers, got object"),
    "huge npz": (huge_in_npz, "declares more numbers than it holds"),
    "zip bomb": (zip_bomb, "declares more data than a file of this size"),
    "many entries": (many_entries, "expected at most 256 arrays"),
    "names that lead out": (names_that_lead_out, "expected plain, single names"),
    "made up header": (made_up_header, "not a readable array|expected"),
    "pickle": (a_pickle, "--trust-pickle"),
    "disguised pickle": (disguised, "--trust-pickle"),
    "external link": (hdf5(external_link("rewards")), "rewards: a soft or external link"),
    "soft link": (hdf5(lambda f: f.__setitem__("infos", h5py.SoftLink("/actions"))), "infos: a soft or external"),
    "virtual": (hdf5(virtual("rewards")), "data outside the file"),
    "external storage": (
        hdf5(instead("rewards", shape=(3,), dtype="f8", external=[("/etc/hostname", 0, 24)])),
        "data outside the file",
    ),
    "huge": (hdf5(instead("rewards", shape=(2**40,), dtype="f8", chunks=(1024,))), "declares more data"),
    "expanding piece": (hdf5(expanding_piece), "holds more than it declares"),
    "huge piece": (hdf5(huge_piece_of), "expected at most 67108864"),
    "many names": (hdf5(many_names), "expected at most 100000 entries"),
    "deep groups": (hdf5(deep_groups), "expected an array of numbers"),
    "unusual filter": (
        hdf5(instead("rewards", data=np.zeros(40), scaleoffset=2, chunks=(40,))),
        "unusual filters",
    ),
    "two compressors": (hdf5(compressed_twice), "unusual filters"),
    "objects": (hdf5(instead("rewards", data=["a", "b"])), "expected an array of numbers"),
    "robomimic huge": (
        hdf5(instead("data/demo_5/obs/a", shape=(2**40, 1), dtype="f8", chunks=(1024, 1)), "robomimic"),
        "declares more data",
    ),
    "robomimic objects": (hdf5(mask_of_objects, "robomimic"), "expected an array of numbers"),
    "template upwards": (lerobot("../../{episode_index}.parquet"), "leads out of the data set's folder"),
    "template absolute": (lerobot("/etc/passwd"), "leads out of the data set's folder"),
    "template attribute": (lerobot("{episode_index.__class__.__init__.__globals__}"), "refused"),
    "template width": (lerobot("{episode_index:0999999999d}"), "refused"),
    "symbolic link": (lerobot(edit=linked_out), "leads out of the data set's folder"),
    "no footer": (lerobot(edit=no_footer), "expected a readable Parquet file"),
    "long runs": (lerobot(edit=long_runs), "declares more data"),
    "many episodes": (lerobot(edit=many_episodes), "total_episodes: expected 1 to"),
}


def peak_kb() -> int:
    """Most memory this process has held since its mark was last set back, in KiB."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


@pytest.mark.parametrize("case", CASES)
def test_hostile_files_are_refused_at_once(tmp_path: Path, case: str) -> None:
    make, message = CASES[case]
    canary = tmp_path / "canary"
    path = make(tmp_path, canary)
    Path("/proc/self/clear_refs").write_text("5")  # sets the mark back, which earlier tests have driven up
    before, began = peak_kb(), time.process_time()
    with pytest.raises(ToolkitError, match=message):
        read_data(path)
    assert time.process_time() - began < SECONDS
    assert peak_kb() - before < MEGABYTES * 1024
    assert not canary.exists()


def test_a_pickle_is_opened_only_in_another_process(tmp_path: Path) -> None:
    from toolkit.data.importers.options import Options

    canary = tmp_path / "canary"
    with pytest.raises(ToolkitError, match="expected a Stable-Baselines3 replay buffer"):
        read_data(a_pickle(tmp_path, canary), options=Options(trust_pickle=True))
    assert canary.exists()  # it ran, as its user allowed


def test_damage_is_put_into_words(tmp_path: Path) -> None:
    """Any bit flipped, any end cut off: episodes or a ToolkitError, nothing else."""
    np.savez_compressed(tmp_path / "sound.npz", **ogbench_arrays(truth()))
    write_h5(tmp_path / "sound.hdf5", d4rl_arrays(truth()))
    rng = np.random.default_rng(0)
    for sound in (tmp_path / "sound.npz", tmp_path / "sound.hdf5"):
        content = sound.read_bytes()
        for number in range(60):
            damaged = bytearray(content)
            if number % 3:
                damaged[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
            else:
                del damaged[int(rng.integers(len(content))) :]
            path = tmp_path / f"damaged{sound.suffix}"
            path.write_bytes(damaged)
            with suppress(ToolkitError):
                read_data(path)
