"""Tensors in the safetensors format, as chunks to write: the same tensors, the same bytes, and no copy (level 1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from toolkit.files import canonical
from toolkit.types import Json

Leaf: TypeAlias = torch.Tensor | npt.NDArray[Any]

_CODES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "int16": "I16",
    "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip


def chunks(tensors: Mapping[str, Leaf]) -> Iterator[bytes | memoryview]:
    """Header size, JSON header, the arrays, widest type first. Raises TypeError for a type that cannot be stored."""
    entries = {name: _entry(name, value) for name, value in tensors.items()}
    order = sorted(entries, key=lambda name: (-entries[name][1].itemsize, name))
    header: Json = {}
    at = 0
    for name in order:
        code, array = entries[name]
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = canonical(header)
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        if entries[name][1].nbytes:
            yield entries[name][1].reshape(-1).view(np.uint8).data


def _entry(name: str, value: Leaf) -> tuple[str, npt.NDArray[Any]]:
    """Type code and contiguous array of one tensor."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        if value.dtype is torch.bfloat16:  # numpy has no such type: same bytes under another name
            return "BF16", np.ascontiguousarray(value.contiguous().view(torch.int16).numpy())
        value = value.numpy()
    code = _CODES.get(str(value.dtype))
    if code is None:
        raise TypeError(f"cannot store {name} of type {value.dtype}")
    return code, np.ascontiguousarray(value).reshape(value.shape)  # ascontiguousarray makes scalars 1-d
