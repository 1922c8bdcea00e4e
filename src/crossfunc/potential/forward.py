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

from crossfunc.errors import InputError
from crossfunc.potential.correction import CorrectionInputs
from crossfunc.potential.graphs import GraphBatch
from crossfunc.potential.kernels import Kernels, linears
from crossfunc.potential.mean_references import mean_references
from crossfunc.potential.native import evaluate, evaluate_to_train, is_native, network_of
from crossfunc.units import EV_PER_A3_TO_GPA

_WIDTH = 64  # of all features
_EXPECTED = {"mlp_first": True, "gMLP_norm": "layer", "readout_norm": "layer", "non_linearity": "silu"}


def check_architecture(model: nn.Module) -> None:
    """Raise ValueError unless the flat forward pass covers this CHGNet's architecture (0.3.0 and its descendants)."""
    args = model.model_args
    expected = {**_EXPECTED, "atom_graph_cutoff": 6, "bond_graph_cutoff": 3, "n_conv": 4}
    differs = {k: args.get(k) for k, v in expected.items() if args.get(k, v) != v}
    dims = {args.get(k, 64) for k in ("atom_fea_dim", "bond_fea_dim", "angle_fea_dim")}
    if differs or len(dims) != 1 or args.get("conv_norm") is not None:
        raise InputError(
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
        Fuse the arithmetic of PyTorch's operations with `torch.compile`, where the compiled library does not compute
        the network (a GPU, a correction). Needs a C++ compiler, and half a minute the first time.

    Returns
    -------
    dict of Tensor
        `energy_per_atom_ev` (n_crystals,), `forces_ev_per_a` (n_atoms, 3), `stress_gpa` (n_crystals, 3, 3; tension
        positive), `magmoms_mub` (n_atoms,).
    """
    if getattr(model, "correction", None) is None and is_native(model):
        return forward_natively(model, batch, derivatives=derivatives, create_graph=create_graph)
    with torch.set_grad_enabled(derivatives or create_graph):
        strain, lattices, positions = _strained(batch, derivatives)
        kernels = Kernels(compile, batch.lattices.device.type)
        site_energies, magmoms = _site_energies(model, batch, positions, lattices, kernels)
        n_crystals = len(batch.n_atoms)
        energies = positions.new_zeros(n_crystals).index_add(0, batch.owners, site_energies)
        references = _reference_energies(model, batch)
        result = {"energy_per_atom_ev": energies / batch.n_atoms + references, "magmoms_mub": magmoms}
        if derivatives:
            with kernels.making_forces():
                slope, virial = torch.autograd.grad(energies.sum(), [positions, strain], create_graph=create_graph)
            result["forces_ev_per_a"] = -slope
            result["stress_gpa"] = _stress_gpa(virial, batch)
    return result if create_graph else {k: v.detach() for k, v in result.items()}


def forward_natively(
    model: nn.Module, batch: GraphBatch, *, derivatives: bool = True, create_graph: bool = False, n_threads: int = 1
) -> dict:
    """Return what `forward` does, by the compiled library, without the model's correction.

    Parameters
    ----------
    model : CHGNet
        One that `is_native` says yes to.
    batch, derivatives, create_graph
        See `forward`.
    n_threads : int
        For a batch without a graph.

    Returns
    -------
    dict of Tensor
    """
    with torch.set_grad_enabled(create_graph):
        if create_graph:
            found = evaluate_to_train(model, batch)
        else:
            found = evaluate(network_of(model), batch, n_threads, derivatives=derivatives)
        return _gather(model, batch, found, derivatives)


def _gather(model: nn.Module, batch: GraphBatch, found: tuple[torch.Tensor, ...], derivatives: bool) -> dict:
    """Results as they are told, from energies and moments of atoms, forces, and virials."""
    site_energies, moments, forces, virials = found
    energies = site_energies.new_zeros(len(batch.n_atoms)).index_add(0, batch.owners, site_energies)
    energies = energies / batch.n_atoms + _reference_energies(model, batch)
    result = {"energy_per_atom_ev": energies, "magmoms_mub": moments.abs()}
    if derivatives:
        result |= {"forces_ev_per_a": forces, "stress_gpa": _stress_gpa(virials, batch)}
    return result


def _strained(batch: GraphBatch, derivatives: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A strain of zero for each crystal, and the lattices and positions (n_atoms, 3) that follow from it."""
    strain = torch.zeros_like(batch.lattices, requires_grad=derivatives)
    lattices = batch.lattices + batch.lattices @ strain
    return strain, lattices, (batch.frac_coords[:, None, :] @ lattices.index_select(0, batch.owners))[:, 0]


def _stress_gpa(virial: torch.Tensor, batch: GraphBatch) -> torch.Tensor:
    volumes = torch.linalg.det(batch.lattices).abs()
    return virial / volumes[:, None, None] * EV_PER_A3_TO_GPA


def correct(model: nn.Module, batch: GraphBatch, result: dict, *, derivatives: bool = True) -> dict:
    """Add what a model's correction says to what its network alone predicts; a new correction changes no bit.

    Parameters
    ----------
    model : CHGNet
        With a `correction`.
    batch : GraphBatch
        On the model's device, in the model's dtype.
    result : dict of Tensor
        As `forward` returns it, of the network without its correction, whose moments are not negative.
    derivatives : bool
        False leaves forces and stress out.

    Returns
    -------
    dict of Tensor
        The same quantities.
    """
    with torch.set_grad_enabled(derivatives):
        strain, lattices, positions = _strained(batch, derivatives)
        kernels = Kernels(False, batch.lattices.device.type)
        found = _correction_inputs(model, batch, positions, lattices, kernels)
        to_energies, to_magmoms = model.correction(found)
        energies = positions.new_zeros(len(batch.n_atoms)).index_add(0, batch.owners, to_energies)
        added = {
            "energy_per_atom_ev": result["energy_per_atom_ev"] + energies / batch.n_atoms,
            "magmoms_mub": (result["magmoms_mub"] + to_magmoms).abs(),
        }
        if derivatives:
            slope, virial = torch.autograd.grad(energies.sum(), [positions, strain], materialize_grads=True)
            added["forces_ev_per_a"] = result["forces_ev_per_a"] - slope
            added["stress_gpa"] = result["stress_gpa"] + _stress_gpa(virial, batch)
    return {key: values.detach() for key, values in added.items()}


def _reference_energies(model: nn.Module, batch: GraphBatch) -> torch.Tensor:
    """Element references per atom, shape (n_crystals,); zero for a model without any."""
    if model.composition_model is None:
        return batch.lattices.new_zeros(len(batch.n_atoms))
    return mean_references(model.composition_model.fc.weight[0], batch.atomic_numbers, batch.owners, batch.n_atoms)


def atom_features(model: nn.Module, batch: GraphBatch) -> torch.Tensor:
    """What the readout of energies gets: 64 numbers per atom after the last convolution, shape (n_atoms, 64)."""
    with torch.no_grad():
        positions = (batch.frac_coords[:, None, :] @ batch.lattices.index_select(0, batch.owners))[:, 0]
        kernels = Kernels(False, batch.lattices.device.type)
        return _readout_features(model, batch, positions, batch.lattices, kernels)[0]


def _site_energies(model, batch: GraphBatch, positions, lattices, kernels) -> tuple[torch.Tensor, torch.Tensor]:
    features, magmoms, bond_basis = _readout_features(model, batch, positions, lattices, kernels)
    site_energies = model.mlp(features)[:, 0]
    correction = getattr(model, "correction", None)
    if correction is None:
        return site_energies, magmoms
    to_energies, to_magmoms = correction(CorrectionInputs(batch, bond_basis, features))
    return site_energies + to_energies, (magmoms + to_magmoms).abs()


def _correction_inputs(model, batch: GraphBatch, positions, lattices, kernels) -> CorrectionInputs:
    features, _, bond_basis = _readout_features(model, batch, positions, lattices, kernels)
    return CorrectionInputs(batch, bond_basis, features)


def _readout_features(
    model, batch: GraphBatch, positions, lattices, kernels
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features that the readout gets, magnetic moments, and the radial functions of the bonds."""
    vectors = _bond_vectors(batch, positions, lattices)  # (n_bonds, 3), as CHGNet: centre minus neighbour
    lengths = vectors.norm(dim=1)
    bond_basis = model.bond_basis_expansion.rbf_expansion_ag(lengths)
    atoms = model.atom_embedding(batch.atomic_numbers - 1)
    bonds = model.bond_embedding(bond_basis)
    edge_weights = model.bond_weights_ag(bond_basis)
    edge_weights = torch.cat([edge_weights, edge_weights])
    to_centre = batch.incidences.edges.column(0, 0, len(atoms)).transposed
    bond_graph = _BondGraph(model, batch, vectors, lengths, kernels) if batch.n_angles else None
    for k in range(model.n_conv - 1):
        atoms = _convolve_atoms(model.atom_conv_layers[k], atoms, bonds, edge_weights, batch, to_centre, kernels)
        if bond_graph:
            bonds = bond_graph.update(k, atoms, bonds)
    magmoms = model.site_wise(atoms)[:, 0].abs()
    atoms = _convolve_atoms(model.atom_conv_layers[-1], atoms, bonds, edge_weights, batch, to_centre, kernels)
    return model.readout_norm(atoms), magmoms, bond_basis


def _convolve_atoms(layer, atoms, bonds, edge_weights, batch: GraphBatch, to_centre, kernels) -> torch.Tensor:
    gate = layer.twoBody_atom
    weights, bias = _first_layers(gate)
    tables = zip((atoms, bonds, atoms), weights, (bias, None, None), strict=True)
    hidden = batch.incidences.edges(torch.cat([functional.linear(*table) for table in tables]))
    return layer.mlp_out(to_centre(kernels.gated(hidden, gate, edge_weights))) + atoms


class _BondGraph:
    """Messages between bonds below 3 Å over the angles between them, with the features of the angles.

    The angle from bond i to j is that from j to i. Until the first messages tell them apart, their features are those
    of the pair, and products with them are taken once for both.
    """

    def __init__(self, model, batch: GraphBatch, vectors, lengths, kernels):
        walks, n_atoms = batch.incidences, len(batch.owners)
        short, n_short = walks.short_bonds, len(walks.short_bonds)
        lengths = lengths.index_select(0, short)
        unit = vectors.index_select(0, short) / lengths[:, None]
        one, other = (walks.pairs.column(k, k * n_short, (k + 1) * n_short) for k in (0, 1))
        cosines = (one(unit) * other(unit)).sum(dim=1) * walks.pair_signs
        # CHGNet's own guard: acos has no slope at exactly ±1
        self.pairs = model.angle_embedding(_fourier(model, torch.acos(cosines * (1 - 1e-6))))
        self.angles = None  # until messages tell the two of a pair apart
        n_rows = 2 * n_short + n_atoms
        self.from_all = walks.angles
        self.from_all_but_pairs = walks.angles.leading(3, n_rows)
        self.from_pairs = walks.angles.column(3, n_rows, n_rows + len(self.pairs))
        self.to_bonds = walks.angles.column(0, 0, n_short).transposed
        self.bond_weights = model.bond_weights_bg(model.bond_basis_expansion.rbf_expansion_bg(lengths))
        self.angle_weights = walks.angles.column(1, n_short, 2 * n_short)(self.bond_weights)
        self.model, self.short, self.kernels = model, short, kernels

    def update(self, k: int, atoms: torch.Tensor, bonds: torch.Tensor) -> torch.Tensor:
        """Return the bonds after layer k; the angles change too, but for the last layer, where nobody reads them."""
        layer = self.model.bond_conv_layers[k]
        short_bonds = bonds.index_select(0, self.short)
        messages = self._messages(layer.twoBody_bond, atoms, short_bonds, self.angle_weights)
        # the weight of the first bond is common to all messages that it gets
        change = layer.mlp_out(self.to_bonds(messages) * self.bond_weights)
        if k < self.model.n_conv - 2:
            messages = self._messages(self.model.angle_layers[k].twoBody_bond, atoms, short_bonds + change, None)
            self.angles = messages + (self.from_pairs(self.pairs) if self.angles is None else self.angles)
        return bonds.index_add(0, self.short, change)

    def _messages(self, gate, atoms, short_bonds, message_weights) -> torch.Tensor:
        (to_first, to_second, to_angle, to_centre), bias = _first_layers(gate)
        products = [
            functional.linear(short_bonds, to_first, bias),
            functional.linear(short_bonds, to_second),
            functional.linear(atoms, to_centre),
        ]
        if self.angles is None:
            hidden = self.from_all(torch.cat([*products, functional.linear(self.pairs, to_angle)]))
        else:
            hidden = self.from_all_but_pairs(torch.cat(products)).addmm_(self.angles, to_angle.t())
        return self.kernels.gated(hidden, gate, message_weights)


def _first_layers(gate: nn.Module) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """First layers of core and gate together: the matrix of each of their concatenated features, and the bias."""
    core, side = linears(gate.mlp_core)[0], linears(gate.mlp_gate)[0]
    return torch.cat([core.weight, side.weight]).split(_WIDTH, dim=1), torch.cat([core.bias, side.bias])


def _bond_vectors(batch: GraphBatch, positions, lattices) -> torch.Tensor:
    ends = positions.index_select(0, batch.bond_atoms[:, 0]) - positions.index_select(0, batch.bond_atoms[:, 1])
    cells = lattices.index_select(0, batch.bond_owners)
    return ends - (batch.bond_images[:, None, :] @ cells)[:, 0]


def _fourier(model, angles: torch.Tensor) -> torch.Tensor:
    """CHGNet's angular basis [1/sqrt(2), sin(w a), cos(w a)] / sqrt(pi), shape (n_angles, 31)."""
    phases = torch.outer(angles, model.angle_basis_expansion.fourier_expansion.frequencies)
    constant = (1 / torch.sqrt(torch.tensor([2]))).to(angles).expand(len(angles), 1)  # float32, as chgnet has it
    return torch.cat([constant, phases.sin(), phases.cos()], dim=1) / math.sqrt(math.pi)
