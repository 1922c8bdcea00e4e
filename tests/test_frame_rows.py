"""What no crystal has is found in tables of a few rows: impossible numbers, flat cells, overlaps, atoms in boxes."""

import numpy as np
import pyarrow as pa
import pytest

from crossfunc.datasets.importers import frame_rows
from crossfunc.datasets.importers.frame_rows import RowError, checked_numbers
from crossfunc.datasets.schema import FRAMES

SCHEMA = pa.schema([column.field for column in FRAMES if column.name in {"atomic_numbers", *frame_rows.LIMITS}])


def row(coords=((0, 0, 0), (0.5, 0.5, 0.5)), cell=(4.0, 4.0, 4.0), numbers=None, **labels):
    """A frame in a box, of lithium unless told otherwise, without labels but for an energy."""
    numbers = [3] * len(coords) if numbers is None else numbers
    lattice = np.diag(cell) if np.ndim(cell) == 1 else np.array(cell, float)
    base = {"atomic_numbers": numbers, "lattice_a": lattice.ravel().tolist(), "energy_per_atom_ev": -1.0}
    return dict.fromkeys(SCHEMA.names) | base | {"frac_coords": np.ravel(coords).tolist()} | labels


def table_of(*rows):
    return pa.Table.from_pylist(list(rows), schema=SCHEMA)


def found(check, *rows):
    return {reason: np.flatnonzero(mask).tolist() for mask, reason in check(table_of(*rows)) if mask.any()}


def test_numbers_beyond_any_calculation_are_found_in_their_row():
    fine = row(forces_ev_per_a=[1e4, 0, 0, 0, 0, -1e4], stress_gpa=[0] * 9, magmoms_mub=[100.0, 0])
    rows = [
        row(),
        row(energy_per_atom_ev=-2e6),
        fine,
        row(forces_ev_per_a=[0, 0, 0, 0, -2e4, 0]),
        row(stress_gpa=[0] * 8 + [2e5]),
        row(magmoms_mub=[0, -101.0]),
        row(cell=(4.0, 4.0, 2000.0)),
        row(coords=[[0, 0, 0], [0.5, 0.5, 2000.5]]),
        row(forces_ev_per_a=[2e4, 0, 0, 0, 0, 0], energy_per_atom_ev=2e6),
    ]
    assert found(frame_rows.impossible_rows, *rows) == {
        "energy_per_atom_ev holds a number beyond 1e+06 eV/atom": [1, 8],
        "forces_ev_per_a holds a number beyond 10000 eV/Å": [3, 8],
        "stress_gpa holds a number beyond 100000 GPa": [4],
        "magmoms_mub holds a number beyond 100 µB": [5],
        "lattice_a holds a number beyond 1000 Å": [6],
        "frac_coords holds a number beyond 1000 cells": [7],
    }


def test_flat_cells_and_overlaps_are_told_apart():
    flat = row(cell=(4.0, 4.0, 0.9), coords=[[0, 0, 0], [0, 0, 0]])
    overlap = row(cell=(4.0, 4.0, 4.0), coords=[[0, 0, 0.05], [0, 0, 0.95]])  # 0.4 Å through the face
    assert found(frame_rows.impossible_rows, row(), flat, row(cell=(4.0, 4.0, 1.1)), overlap) == {
        "the cell is thinner than 1 Å": [1],
        "two atoms overlap: less than 0.5 Å apart": [3],
    }


def test_heights_are_distances_between_faces_and_not_lengths_of_edges():
    cells = np.array([np.diag([1.0, 2, 3]), [[10, 0, 0], [3, 4, 0], [0, 0, 5]], [[0, 0, 5], [10, 0, 0], [3, 4, 0]]])
    assert frame_rows.cell_heights_a(cells) == pytest.approx(np.array([[1, 2, 3], [8, 4, 5], [5, 8, 4]]))
    left_handed = cells * [1, 1, -1]
    assert frame_rows.cell_heights_a(left_handed) == pytest.approx(frame_rows.cell_heights_a(cells))


def test_the_shortest_distance_is_to_the_nearest_image():
    cell = (10.0, 10.0, 10.0)
    skewed = [[10, 0, 0], [5, 10, 0], [0, 0, 10]]
    rows = [
        row([[0, 0, 0], [0, 0, 0.3]], cell),
        row([[0, 0, 0]], cell),
        row([[0.01, 0, 0], [0.5, 0.5, 0.5], [0.98, 0, 0]], cell),
        row([[0, 0, 0], [0.3, 0, 0], [0, 0.5, 0], [2.0, 0.54, 1.0]], cell),
        row([[0, 0, 0], [0.01, 0.04, 0]], skewed),  # 0.1 (1, 0) + 0.4 (0.5, 1) = (0.3, 0.4)
        row([[0, 0, 0], [0, 0, 0.3]], cell),
    ]
    found = frame_rows.shortest_distances_a(table_of(*rows), skip=np.array([False] * 5 + [True]))
    assert found == pytest.approx([3, np.inf, 0.3, 0.4, 0.5, np.inf], rel=1e-5)


def test_many_atoms_have_the_same_shortest_distance():
    places = np.stack(np.meshgrid(*[np.arange(9) / 9] * 3), axis=-1).reshape(-1, 3)
    through_a_corner = np.vstack([places, [[1 - 0.1 / 18, 1 - 0.2 / 18, 1 - 0.2 / 18]]])  # 0.3 Å from the first
    assert len(places) >= frame_rows._TREE_ATOMS
    # low in x and high in y beside high in x and low in y, 0.24 Å and 0.18 Å apart
    through_an_edge = np.vstack([places, np.array([[0.12, 17.91, 1], [17.88, 0.09, 1]]) / 18])
    small = row([[0, 0, 0], [0, 0, 0.1]])
    large = [row(coords, (18.0,) * 3) for coords in (places, through_a_corner, through_an_edge)]
    found = frame_rows.shortest_distances_a(table_of(small, *large, small))
    assert found == pytest.approx([0.4, 2, 0.3, 0.3, 0.4])


def test_atoms_each_alone_in_a_box_are_named_by_composition():
    box = (20.0, 20.0, 20.0)
    far = [[0, 0, 0], [0.5, 0, 0]]
    rows = [
        row([[0, 0, 0]], box),
        row(),
        row(far, box, numbers=[9, 3]),
        row([[0, 0, 0], [0.25, 0, 0]], box),  # 5 Å apart
        row([[0, 0, 0]], box, numbers=[26]),
        row([[0, 0, 0]], (6.5, 6.5, 6.5)),
        row(far, box, numbers=[3, 9]),
        row([[0, 0, 0]], (5.9, 20.0, 20.0)),  # a chain
    ]
    end = "(no neighbour within 6 Å): no crystal, so neither a ground state nor anything CHGNet can learn from"
    assert found(frame_rows.isolated_rows, *rows) == {
        f"isolated atom of Fe {end}": [4],
        f"isolated atom of Li {end}": [0, 5],
        f"isolated atom of F, Li, 2 in a cell {end}": [2, 6],
    }
    assert found(frame_rows.isolated_rows, row()) == {}


def test_a_list_of_numbers_is_returned_as_it_is():
    numbers = [1, 2.5, -3]
    assert checked_numbers(numbers, "magmom") is numbers
    assert checked_numbers([], "magmom") == []


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        ([1.0, "2"], "magmom holds text where a number belongs"),
        ([1.0, True], "magmom holds a truth value where"),
        ([None, 1.0], "magmom holds null where"),
        ([[1.0, 2.0]], "magmom holds a list where"),
        ([[0.0, 0.0, 1.0], [0, 0, 2]], r"three numbers each \(non-collinear moments\), where one is read"),
        ([1.0, [0.0, 0.0, 1.0]], "magmom holds a list where"),
        ([[0.0, 0.0, 1.0], {}], "magmom holds (a list|an object) where"),
    ],
)
def test_what_is_no_number_is_refused_by_its_kind(flat, message):
    with pytest.raises(RowError, match=message):
        checked_numbers(flat, "magmom")
