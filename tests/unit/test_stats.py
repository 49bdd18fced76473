"""Statistics against written-out definitions, known answers and their promises."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest

from toolkit.stats import bootstrap_ci, iqm, nested_ci, success_summary, value_summary


def test_iqm_known_answers() -> None:
    assert iqm([1.0, 2.0, 3.0, 100.0]) == 2.5
    assert iqm([0.0, 0.5, 1.0]) == pytest.approx(0.5)  # fewer than four: the mean
    assert iqm(np.arange(8)) == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert iqm([7.0]) == 7.0
    assert iqm(np.arange(10)) == pytest.approx(np.arange(2, 8).mean())  # int(2.5) = 2 a side, as rliable
    assert np.allclose(iqm(np.arange(8).reshape(2, 4), axis=1), [1.5, 5.5])
    assert iqm(np.arange(8).reshape(2, 4)) == iqm(np.arange(8))
    with pytest.raises(ValueError, match="no scores"):
        iqm([])


def test_bootstrap_equals_the_written_out_form() -> None:
    """The definition of rliable's stratified bootstrap, with loops."""
    scores = np.random.default_rng(0).normal(size=(5, 3))
    rng = np.random.default_rng(1)
    statistics = []
    for _ in range(4000):
        columns = [scores[rng.integers(5, size=5), task] for task in range(3)]
        ordered = np.sort(np.concatenate(columns))
        statistics.append(ordered[3:-3].mean())
    expected = np.percentile(statistics, [2.5, 97.5])
    assert np.allclose(bootstrap_ci(scores, resamples=4000), expected, atol=0.06)


def test_strata_are_drawn_separately() -> None:
    """Two tasks of very different levels: drawn together their mix would vary, drawn by task it cannot."""
    scores = np.array([[0.0, 100.0]] * 4)
    low, high = bootstrap_ci(scores, statistic=lambda x: x.mean(-1))
    assert low == high == 50.0
    low, high = bootstrap_ci(scores.reshape(-1), statistic=lambda x: x.mean(-1))
    assert low < 50.0 < high


def test_nested_equals_the_written_out_form() -> None:
    values = (np.random.default_rng(0).random((3, 40)) < [[0.9], [0.5], [0.7]]).astype(float)
    rng = np.random.default_rng(1)
    statistics = []
    for _ in range(4000):
        drawn = rng.integers(3, size=3)
        statistics.append(np.mean([values[s, rng.integers(40, size=40)].mean() for s in drawn]))
    assert np.allclose(nested_ci(values, resamples=4000), np.percentile(statistics, [2.5, 97.5]), atol=0.02)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(200):
        low, high = nested_ci(rng.normal(size=(1, 100)), resamples=500)
        hits += low <= 0.0 <= high
    assert 0.89 <= hits / 200 <= 0.99


def test_episodes_without_a_value_do_not_count() -> None:
    table = np.array([[1.0, np.nan, 3.0, np.nan], [np.nan] * 4, [5.0, 5.0, 5.0, 5.0]])
    summary = value_summary(table)
    assert summary["per_seed"] == [2.0, None, 5.0]
    assert summary["iqm"] == 3.5
    assert 1.0 <= summary["ci95"][0] < summary["ci95"][1] <= 5.0
    nothing = value_summary(np.full((2, 3), np.nan))
    assert nothing == {"iqm": None, "ci95": [None, None], "per_seed": [None, None]}
    assert "NaN" not in json.dumps([summary, nothing])
    assert all(math.isnan(end) for end in nested_ci(np.full((2, 3), np.nan)))


def test_success_summary() -> None:
    success = np.zeros((3, 100), bool)
    success[0, :98], success[1, :90], success[2, :100] = True, True, True
    summary = success_summary(success)
    assert summary["per_seed"] == [0.98, 0.9, 1.0]
    assert summary["iqm"] == pytest.approx(0.96)
    assert summary["episodes"] == 100
    assert 0.85 < summary["ci95"][0] < 0.96 < summary["ci95"][1] <= 1.0
    assert success_summary(np.ones((3, 10), bool))["ci95"] == [1.0, 1.0]
    assert success_summary(np.zeros((1, 10), bool))["ci95"] == [0.0, 0.0]


def test_same_numbers_every_time_and_fast() -> None:
    success = np.random.default_rng(0).random((3, 100)) < 0.9
    first = success_summary(success)
    began = time.perf_counter()
    assert success_summary(success) == first
    assert time.perf_counter() - began < 0.25
    scores = np.random.default_rng(0).random((10, 5))
    assert bootstrap_ci(scores) == bootstrap_ci(scores)


def test_memory_stays_flat() -> None:
    """Chunks do not change the meaning: large tables give an interval of the right width."""
    values = np.random.default_rng(0).normal(size=(2, 20_000))
    low, high = nested_ci(values, resamples=400)
    assert 0.0 < high - low < 0.1
