"""Statistics against written-out definitions, known answers and their promises."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest

from toolkit.stats import (
    bootstrap_ci,
    holm,
    iqm,
    paired,
    performance_profile,
    probability_of_improvement,
    seed_ci,
    spearman,
    student,
    success_ci,
    success_summary,
    value_summary,
    wilson_ci,
)


def test_student_s_points_are_those_of_the_tables() -> None:
    points = {1: 12.70620, 2: 4.30265, 3: 3.18245, 4: 2.77645, 5: 2.57058, 6: 2.44691, 7: 2.36462, 9: 2.26216}
    points |= {10: 2.22814, 15: 2.13145, 20: 2.08596, 30: 2.04227, 120: 1.97993}
    for freedom, point in points.items():
        assert student(freedom) == pytest.approx(point, rel=4e-4), freedom


def test_rank_correlation_known_answers() -> None:
    assert spearman([1, 2, 3], [10, 1000, 1001]) == pytest.approx(1.0)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    assert spearman([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(1 - 6 * 2 / (4 * 15))  # the formula without ties
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.9486832980505138)  # scipy.stats.spearmanr
    assert math.isnan(spearman([1.0], [2.0]))
    assert math.isnan(spearman([1.0, 1.0], [2.0, 3.0]))


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


def test_seed_interval_is_students_up_to_three_seeds() -> None:
    low, high = seed_ci([0.9, 0.6, 0.7])
    half = 4.303 * np.std([0.9, 0.6, 0.7], ddof=1) / math.sqrt(3)
    assert (low, high) == (pytest.approx(0.7333333 - half), pytest.approx(0.7333333 + half))
    assert all(math.isnan(end) for end in seed_ci([0.5]))


@pytest.mark.parametrize("seeds", [2, 3, 4, 5, 8, 9, 10, 13, 20, 40])
def test_seed_interval_covers_the_truth_as_often_as_it_says(seeds: int) -> None:
    """Normal seeds: 95 in 100. Four standard deviations of this count are 1.4 in 100."""
    draws = np.random.default_rng(seeds).normal(size=(4000, seeds))
    ends = np.array([seed_ci(draw) for draw in draws])
    assert 0.936 <= ((ends[:, 0] <= 0) & (ends[:, 1] >= 0)).mean() <= 0.964


# means 0.7 and 0.95, where rates are skewed
@pytest.mark.parametrize(("good", "bad", "episodes"), [(14.0, 6.0, 50), (27.25, 1.434, 100)])
def test_success_interval_covers_the_truth(good: float, bad: float, episodes: int) -> None:
    """Seeds of different skill."""
    rng, truth = np.random.default_rng(4), good / (good + bad)
    skill = rng.beta(good, bad, (3000, 3))
    success = rng.random((3000, 3, episodes)) < skill[..., None]
    ends = np.array([success_ci(table) for table in success])
    assert 0.93 <= ((ends[:, 0] <= truth) & (ends[:, 1] >= truth)).mean() <= 0.97


def test_wilson() -> None:
    assert wilson_ci(8, 10) == (pytest.approx(0.4901625), pytest.approx(0.9433178))  # as scipy.stats.binomtest
    assert wilson_ci(0, 20)[0] == 0.0 and wilson_ci(20, 20)[1] == 1.0


def test_episodes_without_a_value_do_not_count() -> None:
    table = np.array([[1.0, np.nan, 3.0, np.nan], [np.nan] * 4, [5.0, 5.0, 5.0, 5.0]])
    summary = value_summary(table)
    assert summary["per_seed"] == [2.0, None, 5.0]
    assert summary["iqm"] == 3.5
    assert summary["ci95"][0] < 3.5 < summary["ci95"][1]
    nothing = value_summary(np.full((2, 3), np.nan))
    assert nothing == {"iqm": None, "ci95": [None, None], "per_seed": [None, None]}
    assert "NaN" not in json.dumps([summary, nothing])
    one = value_summary([[1.0, 2.0, 3.0, 4.0]])["ci95"]
    assert one == [pytest.approx(2.5 - 3.18245 * 1.2909944 / 2), pytest.approx(2.5 + 3.18245 * 1.2909944 / 2)]


def test_success_summary() -> None:
    success = np.zeros((3, 100), bool)
    success[0, :98], success[1, :90], success[2, :100] = True, True, True
    summary = success_summary(success)
    assert summary["per_seed"] == [0.98, 0.9, 1.0]
    assert summary["iqm"] == pytest.approx(0.96)
    assert summary["episodes"] == 100
    # Student's t for three seeds, 4.303, on arcsin sqrt of the rates 98, 90 and 100 of 100
    assert summary["ci95"] == [pytest.approx(0.7570, abs=1e-4), 1.0]
    low, high = success_summary(np.ones((3, 10), bool))["ci95"]  # 30 of 30: one failure in nine is still believable
    assert (low, high) == (pytest.approx(0.8865, abs=1e-3), 1.0)
    assert success_summary(np.zeros((1, 10), bool))["ci95"] == [0.0, pytest.approx(0.2775, abs=1e-3)]


def test_same_numbers_every_time_and_fast() -> None:
    success = np.random.default_rng(0).random((3, 100)) < 0.9
    first = success_summary(success)
    began = time.process_time()
    assert success_summary(success) == first
    assert time.process_time() - began < 0.25
    scores = np.random.default_rng(0).random((10, 5))
    assert bootstrap_ci(scores) == bootstrap_ci(scores)


def test_probability_of_improvement() -> None:
    ours, theirs = np.array([[3.0, 1.0], [4.0, 2.0]]), np.array([[1.0, 1.0], [2.0, 3.0], [3.0, 0.0]])
    wins = [[1, 1, 0.5, 1, 1, 1], [0.5, 0, 1, 1, 0, 1]]
    middle, low, high = probability_of_improvement(ours, theirs)
    assert middle == pytest.approx(np.mean(wins))
    assert 0 <= low < middle < high <= 1
    assert probability_of_improvement([1.0, 2.0], [3.0, 4.0]) == (0.0, 0.0, 0.0)
    assert probability_of_improvement([1.0, 2.0], [1.0, 2.0])[0] == 0.5
    with pytest.raises(ValueError, match="2 and 1 tasks"):
        probability_of_improvement(ours, theirs[:, :1])


def test_performance_profile() -> None:
    scores = np.array([[0.1, 0.9], [0.5, 0.7]])
    share, low, high = performance_profile(scores, [0.0, 0.1, 0.6, 1.0])
    assert share.tolist() == [1.0, 0.75, 0.5, 0.0]
    assert (low <= share).all() and (share <= high).all()
    assert (low[2], high[2]) == (0.5, 0.5), "tasks are drawn apart"


def test_paired() -> None:
    """All three differences are positive: of the eight sign flips two are as extreme."""
    found = paired([0.9, 0.8, 0.7], [0.5, 0.6, 0.6])
    assert found["difference"] == pytest.approx(0.7 / 3)
    assert found["p"] == found["least_p"] == 0.25
    assert found["ci95"][0] < 0 < found["ci95"][1]
    assert paired([1.0] * 4, [1.0] * 4)["p"] == 1.0
    assert paired([1.0], [0.0])["p"] is None
    rng = np.random.default_rng(0)
    p = [paired(rng.normal(size=8), np.zeros(8))["p"] for _ in range(2000)]
    assert 0.03 < np.mean(np.array(p) <= 0.05) < 0.07, "under no difference p is uniform"
    many = paired(rng.normal(1, 1, 30), rng.normal(0, 1, 30))
    assert 0 < many["p"] < 0.05 and many["least_p"] < 1e-3
    large = paired(rng.normal(2e6, 5e5, 6), rng.normal(0, 5e5, 6))
    assert large["p"] == large["least_p"] == 2 / 64, "an order of adding up is no other outcome"
    for missing in (np.nan, np.inf):
        with pytest.raises(ValueError, match="not all finite"):
            paired([0.9, missing, 0.7], [0.5, 0.6, 0.6])


def test_outcomes_that_no_one_knows() -> None:
    nothing = {"iqm": None, "ci95": [None, None], "per_seed": [None, None], "episodes": 4}
    assert success_summary(np.full((2, 4), np.nan)) == nothing


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
