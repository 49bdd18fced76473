"""Counter-based random numbers for kernels (level 1).

A number is a hash of (seed, step, row, j): it does not depend on what was drawn before it, on which thread, or after
how many resumes. Nothing here but integer operations and single IEEE additions, products and roots, in a fixed
order: every machine gets the same bits.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from toolkit.data.jit import kernel

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)
_STEP = np.uint64(0xD1342543DE82EF95)
_S30, _S27, _S31, _S32, _S33, _S40 = (np.uint64(n) for n in (30, 27, 31, 32, 33, 40))
_DRAWS = np.uint64(1 << 20)  # numbers set aside for one row

f32, i32 = np.float32, np.int32
_ONE, _HALF, _LN2 = f32(1.0), f32(0.5), f32(math.log(2.0))
_MANTISSA, _EXPONENT, _ROOT_HALF = i32(0x7FFFFF), i32(23), i32(0x3F3504F3)  # sqrt(1/2) as bits
# ln(1 + f) = f - f^2 / 2 + f^3 P(f) for f between sqrt(1/2) - 1 and sqrt(2) - 1; sine and cosine up to pi / 4
# (polynomials of the Cephes library, Moshier 1989, in single precision: 1e-7 off at most)
_P0, _P1, _P2 = f32(7.0376836292e-2), f32(-1.1514610310e-1), f32(1.1676998740e-1)
_P3, _P4, _P5 = f32(-1.2420140846e-1), f32(1.4249322787e-1), f32(-1.6668057665e-1)
_P6, _P7, _P8 = f32(2.0000714765e-1), f32(-2.4999993993e-1), f32(3.3333331174e-1)
_S0, _S1, _S2 = f32(-1.6666654611e-1), f32(8.3321608736e-3), f32(-1.9515295891e-4)
_C0, _C1, _C2 = f32(4.166664568298827e-2), f32(-1.388731625493765e-3), f32(2.443315711809948e-5)
_RADIUS_UNIT, _ANGLE_UNIT, _ANGLE_HALF = f32(2.0**-31), f32(2.0**-31 * math.pi), f32(math.pi / 4)
_ANGLE_BITS, _SWAP, _MINUS = (np.uint64(n) for n in ((1 << 30) - 1, 1 << 30, 1 << 31))


@numba.njit
def mix(x: Any) -> Any:
    """The splitmix64 finaliser (Steele, Lea & Flood 2014): a bijection that scrambles all 64 bits."""
    x = (x ^ (x >> _S30)) * _MIX1
    x = (x ^ (x >> _S27)) * _MIX2
    return x ^ (x >> _S31)


@numba.njit
def stream(seed: Any, step: Any) -> Any:
    """Key of the random stream of one seed at one step."""
    return mix(mix(np.uint64(seed) * _GAMMA + np.uint64(1)) + np.uint64(step) * _STEP)


@numba.njit
def draw(key: Any, row: Any, j: Any) -> Any:
    """Number j of a row of the stream, 64 random bits."""
    return mix(key + (np.uint64(row) * _DRAWS + np.uint64(j) + np.uint64(1)) * _GAMMA)


@numba.njit
def below(bits: Any, n: Any) -> Any:
    """Uniform integer in [0, n) from 64 random bits, n < 2^32."""
    return np.int64(((bits >> _S32) * np.uint64(n)) >> _S32)


@numba.njit
def unit(bits: Any) -> Any:
    """Uniform float32 in [0, 1) from 64 random bits."""
    return f32(i32(bits >> _S40)) * f32(2.0**-24)


@numba.njit
def log(x: Any) -> Any:
    """Natural logarithm of a positive float32."""
    bits = i32(f32(x).view(i32) - _ROOT_HALF)
    f = i32((bits & _MANTISSA) + _ROOT_HALF).view(f32) - _ONE
    p = ((_P0 * f + _P1) * f + _P2) * f + _P3
    p = ((((p * f + _P4) * f + _P5) * f + _P6) * f + _P7) * f + _P8
    return f32(bits >> _EXPONENT) * _LN2 + (f + f * f * (p * f - _HALF))


@numba.njit
def normal_pair(bits: Any) -> Any:
    """Two independent standard normal float32 from 64 random bits, at most 6.7 (Box & Muller 1958)."""
    u = (f32(i32(bits >> _S33)) + _HALF) * _RADIUS_UNIT
    radius = f32(math.sqrt(f32(-2.0) * log(u)))
    # an angle in the quadrant around 0, then one of the four ways to put that quadrant on the axes
    x = f32(i32(bits & _ANGLE_BITS)) * _ANGLE_UNIT - _ANGLE_HALF
    xx = x * x
    sine = x + x * xx * (_S0 + xx * (_S1 + xx * _S2))
    cosine = _ONE - _HALF * xx + xx * xx * (_C0 + xx * (_C1 + xx * _C2))
    swap = (bits & _SWAP) != np.uint64(0)
    signed = -radius if (bits & _MINUS) != np.uint64(0) else radius
    return signed * (sine if swap else cosine), signed * (cosine if swap else sine)


@kernel
def fill_noise(out: npt.NDArray[np.float32], column: int, seeds: npt.NDArray[np.int64], step0: int) -> None:
    """Standard normal numbers into out[..., column:], shape (U, S, B, W)."""
    U, S, B, W = out.shape
    n = W - column
    half = np.uintp((B * n + 1) // 2)
    numbers = np.empty(2 * half, np.float32)
    for u in range(U):
        for s in range(S):
            key = mix(stream(seeds[s], step0 + u))
            # One plain loop into memory at hand: the compiler makes vector instructions of it.
            for t in range(half):
                numbers[t], numbers[half + t] = normal_pair(draw(key, np.uint64(0), t))
            for b in range(B):
                for j in range(n):
                    out[u, s, b, column + j] = numbers[b * n + j]
