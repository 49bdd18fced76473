"""The random numbers of the kernels: equal to a plain reference to the last bit, and as random as they must be."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sampler_reference import GAMMA, M64, mix, reference_log, reference_normals, stream

from toolkit.data.random import fill_noise
from toolkit.types import FloatArray


def noise_of(seed: int, step: int, rows: int, columns: int) -> FloatArray:
    out = np.zeros((1, 1, rows, columns), np.float32)
    fill_noise(out, 0, np.array([seed]), step)
    return out[0, 0]


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(1, 9), columns=st.integers(1, 9), seed=st.integers(0, 1 << 40), step=st.integers(0, 1 << 33))
def test_noise_equals_the_reference_to_the_last_bit(rows: int, columns: int, seed: int, step: int) -> None:
    half = (rows * columns + 1) // 2
    key = mix(stream(seed, step))
    bits = np.array([mix((key + (j + 1) * GAMMA) & M64) for j in range(half)], np.uint64)
    want = np.concatenate(reference_normals(bits))[: rows * columns].reshape(rows, columns)
    np.testing.assert_array_equal(noise_of(seed, step, rows, columns), want)


def test_logarithm() -> None:
    x = np.concatenate([np.linspace(1e-9, 1, 100_001), np.geomspace(1e-10, 1e10, 10_001)]).astype(np.float32)
    exact = np.log(x.astype(np.float64))
    np.testing.assert_allclose(reference_log(x), exact, rtol=2e-7, atol=0)


def test_noise_is_standard_normal_up_to_the_tails() -> None:
    z = noise_of(0, 0, 4096, 1024).astype(np.float64)
    n = z.size
    for power, moment, deviation in ((1, 0, 1), (2, 1, 2**0.5), (3, 0, 15**0.5), (4, 3, 96**0.5)):
        assert abs((z**power).mean() - moment) < 4.5 * deviation / n**0.5, power
    for bound in (0.01, 0.1, 0.5, 1.0, 2.0, 3.0, 4.0, 4.5):
        share = math.erfc(bound / 2**0.5)
        assert abs((np.abs(z) > bound).mean() - share) < 4.5 * (share * (1 - share) / n) ** 0.5, bound
    distance = np.abs(np.sort(z.ravel()) - torch.special.ndtri((torch.arange(n).double() + 0.5) / n).numpy())
    assert distance[n // 100 : -n // 100].max() < 0.01
    assert np.isfinite(z).all() and np.abs(z).max() < 6.7


def test_noise_is_independent_of_its_neighbours_in_every_direction() -> None:
    noise = np.stack([[noise_of(seed, step, 64, 7) for step in range(60)] for seed in range(3)])  # (S, U, B, W)
    for axis in range(4):
        one, other = (
            np.take(noise, index, axis).ravel() for index in (range(noise.shape[axis] - 1), range(1, noise.shape[axis]))
        )
        for x, y in ((one, other), (one**2, other**2), (one**2, other)):
            assert abs(np.corrcoef(x, y)[0, 1]) < 4.5 / len(x) ** 0.5
    assert len(np.unique(noise)) > 0.999 * noise.size
