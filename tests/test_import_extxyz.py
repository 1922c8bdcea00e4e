"""Anyone's own pair of functionals: extended XYZ and ASE databases, keys, units, pairs, ledger."""

import gzip
import re

import ase
import ase.db
import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import Bohr, Hartree
from typer.testing import CliRunner

from crossfunc.cli import app
from crossfunc.datasets import DatasetError, describe_functionals, open_dataset
from crossfunc.datasets.importers.extxyz import Keys, import_extxyz

STRESS = np.array([0.01, 0.02, 0.03, 0.001, 0.002, 0.003])


def crystal(energy=-10.0, edge=4.0, **info):
    """LiF in a cube with energy, forces and stress as ASE's calculators give them."""
    atoms = ase.Atoms("LiF", scaled_positions=[[0, 0, 0], [0.5] * 3], cell=[edge] * 3, pbc=True)
    forces = np.array([[0.1, 0, 0], [-0.1, 0, 0]])
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, stress=STRESS)
    atoms.info |= info
    return atoms


def pair(folder, low=None, high=None, suffix=".xyz"):
    """Two files: by default two structures each."""
    files = []
    for name, some in (("low", low or series(-10.0)), ("high", high or series(-30.0))):
        files.append(folder / f"{name}{suffix}")
        if suffix == ".db":
            with ase.db.connect(files[-1]) as database:
                for atoms in some:
                    database.write(atoms, data=dict(atoms.info), key_value_pairs={})
        else:
            ase.io.write(files[-1], some, format="extxyz")
    return files


def series(energy):
    return [crystal(energy, 4.0), crystal(energy - 1, 4.2)]


@pytest.mark.parametrize("suffix", [".xyz", ".db"])
def test_ase_units_become_the_projects(tmp_path, suffix):
    summary = import_extxyz(*pair(tmp_path, suffix=suffix), tmp_path / "out", functionals=("PBEsol", "SCAN"))
    dataset = open_dataset(summary.path)
    row = dataset.frames.to_pylist()[0]
    assert row["energy_per_atom_ev"] == pytest.approx(-5.0)
    assert row["forces_ev_per_a"] == pytest.approx([0.1, 0, 0, -0.1, 0, 0])
    xx, yy, zz, yz, xz, xy = STRESS * 160.21766208
    assert row["stress_gpa"] == pytest.approx([xx, xy, xz, xy, yy, yz, xz, yz, zz])
    assert dataset.meta["functionals"] == describe_functionals("PBEsol", "SCAN")
    assert summary.n_frames == 4


def test_the_same_structure_in_both_files_is_a_pair(tmp_path):
    summary = import_extxyz(*pair(tmp_path), tmp_path / "out")
    (row,) = open_dataset(summary.path).pairs.to_dict("records")
    assert (row["material_id"], row["pairing"], row["n_structures"]) == ("FLi", "same structure", 2)
    assert row["low_energy_per_atom_ev"] == pytest.approx(-5.5)
    assert row["high_energy_per_atom_ev"] == pytest.approx(-15.5)


def test_materials_named_by_a_key_pair_their_own_minima(tmp_path):
    low = [crystal(-10, 4.0, mat="a"), crystal(-11, 4.1, mat="a"), crystal(-9, 4.3, mat="b")]
    high = [crystal(-30, 4.05, mat="a"), crystal(-32, 4.15, mat="a")]
    keys = Keys(material_id="mat")
    (row,) = open_dataset(import_extxyz(*pair(tmp_path, low, high), tmp_path / "out", keys=keys).path).pairs.to_dict(
        "records"
    )
    assert (row["material_id"], row["pairing"]) == ("a", "own minimum")
    assert row["low_energy_per_atom_ev"] == pytest.approx(-5.5)
    assert row["high_energy_per_atom_ev"] == pytest.approx(-16.0)


def test_formulas_alone_pair_no_different_structures(tmp_path):
    summary = import_extxyz(*pair(tmp_path, [crystal(edge=4.0)], [crystal(edge=4.5)]), tmp_path / "out")
    assert open_dataset(summary.path).pairs is None


def test_keys_are_options(tmp_path):
    files = pair(tmp_path)
    for file in files:
        text = file.read_text().replace("energy=", "REF_energy=").replace(":forces:", ":REF_forces:")
        file.write_text(text)
    keys = Keys(energy="REF_energy", forces="REF_forces")
    row = open_dataset(import_extxyz(*files, tmp_path / "out", keys=keys).path).frames.to_pylist()[0]
    assert row["energy_per_atom_ev"] == pytest.approx(-5.0)
    assert row["forces_ev_per_a"] == pytest.approx([0.1, 0, 0, -0.1, 0, 0])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (Keys(forces="REF_forces"), r"low.xyz: no frame has the forces key 'REF_forces'; its keys are .*forces"),
        (Keys(stress="virial"), "no frame has the stress key 'virial'"),
        (Keys(energy="E"), "no frame has the energy key 'E'; its keys are energy, forces"),
        (Keys(energy_unit="kcal"), "energy unit 'kcal' is none of ev, ev/atom"),
        (Keys(force_unit="N"), "force unit 'N' is none of ev/a"),
    ],
)
def test_a_key_or_unit_that_is_not_there_is_named_with_those_that_are(tmp_path, keys, message):
    with pytest.raises(DatasetError, match=message):
        import_extxyz(*pair(tmp_path), tmp_path / "out", keys=keys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("keys", "energy", "force"),
    [
        (Keys(energy_unit="ev/atom"), -10.0, 0.1),
        (Keys(energy_unit="mev/atom"), -0.01, 0.1),
        (Keys(energy_unit="hartree"), -5 * Hartree, 0.1),
        (Keys(energy_unit="rydberg"), -2.5 * Hartree, 0.1),
        (Keys(force_unit="hartree/bohr"), -5.0, 0.1 * Hartree / Bohr),
        (Keys(force_unit="rydberg/bohr"), -5.0, 0.05 * Hartree / Bohr),
    ],
)
def test_units_are_options(tmp_path, keys, energy, force):
    row = open_dataset(import_extxyz(*pair(tmp_path), tmp_path / "out", keys=keys).path).frames.to_pylist()[0]
    assert row["energy_per_atom_ev"] == pytest.approx(energy, rel=1e-6)
    assert row["forces_ev_per_a"][0] == pytest.approx(force, rel=1e-6)


def test_corrected_energies_are_marked_and_an_unknown_kind_is_refused(tmp_path):
    files = pair(tmp_path)
    summary = import_extxyz(*files, tmp_path / "out", energy_kinds=("mp2020", "raw"))
    frames = open_dataset(summary.path).frames
    kinds = dict(zip(frames["functional"].to_pylist(), frames["energy_kind"].to_pylist(), strict=True))
    assert kinds == {"low": "mp2020", "high": "raw"}
    with pytest.raises(DatasetError, match="energy kind 'corrected' is none of raw, mp2020"):
        import_extxyz(*files, tmp_path / "other", energy_kinds=("corrected", "raw"))
    assert not (tmp_path / "other").exists()


def test_frames_of_the_second_functional_alone_can_be_trained_on_and_make_no_pairs(tmp_path):
    _, high = pair(tmp_path)
    done = CliRunner().invoke(app, ["data", "import", "extxyz", "-", str(high), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    dataset = open_dataset(tmp_path / "out")
    assert set(dataset.frames["functional"].to_pylist()) == {"high"}
    assert dataset.pairs is None
    assert dataset.meta["provenance"] == "imported from high.xyz by crossfunc"


def test_what_figures_say_of_the_labels_is_the_users_to_decide(tmp_path):
    files = pair(tmp_path)
    plain = import_extxyz(*files, tmp_path / "plain", functionals=("PBE", "HSE06"))
    told = import_extxyz(*files, tmp_path / "told", label_notice="made with a model, not DFT")
    assert open_dataset(plain.path).label_notice == "Labels: PBE and HSE06, from the user's own files"
    assert open_dataset(told.path).label_notice == "made with a model, not DFT"


def test_gzip_gives_the_same(tmp_path):
    files = pair(tmp_path)
    zipped = [f.with_name(f.name + ".gz") for f in files]
    for plain, target in zip(files, zipped, strict=True):
        target.write_bytes(gzip.compress(plain.read_bytes()))
    columns = ["energy_per_atom_ev", "frac_coords", "stress_gpa"]
    tables = [
        open_dataset(import_extxyz(*f, tmp_path / name).path).frames.select(columns)
        for f, name in ((files, "plain"), (zipped, "zipped"))
    ]
    assert tables[0].equals(tables[1])


LATTICE = 'Lattice="4 0 0 0 4 0 0 0 4" pbc="T T T" energy=-10.0 Properties=species:S:1:pos:R:3'
BLOCK = f"2\n{LATTICE}\nLi 0 0 0\nF 2 2 2\n"
BAD_BLOCKS = {
    "no energy": (BLOCK.replace("energy=-10.0 ", ""), "no number under the energy key 'energy'"),
    "text as energy": (BLOCK.replace("-10.0", "low"), "energy is not a number"),
    "NaN energy": (BLOCK.replace("-10.0", "NaN"), "energy_per_atom_ev is NaN"),
    "slab": (BLOCK.replace("T T T", "T T F"), "not periodic in all directions"),
    "no cell": (BLOCK.replace('Lattice="4 0 0 0 4 0 0 0 4" ', ""), "spans no volume"),
    "flat cell": (BLOCK.replace("0 0 4", "0 0 0"), "spans no volume"),
    "unknown element": (BLOCK.replace("Li 0", "Xx 0"), "ASE cannot read the frame|unknown element"),
    "text for a number": (BLOCK.replace("2 2 2", "2 two 2"), "ASE cannot read the frame"),
    "a column short": (BLOCK.replace("2 2 2", "2 2"), "ASE cannot read the frame"),
    "overlap": (BLOCK.replace("2 2 2", "0 0 4.1"), "two atoms overlap"),
    "no atoms": ("0\n" + LATTICE + "\n", "no atoms|ASE cannot read"),
    "not UTF-8": (BLOCK.replace("F 2", "F\udcff 2"), "not UTF-8"),
}


@pytest.mark.parametrize("name", BAD_BLOCKS)
def test_a_bad_frame_is_in_the_ledger_and_the_good_ones_survive(tmp_path, name):
    bad, reason = BAD_BLOCKS[name]
    low, high = tmp_path / "low.xyz", tmp_path / "high.xyz"
    low.write_bytes((BLOCK + bad + BLOCK).encode(errors="surrogateescape"))
    high.write_text(BLOCK)
    dataset = open_dataset(import_extxyz(low, high, tmp_path / "out").path)
    assert dataset.frames.num_rows == 3
    (row,) = dataset.rejected.to_dict("records")
    assert row["id"] == "low/low.xyz#1"
    assert re.search(reason, row["reason"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BLOCK + BLOCK[:-20], "ends within frame 1"),
        (BLOCK.replace("2\n", "3\n", 1) + BLOCK, "line 6: .* where the number of atoms of frame 1 is expected"),
        ("no xyz\n", "where the number of atoms of frame 0 is expected"),
        ("999999999\n" + LATTICE, "999999999 atoms in frame 0; up to 100000"),
        ("", "holds no frames|no frame has the energy"),
    ],
)
def test_a_file_that_cannot_be_cut_into_frames_is_an_error_with_the_line(tmp_path, content, message):
    low, high = tmp_path / "low.xyz", tmp_path / "high.xyz"
    low.write_text(content)
    high.write_text(BLOCK)
    with pytest.raises(DatasetError, match=message):
        import_extxyz(low, high, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_database_is_an_error(tmp_path):
    files = pair(tmp_path, suffix=".db")
    files[1].write_bytes(b"SQLite format 3\0" + b"\xff" * 2000)
    with pytest.raises(DatasetError, match=r"high\.db: not readable as an ASE database"):
        import_extxyz(*files, tmp_path / "out")


def rattled(energy, step_a, **info):
    """The crystal with its second atom moved, in the same cell."""
    atoms = crystal(energy, **info)
    labels = atoms.calc
    atoms.positions[1, 0] += step_a
    labels.atoms = atoms.copy()
    atoms.calc = labels
    return atoms


@pytest.mark.parametrize(
    ("low", "high", "reason"),
    [
        ([(-10.0, 0.0), (-8.0, 0.3)], [(-28.0, 0.3)], "several geometries in one functional"),
        ([(-10.0, 0.0)], [(-28.0, 0.3)], "two different geometries in the two functionals"),
    ],
)
def test_one_name_of_a_structure_on_several_geometries_pairs_nothing(tmp_path, low, high, reason):
    """Snapshots of one run share their cell: the name of the run is no name of a structure."""
    files = pair(tmp_path, *[[rattled(*one, run="nvt") for one in side] for side in (low, high)])
    dataset = open_dataset(import_extxyz(*files, tmp_path / "out", keys=Keys(structure_id="run")).path)
    assert dataset.pairs is None
    assert [row for row in dataset.rejected["reason"] if reason in row]


def test_one_structure_whose_atoms_stand_in_another_order_is_still_one(tmp_path):
    low, high = rattled(-10.0, 0.004, run="a"), crystal(-30.0, run="a")
    turned = high[[1, 0]]
    turned.calc = SinglePointCalculator(turned, energy=-30.0, forces=np.zeros((2, 3)), stress=STRESS)
    files = pair(tmp_path, [low], [turned])
    dataset = open_dataset(import_extxyz(*files, tmp_path / "out", keys=Keys(structure_id="run")).path)
    assert list(dataset.pairs["pairing"]) == ["same structure"]


@pytest.mark.parametrize(("order", "shears"), [("voigt", (1, 2, 3)), ("vasp", (2, 3, 1))])
def test_six_numbers_of_a_stress_have_the_order_that_is_said(tmp_path, order, shears):
    atoms = crystal(-10.0)
    atoms.calc = SinglePointCalculator(atoms, energy=-10.0, forces=np.zeros((2, 3)))
    atoms.info["dft_stress"] = np.array([10.0, 20, 30, 1, 2, 3])
    keys = Keys(stress="dft_stress", stress_unit="kbar", stress_order=order)
    ase.io.write(tmp_path / "high.xyz", [atoms], format="extxyz")
    dataset = open_dataset(import_extxyz(None, tmp_path / "high.xyz", tmp_path / "out", keys=keys).path)
    yz, xz, xy = (0.1 * value for value in shears)
    assert dataset.frames.to_pylist()[0]["stress_gpa"] == pytest.approx([1, xy, xz, xy, 2, yz, xz, yz, 3])


def test_what_ase_has_ordered_is_read_in_ases_order(tmp_path):
    files = pair(tmp_path)
    keys = Keys(stress_order="vasp")
    row = open_dataset(import_extxyz(*files, tmp_path / "out", keys=keys).path).frames.to_pylist()[0]
    xx, yy, zz, yz, xz, xy = STRESS * 160.21766208
    assert row["stress_gpa"] == pytest.approx([xx, xy, xz, xy, yy, yz, xz, yz, zz])
    with pytest.raises(DatasetError, match="stress order 'abc' is none of voigt, vasp"):
        import_extxyz(*files, tmp_path / "other", keys=Keys(stress_order="abc"))
