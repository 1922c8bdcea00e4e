"""Who is who in an import: ids are text, pairs of one composition, atoms in a box no crystals, labels are named."""

import json
import re

import ase
import ase.db
import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from typer.testing import CliRunner

from crossfunc.cli import app
from crossfunc.datasets import DatasetError, open_dataset
from crossfunc.datasets.importers.extxyz import Keys, entry_text, import_extxyz
from crossfunc.datasets.importers.frame_rows import RowError
from crossfunc.datasets.importers.mp_r2scan import import_mp_frames


def block(symbols="Li F", energy=-10.0, edge=4.0, comment="", columns="", cells=()):
    """One frame of extended XYZ: atoms along the diagonal of a cube, and what else is given as text."""
    symbols = symbols.split()
    lines = [f"{s} {' '.join([f'{edge * k / len(symbols):.4f}'] * 3)}" for k, s in enumerate(symbols)]
    lines = [f"{line} {' '.join(map(str, more))}" for line, more in zip(lines, cells, strict=True)] if cells else lines
    lattice = f'Lattice="{edge} 0 0 0 {edge} 0 0 0 {edge}" pbc="T T T"'
    properties = f"Properties=species:S:1:pos:R:3{columns}"
    return "\n".join([str(len(symbols)), f"{lattice} energy={energy} {comment} {properties}", *lines, ""])


def load(folder, high, low=None, **keys):
    files = []
    for name, content in (("low", low), ("high", high)):
        files.append(None if content is None else folder / f"{name}.xyz")
        if content is not None:
            files[-1].write_text("".join(content))
    return import_extxyz(*files, folder / "out", keys=Keys(**keys))


def materials(summary):
    return open_dataset(summary.path).frames["material_id"].to_pylist()


# --- ids are text ---


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ('material="225 1"', "225 1"),  # an array to ASE
        ("material=1_10", "1_10"),  # 110 to Python
        ("material=007", "007"),  # 7
        ("material=1e5", "1e5"),  # 100000.0
        ("material=T", "T"),  # True
        ('material="F F T"', "F F T"),  # a list of truth values
        ("material={3 4}", "3 4"),  # an array in braces
        ("material=[5,6]", "5,6"),
        ('material="_JSON [1, 2]"', "_JSON [1, 2]"),
        ("material=a=b", "a=b"),
        (r"material=\"quoted\"", '"quoted"'),
        ("material='NaN'", "NaN"),
        ("material=12345678901234567890123", "12345678901234567890123"),
        ("material=0x1F", "0x1F"),
        ("material=Δ-1", "Δ-1"),
    ],
)
def test_an_id_is_the_text_that_stands_in_the_file(tmp_path, written, text):
    assert materials(load(tmp_path, [block(comment=written)], material_id="material")) == [text]


@pytest.mark.parametrize(
    ("comment", "message"),
    [
        ("", "no material in the comment line"),
        ("material=", "no material in the comment line"),
        ("material", "no material in the comment line"),  # a flag, True to ASE
        ("material=a material=b", "material occurs twice in the comment line"),
    ],
)
def test_a_frame_without_one_id_is_left_out_by_name(tmp_path, comment, message):
    summary = load(tmp_path, [block(comment="material=x")] * 2 + [block(comment=comment)], material_id="material")
    assert open_dataset(summary.path).rejected["reason"].tolist() == [message]


def test_entries_are_cut_as_ase_cuts_them():
    from ase.io.extxyz import key_val_str_to_dict

    line = r"""a="1 2" b='x y' c={x = 1} d=[1 2] e f=g=h  i = 7 "j k"=l m=\"n\" o=1_0 Properties=species:S:1 p="" """
    for key, value in key_val_str_to_dict(line).items():
        text = entry_text(line, key)
        if isinstance(value, str):
            assert text == value, key
        elif text is not None:  # a flag has no text
            assert np.all(np.array(re.findall(r"[^\s,]+", text), dtype=float) == value), key
    assert entry_text(line, "nothing") is None
    with pytest.raises(RowError, match="a occurs twice"):
        entry_text("a=1 a=2", "a")


@pytest.mark.parametrize(
    ("value", "text"), [("mat-7", "mat-7"), (110, "110"), (1.0, None), (np.array([225, 1]), None), (True, None)]
)
def test_an_id_in_a_database_is_text_or_a_whole_number(tmp_path, value, text):
    atoms = ase.Atoms("LiF", scaled_positions=[[0] * 3, [0.5] * 3], cell=[4.0] * 3, pbc=True)
    atoms.calc = SinglePointCalculator(atoms, energy=-10.0)
    with ase.db.connect(tmp_path / "high.db") as database:
        database.write(atoms, data={"material": value})
    keys = Keys(material_id="material")
    if text is None:
        with pytest.raises(DatasetError, match="which is no id; store it as text"):
            import_extxyz(None, tmp_path / "high.db", tmp_path / "out", keys=keys)
    else:
        assert materials(import_extxyz(None, tmp_path / "high.db", tmp_path / "out", keys=keys)) == [text]


# --- pairs agree in composition ---


def test_ids_that_python_takes_for_one_number_stay_two_materials(tmp_path):
    low = [block(energy=-9.7, comment="material=1_10"), block("Mg O", -12.0, comment="material=11_0")]
    high = [block(energy=-29.7, edge=3.9, comment="material=1_10"), block("Mg O", -25, 3.9, comment="material=11_0")]
    pairs = open_dataset(load(tmp_path, high, low, material_id="material").path).pairs.set_index("material_id")
    assert pairs["low_energy_per_atom_ev"].to_dict() == {"1_10": -4.85, "11_0": -6.0}


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        ([block("Mg O", -12)], [block("Na Cl", -40)], ("NaCl", "MgO")),
        ([block("Li F")], [block("F Li"), block("Mg O", edge=3.9)], ("LiF", "MgO")),
        ([block("Fe O"), block("Fe Fe O O O", edge=6.0)], [block("Fe O")], ("FeO", "Fe2O3")),
        (None, [block("Na Cl"), block("Na")], ("NaCl", "Na")),
        ([block("Na Cl")], [block("Na Cl Cl", edge=6.0)], ("NaCl", "NaCl2")),
    ],
)
@pytest.mark.parametrize("role", ["material_id", "structure_id"])
def test_a_key_that_different_compositions_share_is_refused_with_both(tmp_path, low, high, words, role):
    low, high = ([b.replace(" Properties", " tag=x Properties") for b in some or []] for some in (low, high))
    with pytest.raises(DatasetError, match=r"tag 'x' names .* and .*energies of different compositions") as caught:
        load(tmp_path, high, low or None, **{role: "tag"})
    assert all(re.search(rf"\b{word} \(frame", str(caught.value)) for word in words)
    assert not (tmp_path / "out").exists()


def test_one_structure_under_two_materials_is_not_paired_but_told(tmp_path):
    low = [block(energy=-9, comment="material=a"), block("Mg O", -12, comment="material=c")]
    high = [block(energy=-29, comment="material=b"), block("Mg O", -25, comment="material=c")]
    dataset = open_dataset(load(tmp_path, high, low, material_id="material").path)
    assert dataset.frames.num_rows == 4
    assert dataset.pairs["material_id"].tolist() == ["c"]
    (row,) = dataset.rejected.to_dict("records")
    assert row["table"] == "pairs"
    assert row["reason"].startswith("structure id: material a in the low functional, b in the high one: frames kept")


def test_one_structure_under_two_materials_in_both_functionals_pairs_each_with_itself(tmp_path):
    low = [block(energy=-9, comment="material=a"), block(energy=-10, comment="material=b")]
    high = [block(energy=-30, comment="material=a"), block(energy=-29, comment="material=b")]
    dataset = open_dataset(load(tmp_path, high, low, material_id="material").path)
    pairs = dataset.pairs.set_index("material_id")
    assert pairs["low_energy_per_atom_ev"].to_dict() == {"a": -4.5, "b": -5.0}
    assert pairs["high_energy_per_atom_ev"].to_dict() == {"a": -15.0, "b": -14.5}
    assert set(pairs["pairing"]) == {"same structure"}


def test_a_supercell_is_of_the_same_composition(tmp_path):
    low = [block("Li F", -9.0, comment="material=a")]
    high = [block("Li Li F F", -40.0, 6.0, comment="material=a")]
    (pair,) = open_dataset(load(tmp_path, high, low, material_id="material").path).pairs.to_dict("records")
    assert (pair["low_energy_per_atom_ev"], pair["high_energy_per_atom_ev"]) == (-4.5, -10.0)


def test_without_keys_frames_of_one_formula_are_a_material_and_nothing_is_refused(tmp_path):
    summary = load(tmp_path, [block(), block("Mg O"), block("Mg")], [block(energy=-9), block("Mg O", -9)])
    assert (summary.n_materials, summary.n_pairs) == (3, 2)


# --- isolated atoms ---


def of(atoms, energy):
    atoms.calc = SinglePointCalculator(atoms, energy=energy)
    return atoms


def atom_in(lattice, symbol="Li", energy=-0.3):
    return of(ase.Atoms(symbol, cell=lattice, pbc=True), energy)


def load_atoms(folder, low, high):
    for name, some in (("low", low), ("high", high)):
        ase.io.write(folder / f"{name}.xyz", some, format="extxyz")
    return import_extxyz(folder / "low.xyz", folder / "high.xyz", folder / "out")


SKEWED = [[20.0, 0, 0], [19.0, 7.0, 0], [38.0, 7.0, 9.0]]  # the shortest vector, a - b, has 7.07 Å


@pytest.mark.parametrize("lattice", [np.eye(3) * 20, np.diag([6.1, 7, 30]), SKEWED], ids=["cube", "box", "skewed"])
def test_an_atom_in_a_box_is_no_ground_state_and_no_pair(tmp_path, lattice):
    crystals = [of(bulk("LiF", "rocksalt", a=a), e) for a, e in ((4.0, -9.7), (4.1, -9.6))]
    atoms = [atom_in(lattice, s) for s in ("Li", "F")]
    summary = load_atoms(tmp_path, [*crystals, *atoms], [*(of(c.copy(), -30.0) for c in crystals), *atoms])
    dataset = open_dataset(summary.path)
    assert dataset.frames.num_rows == 4
    assert dataset.elements is None
    assert dataset.pairs["material_id"].tolist() == ["FLi"]
    assert dataset.pairs["low_formation_energy_per_atom_ev"].isna().all()
    ledger = dataset.rejected.set_index("id")["reason"]
    assert ledger["low/low.xyz#2"].startswith("isolated atom of Li (no neighbour within 6 Å): no crystal")
    assert ledger["high/high.xyz#3"].startswith("isolated atom of F")
    assert "4 rows left out, listed in rejected.parquet (2 x isolated atom of" in str(summary)
    hull = CliRunner().invoke(app, ["hull", str(summary.path)]).output
    assert "no entry of the element Li, F" in hull


def test_a_crystal_beside_the_atom_is_the_ground_state(tmp_path):
    frames = [of(bulk("Li", "bcc", a=3.4), -2.0), atom_in(np.eye(3) * 20, energy=-9.0)]  # lower, and yet no crystal
    dataset = open_dataset(load_atoms(tmp_path, frames, [of(bulk("Li", "bcc", a=3.4), -3.0)]).path)
    assert dataset.elements["energy_per_atom_ev"].tolist() == [-2.0, -3.0] or sorted(
        dataset.elements["energy_per_atom_ev"]
    ) == [-3.0, -2.0]


@pytest.mark.parametrize(
    "lattice",
    [
        bulk("Cs", "bcc", a=6.14).cell.array,  # 5.3 Å to the nearest
        bulk("Xe", "fcc", a=6.2).cell.array,
        np.diag([2.5, 20.0, 20.0]),  # a chain
        np.diag([5.9, 30.0, 30.0]),
        [[20.0, 0, 0], [20.0, 3.0, 0], [0, 0, 20.0]],  # b - a has 3 Å
    ],
    ids=["caesium", "xenon", "chain", "sparse chain", "skewed chain"],
)
def test_an_atom_with_a_neighbour_in_reach_is_a_crystal(tmp_path, lattice):
    dataset = open_dataset(load_atoms(tmp_path, [atom_in(lattice)], [atom_in(lattice, energy=-5.0)]).path)
    assert sorted(dataset.frames["energy_per_atom_ev"].to_pylist()) == [-5.0, -0.3]
    assert dataset.rejected.empty
    is_empty = abs(np.linalg.det(lattice)) > 250  # Å³ an atom: a chain in a wide box is no ground state
    assert (dataset.elements is None) == is_empty
    assert is_empty or sorted(dataset.elements["energy_per_atom_ev"]) == [-5.0, -0.3]


def test_many_isolated_atoms_do_not_make_a_file_a_bad_one(tmp_path):
    crystal = [of(bulk("LiF", "rocksalt", a=4.0), -9.7)]
    atoms = [atom_in(np.eye(3) * 15, symbol) for symbol in ("H", "Li", "F", "Fe", "Pu")]
    summary = load_atoms(tmp_path, [*crystal, *atoms], [*crystal, *atoms])
    assert (summary.n_frames, summary.n_rejected) == (2, 10)


def test_a_file_of_isolated_atoms_alone_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="2 x isolated atom of Li"):
        load_atoms(tmp_path, [atom_in(np.eye(3) * 15)], [atom_in(np.eye(3) * 15, energy=-1.0)])
    assert not (tmp_path / "out").exists()


# --- labels under another name ---


def with_columns(columns, cells, comment=""):
    return block(columns=columns, cells=cells, comment=comment)


FORCES = [(0.1, 0.2, 0.3), (-0.1, -0.2, -0.3)]
NINE = '"1 2 3 2 5 6 3 6 9"'


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (
            with_columns(":force:R:3", FORCES, f"virial={NINE}"),
            [
                "virial (9 numbers): --stress-key virial --stress-unit ev-virial",
                "force (3 numbers per atom): --forces-key",
            ],
        ),
        (with_columns(":REF_forces:R:3", FORCES), ["REF_forces (3 numbers per atom): --forces-key REF_forces"]),
        (block(comment=f"dft_stress={NINE}"), ["dft_stress (9 numbers): --stress-key dft_stress\n"]),
        (block(comment='voigt="1 2 3 4 5 6"'), ["voigt (6 numbers): --stress-key voigt"]),
        (with_columns(":spins:R:1", [(1.5,), (0.0,)]), ["spins (a number per atom): --magmoms-key spins"]),
        (with_columns(":magnetisation:R:3", FORCES), ["magnetisation (3 numbers per atom): --magmoms-key"]),
        (block("Li F O", comment=f"virials={NINE}"), ["virials (9 numbers): --stress-key virials --stress-unit ev-v"]),
        (
            block("Li F O", columns=":f:R:3", cells=[(1.5, 2, 3)] * 3),  # three atoms: 3 x 3, and no tensor
            ["f (3 numbers per atom): --forces-key f"],
        ),
    ],
)
def test_columns_that_look_like_missing_labels_are_named_before_anything_is_written(tmp_path, content, lines):
    with pytest.raises(DatasetError, match="look like labels and are not read") as caught:
        load(tmp_path, [content])
    assert all(line in str(caught.value) for line in lines)
    assert not (tmp_path / "out").exists()


def test_what_is_left_out_knowingly_is_noted_no_more(tmp_path):
    content = with_columns(":force:R:3", FORCES, f"virial={NINE}")
    summary = load(tmp_path, [content], leave_out=("force", "virial"))
    frames = open_dataset(summary.path).frames
    assert frames["forces_ev_per_a"].null_count == frames["stress_gpa"].null_count == 1
    assert summary.notes == []


def test_what_is_named_is_read(tmp_path):
    content = with_columns(":force:R:3", FORCES, f"virial={NINE}")
    summary = load(tmp_path, [content], forces="force", stress="virial", stress_unit="ev-virial")
    (row,) = open_dataset(summary.path).frames.to_pylist()
    assert row["forces_ev_per_a"] == pytest.approx(np.ravel(FORCES))
    expected = -np.array([1, 2, 3, 2, 5, 6, 3, 6, 9]) / 64.0 * 160.21766208  # -W / V, V = 4 Å cubed
    assert row["stress_gpa"] == pytest.approx(expected)
    other = open_dataset(
        import_extxyz(
            None,
            tmp_path / "high.xyz",
            tmp_path / "other",
            keys=Keys(forces="force", stress="virial", stress_unit="ev-virial-tension"),
        ).path
    )
    assert other.frames["stress_gpa"][0].as_py() == pytest.approx(-expected)


def test_other_numbers_an_atom_are_noted_and_keep_nothing_from_being_written(tmp_path):
    content = with_columns(":forces:R:3:local_q:R:1:force_other:R:3", [(*f, 0.5, *f) for f in FORCES])
    summary = load(tmp_path, [content])
    assert summary.notes == ["high.xyz: not read: local_q (a number per atom), force_other (3 numbers per atom)"]
    assert "note: high.xyz: not read: local_q" in str(summary)


def test_labels_in_a_database_are_named_as_well(tmp_path):
    atoms = of(bulk("LiF", "rocksalt", a=4.0), -9.0)
    with ase.db.connect(tmp_path / "high.db") as database:
        database.write(atoms, data={"vasp_forces": np.zeros((2, 3)), "vasp_stress": np.zeros((3, 3))})
    with pytest.raises(DatasetError, match=r"vasp_forces .*--forces-key vasp_forces\n .*vasp_stress .*--stress-key"):
        import_extxyz(None, tmp_path / "high.db", tmp_path / "out")


def test_an_unknown_unit_names_the_virials_too(tmp_path):
    with pytest.raises(ValueError, match=r"stress unit 'bar' is none of .*ev-virial, ev-virial-tension"):
        load(tmp_path, [block()], stress_unit="bar")


# --- moments of three numbers, species, elements ---

VECTORS = [(0.3, 0.4, 1.2), (0.0, 0.0, -2.0)]


@pytest.mark.parametrize(
    ("moments", "values"), [("length", [1.3, 2.0]), ("x", [0.3, 0.0]), ("y", [0.4, 0.0]), ("z", [1.2, -2.0])]
)
def test_three_numbers_a_moment_are_read_as_asked(tmp_path, moments, values):
    content = with_columns(":magmoms:R:3", VECTORS)
    frames = open_dataset(load(tmp_path, [content], moments=moments).path).frames
    assert frames["magmoms_mub"][0].as_py() == pytest.approx(values)


@pytest.mark.parametrize(
    ("columns", "cells", "moments", "message"),
    [
        (":magmoms:R:3", VECTORS, "number", "non-collinear.*--moments length.*--moments x, y or z"),
        (":magmoms:R:1", [(1.0,), (2.0,)], "length", r"shape \(2,\), where --moments length reads three"),
        (":magmoms:R:1", [(1.0,), (2.0,)], "norm", "moments 'norm' is none of number, length, x, y, z"),
        (":magmoms:R:2", [(1.0, 2.0), (2.0, 1.0)], "number", "magmoms needs 2 numbers, found 4"),
    ],
)
def test_moments_of_another_shape_are_refused_with_the_way_out(tmp_path, columns, cells, moments, message):
    with pytest.raises(DatasetError, match=message):
        load(tmp_path, [with_columns(columns, cells)], moments=moments)


@pytest.mark.parametrize(
    ("symbols", "named"), [("Am O", r"Am \(Z = 95\)"), ("Og", r"Og \(Z = 118\)"), ("X Li", r"X \(Z = 0\)")]
)
def test_elements_beyond_the_table_are_left_out_by_name(tmp_path, symbols, named):
    summary = load(tmp_path, [block(), block(symbols), block("Mg O")])
    (row,) = open_dataset(summary.path).rejected.to_dict("records")
    assert row["id"] == "high/high.xyz#1"
    assert re.search(rf"unknown element {named}; only 94", row["reason"])


def json_frame(elements=("Li", "F"), **changes):
    sites = [{"species": [{"element": e, "occu": 1}], "abc": [k / 2] * 3} for k, e in enumerate(elements)]
    return {
        "structure": {"lattice": {"matrix": (4.0 * np.eye(3)).tolist()}, "sites": sites},
        "energy_per_atom": -5.0,
        "force": [[0.0] * 3] * len(elements),
        "stress": [[0.0] * 3] * 3,
        "magmom": None,
    } | changes


@pytest.mark.parametrize(
    ("elements", "numbers"),
    [
        (("Li+", "F-"), [3, 9]),
        (("Fe3+", "O2-"), [26, 8]),
        (("Fe3+,spin=5", "O2-,spin=0"), [26, 8]),
        (("Mn,spin=-1", "F"), [25, 9]),
        (("Ni2.5+", "Na0+"), [28, 11]),
    ],
)
def test_species_with_charge_and_spin_are_their_elements(tmp_path, elements, numbers):
    (tmp_path / "a.json").write_text(json.dumps({"mp-1": {"f": json_frame(elements)}}))
    frames = open_dataset(import_mp_frames(tmp_path / "a.json", tmp_path / "out").path).frames
    assert frames["atomic_numbers"][0].as_py() == numbers


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (json_frame(("Am3+", "F")), r"unknown element 'Am3\+'; only 94"),
        (json_frame(("X0+", "F")), r"unknown element 'X0\+'"),
        (json_frame(("Fe3", "F")), "unknown element 'Fe3'"),
        (json_frame(()), "structure has no sites"),
        (json_frame(magmom=[[0, 0, 1.0], [0, 0, 2.0]]), r"three numbers each \(non-collinear moments\).*their lengths"),
    ],
)
def test_what_is_no_element_or_no_number_is_left_out_by_name(tmp_path, frame, reason):
    (tmp_path / "a.json").write_text(json.dumps({"mp-1": {"a": json_frame(), "b": frame, "c": json_frame()}}))
    dataset = open_dataset(import_mp_frames(tmp_path / "a.json", tmp_path / "out").path)
    (row,) = dataset.rejected.to_dict("records")
    assert re.search(reason, row["reason"])


# --- any size ---


@pytest.mark.parametrize("n", [3, 8])
def test_frames_that_are_all_large_are_checked_on_the_smallest_of_them(tmp_path, n):
    atoms = of(bulk("LiF", "rocksalt", a=4.0).repeat(4), -600.0)  # 128 atoms
    ase.io.write(tmp_path / "high.xyz", [atoms] * n, format="extxyz")
    seen = []
    import_extxyz(None, tmp_path / "high.xyz", tmp_path / "out", inspect=seen.append)
    assert [frames.num_rows for frames in seen] == [n]


def test_a_file_with_nothing_to_sample_is_imported_and_says_so(tmp_path):
    atoms = of(bulk("LiF", "rocksalt", a=4.0).repeat((8, 8, 8)), -5000.0)  # 1024 atoms
    ase.io.write(tmp_path / "high.xyz", [atoms], format="extxyz")
    summary = import_extxyz(None, tmp_path / "high.xyz", tmp_path / "out", inspect=pytest.fail)
    assert "units and signs were not measured: every frame has more than 1000 atoms" in str(summary)
    done = CliRunner().invoke(app, ["data", "check", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "units and signs were not measured" in done.output


def test_small_frames_are_preferred_to_large_ones():
    import pyarrow as pa

    from crossfunc.datasets.importers.import_run import Sample

    def table(sizes):
        numbers = pa.array([[3] * n for n in sizes], pa.list_(pa.int16()))
        functional = ["pbe"] * len(sizes)
        return pa.table({"material_id": [f"m{n}" for n in sizes], "functional": functional, "atomic_numbers": numbers})

    sample = Sample(n_large=2)
    sample.add(table([500, 300, 2000, 400]))
    assert sorted(sample.frames["material_id"].to_pylist()) == ["m300", "m400"]
    sample.add(table([150]))
    assert sorted(sample.frames["material_id"].to_pylist()) == ["m150", "m300"]
    sample.add(table([1, 100, 101]))
    assert sorted(sample.frames["material_id"].to_pylist()) == ["m1", "m100"]
    assert sample.note == ""


def rows_to_sample(materials, functionals, n_atoms=2):
    import pyarrow as pa

    n = len(materials)
    numbers = pa.array([[3] * n_atoms] * n, pa.list_(pa.int16()))
    columns = {"material_id": materials, "functional": functionals, "atomic_numbers": numbers}
    return pa.table(columns | {"frame_id": [f"f{k}" for k in range(n)]})


def sampled(table, batch, **options):
    from crossfunc.datasets.importers.import_run import Sample

    sample = Sample(**options)
    for start in range(0, table.num_rows, batch):
        sample.add(table.slice(start, batch))
    return sample.frames.to_pandas()


@pytest.mark.parametrize("batch", [3, 100, 1000])
def test_a_sample_holds_few_frames_of_a_material_over_all_batches(batch):
    table = rows_to_sample(["a"] * 400 + ["b"] * 400 + ["c"] * 5, ["pbe"] * 805)
    found = sampled(table, batch, n_frames=40, n_per_material=16)
    assert found["material_id"].value_counts().to_dict() == {"a": 16, "b": 16, "c": 5}
    assert found["frame_id"].tolist() == [f"f{k}" for k in [*range(16), *range(400, 416), *range(800, 805)]]


@pytest.mark.parametrize("batch", [7, 1000])
@pytest.mark.parametrize("n_high", [300, 10])
def test_a_sample_has_a_fair_share_of_the_functional_that_comes_second(batch, n_high):
    names = [f"m{k}" for k in range(300)]
    table = rows_to_sample(names + names[:n_high], ["pbe"] * 300 + ["r2scan"] * n_high)
    found = sampled(table, batch, n_frames=50)
    shares = found["functional"].value_counts().to_dict()
    assert shares == ({"pbe": 25, "r2scan": 25} if n_high == 300 else {"pbe": 40, "r2scan": 10})
    of = {name: set(some["material_id"]) for name, some in found.groupby("functional")}
    assert n_high == 10 or of["pbe"] == of["r2scan"]


def test_large_crystals_stand_in_for_the_functional_that_has_no_small_one():
    import pyarrow as pa

    small = rows_to_sample([f"m{k}" for k in range(9)], ["pbe"] * 9)
    large = rows_to_sample([f"m{k}" for k in range(9)], ["r2scan"] * 9, n_atoms=200)
    for table in (pa.concat_tables([small, large]), pa.concat_tables([large, small])):
        assert sampled(table, 4, n_large=3)["functional"].value_counts().to_dict() == {"pbe": 9, "r2scan": 3}


def test_the_smallest_and_the_largest_cell_stand_side_by_side(tmp_path):
    frames = [of(bulk("Li", "bcc", a=3.4), -2.0), of(bulk("LiF", "rocksalt", a=4.0).repeat((8, 8, 8)), -5000.0)]
    ase.io.write(tmp_path / "high.xyz", frames, format="extxyz")
    seen = []
    summary = import_extxyz(None, tmp_path / "high.xyz", tmp_path / "out", inspect=seen.append)
    assert summary.n_frames == 2
    assert seen[0].num_rows == 1


@pytest.mark.parametrize(
    ("symbols", "edge", "places", "is_isolated"),
    [
        ("F2", 20.0, [[0, 0, 0], [10, 10, 10]], True),  # 17.3 Å apart: no molecule
        ("N2", 13.0, [[0, 0, 0], [6.1, 0, 0]], True),
        ("Li2", 7.8, [[0, 0, 0], [3.9, 3.9, 3.9]], True),  # bcc with 6.75 Å to the nearest
        ("LiF", 20.0, [[0, 0, 0], [7, 0, 0]], True),
        ("Li8", 13.0, [[6.5 * x, 6.5 * y, 6.5 * z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], True),
        ("N2", 12.0, [[0, 0, 0], [1.1, 0, 0]], False),
        ("Li2", 6.8, [[0, 0, 0], [3.4, 3.4, 3.4]], False),  # 5.9 Å
    ],
)
def test_several_atoms_in_a_box_each_alone_are_no_ground_state(tmp_path, symbols, edge, places, is_isolated):
    frame = of(ase.Atoms(symbols, places, cell=[edge] * 3, pbc=True), -9.0)
    crystal = of(bulk("LiF", "rocksalt", a=4.0), -9.7)
    dataset = open_dataset(load_atoms(tmp_path, [frame, crystal], [frame, crystal]).path)
    assert dataset.frames.num_rows == (2 if is_isolated else 4)
    assert (dataset.elements is None) == is_isolated
    assert dataset.rejected["reason"].str.startswith("isolated atom of").tolist() == [True] * 2 * is_isolated
