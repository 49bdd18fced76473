"""Compiling kernels with numba and keeping the result between processes (level 1)."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
from llvmlite import ir
from numba.core import types
from numba.core.caching import FunctionCache
from numba.extending import intrinsic

_config: Any = numba.config


def kernel(function: Callable[..., Any]) -> Any:
    """Compile at the first call, to run without the interpreter's lock, or take what another process compiled.

    Nothing that goes wrong with the kept code is an error: the kernel is then compiled again.
    """
    # a division by zero is what NumPy makes of it: a way out by an exception would cost references to be counted
    compiled: Any = numba.njit(nogil=True, error_model="numpy")(function)
    usual = _config.CACHE_DIR
    with suppress(Exception):
        _config.CACHE_DIR = str(_folder())
        kept: Any = FunctionCache(function)  # type: ignore[no-untyped-call]
        kept.load_overload, kept.save_overload = (
            _guard(kept, call) for call in (kept.load_overload, kept.save_overload)
        )
        compiled._cache = kept
    _config.CACHE_DIR = usual
    return compiled


@cache
def _folder() -> Path:
    """A folder of the user's own (what is in it will be executed) for this numba and these sources.

    numba itself looks at the file of the kernel alone, not at those of the functions it calls.
    """
    sources = b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py")))
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = f"numba-{numba.__version__}-{hashlib.sha256(sources).hexdigest()[:16]}"
    folder = caches / "offline2online-toolkit" / name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _guard(kept: Any, call: Callable[..., Any]) -> Callable[..., Any]:
    """One process at a time: two that start together without a lock can take each other's code for their own.

    What cannot be read is forgotten, so that it is written anew.
    """

    def run(*arguments: Any) -> Any:
        with suppress(Exception), (_folder() / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                return call(*arguments)
            except Exception:
                kept.flush()

    return run


def _prefetch(context: Any, array: Any, index: Any) -> Any:
    """Ask the memory for the line that holds array[index], without waiting; an index outside does no harm."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        instruction = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        address = builder.bitcast(builder.gep(data, [arguments[1]]), byte)
        # to be read, into the second-level cache: a whole batch does not fit into the first; data, not code
        builder.call(instruction, [address, number(0), number(2), number(1)])
        return context.get_dummy_value()

    return types.void(array, index), generate


prefetch: Any = intrinsic(_prefetch)
