"""The benchmark of relaxation, at a size for tests."""

import numpy as np
import pytest

from crossfunc.bench import relax
from crossfunc.potential import load_model, predict
from crossfunc.potential.crystals import Crystals


def test_frames_are_of_as_many_materials_half_rattled_half_strained():
    frames = relax.embedded_frames(20)
    assert len(set(frames["material_id"].to_pylist())) == 20
    assert frames["source"].to_pylist() == ["dense: rattled", "dense: strained"] * 10
    assert set(frames["functional"].to_pylist()) == {"r2scan"}
    assert frames.equals(relax.embedded_frames(20))
    assert not frames.equals(relax.embedded_frames(20, seed=1))


def test_a_small_run_reports_every_figure(capsys):
    report = relax.run(n_structures=2, fmax=0.2, max_steps=60, repeats=1)
    assert report["n_structures"] == 2
    assert report["speedup"] == pytest.approx(report["chgnet_seconds"] / report["seconds"])
    assert report["n_converged"] == report["chgnet_n_converged"] == 2
    assert report["n_steps"] == pytest.approx(report["chgnet_n_steps"], abs=6)
    assert report["other_basin"] == []
    assert report["largest_difference_ev_per_atom"] < 1e-3
    assert capsys.readouterr().out == ""  # printing is the command line's
    printed = relax.format_report(report)
    assert "2 with" in printed
    assert "0 of 2" in printed


def test_another_basin_and_an_unfinished_structure_are_listed():
    frames = relax.embedded_frames(3)
    crystals = Crystals.from_frames(frames)

    class Ours:
        energy_per_atom_ev = np.array([-5.0, -5.0, -5.0])
        status = np.array(["converged", "converged", "not converged"])

    Ours.crystals = crystals
    ends = zip((-5.0001, -5.1, -5.0), crystals.to_structures(), strict=True)
    theirs = [{"energy_per_atom_ev": e, "converged": True, "structure": structure} for e, structure in ends]
    rows = relax._compare(frames, Ours, theirs)
    assert [row["same"] for row in rows] == [True, False, False]
    assert rows[1]["difference"] == pytest.approx(0.1)
    assert rows[1]["volume_per_atom_a3"] == pytest.approx(rows[1]["chgnet_volume_per_atom_a3"])
    relax._start_where_chgnet_ended(load_model("0.3.0"), rows[1:], theirs, fmax=0.05, max_steps=0)
    expected = predict(load_model("0.3.0"), crystals)["energy_per_atom_ev"][1:]
    assert [row["energy_from_there_per_atom_ev"] for row in rows[1:]] == pytest.approx(expected, abs=1e-5)
