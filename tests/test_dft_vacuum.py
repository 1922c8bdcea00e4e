"""r2SCAN in a box: the bound of Weizsäcker, and derivatives that stay those of the energy."""

import importlib.util

import numpy as np
import pytest

from crossfunc.dft.settings import LOWEST_DENSITY
from crossfunc.dft.vacuum import lift_to_weizsaecker, make_functional


def energy(n, sigma, tau):
    """A smooth function of all arguments that mixes the spins, in the place of libxc's."""
    return (np.sqrt(n + 0.1).prod(axis=0) + 0.3 * sigma.sum(axis=0) + (tau**2).sum(axis=0)) * (1 + tau.sum(axis=0))


def derivatives(n, sigma, tau):
    """The same function's derivatives by its arguments."""
    root, rest = np.sqrt(n + 0.1).prod(axis=0), 1 + tau.sum(axis=0)
    inner = root + 0.3 * sigma.sum(axis=0) + (tau**2).sum(axis=0)
    return 0.5 * root / (n + 0.1) * rest, np.full_like(sigma, 0.3) * rest, 2 * tau * rest + inner


def lifted_energy(n, sigma, tau):
    lifted_sigma, lifted_tau, _ = lift_to_weizsaecker(n, sigma, tau)
    return energy(n, lifted_sigma, lifted_tau)


@pytest.mark.parametrize("spins", [1, 2])
def test_derivatives_are_those_of_the_lifted_energy(spins):
    rng = np.random.default_rng(3)
    n = rng.uniform(0.05, 0.4, (spins, 40))
    sigma = rng.uniform(0.0, 0.5, (1 if spins == 1 else 3, 40))
    tau = rng.uniform(-0.1, 0.6, (spins, 40))
    new_sigma, new_tau, put_back = lift_to_weizsaecker(n, sigma, tau)
    assert 0.2 < (new_tau > tau).mean() < 0.8  # both kinds of points are tried
    got = put_back(*derivatives(n, new_sigma, new_tau))
    for k, values in enumerate((n, sigma, tau)):
        for row in range(len(values)):
            step = np.zeros_like(values)
            step[row] = 1e-6
            arguments = [n, sigma, tau]
            above, below = (
                lifted_energy(*arguments[:k], values + sign * step, *arguments[k + 1 :]) for sign in (1, -1)
            )
            np.testing.assert_allclose(got[k][row], (above - below) / 2e-6, atol=1e-7)


def test_nothing_changes_above_the_bound():
    n, sigma = np.full((1, 3), 0.2), np.full((1, 3), 0.1)
    tau = np.array([[0.0625, 0.1, 5.0]])  # the first is the bound itself
    new_sigma, new_tau, put_back = lift_to_weizsaecker(n, sigma, tau)
    assert np.array_equal(new_sigma, sigma)
    assert np.array_equal(new_tau, tau)
    given = tuple(np.random.default_rng(0).normal(size=(3, 1, 3)))
    assert all(np.array_equal(a, b) for a, b in zip(put_back(*given), given, strict=True))


def test_a_spin_without_density_takes_no_part():
    n = np.array([[0.2], [LOWEST_DENSITY / 3]])
    sigma, tau = np.array([[0.1], [0.2], [0.3]]), np.array([[0.1], [-4.0]])
    new_sigma, new_tau, put_back = lift_to_weizsaecker(n, sigma, tau)
    assert new_sigma.ravel().tolist() == [0.1, 0.0, 0.0]
    assert new_tau.ravel().tolist() == [0.1, 0.0]
    dedn, dedsigma, dedtau = put_back(np.ones((2, 1)), np.ones((3, 1)), np.ones((2, 1)))
    assert (dedn[1, 0], dedsigma[1, 0], dedsigma[2, 0], dedtau[1, 0]) == (0, 0, 0, 0)


@pytest.mark.skipif(importlib.util.find_spec("gpaw") is None, reason="GPAW is not installed")
def test_far_outside_an_atom_energy_and_potential_are_finite_and_small():
    kernel = make_functional("MGGA_X_R2SCAN+MGGA_C_R2SCAN").kernel
    r = np.linspace(0.5, 12, 60).reshape(1, 1, 1, 60)
    n = np.exp(-2 * r) / np.pi  # hydrogen: its kinetic energy density is the bound
    sigma, tau = 4 * n**2, n / 2 - 1e-5  # what a grid makes of it
    e, dedn, dedsigma, dedtau = np.zeros((1, 1, 60)), np.zeros_like(n), np.zeros_like(sigma), np.zeros_like(tau)
    kernel.calculate(e, n, dedn, sigma, dedsigma, tau, dedtau)
    assert abs(dedn).max() < 2
    assert abs(e[n[0] < LOWEST_DENSITY]).max() == 0
    assert abs(dedsigma * sigma).max() < 1
