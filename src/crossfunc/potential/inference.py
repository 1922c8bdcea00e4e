"""CHGNet for prediction: energies, forces and stress without autograd, piece by piece, on as many threads as wanted.

The function is that of `forward`, the derivative written out by hand. No graph of operations is kept, so a crystal of
two atoms costs little more than its arithmetic; and nothing is kept of the rows of a piece but what they send, so that
memory for a large crystal is that of its features. What the derivative needs of a piece is computed once more, or kept
where the whole batch is small.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter

import torch
from torch import nn
from torch.nn import functional

from crossfunc.potential.kernels import linears
from crossfunc.potential.mean_references import mean_references
from crossfunc.potential.pieces import CutCrystals, Piece, Walks, cut_rows
from crossfunc.potential.watch import KeptWith
from crossfunc.units import EV_PER_A3_TO_GPA

_WIDTH = 64  # of all features
_EPS = 1e-5  # of CHGNet's layer norms
_KEPT_ROWS = 16_000  # bonds and pairs up to which what the derivative needs is kept: 15 kB of each

_ln_backward = torch.ops.aten.native_layer_norm_backward.default
_silu_backward = torch.ops.aten.silu_backward.default


def covers(model: nn.Module) -> bool:
    """Whether `evaluate` knows all parts of this network; it passes over a correction beside it."""
    cutoff = model.bond_basis_expansion.rbf_expansion_ag.smooth_cutoff
    return cutoff is not None and cutoff.p > 0


def evaluate(model: nn.Module, batch: CutCrystals, run: Callable | None = None, *, derivatives: bool = True) -> dict:
    """Energy, forces, stress and magnetic moments of every crystal, as `forward` has them.

    Parameters
    ----------
    model : chgnet CHGNet
        One that `covers` says yes to; nothing in it changes.
    batch : CutCrystals
        On the model's device, in the model's dtype.
    run : callable, optional
        Calls a function for every piece of a list, in any order; one after another if not given.
    derivatives : bool
        False leaves forces and stress out.

    Returns
    -------
    dict of Tensor
        `energy_per_atom_ev` (n_crystals,), `forces_ev_per_a` (n_atoms, 3), `stress_gpa` (n_crystals, 3, 3; tension
        positive), `magmoms_mub` (n_atoms,).
    """
    with torch.inference_mode():
        return _Evaluation(_NETWORK_OF(model), batch, run or _one_after_another, derivatives).result()


def _one_after_another(function: Callable, pieces: list) -> None:
    for piece in pieces:
        function(piece)


# --- the network's parameters, as they are multiplied ---


@dataclass(frozen=True)
class _Gate:
    """A gated MLP: the first layer by what it multiplies, core and gate side by side; the second of each, if any."""

    first: tuple[torch.Tensor, ...]  # (64, 128) each
    first_back: tuple[torch.Tensor, ...]  # their transposes, as all names with `back`
    bias: torch.Tensor
    second: tuple[torch.Tensor, ...]  # core's matrix (64, 64) and bias, gate's matrix and bias
    second_back: tuple[torch.Tensor, ...]
    norms: tuple[torch.Tensor, ...]
    out: torch.Tensor | None  # (64, 64)
    out_back: torch.Tensor | None
    out_bias: torch.Tensor | None


@dataclass(frozen=True)
class _Network:
    elements: torch.Tensor
    radial: torch.Tensor  # (31, 128): to features and to weights of bonds
    short_radial: torch.Tensor  # (31, 64)
    angular: torch.Tensor  # (31, 64)
    atom_gates: list[_Gate]
    bond_gates: list[_Gate]
    angle_gates: list[_Gate]
    moments: tuple[torch.Tensor, torch.Tensor]
    readout_norm: nn.Module
    readout: list[tuple[torch.Tensor, torch.Tensor]]
    references: torch.Tensor | None
    bases: nn.Module
    frequencies: torch.Tensor


def _prepare(model: nn.Module) -> _Network:
    def transposed(*layers):
        return torch.cat([layer.weight for layer in layers]).t().contiguous()

    references = model.composition_model
    return _Network(
        elements=model.atom_embedding.embedding.weight.detach(),
        radial=transposed(model.bond_embedding, model.bond_weights_ag),
        short_radial=transposed(model.bond_weights_bg),
        angular=transposed(model.angle_embedding),
        atom_gates=[_gate(layer.twoBody_atom, layer.mlp_out) for layer in model.atom_conv_layers],
        bond_gates=[_gate(layer.twoBody_bond, layer.mlp_out) for layer in model.bond_conv_layers],
        angle_gates=[_gate(layer.twoBody_bond, None) for layer in model.angle_layers[: model.n_conv - 2]],
        moments=(model.site_wise.weight.t().contiguous(), model.site_wise.bias),
        readout_norm=model.readout_norm,
        readout=[(layer.weight.t().contiguous(), layer.bias) for layer in linears(model.mlp)],
        references=None if references is None else references.fc.weight[0].detach(),
        bases=model.bond_basis_expansion,
        frequencies=model.angle_basis_expansion.fourier_expansion.frequencies.detach(),
    )


def _gate(mlp: nn.Module, out: nn.Module | None) -> _Gate:
    core, side = linears(mlp.mlp_core), linears(mlp.mlp_gate)
    first = tuple(part.contiguous() for part in torch.cat([core[0].weight, side[0].weight]).t().split(_WIDTH))
    second = tuple(t for layer in (*core[1:], *side[1:]) for t in (layer.weight.t().contiguous(), layer.bias))
    matrix, bias = (None, None) if out is None else (linears(out)[-1].weight.t().contiguous(), linears(out)[-1].bias)
    return _Gate(
        first=first,
        first_back=tuple(part.t() for part in first),
        bias=torch.cat([core[0].bias, side[0].bias]),
        second=second,
        second_back=tuple(part.t() for part in second[::2]),
        norms=tuple(t.detach() for t in (mlp.bn1.weight, mlp.bn1.bias, mlp.bn2.weight, mlp.bn2.bias)),
        out=matrix,
        out_back=None if matrix is None else matrix.t(),
        out_bias=None if bias is None else bias.detach(),
    )


_NETWORK_OF = KeptWith(_prepare)


# --- gated MLPs, from their first layer (n, 128) to messages (n, 64), and back ---


def _open(hidden: torch.Tensor, gate: _Gate) -> tuple:
    """Messages, and what the way back needs (see `kernels` for the names); `hidden` is used up."""
    if gate.second:
        core_matrix, core_bias, side_matrix, side_bias = gate.second
        sigmoid = torch.sigmoid(hidden)
        active = hidden.mul_(sigmoid)
        core = torch.addmm(core_bias, active[:, :_WIDTH], core_matrix)
        side = torch.addmm(side_bias, active[:, _WIDTH:], side_matrix)
    else:
        core, side, sigmoid, active = hidden[:, :_WIDTH].contiguous(), hidden[:, _WIDTH:].contiguous(), None, None
    gamma_u, beta_u, gamma_v, beta_v = gate.norms
    u, *core_moments = torch.native_layer_norm(core, _SHAPE, gamma_u, beta_u, _EPS)
    v, *side_moments = torch.native_layer_norm(side, _SHAPE, gamma_v, beta_v, _EPS)
    s, b = torch.sigmoid(u), v.sigmoid_()
    return u.mul_(s).mul_(b), (sigmoid, active, core, core_moments, side, side_moments, s, b)


def _back(grad: torch.Tensor, message: torch.Tensor, opened: tuple, gate: _Gate) -> torch.Tensor:
    """From gradients of messages to those of the first layer."""
    sigmoid, active, core, core_moments, side, side_moments, s, b = opened
    gamma_u, _, gamma_v, _ = gate.norms
    to_core = _norm_back(torch.lerp(message, b, s).mul_(grad), core, core_moments, gamma_u)
    to_side = _norm_back(torch.addcmul(message, message, b, value=-1).mul_(grad), side, side_moments, gamma_v)
    if not gate.second:
        return torch.cat([to_core, to_side], dim=1)
    to_active = torch.empty_like(active)
    torch.mm(to_core, gate.second_back[0], out=to_active[:, :_WIDTH])
    torch.mm(to_side, gate.second_back[1], out=to_active[:, _WIDTH:])
    return to_active.mul_(torch.lerp(active, active.new_ones(()), sigmoid))  # s + h s (1 - s)


_SHAPE = (_WIDTH,)


def _norm_back(grad: torch.Tensor, rows: torch.Tensor, moments: list[torch.Tensor], gamma: torch.Tensor):
    """Through a layer norm to its input alone."""
    return _ln_backward(grad, rows, _SHAPE, *moments, gamma, None, (True, False, False))[0]


# --- radial functions: norm sin(f r / c) / r x envelope(r) ---


class _Radial:
    """CHGNet's radial functions of some lengths, and their slopes."""

    def __init__(self, expansion: nn.Module, lengths: torch.Tensor):
        cutoff = expansion.smooth_cutoff
        self.p, self.coefficients, self.inverse = cutoff.p, (cutoff.a, cutoff.b, cutoff.c), expansion.inv_cutoff
        self.norm, self.lengths = expansion.norm_const, lengths[:, None]
        self.frequencies = expansion.frequencies.detach()
        self.scaled = self.lengths * self.inverse
        phases = self.scaled * self.frequencies
        self.sine, self.cosine = torch.sin(phases), phases.cos_()
        self.inside = (self.lengths / cutoff.cutoff < 1).to(lengths)
        self.power = self.scaled ** (self.p - 1) * self.inside

    def values(self) -> torch.Tensor:
        """The functions, (n, n_radial)."""
        return self.sine * (self._envelope() * self.norm / self.lengths)

    def _envelope(self) -> torch.Tensor:
        a, b, c = self.coefficients
        return self.inside + self.power * self.scaled * (a + self.scaled * (b + self.scaled * c))

    def slope(self, grad: torch.Tensor) -> torch.Tensor:
        """Gradient of the lengths (n, 1) from those of the functions."""
        (a, b, c), p, r = self.coefficients, self.p, self.lengths
        envelope = self._envelope() / r
        steepness = self.power * (a * p + self.scaled * (b * (p + 1) + self.scaled * (c * (p + 2)))) * self.inverse
        by_sine = (grad * self.sine).sum(dim=1, keepdim=True)
        by_cosine = (grad * self.cosine) @ self.frequencies[:, None]
        return (by_sine * (steepness - envelope) + by_cosine * envelope * (self.inverse * r)) * (self.norm / r)


# --- the network ---


class _Evaluation:
    """One call: features after each layer, then their gradients back to the bonds' vectors."""

    def __init__(self, network: _Network, batch: CutCrystals, run: Callable, derivatives: bool):
        self.network, self.batch, self.derivatives = network, batch, derivatives
        n_pieces = max(len(batch.edges.pieces), len(batch.angles.pieces))
        self.alone = run is _one_after_another or n_pieces < 2
        self.run = _one_after_another if self.alone else run
        self.n_short, self.n_pairs = batch.n_short, batch.angles.n_rows
        self.radial_functions = network.bases.rbf_expansion_ag
        n_rows = batch.edges.n_rows + batch.angles.n_rows
        self.kept: dict | None = {} if derivatives and n_rows <= _KEPT_ROWS else None

    def result(self) -> dict:
        network, batch = self.network, self.batch
        self._begin()
        layers = range(len(network.atom_gates))
        for k in layers:
            self.atoms.append(self._convolve_atoms(k))
            if k < layers[-1] and self.n_pairs:
                self.shorts.append(self._convolve_bonds(k))
                if k < layers[-2]:
                    self.angles.append(self._update_angles(k))
        moments = torch.addmm(network.moments[1], self.atoms[-2], network.moments[0])[:, 0].abs()
        site_energies, steps = self._read_out(self.atoms[-1])
        energies = batch.crystals(site_energies)[:, 0] / batch.n_atoms
        if network.references is not None:
            owners = torch.repeat_interleave(batch.n_atoms.long())
            energies = energies + mean_references(network.references, batch.atomic_numbers, owners, batch.n_atoms)
        result = {"energy_per_atom_ev": energies, "magmoms_mub": moments}
        if self.derivatives:
            forces, virials = self._differentiate(steps)
            result["forces_ev_per_a"] = forces
            result["stress_gpa"] = virials / batch.volumes_a3[:, None, None] * EV_PER_A3_TO_GPA
        return result

    # --- bases ---

    def _begin(self) -> None:
        network, batch = self.network, self.batch
        new, n_bonds = batch.vectors.new_empty, len(batch.vectors)
        self.lengths = torch.linalg.vector_norm(batch.vectors, dim=1)
        both = new(n_bonds, 2 * _WIDTH)
        self.bonds, self.edge_weights = both[:, :_WIDTH], both[:, _WIDTH:]

        def expand(piece: Piece) -> None:
            torch.mm(self._radial(piece).values(), network.radial, out=_rows(both, piece))

        self.run(expand, batch.edges.pieces)
        self.atoms = [network.elements.index_select(0, batch.atomic_numbers - 1)]  # before and after each layer
        self.shorts = [self.bonds[: self.n_short]]  # short bonds likewise; the others stay as they are
        self.angles: list[torch.Tensor] = []
        if not self.n_pairs:
            return
        lengths = self.lengths[: self.n_short]
        self.unit = batch.vectors[: self.n_short] / lengths[:, None]
        self.short_radial = _Radial(network.bases.rbf_expansion_bg, lengths)
        self.short_weights = self.short_radial.values() @ network.short_radial
        self.pair_weights, angles = new(self.n_pairs, _WIDTH), new(self.n_pairs, _WIDTH)

        def expand_pairs(piece: Piece) -> None:
            one, other = (self.short_weights.index_select(0, _rows(bonds, piece)) for bonds in batch.pair_bonds)
            torch.mul(one, other, out=_rows(self.pair_weights, piece))
            torch.mm(_fourier(self._phases(piece)[1]), network.angular, out=_rows(angles, piece))

        self.run(expand_pairs, batch.angles.pieces)
        self.angles.append(angles)  # of pairs at first, later of both ways through each pair

    def _radial(self, piece: Piece) -> _Radial:
        return self._once(("radial", piece.start), lambda: _Radial(self.radial_functions, _rows(self.lengths, piece)))

    def _phases(self, piece: Piece) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosine of the angle of each pair, and the angle times CHGNet's frequencies."""
        one, other = (self.unit.index_select(0, _rows(bonds, piece)) for bonds in self.batch.pair_bonds)
        cosines = (one * other).sum(dim=1).mul_(_rows(self.batch.pair_signs, piece))
        cosines *= 1 - 1e-6  # CHGNet's own guard: acos has no slope at exactly ±1
        return cosines, torch.outer(torch.acos(cosines), self.network.frequencies)

    # --- forwards ---

    def _convolve_atoms(self, k: int) -> torch.Tensor:
        gate, table = self.network.atom_gates[k], self._once(("edge table", k), lambda: self._edge_table(k))

        def send(piece: Piece) -> torch.Tensor:
            message = self._open_edges(k, piece, table)[0]
            return self._weigh(message, self.edge_weights, piece)

        return self._add_messages(self.atoms[k], self._receive(self.batch.edges, send, _WIDTH), gate)

    def _convolve_bonds(self, k: int) -> torch.Tensor:
        gate, table = self.network.bond_gates[k], self._once(("bond table", k), lambda: self._bond_table(k))

        def send(piece: Piece) -> torch.Tensor:
            return self._weigh(self._open_bonds(k, piece, table)[0], self.pair_weights, piece)

        return self._add_messages(self.shorts[k], self._receive(self.batch.angles, send, _WIDTH), gate)

    def _update_angles(self, k: int) -> torch.Tensor:
        table, before = self._once(("angle table", k), lambda: self._angle_table(k)), self.angles[k]
        after = before.new_empty(2 * self.n_pairs, _WIDTH)

        def update(piece: Piece) -> None:
            message = self._open_angles(k, piece, table)[0].view(2, -1, _WIDTH)
            old = _rows(before, piece) if k == 0 else _ways(before, piece).view(2, -1, _WIDTH)
            torch.add(message, old, out=_ways(after, piece).view(2, -1, _WIDTH))

        self.run(update, self.batch.angles.pieces)
        return after

    def _read_out(self, atoms: torch.Tensor) -> tuple[torch.Tensor, tuple]:
        """Energy of each atom (n, 1), and what the way back needs."""
        norm = self.network.readout_norm
        features, *moments = torch.native_layer_norm(atoms, _SHAPE, norm.weight, norm.bias, norm.eps)
        hidden = []
        for matrix, bias in self.network.readout[:-1]:
            hidden.append(torch.addmm(bias, features, matrix))
            features = functional.silu(hidden[-1])
        matrix, bias = self.network.readout[-1]
        return torch.addmm(bias, features, matrix), (moments, hidden)

    # --- the first layer of each gate, where its factors lie ---

    def _edge_table(self, k: int) -> torch.Tensor:
        """Products with the centre and with the neighbour."""
        (to_centre, _, to_neighbour), atoms = self.network.atom_gates[k].first, self.atoms[k]
        bias, n = self.network.atom_gates[k].bias, len(atoms)
        table = atoms.new_empty(2 * n, 2 * _WIDTH)
        self._in_parts(
            (n, lambda part: torch.addmm(bias, part(atoms), to_centre, out=part(table[:n]))),
            (n, lambda part: torch.mm(part(atoms), to_neighbour, out=part(table[n:]))),
        )
        return table

    def _bond_table(self, k: int) -> torch.Tensor:
        return self._walk_table(self.network.bond_gates[k], self.atoms[k + 1], self.shorts[k])

    def _angle_table(self, k: int) -> torch.Tensor:
        return self._walk_table(self.network.angle_gates[k], self.atoms[k + 1], self.shorts[k + 1])

    def _walk_table(self, gate: _Gate, atoms: torch.Tensor, shorts: torch.Tensor) -> torch.Tensor:
        """Products with the first bond, the second bond and the atom that they share."""
        n, (to_first, to_second, _, to_atom) = self.n_short, gate.first
        table = shorts.new_empty(2 * n + len(atoms), 2 * _WIDTH)
        self._in_parts(
            (n, lambda part: torch.addmm(gate.bias, part(shorts), to_first, out=part(table[:n]))),
            (n, lambda part: torch.mm(part(shorts), to_second, out=part(table[n : 2 * n]))),
            (len(atoms), lambda part: torch.mm(part(atoms), to_atom, out=part(table[2 * n :]))),
        )
        return table

    def _in_parts(self, *jobs: tuple[int, Callable]) -> None:
        """Do each job for all of so many rows: part by part, side by side, where they are many."""
        if self.alone:
            for _, job in jobs:
                job(_all_of)
        else:
            parts = [(job, itemgetter(slice(*bounds))) for n, job in jobs for bounds in cut_rows(n)]
            self.run(lambda part: part[0](part[1]), parts)

    def _open_edges(self, k: int, piece: Piece, table: torch.Tensor) -> tuple:
        def hidden():
            rows = piece.gather(table)
            product = torch.mm(self._bonds_of(k, piece), self.network.atom_gates[k].first[1])
            rows.view(2, -1, 2 * _WIDTH).add_(product)
            return rows

        return self._open(("edges", k, piece.start), hidden, self.network.atom_gates[k])

    def _open_bonds(self, k: int, piece: Piece, table: torch.Tensor) -> tuple:
        gate = self.network.bond_gates[k]
        return self._open(("bonds", k, piece.start), lambda: self._walk_hidden(k, piece, table, gate), gate)

    def _open_angles(self, k: int, piece: Piece, table: torch.Tensor) -> tuple:
        gate = self.network.angle_gates[k]
        return self._open(("angles", k, piece.start), lambda: self._walk_hidden(k, piece, table, gate), gate)

    def _walk_hidden(self, k: int, piece: Piece, table: torch.Tensor, gate: _Gate) -> torch.Tensor:
        rows = piece.gather(table)
        if k == 0:
            product = torch.mm(_rows(self.angles[0], piece), gate.first[2])
            rows.view(2, -1, 2 * _WIDTH).add_(product)
            return rows
        return rows.addmm_(_ways(self.angles[k], piece), gate.first[2])

    def _open(self, key: tuple, hidden: Callable, gate: _Gate) -> tuple:
        """Messages and what the way back needs: made, or as they were kept."""
        return self._once(key, lambda: _open(hidden(), gate))

    def _once(self, key: tuple, make: Callable):
        """What `make` makes, or has made where the batch is small."""
        if self.kept is None:
            return make()
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]

    def _bonds_of(self, k: int, piece: Piece) -> torch.Tensor:
        """Features of a piece's bonds before layer k."""
        short, n = self.shorts[min(k, len(self.shorts) - 1)], self.n_short
        if piece.stop <= n:
            return _rows(short, piece)
        rest = self.bonds[max(piece.start, n) : piece.stop]
        return rest if piece.start >= n else torch.cat([short[piece.start :], rest])

    # --- sums over messages ---

    def _weigh(self, message: torch.Tensor, weights: torch.Tensor, piece: Piece) -> torch.Tensor:
        both, rows = message.view(2, -1, _WIDTH), _rows(weights, piece)
        return (both.mul_(rows) if self.kept is None else both * rows).view(-1, _WIDTH)

    def _receive(self, walks: Walks, send: Callable, width: int) -> torch.Tensor:
        """Sums at the receivers over what `send` returns for the rows of each piece."""
        if walks.add_received is None:
            (piece,) = walks.pieces
            return piece.receive(send(piece))
        partial = self.lengths.new_empty(walks.pieces[-1].received.stop, width)

        def work(piece: Piece) -> None:
            partial[piece.received] = piece.receive(send(piece))

        self.run(work, walks.pieces)
        return walks.add_received(partial)

    def _scatter(self, walks: Walks, send: Callable) -> torch.Tensor:
        """Sums at the rows of the table over what `send` returns for the rows of each piece."""
        if walks.add_scattered is None:
            (piece,) = walks.pieces
            return piece.scatter(send(piece))
        partial = self.lengths.new_empty(walks.pieces[-1].scattered.stop, 2 * _WIDTH)

        def work(piece: Piece) -> None:
            partial[piece.scattered] = piece.scatter(send(piece))

        self.run(work, walks.pieces)
        return walks.add_scattered(partial)

    @staticmethod
    def _add_messages(features: torch.Tensor, messages: torch.Tensor, gate: _Gate) -> torch.Tensor:
        added = torch.addmm(features, messages, gate.out)
        return added if gate.out_bias is None else added.add_(gate.out_bias)

    # --- backwards ---

    def _differentiate(self, steps: tuple) -> tuple[torch.Tensor, torch.Tensor]:
        """Forces, and virials dE/dstrain."""
        zeros, n_bonds = self.lengths.new_zeros, len(self.lengths)
        self.to_both = zeros(n_bonds, 2 * _WIDTH)
        self.to_bonds, self.to_weights = self.to_both[:, :_WIDTH], self.to_both[:, _WIDTH:]
        if self.n_pairs:
            self.to_pair_weights, self.to_angles = zeros(self.n_pairs, _WIDTH), zeros(2 * self.n_pairs, _WIDTH)
        to_atoms = self._readout_back(steps)
        layers = range(len(self.network.atom_gates))
        for k in reversed(layers):
            if k < layers[-1] and self.n_pairs:
                if k < layers[-2]:
                    to_atoms = self._angles_back(k, to_atoms)
                to_atoms = self._bonds_back(k, to_atoms)
            to_atoms = self._atoms_back(k, to_atoms)
        return self._bases_back()

    def _readout_back(self, steps: tuple) -> torch.Tensor:
        network, atoms = self.network, self.atoms[-1]
        moments, hidden = steps
        grad = network.readout[-1][0].t().expand(len(atoms), -1)
        for (matrix, _), rows in zip(reversed(network.readout[:-1]), reversed(hidden), strict=True):
            grad = _silu_backward(grad.contiguous(), rows) @ matrix.t()
        return _norm_back(grad, atoms, moments, network.readout_norm.weight)

    def _atoms_back(self, k: int, to_atoms: torch.Tensor) -> torch.Tensor:
        gate, table = self.network.atom_gates[k], self._once(("edge table", k), lambda: self._edge_table(k))
        to_totals = to_atoms @ gate.out_back

        def back(piece: Piece) -> torch.Tensor:
            message, opened = self._open_edges(k, piece, table)
            grad = to_totals.index_select(0, piece.receivers)
            _rows(self.to_weights, piece).add_(_sum_ways(grad * message))
            grad.view(2, -1, _WIDTH).mul_(_rows(self.edge_weights, piece))
            to_hidden = _back(grad, message, opened, gate)
            _rows(self.to_bonds, piece).addmm_(_sum_ways(to_hidden), gate.first_back[1])
            return to_hidden

        if k == 0:  # the elements' features do not depend on positions
            self.run(back, self.batch.edges.pieces)
            return to_atoms
        to_table, n = self._scatter(self.batch.edges, back), len(to_atoms)
        one, other = to_table[:n], to_table[n:]
        by_centre, _, by_neighbour = gate.first_back
        self._in_parts((n, lambda part: part(to_atoms).addmm_(part(one), by_centre).addmm_(part(other), by_neighbour)))
        return to_atoms

    def _bonds_back(self, k: int, to_atoms: torch.Tensor) -> torch.Tensor:
        gate, table = self.network.bond_gates[k], self._once(("bond table", k), lambda: self._bond_table(k))
        to_totals = self.to_bonds[: self.n_short] @ gate.out_back

        def back(piece: Piece) -> torch.Tensor:
            message, opened = self._open_bonds(k, piece, table)
            grad = to_totals.index_select(0, piece.receivers)
            _rows(self.to_pair_weights, piece).add_(_sum_ways(grad * message))
            grad.view(2, -1, _WIDTH).mul_(_rows(self.pair_weights, piece))
            return self._walk_back(k, piece, _back(grad, message, opened, gate), gate)

        return self._table_back(self._scatter(self.batch.angles, back), to_atoms, gate)

    def _angles_back(self, k: int, to_atoms: torch.Tensor) -> torch.Tensor:
        gate, table = self.network.angle_gates[k], self._once(("angle table", k), lambda: self._angle_table(k))

        def back(piece: Piece) -> torch.Tensor:
            message, opened = self._open_angles(k, piece, table)
            return self._walk_back(k, piece, _back(_ways(self.to_angles, piece), message, opened, gate), gate)

        return self._table_back(self._scatter(self.batch.angles, back), to_atoms, gate)

    def _walk_back(self, k: int, piece: Piece, to_hidden: torch.Tensor, gate: _Gate) -> torch.Tensor:
        """Add to the gradients of the angles; of a pair's first features only the sum over both ways will be read."""
        if k == 0:
            self.to_angles[2 * piece.start : piece.start + piece.stop].addmm_(_sum_ways(to_hidden), gate.first_back[2])
        else:
            _ways(self.to_angles, piece).addmm_(to_hidden, gate.first_back[2])
        return to_hidden

    def _table_back(self, to_table: torch.Tensor, to_atoms: torch.Tensor, gate: _Gate) -> torch.Tensor:
        n, (by_first, by_second, _, by_atom) = self.n_short, gate.first_back
        to_shorts, one, other, centre = self.to_bonds[:n], to_table[:n], to_table[n : 2 * n], to_table[2 * n :]
        self._in_parts(
            (n, lambda part: part(to_shorts).addmm_(part(one), by_first).addmm_(part(other), by_second)),
            (len(to_atoms), lambda part: part(to_atoms).addmm_(part(centre), by_atom)),
        )
        return to_atoms

    def _bases_back(self) -> tuple[torch.Tensor, torch.Tensor]:
        network, batch, n = self.network, self.batch, self.n_short
        to_lengths = self.lengths.new_empty(len(self.lengths), 1)

        def to_radial(piece: Piece) -> None:
            grad = torch.mm(_rows(self.to_both, piece), network.radial.t())
            _rows(to_lengths, piece).copy_(self._radial(piece).slope(grad))

        self.run(to_radial, batch.edges.pieces)
        unit = batch.vectors / self.lengths[:, None]
        to_vectors = unit * to_lengths
        if self.n_pairs:
            to_shorts = self._receive(batch.angles, self._angles_to_shorts, _WIDTH + 3)
            along = self.short_radial.slope(to_shorts[:, :_WIDTH] @ network.short_radial.t())
            to_unit = to_shorts[:, _WIDTH:] / self.lengths[:n, None]
            along -= (to_unit * self.unit).sum(dim=1, keepdim=True)
            to_vectors[:n] += torch.addcmul(to_unit, self.unit, along)

        def send(piece: Piece) -> torch.Tensor:
            grad, vectors = _rows(to_vectors, piece), _rows(batch.vectors, piece)
            virial = (vectors[:, :, None] * grad[:, None, :]).view(-1, 9) / 2
            return torch.cat([torch.cat([-grad, virial], dim=1), torch.cat([grad, virial], dim=1)])

        total = self._receive(batch.edges, send, 12)
        return total[:, :3], batch.crystals(total[:, 3:].contiguous()).view(-1, 3, 3)

    def _angles_to_shorts(self, piece: Piece) -> torch.Tensor:
        """What each way through a pair gives its receiver: gradients of its weight and of its direction, (2 n, 67)."""
        network = self.network
        to_waves = _sum_ways(_ways(self.to_angles, piece)) @ network.angular.t()
        cosines, phases = self._phases(piece)
        n = len(network.frequencies)
        slopes = to_waves[:, 1 : n + 1] * phases.cos() - to_waves[:, n + 1 :] * phases.sin()
        to_cosines = (slopes @ network.frequencies) * (1 - cosines * cosines).rsqrt()
        to_cosines *= _rows(self.batch.pair_signs, piece) * (-(1 - 1e-6) / math.sqrt(math.pi))
        ways = []
        for bonds in (_rows(self.batch.pair_bonds[way], piece) for way in (1, 0)):
            to_weights = _rows(self.to_pair_weights, piece) * self.short_weights.index_select(0, bonds)
            ways.append(torch.cat([to_weights, to_cosines[:, None] * self.unit.index_select(0, bonds)], dim=1))
        return torch.cat(ways)


def _rows(table: torch.Tensor, piece: Piece) -> torch.Tensor:
    """The part of a table of bonds or pairs that belongs to a piece."""
    return table if piece.whole else table[piece.start : piece.stop]


def _ways(table: torch.Tensor, piece: Piece) -> torch.Tensor:
    """The part of a table of both ways of bonds or pairs, piece after piece."""
    return table if piece.whole else table[2 * piece.start : 2 * piece.stop]


def _all_of(table: torch.Tensor) -> torch.Tensor:
    return table


def _sum_ways(both: torch.Tensor) -> torch.Tensor:
    return both.view(2, -1, both.shape[1]).sum(dim=0)


def _fourier(phases: torch.Tensor) -> torch.Tensor:
    """CHGNet's angular basis [1/sqrt(2), sin(w a), cos(w a)] / sqrt(pi), (n, 31)."""
    constant = (1 / torch.sqrt(torch.tensor([2]))).to(phases).expand(len(phases), 1)  # float32, as chgnet has it
    return torch.cat([constant, phases.sin(), phases.cos()], dim=1).div_(math.sqrt(math.pi))
