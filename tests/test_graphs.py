"""Edges and angles are those of chgnet's own converter, row for row, neighbours exactly at 3 and 6 Å included.

chgnet's rule, as its code has it: an edge where d² < 36 + 1e-8 Å² (pymatgen's neighbour search with its tolerance), an
angle where the bond that gets the message has d <= 3 Å and the other one d < 3 Å. Bonds exactly at a cutoff carry a
weight of exactly zero, so they change no energy; they are kept all the same, because a graph is right or it is not.
"""

import numpy as np
import pytest
from oracle import (
    as_crystals,
    chgnet_edges_and_angles,
    chgnet_graphs,
    in_other_basis,
    our_edges_and_angles,
    random_crystals,
    supercell,
    unimodular,
)

from crossfunc.potential import graphs
from crossfunc.potential.graphs import GraphError, build_graphs

CUBE, FCC, BCC = np.eye(3), (1 - np.eye(3)) / 2, (1 - 2 * np.eye(3)) / 2
ORIGIN, CENTRE = [0.0, 0.0, 0.0], [0.5, 0.5, 0.5]


def assert_identical(triples):
    crystals = as_crystals(triples)
    for k, (graph, (edges, angles)) in enumerate(
        zip(chgnet_graphs(crystals), our_edges_and_angles(crystals), strict=True)
    ):
        expected_edges, expected_angles = chgnet_edges_and_angles(graph)
        name = f"crystal {k} ({crystals.formula(k)})"
        np.testing.assert_array_equal(edges, expected_edges, err_msg=f"edges of {name}")
        np.testing.assert_array_equal(angles, expected_angles, err_msg=f"angles of {name}")


# --- random cells ---


@pytest.mark.parametrize("seed", range(4))
def test_random_skewed_cells_have_chgnets_graph(seed):
    assert_identical(random_crystals(seed, 100))


def test_one_and_two_atom_cells_with_many_images_have_chgnets_graph():
    assert_identical(random_crystals(10, 100, max_atoms=2, volumes_a3=(6, 14), min_distance_a=1.0))


def test_loose_cells_with_few_or_no_angles_have_chgnets_graph():
    assert_identical(random_crystals(20, 60, max_atoms=4, volumes_a3=(60, 110), min_distance_a=2.0))


def test_large_cells_have_chgnets_graph():
    rng = np.random.default_rng(30)
    triples = [supercell(t, (2, 2, 1)) for t in random_crystals(30, 6, max_atoms=6)]
    moved = [(z, x + rng.normal(0, 0.01, x.shape), lattice) for z, x, lattice in triples]
    assert_identical(moved + random_crystals(31, 4, max_atoms=60, min_distance_a=0.7))


def test_strongly_skewed_descriptions_of_a_crystal_have_chgnets_graph():
    rng = np.random.default_rng(40)
    assert_identical([in_other_basis(t, unimodular(rng, n_steps=4)) for t in random_crystals(40, 20)])


def test_left_handed_cells_have_chgnets_graph():
    assert_identical([in_other_basis(t, np.diag([1, -1, 1])) for t in random_crystals(50, 20)])


# --- neighbours exactly at a cutoff ---

# Coordinates and lattices are small binary fractions, so that every distance along an axis is exact.
TIES = {
    "simple cubic, 3 and 6": ([84], [ORIGIN], 3.0 * CUBE),
    "simple cubic, 6 only": ([55], [ORIGIN], 6.0 * CUBE),
    "simple cubic, 2, 4 and 6": ([1], [ORIGIN], 2.0 * CUBE),
    "fcc, second neighbours at 6": ([29], [ORIGIN], 6.0 * FCC),
    "fcc, second neighbours at 3": ([1], [ORIGIN], 3.0 * FCC),
    "bcc, second neighbours at 3": ([26], [ORIGIN], 3.0 * BCC),
    "bcc, second neighbours at 6": ([55], [ORIGIN], 6.0 * BCC),
    "CsCl, second neighbours at 3": ([55, 17], [ORIGIN, CENTRE], 3.0 * CUBE),
    "rock salt, neighbours at 3": ([11, 17], [ORIGIN, CENTRE], 6.0 * FCC),
    "rock salt cube": (
        [11] * 4 + [17] * 4,
        [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0], CENTRE, [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]],
        6.0 * CUBE,
    ),
    "perovskite, oxygen at 3": (
        [56, 22, 8, 8, 8],
        [ORIGIN, CENTRE, [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
        6.0 * CUBE,
    ),
    "tetragonal, one bond at 3 among shorter": ([22], [ORIGIN], np.diag([2.5, 2.5, 3.0])),
    "orthorhombic, 2.5 and 6": ([22], [ORIGIN], np.diag([2.5, 3.0, 6.0])),
    "pair at 3": ([12, 8], [ORIGIN, [0, 0, 0.25]], np.diag([4.0, 4.0, 12.0])),
    "pair at 3, triangle": ([12, 8, 8], [ORIGIN, [0, 0, 0.25], [0.5, 0, 0]], np.diag([4.0, 5.0, 12.0])),
}


@pytest.mark.parametrize("name", TIES)
def test_neighbours_exactly_at_a_cutoff_are_in_or_out_as_in_chgnet(name):
    crystal = tuple(np.asarray(part) for part in TIES[name])
    assert_identical([crystal, supercell(crystal, (1, 2, 1))])


def test_the_edge_of_the_atom_graph_is_36_square_angstrom_plus_1e_8():
    for a, n_edges in ((6.0, 6), (6 + 8.2e-10, 6), (6 - 1e-9, 6)):
        crystal = ([55], [ORIGIN], a * CUBE)
        assert_identical([crystal])
        assert len(our_edges_and_angles(as_crystals([crystal]))[0][0]) == n_edges
    for a in (6 + 8.4e-10, 6 + 1e-7):
        with pytest.raises(GraphError, match="isolated"):
            list(build_graphs(as_crystals([([55], [ORIGIN], a * CUBE)])))
        with pytest.raises(ValueError, match="isolated"):
            chgnet_graphs(as_crystals([([55], [ORIGIN], a * CUBE)]))


def test_a_bond_of_exactly_3_gets_messages_but_sends_none():
    ((_, angles),) = our_edges_and_angles(as_crystals([TIES["tetragonal, one bond at 3 among shorter"]]))
    first, second = angles[:, 4], angles[:, 8]  # image along c: 0 for the 2.5 Å bonds, ±1 for those of 3 Å
    assert len(angles) == 4 * 3 + 2 * 4
    assert np.count_nonzero(first) == 8
    assert np.count_nonzero(second) == 0


def test_bonds_beside_the_cutoff_need_no_rule():
    for shift in (-1e-7, 1e-7):
        lattice = np.diag([2.5, 2.75, 3 + shift])
        assert_identical([([22], [ORIGIN], lattice), ([22, 8], [ORIGIN, [0.5, 0.5, 0]], lattice)])


def test_where_rounding_splits_a_tie_chgnets_graph_depends_on_the_origin_and_only_there_may_ours_differ():
    """CsCl with a = 3 Å: off the origin some of the equal bonds of 3 Å round to 3.0000000000000004, others do not."""
    numbers_of_rows = set()
    for move in np.linspace(0, 1, 30, endpoint=False):
        crystals = as_crystals([([55, 17], np.array([ORIGIN, CENTRE]) + move, 3.0 * CUBE)])
        (graph,), ((edges, angles),) = chgnet_graphs(crystals), our_edges_and_angles(crystals)
        expected_edges, expected = chgnet_edges_and_angles(graph)
        np.testing.assert_array_equal(edges, expected_edges)  # 6 Å are protected by the tolerance
        np.testing.assert_array_equal(angles[_has_no_tie(angles)], expected[_has_no_tie(expected)])
        numbers_of_rows.add(len(expected))
    assert len(numbers_of_rows) > 1  # one crystal, several graphs of chgnet's


def _has_no_tie(angles):
    """Both bonds join unlike atoms: 2.598 Å; like atoms are 3 Å apart."""
    return (angles[:, 0] != angles[:, 1]) & (angles[:, 0] != angles[:, 5])


# --- batches ---


def test_batching_and_its_order_leave_every_graph_as_it_is():
    crystals = as_crystals(random_crystals(60, 30))
    together = our_edges_and_angles(crystals)
    alone = [our_edges_and_angles(crystals.take([k]))[0] for k in range(len(crystals))]
    for (edges, angles), (its_edges, its_angles) in zip(together, alone, strict=True):
        np.testing.assert_array_equal(edges, its_edges)
        np.testing.assert_array_equal(angles, its_angles)


# --- any size ---


@pytest.mark.parametrize("n_atoms", [[1], [1] * 1200, [40_000], [1, 40_000, 1], [20_000, 20_000, 5], [32_768, 1], []])
def test_crystals_of_any_size_come_in_blocks_that_fit(n_atoms):
    blocks = list(graphs._blocks(np.array(n_atoms, dtype=np.int64)))
    assert np.concatenate([np.empty(0, dtype=int), *blocks]).tolist() == list(range(len(n_atoms)))
    for block in blocks:
        assert len(block) == 1 or (len(block) <= 512 and sum(n_atoms[k] for k in block) <= 2**15)


def test_blocks_do_not_show_in_the_graphs(monkeypatch):
    crystals = as_crystals([([11, 17], [ORIGIN, CENTRE], 3.6 * CUBE), ([29], [ORIGIN], 3.6 * FCC)] * 3)
    whole = our_edges_and_angles(crystals)
    monkeypatch.setattr(graphs, "_BLOCK_ATOMS", 2)
    for (edges, angles), (expected_edges, expected) in zip(our_edges_and_angles(crystals), whole, strict=True):
        np.testing.assert_array_equal(edges, expected_edges)
        np.testing.assert_array_equal(angles, expected)
