"""The element references that chgnet publishes, against those inside its checkpoints and against its own model."""

from types import SimpleNamespace

import numpy as np
import pytest

from crossfunc.datasets import open_dataset
from crossfunc.energies.atomref import AtomRefError
from crossfunc.energies.composition import composition_matrix, element_symbols, elements_present
from crossfunc.energies.published import published_atomref, published_tables_apply

OX = 7  # column, Z - 1


def test_published_references_are_those_inside_the_checkpoints():
    for table, checkpoint in (("MPtrj", "0.3.0"), ("MP-r2SCAN", "r2scan")):
        np.testing.assert_array_equal(published_atomref(table).energies_ev, published_atomref(checkpoint).energies_ev)
    assert published_atomref("MPtrj_e") is published_atomref("MPtrj")
    assert published_atomref("MPtrj").energies_ev[OX] == pytest.approx(-8.3861, abs=1e-5)
    assert published_atomref("MP-r2SCAN").energies_ev[OX] == pytest.approx(-9.1242, abs=1e-5)
    assert "is_intensive False" in published_atomref("MPF").source


def test_mpf_entries_are_ev_per_atom_although_chgnet_adds_them_to_totals():
    import torch

    from crossfunc.vendor import import_chgnet

    class Graph:
        atomic_number = torch.tensor([3, 3, 8])

    model = import_chgnet("chgnet.model.composition_model").AtomRef()
    model.initialize_from("MPF")
    assert model.is_intensive is False
    total_ev = model([Graph()]).item()
    per_atom = published_atomref("MPF").predict(composition_matrix(["Li2O"]))[0]
    assert total_ev == pytest.approx(3 * per_atom, rel=1e-6)


def test_elements_that_r2scan_data_did_not_hold_have_no_published_reference():
    fit = published_atomref("r2scan")
    absent = [symbol for symbol, value in zip(element_symbols, fit.energies_ev, strict=True) if np.isnan(value)]
    assert absent == ["Yb", "Po", "At", "Rn", "Fr", "Ra"]
    assert fit.n_elements == 88
    assert "No reference for Yb, Po" in fit.summary()


def test_ybo_with_the_published_r2scan_references_is_refused():
    X = composition_matrix(["TmO", "YbO", "LuO"])
    with pytest.raises(AtomRefError, match=r"no element reference for Yb \(row 1; 1 of 3\)"):
        published_atomref("r2scan").predict(X)
    assert np.isfinite(published_atomref("r2scan").predict(X[[0, 2]])).all()


def test_gga_entries_that_no_data_back_are_marked():
    fit = published_atomref("MPtrj")
    assert np.isfinite(fit.energies_ev).all()
    assert elements_present(~fit.determined[None].astype(bool) / 5) == ("Po", "At", "Rn", "Fr", "Ra")
    assert "Not backed by data: Po, At, Rn, Fr, Ra" in fit.summary()
    assert not fit.is_determined_for(composition_matrix(["RaO"]))[0]


def test_an_unknown_table_names_the_known_ones():
    with pytest.raises(AtomRefError, match=r"choose one of MPtrj, MPF, MP-r2SCAN, 0.3.0, r2scan"):
        published_atomref("MACE")


@pytest.mark.parametrize(
    ("keys", "labelled_by", "apply"),
    [
        (("gga", "r2scan"), "DFT, VASP", True),
        (("pbe", "r2scan"), "DFT, VASP", True),
        (("gga", "r2scan"), "model, CHGNet", True),
        (("pbe", "r2scan"), "DFT, GPAW", False),  # its atoms have another energy
        (("pbe", "r2scan"), "", False),  # nobody knows
        (("pbe", "hse06"), "DFT, VASP", False),  # no table for that functional
        (("pbesol", "r2scan"), "DFT, VASP", False),
    ],
)
def test_published_tables_apply_to_labels_of_their_own_code_and_functionals(keys, labelled_by, apply):
    functionals = [SimpleNamespace(key=key) for key in keys]
    assert published_tables_apply(SimpleNamespace(functionals=functionals, labelled_by=labelled_by)) is apply


def test_published_tables_apply_to_the_surrogate_and_not_to_our_own_dft():
    assert published_tables_apply(open_dataset("surrogate"))
    assert not published_tables_apply(open_dataset("pbe-r2scan"))
