"""From energies to phase stability."""

from crossfunc.stability.relax import Relaxation, relax

__all__ = ["Relaxation", "relax"]
