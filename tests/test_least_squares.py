"""The linear algebra under the element references, against NumPy and against sums done by hand."""

import numpy as np
import pytest
from scipy import sparse

from crossfunc.energies import least_squares
from crossfunc.energies.least_squares import residual_variance, solve


def random_problem(n_rows, n_columns, seed=0):
    """Random rows of fractions with labels, weights and a prior."""
    rng = np.random.default_rng(seed)
    X = sparse.csr_array(rng.dirichlet(np.ones(n_columns), n_rows))
    return X, rng.normal(size=n_rows), rng.uniform(0.5, 2, n_rows), rng.normal(size=n_columns)


def test_a_mean_is_the_weighted_mean():
    X = sparse.csr_array(np.ones((3, 1)))
    solution = solve(X, np.array([1.0, 2.0, 6.0]), np.array([1.0, 1.0, 2.0]), 0.0, np.zeros(1))
    assert solution.change == pytest.approx([15 / 4])
    assert solution.unit_variance == pytest.approx([1 / 4])
    assert (solution.rank, solution.degrees_of_freedom) == (1, 1)


@pytest.mark.parametrize("ridge", [0.0, 0.7])
def test_both_ways_to_solve_agree_with_numpy(monkeypatch, ridge):
    X, y, w, prior = random_problem(40, 4)
    root = np.sqrt(np.concatenate([w, np.full(4, ridge)]))
    rows = np.vstack([X.toarray(), np.eye(4)]) * root[:, None]
    expected = np.linalg.lstsq(rows, np.concatenate([y - X @ prior, np.zeros(4)]) * root)[0]
    refined = solve(X, y, w, ridge, prior)
    monkeypatch.setattr(least_squares, "_WELL_CONDITIONED", np.inf)  # no matrix is: all go the other way
    by_qr = solve(X, y, w, ridge, prior)
    for solution in (refined, by_qr):
        np.testing.assert_allclose(solution.change, expected, atol=1e-12)
        np.testing.assert_allclose(solution.unit_variance, np.diagonal(np.linalg.inv(rows.T @ rows)))
    np.testing.assert_allclose(by_qr.degrees_of_freedom, refined.degrees_of_freedom)


def test_rows_of_equal_composition_count_as_their_weighted_mean():
    X, y, w, prior = random_problem(6, 3)
    repeated = np.repeat(np.arange(6), 3)
    noise = np.tile([-1.0, 0.0, 1.0], 6)
    solution = solve(X[repeated], y[repeated] + noise, w[repeated] / 3, 0.0, prior)
    np.testing.assert_allclose(solution.change, solve(X, y, w, 0.0, prior).change, atol=1e-12)


def test_what_the_rows_cannot_see_is_named_and_stays_at_the_prior():
    X = sparse.csr_array(np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]))  # the first two only ever occur together
    solution = solve(X, np.array([3.0, 5.0]), np.ones(2), 0.0, np.array([1.0, 2.0, 0.0]))
    np.testing.assert_allclose(solution.change, [1.5, 1.5, 5.0])
    assert solution.determined.tolist() == [False, False, True]
    np.testing.assert_allclose(np.abs(solution.null_space), [[np.sqrt(0.5), np.sqrt(0.5), 0]], atol=1e-12)
    assert solution.rank == 2


def test_residual_variance_counts_materials_where_they_are_given():
    residual = np.array([1.0, -1.0, 3.0])
    assert residual_variance(residual, np.ones(3), None, 3, 1.0) == pytest.approx(11 / 2)
    # two materials: mean residuals 0 and 3, each of weight 1
    assert residual_variance(residual, np.array([0.5, 0.5, 1.0]), np.array([0, 0, 1]), 2, 1.0) == pytest.approx(9)
    # mean residuals 2 and 3 of weights 3 and 0.5: 3 * 4 + 0.5 * 9
    residual, w = np.array([1.0, 4.0, 3.0]), np.array([2.0, 1.0, 0.5])
    assert residual_variance(residual, w, np.array([0, 0, 1]), 2, 1.0) == pytest.approx(16.5)


def test_without_a_degree_of_freedom_left_the_scatter_is_unknown():
    assert np.isnan(residual_variance(np.zeros(2), np.ones(2), None, 2, 2.0))
