"""r2SCAN where there is vacuum: GPAW's meta-GGA with libxc, kept from dividing by next to nothing."""

from functools import cache

import numpy as np

from crossfunc.dft.settings import LOWEST_DENSITY

__all__ = ["LOWEST_DENSITY", "lift_to_weizsaecker", "make_functional"]


@cache
def make_functional(name: str):
    """Return GPAW's functional of libxc's `name` for boxes with vacuum.

    Smooth densities and kinetic energy densities of a grid are not exactly those of one set of orbitals: far out the
    density is zero or below, and where one orbital is alone (hydrogen, every tail) the kinetic energy density falls
    below Weizsäcker's bound. libxc then changes the density's gradient behind its own derivatives, which reach 1e11
    there, and no self-consistent density is found. See `lift_to_weizsaecker`.

    Parameters
    ----------
    name : str
        Name in libxc, exchange and correlation joined by a plus.

    Returns
    -------
    gpaw.xc.mgga.MGGA
    """
    from gpaw.xc.libxc import LibXC
    from gpaw.xc.mgga import MGGA

    class Kernel(LibXC):
        def calculate(self, e_g, n_sg, dedn_sg, sigma_xg=None, dedsigma_xg=None, tau_sg=None, dedtau_sg=None):
            """Add libxc's energy density and its derivatives at lifted arguments."""
            if e_g.ndim != 3:  # inside the atoms' spheres densities are exact, and high
                super().calculate(e_g, n_sg, dedn_sg, sigma_xg, dedsigma_xg, tau_sg, dedtau_sg)
                return
            sigma, tau, put_back = lift_to_weizsaecker(n_sg, sigma_xg, tau_sg)
            dedn, dedsigma, dedtau = np.zeros_like(n_sg), np.zeros_like(sigma), np.zeros_like(tau)
            density = np.where(_is_low(n_sg), 0.0, n_sg)
            super().calculate(e_g, density, dedn, sigma, dedsigma, tau, dedtau)
            e_g[_is_low(n_sg).all(axis=0)] = 0.0
            dedn, dedsigma, dedtau = put_back(dedn, dedsigma, dedtau)
            dedn_sg += dedn
            dedsigma_xg[:], dedtau_sg[:] = dedsigma, dedtau

    return MGGA(Kernel(name))


def lift_to_weizsaecker(n_sg, sigma_xg, tau_sg):
    r"""Raise the kinetic energy density to Weizsäcker's bound, :math:`\tau \ge \sigma / 8n`, for each spin.

    Parameters
    ----------
    n_sg, tau_sg : ndarray, shape (spins, ...)
        Density and kinetic energy density, atomic units.
    sigma_xg : ndarray, shape (1 or 3, ...)
        Products of density gradients: of both spins together, or up-up, up-down, down-down.

    Returns
    -------
    sigma, tau : ndarray
        Arguments for the functional: tau lifted, all zero for a spin whose density is below `LOWEST_DENSITY`.
    put_back : callable
        From derivatives by density, sigma and tau at these arguments to derivatives by the arguments that were
        given, by the chain rule, so that the potential stays the derivative of the energy.
    """
    own = [0] if len(n_sg) == 1 else [0, 2]  # rows of sigma that belong to one spin
    low = _is_low(n_sg)
    density = np.where(low, 1.0, n_sg)
    sigma = sigma_xg.copy()
    sigma[own] = np.where(low, 0.0, sigma[own])
    if len(sigma) == 3:
        sigma[1] = np.where(low.any(axis=0), 0.0, sigma[1])
    bound = sigma[own] / (8 * density)
    lifted = ~low & (tau_sg < bound)
    tau = np.where(low, 0.0, np.where(lifted, bound, tau_sg))

    def put_back(dedn, dedsigma, dedtau):
        moved = np.where(lifted, dedtau, 0.0)
        dedn = np.where(low, 0.0, dedn - moved * bound / density)
        dedsigma = dedsigma.copy()
        dedsigma[own] = np.where(low, 0.0, dedsigma[own] + moved / (8 * density))
        if len(sigma) == 3:
            dedsigma[1] = np.where(low.any(axis=0), 0.0, dedsigma[1])
        return dedn, dedsigma, np.where(low | lifted, 0.0, dedtau)

    return sigma, tau, put_back


def _is_low(n_sg: np.ndarray) -> np.ndarray:
    return n_sg < LOWEST_DENSITY / len(n_sg)
