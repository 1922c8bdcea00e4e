"""chgnet's own code as the judge of ours: its graphs, its forward pass in float64, and crystals to compare on.

Whatever knows the layout of `GraphBatch` is in `edges_and_angles`, whatever has to be mended in chgnet for float64 is
in `chgnet_forward`; the tests see neither.
"""

import contextlib
import warnings

import numpy as np
import torch

from crossfunc.potential import Crystals
from crossfunc.potential.graphs import ATOM_CUTOFF_A, BOND_CUTOFF_A, build_graphs
from crossfunc.vendor import import_chgnet

OUTPUTS = ("energy_per_atom_ev", "forces_ev_per_a", "stress_gpa", "magmoms_mub")


# --- crystals ---


def random_crystals(seed, n_crystals, max_atoms=6, min_distance_a=1.6, volumes_a3=(12, 30)):
    """Atoms at random in random, mostly skewed cells, no two closer than `min_distance_a`."""
    rng = np.random.default_rng(seed)
    triples = []
    while len(triples) < n_crystals:
        n = int(rng.integers(1, max_atoms + 1))
        lattice = rng.normal(size=(3, 3))
        lattice *= (n * rng.uniform(*volumes_a3) / abs(np.linalg.det(lattice))) ** (1 / 3)
        lattice *= np.sign(np.linalg.det(lattice))  # right-handed: see test_parity on the others
        if np.linalg.cond(lattice) > 12:
            continue
        coords = rng.uniform(-1, 2, (n, 3))
        numbers = rng.integers(1, 90, n)
        if _shortest_distance_a(coords, lattice) > min_distance_a:
            triples.append((numbers, coords, lattice))
    return triples


def _shortest_distance_a(coords, lattice):
    reach = np.ceil(4 * np.linalg.norm(np.linalg.inv(lattice), axis=0)).astype(int)
    images = np.stack(np.meshgrid(*[np.arange(-k, k + 1) for k in reach], indexing="ij"), -1).reshape(-1, 3)
    wrapped = coords % 1
    gaps = (wrapped[None] - wrapped[:, None])[:, :, None] + images
    distances = np.linalg.norm(gaps @ lattice, axis=-1)
    return distances[distances > 1e-9].min(initial=np.inf)


def supercell(triple, repeats):
    """A crystal repeated along its lattice vectors; copies of an atom follow one another."""
    numbers, coords, lattice = triple
    cells = np.stack(np.meshgrid(*[np.arange(k) for k in repeats], indexing="ij"), -1).reshape(-1, 3)
    moved = ((np.asarray(coords)[:, None] + cells) / repeats).reshape(-1, 3)
    return np.repeat(numbers, len(cells)), moved, np.asarray(lattice) * np.array(repeats)[:, None]


def unimodular(rng, n_steps=2):
    """An integer matrix of determinant 1: the same lattice by other vectors."""
    matrix = np.roll(np.eye(3, dtype=int), int(rng.integers(3)), axis=0)
    for _ in range(n_steps):
        i, j = rng.choice(3, 2, replace=False)
        matrix[i] += int(rng.choice([-1, 1])) * matrix[j]
    return matrix


def in_other_basis(triple, matrix):
    """The same crystal, its lattice described by `matrix` @ the old vectors."""
    numbers, coords, lattice = triple
    return numbers, np.asarray(coords) @ np.linalg.inv(matrix), matrix @ np.asarray(lattice)


def triples_of(crystals):
    """The (atomic_numbers, frac_coords, lattice) of each crystal."""
    atoms = zip(crystals.split(crystals.atomic_numbers), crystals.split(crystals.frac_coords), strict=True)
    return [(z, x, lattice) for (z, x), lattice in zip(atoms, crystals.lattices_a, strict=True)]


# --- graphs ---


def chgnet_graphs(crystals):
    """chgnet's own graph of every crystal, by its C converter (float32, as it comes)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converter = import_chgnet("chgnet.graph").CrystalGraphConverter(
            atom_graph_cutoff=ATOM_CUTOFF_A, bond_graph_cutoff=BOND_CUTOFF_A
        )
        assert converter.algorithm == "fast"
        return [converter(structure) for structure in crystals.to_structures()]


def chgnet_edges_and_angles(graph):
    """Directed edges (centre, neighbour, image) and angles (centre, first edge's end, second edge's end) of a graph."""
    atoms, images = graph.atom_graph.numpy().astype(int), graph.neighbor_image.detach().numpy().astype(int)
    edges = np.hstack([atoms, images])
    rows = graph.bond_graph.numpy().astype(int).reshape(-1, 5)
    assert (atoms[rows[:, 2], 0] == rows[:, 0]).all()  # both edges leave the centre
    assert (atoms[rows[:, 4], 0] == rows[:, 0]).all()
    to_undirected = graph.directed2undirected.numpy()
    assert (to_undirected[rows[:, 2]] == rows[:, 1]).all()
    angles = np.hstack([rows[:, :1], edges[rows[:, 2], 1:], edges[rows[:, 4], 1:]])
    return sort_rows(edges), sort_rows(angles)


def edges_and_angles(batch):
    """The same two tables of every crystal in one of our batches."""
    ends, images = batch.bond_atoms.numpy(), batch.bond_images.numpy().round().astype(int)
    n_bonds = len(ends)
    starts = (torch.cumsum(batch.n_atoms, 0) - batch.n_atoms).numpy()
    owners = batch.bond_owners.numpy()
    assert (batch.owners.numpy()[ends] == owners[:, None]).all()  # no bond between crystals
    ends = ends - starts[owners][:, None]
    directed = np.vstack([np.hstack([ends, images]), np.hstack([ends[:, ::-1], -images])])
    short = batch.incidences.short_bonds.numpy()
    angle_bonds, centres, pairs = _rows_of_angles(batch)
    angle_owners = batch.owners.numpy()[centres]
    centres = centres - starts[angle_owners]
    first, second = short[angle_bonds].T
    signs = batch.incidences.pair_signs.numpy()[pairs]
    angles = _walk_from_the_centre(directed, n_bonds, centres, first, second, signs)
    per_crystal = []
    for k in range(len(batch.n_atoms)):
        mine = np.tile(owners == k, 2)
        per_crystal.append((sort_rows(directed[mine]), sort_rows(angles[angle_owners == k])))
    return per_crystal


def _rows_of_angles(batch):
    """Bonds, centre and pair of every angle; the pair must hold the same two bonds."""
    n_short = len(batch.incidences.short_bonds)
    tables = [0, n_short, 2 * n_short, 2 * n_short + len(batch.owners)]
    *bonds, centres, pairs = (batch.incidences.angles.rows.numpy().astype(np.int64).reshape(-1, 4) - tables).T
    bonds = np.stack(bonds, axis=1)
    of_pairs = batch.incidences.pairs.rows.numpy().reshape(-1, 2) - [0, n_short]
    np.testing.assert_array_equal(np.sort(of_pairs[pairs], axis=1), np.sort(bonds, axis=1))
    assert np.bincount(pairs, minlength=len(of_pairs)).max(initial=0) <= 2
    return bonds, centres, pairs


def _walk_from_the_centre(directed, n_bonds, centres, first, second, signs):
    """Angles as rows (centre, end of the first edge, end of the second), each bond walked away from the centre.

    A bond from an atom to its own image leaves it both ways; then the sign says how the other one is walked, and where
    both are such bonds, chgnet's two rows (forwards, backwards) are the two rows of ours with that sign.
    """
    loops = directed[:n_bonds, 0] == directed[:n_bonds, 1]
    forwards_1 = directed[first, 0] == centres
    forwards_2 = directed[second, 0] == centres
    same = signs > 0
    forwards_1 = np.where(loops[first], np.where(same, forwards_2, ~forwards_2), forwards_1)
    forwards_2 = np.where(loops[second], np.where(same, forwards_1, ~forwards_1), forwards_2)
    both = loops[first] & loops[second]
    if both.any():
        # ours holds each such pair twice with the same bonds and sign: once from forwards, once from backwards
        key = np.stack([centres, first, second, same], axis=1)[both]
        _, inverse, counts = np.unique(key, axis=0, return_inverse=True, return_counts=True)
        inverse = inverse.ravel()
        assert (counts == 2).all()
        order = np.argsort(inverse, kind="stable")
        turn = np.empty(len(order), dtype=bool)
        turn[order] = np.arange(len(order)) % 2 == 0
        forwards_1[both] = turn
        forwards_2[both] = np.where(same[both], turn, ~turn)
    assert (directed[first + n_bonds * ~forwards_1, 0] == centres).all()
    assert (directed[second + n_bonds * ~forwards_2, 0] == centres).all()
    ends_1, ends_2 = directed[first + n_bonds * ~forwards_1, 1:], directed[second + n_bonds * ~forwards_2, 1:]
    return np.hstack([centres[:, None], ends_1, ends_2])


def our_edges_and_angles(crystals):
    """Edges and angles of every crystal, in the order of the crystals, by our builder."""
    tables = [None] * len(crystals)
    for indices, batch in build_graphs(crystals):
        for k, pair in zip(indices, edges_and_angles(batch), strict=True):
            tables[k] = pair
    return tables


def sort_rows(rows):
    """Rows in lexicographic order: equal arrays are equal multisets."""
    return rows[np.lexsort(rows.T[::-1])]


# --- chgnet's forward pass ---


def in_float64(graphs, crystals):
    """Give chgnet's graphs the crystals' exact coordinates: its converter rounds them to float32."""
    for graph, (_, coords, lattice) in zip(graphs, triples_of(crystals), strict=True):
        graph.atom_frac_coord = torch.tensor(coords, dtype=torch.float64)
        graph.lattice = torch.tensor(lattice, dtype=torch.float64)
        graph.neighbor_image = graph.neighbor_image.double()
    return graphs


@contextlib.contextmanager
def _exact_chgnet(model):
    """Lift chgnet's two hard-coded float32 roundings: cell volumes and composition fractions."""
    module = import_chgnet("chgnet.model.model")
    references = model.composition_model

    def fractions(graphs):
        counts = torch.stack([torch.bincount(graph.atomic_number - 1, minlength=94) for graph in graphs]).double()
        return counts / counts.sum(dim=1, keepdim=True)

    module.TORCH_DTYPE, before = torch.float64, module.TORCH_DTYPE
    references._assemble_graphs = fractions
    try:
        yield
    finally:
        module.TORCH_DTYPE = before
        del references._assemble_graphs


def chgnet_forward(model, graphs):
    """chgnet's `model(graphs, task="efsm")` under our names; a float64 model is given float64 throughout."""
    double = next(model.parameters()).dtype == torch.float64
    for graph in graphs:
        graph.atom_frac_coord.requires_grad_(True)
    with warnings.catch_warnings(), _exact_chgnet(model) if double else contextlib.nullcontext():
        warnings.simplefilter("ignore")
        output = model(graphs, task="efsm")
    tensors = output["e"], torch.cat(output["f"]), torch.stack(list(output["s"])), torch.cat(output["m"])
    return dict(zip(OUTPUTS, tensors, strict=True))


def one_batch(crystals):
    """All crystals in one batch of ours, in their order."""
    bounds = {"max_angles": 10**9}
    ((indices, batch),) = build_graphs(crystals, **bounds)
    return indices, batch


def take(output, crystals, indices):
    """Reorder an output of chgnet's, crystals in their order, as our batch has them."""
    atoms = torch.from_numpy(crystals.atom_indices(indices))
    chosen = torch.from_numpy(np.asarray(indices))
    rows = dict(zip(OUTPUTS, (chosen, atoms, chosen, atoms), strict=True))
    return {key: output[key][rows[key]] for key in OUTPUTS}


def as_crystals(triples):
    """Flat arrays of (atomic_numbers, frac_coords, lattice) triples."""
    return Crystals.from_arrays(triples)
