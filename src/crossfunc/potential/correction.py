"""A small second model beside a CHGNet, whose energies and moments are added to its own: delta learning."""

from typing import NamedTuple

import torch
from torch import nn

from crossfunc.potential.drawing import drawn_from
from crossfunc.potential.graphs import GraphBatch
from crossfunc.symbols import N_ELEMENTS

_N_RADIAL = 31  # functions of the distance in CHGNet's bond basis; all vanish smoothly at 6 Å


class CorrectionInputs(NamedTuple):
    """What a correction may read; everything depends on the positions, so that forces follow by derivative."""

    batch: GraphBatch
    bond_basis: torch.Tensor
    """Radial functions of every undirected bond below 6 Å, (n_bonds, 31)."""
    features: torch.Tensor
    """What CHGNet's readout of energies reads, (n_atoms, 64)."""


class SmallNetwork(nn.Module):
    r"""One round of messages between atoms below 6 Å, with weights of its own.

    From embeddings :math:`a` of the elements and radial functions :math:`b(r)`, with :math:`\sigma` the SiLU:

    .. math:: m_i = \sum_j V b(r_{ij}) \odot \sigma(W [a_i; a_j]), \quad
              (\Delta e_i, \Delta m_i) = U \sigma(H [a_i; m_i]).

    U starts at zero, so a model with a new network predicts what it did before, to the last bit.

    Parameters
    ----------
    width : int
        Width of embeddings, messages and hidden features.
    seed : int
        Seed of the weights; the process's random state stays as it was.
    """

    def __init__(self, width: int = 32, seed: int = 0):
        super().__init__()
        self.width = width
        with drawn_from(seed):
            self.elements = nn.Embedding(N_ELEMENTS, width)
            self.ends = nn.Linear(2 * width, width)
            self.radial = nn.Linear(_N_RADIAL, width, bias=False)
            self.hidden = nn.Linear(2 * width, width)
            self.out = nn.Linear(width, 2, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, inputs: CorrectionInputs) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what to add to each atom's energy (eV) and moment (μB), (n_atoms,) each."""
        one, other = inputs.batch.bond_atoms.unbind(dim=1)
        atoms = self.elements(inputs.batch.atomic_numbers - 1)
        first, second = atoms.index_select(0, one), atoms.index_select(0, other)
        radial = self.radial(inputs.bond_basis)
        activate = nn.functional.silu
        messages = torch.zeros_like(atoms)
        for centre, a, b in ((one, first, second), (other, second, first)):
            messages = messages.index_add(0, centre, radial * activate(self.ends(torch.cat([a, b], dim=1))))
        return self.out(activate(self.hidden(torch.cat([atoms, messages], dim=1)))).unbind(dim=1)


def add_correction(model: nn.Module, correction: nn.Module) -> None:
    """Let a correction be added to a CHGNet's site energies and moments; every prediction then counts it.

    Parameters
    ----------
    model : CHGNet
        Changed in place. Its file is a .safetensors from now on: stock chgnet has no place for a correction.
    correction : Module
        Maps `CorrectionInputs` to two tensors of shape (n_atoms,): energies in eV and moments in μB. Must have two
        derivatives by its inputs. A file can only hold a `SmallNetwork`.
    """
    model.correction = correction.to(next(model.parameters()))
