"""CHGNet's forward pass over a flat batch: the same function of the same parameters, with less work.

Three things make it faster than the original, none of them an approximation. The first linear layer of each gated MLP
acts on concatenated features, W [a; b; c] = W_a a + W_b b + W_c c, so each product is taken where its feature lives
(atoms, bonds) before it is gathered onto the far more numerous edges and angles. Bases are computed for all crystals
at once and for undirected bonds only. And the bond graph works on the few bonds below 3 Å that it contains.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from crossfunc.potential.graphs import GraphBatch
from crossfunc.potential.kernels import Kernels, linears
from crossfunc.units import EV_PER_A3_TO_GPA

_WIDTH = 64  # of all features
_ANGLE_PART = 2  # where CHGNet concatenates the angle's feature
_EXPECTED = {"mlp_first": True, "gMLP_norm": "layer", "readout_norm": "layer", "non_linearity": "silu"}


def check_architecture(model: nn.Module) -> None:
    """Raise ValueError unless the flat forward pass covers this CHGNet's architecture (0.3.0 and its descendants)."""
    args = model.model_args
    expected = {**_EXPECTED, "atom_graph_cutoff": 6, "bond_graph_cutoff": 3, "n_conv": 4}
    differs = {k: args.get(k) for k, v in expected.items() if args.get(k, v) != v}
    dims = {args.get(k, 64) for k in ("atom_fea_dim", "bond_fea_dim", "angle_fea_dim")}
    if differs or len(dims) != 1 or args.get("conv_norm") is not None:
        raise ValueError(
            f"this CHGNet differs from 0.3.0 in {differs or dims}; only the 0.3.0 architecture is supported."
        )


def forward(
    model: nn.Module,
    batch: GraphBatch,
    *,
    derivatives: bool = True,
    create_graph: bool = False,
    compile: bool = False,  # noqa: A002, as torch calls it
) -> dict:
    """Energy, forces -dE/dr, stress (1/V) dE/dstrain and magnetic moments of every crystal in the batch.

    Parameters
    ----------
    model : chgnet CHGNet
        A stock model; nothing in it changes.
    batch : GraphBatch
        On the model's device, in the model's dtype.
    derivatives : bool
        False leaves forces and stress out.
    create_graph : bool
        Keep the graph of the derivatives, for training on forces and stress.
    compile : bool
        Fuse the arithmetic with `torch.compile`: faster. Needs a C++ compiler, and minutes the first time.

    Returns
    -------
    dict of Tensor
        `energy_per_atom_ev` (n_crystals,), `forces_ev_per_a` (n_atoms, 3), `stress_gpa` (n_crystals, 3, 3; tension
        positive), `magmoms_mub` (n_atoms,).
    """
    with torch.set_grad_enabled(derivatives or create_graph):
        strain = torch.zeros_like(batch.lattices, requires_grad=derivatives)
        lattices = batch.lattices + batch.lattices @ strain
        cells = lattices.index_select(0, batch.owners)
        positions = (batch.frac_coords[:, None, :] @ cells)[:, 0]  # (n_atoms, 3)
        kernels = Kernels(compile, batch.lattices.device.type)
        site_energies, magmoms = _site_energies(model, batch, positions, lattices, kernels)
        n_crystals = len(batch.n_atoms)
        energies = positions.new_zeros(n_crystals).index_add(0, batch.owners, site_energies)
        references = _reference_energies(model, batch)
        result = {"energy_per_atom_ev": energies / batch.n_atoms + references, "magmoms_mub": magmoms}
        if derivatives:
            with kernels.making_forces():
                slope, virial = torch.autograd.grad(energies.sum(), [positions, strain], create_graph=create_graph)
            volumes = torch.linalg.det(batch.lattices).abs()
            result["forces_ev_per_a"] = -slope
            result["stress_gpa"] = virial / volumes[:, None, None] * EV_PER_A3_TO_GPA
    return result if create_graph else {k: v.detach() for k, v in result.items()}


def _reference_energies(model: nn.Module, batch: GraphBatch) -> torch.Tensor:
    """Element references per atom, shape (n_crystals,); zero for a model without any."""
    if model.composition_model is None:
        return batch.lattices.new_zeros(len(batch.n_atoms))
    weights = model.composition_model.fc.weight[0]
    sums = batch.lattices.new_zeros(len(batch.n_atoms)).index_add(0, batch.owners, weights[batch.atomic_numbers - 1])
    return sums / batch.n_atoms


def _site_energies(model, batch: GraphBatch, positions, lattices, kernels) -> tuple[torch.Tensor, torch.Tensor]:
    vectors = _bond_vectors(batch, positions, lattices)  # (n_bonds, 3), as CHGNet: centre minus neighbour
    lengths = vectors.norm(dim=1)
    basis = model.bond_basis_expansion
    bond_basis = basis.rbf_expansion_ag(lengths)
    atoms = model.atom_embedding(batch.atomic_numbers - 1)
    bonds = model.bond_embedding(bond_basis)
    edge_weights = model.bond_weights_ag(bond_basis)
    edge_weights = torch.cat([edge_weights, edge_weights])
    n_atoms, n_short = len(atoms), len(batch.short_bonds)
    to_centre = batch.edges.column(0, 0, n_atoms).transposed
    short = batch.short_bonds
    has_angles = len(batch.angle_centres) > 0
    if has_angles:
        first, second = (batch.angles.column(k, k * n_short, (k + 1) * n_short) for k in (0, 1))
        unit = vectors.index_select(0, short) / lengths.index_select(0, short)[:, None]
        cosines = (first(unit) * second(unit)).sum(dim=1) * batch.angle_signs
        # CHGNet's own guard: acos has no slope at exactly ±1
        angles = model.angle_embedding(_fourier(model, torch.acos(cosines * (1 - 1e-6))))
        short_weights = model.bond_weights_bg(basis.rbf_expansion_bg(lengths.index_select(0, short)))
        angle_weights = second(short_weights)
    for k in range(model.n_conv - 1):
        atoms = _convolve_atoms(model.atom_conv_layers[k], atoms, bonds, edge_weights, batch, to_centre, kernels)
        if has_angles:
            layer = model.bond_conv_layers[k]
            short_bonds = bonds.index_select(0, short)
            messages = _angle_messages(layer.twoBody_bond, atoms, short_bonds, angles, angle_weights, batch, kernels)
            # the weight of the first bond is common to all messages that it gets
            change = layer.mlp_out(first.transposed(messages) * short_weights)
            bonds = bonds.index_add(0, short, change)
            if k < model.n_conv - 2:  # the last angle update feeds nothing
                gate = model.angle_layers[k].twoBody_bond
                angles = angles + _angle_messages(gate, atoms, short_bonds + change, angles, None, batch, kernels)
    magmoms = model.site_wise(atoms)[:, 0].abs()
    atoms = _convolve_atoms(model.atom_conv_layers[-1], atoms, bonds, edge_weights, batch, to_centre, kernels)
    return model.mlp(model.readout_norm(atoms))[:, 0], magmoms


def _bond_vectors(batch: GraphBatch, positions, lattices) -> torch.Tensor:
    ends = positions.index_select(0, batch.bond_atoms[:, 0]) - positions.index_select(0, batch.bond_atoms[:, 1])
    cells = lattices.index_select(0, batch.bond_owners)
    return ends - (batch.bond_images[:, None, :] @ cells)[:, 0]


def _fourier(model, angles: torch.Tensor) -> torch.Tensor:
    """CHGNet's angular basis [1/sqrt(2), sin(w a), cos(w a)] / sqrt(pi), shape (n_angles, 31)."""
    phases = torch.outer(angles, model.angle_basis_expansion.fourier_expansion.frequencies)
    constant = (1 / torch.sqrt(torch.tensor([2]))).to(angles).expand(len(angles), 1)  # float32, as chgnet has it
    return torch.cat([constant, phases.sin(), phases.cos()], dim=1) / math.sqrt(math.pi)


def _convolve_atoms(layer, atoms, bonds, edge_weights, batch: GraphBatch, to_centre, kernels) -> torch.Tensor:
    gate = layer.twoBody_atom
    core, side = (_first_layer(mlp, batch.edges, (atoms, bonds, atoms)) for mlp in (gate.mlp_core, gate.mlp_gate))
    return layer.mlp_out(to_centre(kernels.gated(core, side, gate, edge_weights))) + atoms


def _angle_messages(gate, atoms, short_bonds, angles, weights, batch: GraphBatch, kernels) -> torch.Tensor:
    features = (short_bonds, short_bonds, None, atoms)  # as CHGNet concatenates them; None stands for the angles
    core, side = (_first_layer(mlp, batch.angles, features, angles) for mlp in (gate.mlp_core, gate.mlp_gate))
    return kernels.gated(core, side, gate, weights)


def _first_layer(mlp: nn.Module, incidence, features: tuple, per_row: torch.Tensor | None = None) -> torch.Tensor:
    """W [a; b; c] + bias, each product taken where the feature lives and then gathered; `per_row` is there already."""
    first = linears(mlp)[0]
    weights = first.weight.split(_WIDTH, dim=1)
    products = [
        functional.linear(feature, weight, first.bias if k == 0 else None)
        for k, (feature, weight) in enumerate(zip(features, weights, strict=True))
        if feature is not None
    ]
    hidden = incidence(torch.cat(products))
    return hidden if per_row is None else hidden.addmm_(per_row, weights[_ANGLE_PART].t())
