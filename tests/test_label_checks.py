"""What labels are is measured: units and signs, per atom or total, raw or corrected, which element."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from crossfunc.datasets import check_dataset, open_dataset
from crossfunc.datasets.frame_checks import find_frame_faults
from crossfunc.datasets.importers.extxyz import STRESS_ORDERS
from crossfunc.label_checks import faults, units
from crossfunc.units import EV_PER_A3_TO_GPA, STRESS_UNITS


@pytest.fixture(scope="module")
def frames():
    """Some small r2SCAN frames of several materials, with forces and stresses, from the embedded dataset."""
    table = open_dataset("surrogate", verify=False).frames
    table = table.filter(pc.and_(pc.equal(table["functional"], "r2scan"), pc.is_valid(table["stress_gpa"])))
    n_atoms = table["atomic_numbers"].combine_chunks().value_lengths().to_numpy()
    table = table.filter(pa.array((n_atoms >= 4) & (n_atoms <= 6)))
    moved = [not i.endswith(("relaxed/r2scan", "strained/r2scan")) for i in table["frame_id"].to_pylist()]
    return table.filter(pa.array(moved)).take(pa.array(range(0, 400, 10)))


@pytest.fixture(scope="module")
def model():
    return faults.load_model("r2scan")


@pytest.fixture(scope="module")
def labels(frames, model):
    return faults.read_labels(frames, model)


def only(findings):
    (finding,) = findings
    return finding


# --- scale ---


def scale_of(factor, n=16, n_materials=8, noise=0.0, *, zeros=0):
    """What is measured of labels that are a factor times what the model says, on stresses of two sizes."""
    random = np.random.default_rng(0)
    predictions = [random.normal(size=(3, 3)) * (1 if k % 2 else 3) for k in range(n)]
    labels = [factor * x + noise * random.normal(size=(3, 3)) for x in predictions]
    labels[:zeros] = [np.zeros((3, 3))] * zeros
    return units.scale_against_model(labels, predictions, np.array([f"m{k % n_materials}" for k in range(n)]))


@pytest.mark.parametrize("factor", [1.0, -0.1, 160.2])
def test_factor_and_sign_of_labels_are_measured_against_a_model(factor):
    found = scale_of(factor)
    assert found.is_conclusive
    assert found.factor == pytest.approx(factor)
    assert found.cosine == pytest.approx(np.sign(factor))
    assert found.n == 8  # the stronger half
    assert found.spread == pytest.approx(0, abs=1e-9)


def test_labels_that_scatter_about_the_model_have_a_spread_and_labels_of_noise_say_nothing():
    assert 0 < scale_of(1.0, noise=0.3).spread < 0.5
    assert not scale_of(0.0, noise=1.0).is_conclusive


def test_frames_without_a_direction_are_passed_over_and_few_frames_say_nothing():
    assert scale_of(2.0, zeros=4).n == 6  # half of twelve
    few = scale_of(2.0, n=units.MIN_FRAMES + 3, zeros=4)
    assert (few.n, few.is_conclusive) == (units.MIN_FRAMES - 1, False)
    assert np.isnan(few.factor)


def test_many_frames_of_one_material_are_one_vote():
    assert not scale_of(1.0, n_materials=1).is_conclusive


# --- stress ---


def test_good_stresses_are_told_to_be_good(labels):
    finding = only(faults.check_stress(labels, "vasp-kbar"))
    assert finding.level == "info"
    assert "GPa, tension positive, as measured" in finding.message


@pytest.mark.parametrize("declared", STRESS_UNITS)
@pytest.mark.parametrize("true", STRESS_UNITS)
def test_a_unit_declared_wrongly_is_recognised_and_the_right_one_named(labels, declared, true):
    raw = labels.stress_gpa / STRESS_UNITS[true]
    wrong = dataclasses.replace(labels, stress_gpa=raw * STRESS_UNITS[declared])
    finding = only(faults.check_stress(wrong, declared))
    if declared == true:
        assert finding.level == "info"
    else:
        assert finding.level == "error"
        assert f"read as {declared}, but the source has {true}: import with --stress-unit {true}." in finding.message


def test_a_table_that_is_there_already_gets_the_factor_that_mends_it(labels):
    wrong = dataclasses.replace(labels, stress_gpa=labels.stress_gpa * -10)
    assert "multiply by -0.1" in only(faults.check_stress(wrong)).message


def test_shears_in_the_order_of_vasp_are_found_and_the_option_is_named(labels):
    order = STRESS_ORDERS["vasp"]
    voigt = labels.stress_gpa.reshape(-1, 9)[:, [0, 4, 8, 1, 5, 2]]  # xx yy zz xy yz zx, as VASP writes them
    read_as_ase = voigt[:, STRESS_ORDERS["voigt"]].reshape(-1, 3, 3)
    finding = only(faults.check_stress(dataclasses.replace(labels, stress_gpa=read_as_ase), "vasp-kbar"))
    assert finding.level == "error"
    assert "--stress-order vasp" in finding.message
    right = voigt[:, order].reshape(-1, 3, 3)
    assert only(faults.check_stress(dataclasses.replace(labels, stress_gpa=right), "vasp-kbar")).level == "info"


def as_virial(labels, sign=-1.0, declared="ev/a3"):
    """The labels of a file that holds virials, read as a stress in some unit."""
    volumes = np.abs(np.linalg.det(labels.crystals.lattices_a))[:, None, None]
    virials = sign * volumes * labels.stress_gpa / EV_PER_A3_TO_GPA
    return dataclasses.replace(labels, stress_gpa=virials * STRESS_UNITS[declared])


@pytest.mark.parametrize(("sign", "unit"), [(-1.0, "ev-virial"), (1.0, "ev-virial-tension")])
@pytest.mark.parametrize("declared", ["ev/a3", "gpa", "vasp-kbar", "ev/a3-compression"])
def test_virials_are_recognised_and_the_option_that_reads_them_named(labels, sign, unit, declared):
    finding = only(faults.check_stress(as_virial(labels, sign, declared), declared, use_energies=False))
    assert finding.level == "error"
    assert f"--stress-unit {unit}." in finding.message


def test_virials_in_a_dataset_are_told_without_the_unit_they_were_read_with(labels):
    finding = only(faults.check_stress(as_virial(labels), use_energies=False))
    assert (finding.level, "a virial, -V x stress in eV" in finding.message) == ("error", True)


def test_virials_in_cells_of_one_volume_are_recognised_too(labels):
    volumes = np.abs(np.linalg.det(labels.crystals.lattices_a))
    scaled = labels.crystals.lattices_a * (150.0 / volumes)[:, None, None] ** (1 / 3)
    same = dataclasses.replace(labels, crystals=dataclasses.replace(labels.crystals, lattices_a=scaled))
    finding = only(faults.check_stress(as_virial(same), "ev/a3-compression", use_energies=False))
    assert finding.level == "error"  # 150 is near 160: either a virial or GPa, and in neither case right as it stands


@pytest.mark.parametrize(
    ("declared", "factor", "words"),
    [
        ("ev-virial", -1.0, "the source has ev-virial-tension"),
        ("ev-virial-tension", -1.0, "the source has ev-virial:"),
        ("ev-virial", 1.0, "GPa, tension positive, as measured"),
        ("ev-virial", 0.01, "in no known unit"),
    ],
)
def test_what_was_read_as_a_virial_is_held_to_it(labels, declared, factor, words):
    wrong = dataclasses.replace(labels, stress_gpa=labels.stress_gpa * factor)
    finding = only(faults.check_stress(wrong, declared, use_energies=False))
    assert words in finding.message
    assert finding.level == ("info" if factor == 1 else "error")


@pytest.mark.parametrize("factor", [37.0, -37.0, 1 / 37.0])
def test_a_scale_that_is_measured_and_fits_no_unit_is_refused(labels, factor):
    wrong = dataclasses.replace(labels, stress_gpa=labels.stress_gpa * factor)
    finding = only(faults.check_stress(wrong, "gpa", use_energies=False))
    assert finding.level == "error"
    assert "in no known unit" in finding.message
    assert "Look up what the source writes" in finding.message


def test_a_model_that_is_merely_soft_refuses_nothing(labels):
    soft = dataclasses.replace(labels, stress_gpa=labels.stress_gpa * 3)
    assert only(faults.check_stress(soft, "gpa", use_energies=False)).level == "warning"


@pytest.mark.parametrize(
    ("factor", "name"),
    [
        (23.06, "kcal/mol/Å"),
        (96.49, "kJ/mol/Å"),
        (1 / 51.42, "Hartree/Bohr"),
        (1 / 25.71, "Rydberg/Bohr"),
        (1e3, "meV/Å"),
    ],
)
def test_forces_in_another_unit_come_with_a_guess(labels, factor, name):
    wrong = dataclasses.replace(labels, forces_ev_per_a=[f * factor for f in labels.forces_ev_per_a])
    finding = next(f for f in faults.check_forces(wrong) if f.level == "error")
    assert f"another unit, perhaps {name}" in finding.message


@pytest.mark.parametrize(("factor", "name"), [(23.06, "kcal/mol"), (96.49, "kJ/mol")])
def test_energies_of_chemists_are_recognised(labels, factor, name):
    wrong = dataclasses.replace(labels, energy_per_atom_ev=labels.energy_per_atom_ev * factor)
    (finding,) = faults.check_energies(wrong)
    assert (finding.level, f"not eV/atom but {name}" in finding.message) == ("error", True)


def test_without_stresses_there_is_nothing_to_tell(labels):
    none = dataclasses.replace(labels, stress_gpa=np.full_like(labels.stress_gpa, np.nan))
    assert only(faults.check_stress(none)).message == "no labels"


def test_random_stresses_are_left_open_with_a_warning(labels):
    noise = np.random.default_rng(0).normal(size=labels.stress_gpa.shape)
    finding = only(faults.check_stress(dataclasses.replace(labels, stress_gpa=noise), use_energies=False))
    assert finding.level == "warning"
    assert "cannot be told" in finding.message


def spring(factor=1.0, n=12):
    """Labels of a crystal with E = k/2 (V - V0)^2 / V0 along its volume: stress = dE/dV, no forces."""
    edges = np.linspace(3.9, 4.1, n)
    volumes, v0, k = edges**3, 4.0**3, 0.5
    crystals = faults.Crystals.from_arrays(([3, 9], [[0] * 3, [0.5] * 3], np.eye(3) * a) for a in edges)
    pressure = k * (volumes - v0) / v0  # eV/Å³
    stress = pressure[:, None, None] * np.eye(3) * EV_PER_A3_TO_GPA * factor
    nothing, names = [np.zeros((2, 3))] * n, np.array([f"f{i}" for i in range(n)])
    energy = k / 2 * (volumes - v0) ** 2 / v0 / 2
    unknown = np.full(n, np.nan)
    return faults.Labels(
        *(crystals, names, np.array(["m"] * n), energy, nothing, stress, unknown),
        *([np.full((2, 3), np.nan)] * n, np.full((n, 3, 3), np.nan)),
    )


@pytest.mark.parametrize("factor", [1.0, -1.0, 10.0, -0.1, 1 / EV_PER_A3_TO_GPA])
def test_the_slope_of_the_energy_gives_unit_and_sign_without_a_model(factor):
    scale = units.stress_scale_from_energies(spring(factor))
    assert scale.is_conclusive
    assert scale.factor == pytest.approx(factor, rel=0.05)
    assert only(faults.check_stress(spring(factor))).level == ("info" if factor == 1 else "error")


# --- energies ---


def test_frames_of_one_material_at_very_different_places_spoil_no_measurement():
    """Labels that agree with finite differences: rattled frames beside each other once made them 0.6 x dE, unsure."""
    frames = open_dataset("pbe-r2scan", verify=False).frames
    for functional in ("pbe", "r2scan"):
        some = units.read_labels(frames.filter(pc.equal(frames["functional"], functional)))
        scale = units.stress_scale_from_energies(some)
        assert scale.is_conclusive
        assert scale.cosine > 0.99
        assert scale.factor == pytest.approx(1, abs=0.05)
        assert scale.n > 200
        wrong = dataclasses.replace(some, stress_gpa=-0.1 * some.stress_gpa)
        assert units.stress_scale_from_energies(wrong).factor == pytest.approx(-0.1, abs=0.005)


def test_a_cell_and_the_same_one_larger_and_smaller_by_three_percent_tell_the_stress():
    """Equilibrium against both strained cells of a material, its rattled frames in between."""
    frames = open_dataset("pbe-r2scan", verify=False).frames
    kinds = pc.is_in(frames["source"], pa.array(["equilibrium", "volume"]))
    frames = frames.filter(pc.and_(pc.equal(frames["functional"], "pbe"), kinds))
    scale = units.stress_scale_from_energies(units.read_labels(frames))
    assert scale.factor == pytest.approx(1, abs=0.03)
    assert scale.cosine > 0.999


def test_a_sample_of_labels_with_their_own_zero_tells_per_atom_from_total():
    """The sample once held fewer materials than elements, of a dataset with many."""
    report = faults.add_label_findings(check_dataset("pbe-r2scan"), open_dataset("pbe-r2scan", verify=False))
    said = {finding.file: finding for finding in report.findings}
    for functional in ("pbe", "r2scan"):
        assert said[f"{functional} energy_per_atom_ev"].message.startswith("eV/atom: the median distance")
        assert said[f"{functional} stress_gpa"].message.startswith("GPa, tension positive, as measured")
        assert "cannot be told" not in said[f"{functional} stress_gpa"].message


def test_good_energies_are_told_to_be_good(labels):
    assert only(faults.check_energies(labels)).level == "info"


@pytest.mark.parametrize(
    ("convert", "name"),
    [
        (lambda e, n: e * n, "the total energy of the cell"),
        (lambda e, n: e * 1000, "meV/atom"),
        (lambda e, n: e / 27.211386246, "Hartree/atom"),
        (lambda e, n: e / 13.605693123, "Rydberg/atom"),
    ],
)
def test_energies_in_another_unit_are_recognised(labels, convert, name):
    wrong = convert(labels.energy_per_atom_ev, labels.crystals.n_atoms)
    finding = only(faults.check_energies(dataclasses.replace(labels, energy_per_atom_ev=wrong)))
    assert finding.level == "error"
    assert f"not eV/atom but {name}" in finding.message


def test_shifts_of_every_element_are_no_error_where_energies_are_not_the_models_own(labels):
    shift = units._compositions(labels) @ np.linspace(-20, 20, 94)
    shifted = dataclasses.replace(labels, energy_per_atom_ev=labels.energy_per_atom_ev + shift)
    finding = only(faults.check_energies(shifted, absolute=False))
    assert finding.level in ("info", "warning")  # a warning where there are fewer materials than elements


def corrected_oxides(corrected):
    """Labels of eight rock-salt oxides on CHGNet 0.3.0's own scale, with the corrections left in or taken out."""
    from crossfunc.energies.corrections import mp2020_correction_per_atom_ev

    metals = [12, 20, 38, 56, 22, 23, 25, 28]
    crystals = faults.Crystals.from_arrays(
        ([z, 8], [[0] * 3, [0.5] * 3], 2.1 * (np.ones((3, 3)) - np.eye(3))) for z in metals
    )
    formulas = [crystals.formula(k) for k in range(8)]
    energy = np.linspace(-6, -9, 8)
    raw = energy - mp2020_correction_per_atom_ev(formulas)
    nothing, names = [np.full((2, 3), np.nan)] * 8, np.array(formulas)
    stress = np.full((8, 3, 3), np.nan)
    return faults.Labels(crystals, names, names, energy if corrected else raw, nothing, stress, energy, nothing, stress)


@pytest.mark.parametrize(
    ("corrected", "kind", "level"),
    [(True, "mp2020", "info"), (False, "raw", "info"), (False, "mp2020", "error"), (True, "raw", "error")],
)
def test_raw_and_corrected_energies_are_told_apart(corrected, kind, level):
    assert only(faults.check_corrections(corrected_oxides(corrected), kind)).level == level


# --- forces ---


def test_good_forces_are_told_to_be_good(labels):
    assert [f.level for f in faults.check_forces(labels)] == ["info"]


@pytest.mark.parametrize(
    ("factor", "word"), [(-1.0, "opposite sign"), (1 / 51.4, "another unit"), (25.7, "another unit")]
)
def test_gradients_and_atomic_units_are_recognised(labels, factor, word):
    wrong = dataclasses.replace(labels, forces_ev_per_a=[f * factor for f in labels.forces_ev_per_a])
    finding = next(f for f in faults.check_forces(wrong) if f.level == "error")
    assert word in finding.message


def test_a_net_force_is_told_with_its_rows(labels):
    pushed = [f + (0.2 if k == 3 else 0.0) for k, f in enumerate(labels.forces_ev_per_a)]
    findings = faults.check_forces(dataclasses.replace(labels, forces_ev_per_a=pushed))
    finding = next(f for f in findings if "net force" in f.message)
    assert (finding.level, finding.rows) == ("warning", (labels.ids[3],))


def test_forces_on_other_axes_than_the_structure_are_recognised():
    rng = np.random.default_rng(1)
    forces = [rng.normal(size=(8, 3)) for _ in range(10)]
    forces = [f - f.mean(axis=0) for f in forces]
    turned = [f @ np.linalg.qr(rng.normal(size=(3, 3)))[0] for f in forces]
    crystals = faults.Crystals.from_arrays(([3] * 8, np.zeros((8, 3)), np.eye(3)) for _ in range(10))
    names = np.array([f"m{k}" for k in range(10)])
    stress, unknown = np.full((10, 3, 3), np.nan), np.full(10, np.nan)
    labels = faults.Labels(crystals, names, names, unknown, turned, stress, unknown, forces, stress)
    assert any("different axes" in f.message for f in faults.check_forces(labels))
    straight = dataclasses.replace(labels, forces_ev_per_a=forces)
    assert not any("different axes" in f.message for f in faults.check_forces(straight))


# --- elements ---


def test_an_element_under_another_name_is_recognised(frames, labels, model):
    numbers = frames["atomic_numbers"].combine_chunks()
    values = numbers.flatten().to_numpy(zero_copy_only=False)
    z = np.bincount(values).argmax()
    other = {8: 16, 9: 17}.get(int(z), int(z) + 1)
    renamed = pa.ListArray.from_arrays(numbers.offsets, pa.array(np.where(values == z, other, values).astype(np.int16)))
    table = frames.set_column(frames.schema.get_field_index("atomic_numbers"), "atomic_numbers", renamed)
    finding = only(faults.check_elements(faults.read_labels(table, model), model))
    assert finding.level == "error"
    assert (
        f"what is called {faults.ELEMENT_SYMBOLS[other - 1]} fits as {faults.ELEMENT_SYMBOLS[z - 1]}" in finding.message
    )
    assert finding.rows
    assert only(faults.check_elements(labels, model)).level == "info"


def test_one_odd_frame_is_a_warning_and_no_error(labels, model):
    energy = labels.energy_per_atom_ev.copy()
    energy[5] += 0.4
    finding = only(faults.check_elements(dataclasses.replace(labels, energy_per_atom_ev=energy), model))
    assert finding.level == "warning"
    assert finding.rows == (labels.ids[5],)


# --- without a model ---


def test_duplicates_are_told_with_their_rows(frames):
    table = frames.slice(0, 6)
    twice = table.slice(2, 1)
    column = twice.schema.get_field_index("frame_id")
    twice = twice.set_column(column, "frame_id", pa.array(["again"]))
    assert [f.message for f in find_frame_faults(pa.concat_tables([table, twice])) if "repeat" in f.message] == [
        "1 frames repeat the structure of another"
    ]
    energy = twice.schema.get_field_index("energy_per_atom_ev")
    other = twice.set_column(energy, "energy_per_atom_ev", pa.array([-99.0]))
    findings = find_frame_faults(pa.concat_tables([table, other]))
    assert any("differ by more than 1 meV/atom" in f.message and "again" in f.rows for f in findings)
    material = twice.schema.get_field_index("material_id")
    elsewhere = twice.set_column(material, "material_id", pa.array(["another"]))
    findings = find_frame_faults(pa.concat_tables([table, elsewhere]))
    assert any("in two materials" in f.message for f in findings)


def test_a_duplicate_is_one_also_in_the_next_cell(frames):
    table = frames.slice(0, 1)
    coords = np.array(table["frac_coords"][0].as_py()) + 1.0
    column = table.schema.get_field_index("frac_coords")
    moved = table.set_column(column, "frac_coords", pa.array([coords.tolist()], pa.list_(pa.float64())))
    moved = moved.set_column(moved.schema.get_field_index("frame_id"), "frame_id", pa.array(["moved"]))
    assert any("repeat" in f.message for f in find_frame_faults(pa.concat_tables([table, moved])))


def test_the_report_of_a_folder_has_the_findings_and_their_rows(tmp_path, frames):
    from crossfunc.datasets import write_dataset

    meta = open_dataset("surrogate", verify=False).meta
    meta = {k: v for k, v in meta.items() if k != "files"}
    path = write_dataset(tmp_path / "some", meta=meta, frames=frames.slice(0, 20)).path
    report = faults.add_label_findings(check_dataset(path), open_dataset(path), use_model=False)
    assert report.ok
    assert any("little is learnt of them" in f.message for f in report.findings)
    assert json.loads(json.dumps(report.to_dict()))["ok"]


# --- real frames ---


@pytest.fixture(scope="module")
def real(real_data_folder, tmp_path_factory):
    """The real r2SCAN frames as the importer samples them, with predictions."""
    from crossfunc.datasets.importers.mp_r2scan import import_mp_frames

    samples = []
    out = tmp_path_factory.mktemp("real") / "out"
    import_mp_frames(real_data_folder / "tm_fluorides_r2scan.json", out, inspect=samples.append)
    return samples[0]


@pytest.mark.real_data
def test_real_labels_pass_and_wrong_ones_are_refused_with_evidence_and_remedy(real, monkeypatch):
    labels = faults.read_labels(real, faults.load_model("r2scan"))

    def refused(changed):
        monkeypatch.setattr(faults, "read_labels", lambda *_: changed)
        with pytest.raises(faults.WrongLabelError) as caught:
            faults.refuse_wrong_labels(real, stress_unit="vasp-kbar")
        return str(caught.value)

    monkeypatch.setattr(faults, "read_labels", lambda *_: labels)
    assert all(f.level == "info" for f in faults.refuse_wrong_labels(real, stress_unit="vasp-kbar"))
    flipped = refused(dataclasses.replace(labels, stress_gpa=-labels.stress_gpa))
    assert "the source has kbar: import with --stress-unit kbar" in flipped
    assert "dE of neighbouring frames" in flipped
    assert "--stress-unit gpa." in refused(dataclasses.replace(labels, stress_gpa=-0.1 * labels.stress_gpa))
    total = labels.energy_per_atom_ev * labels.crystals.n_atoms
    assert "divide it by the number of atoms" in refused(dataclasses.replace(labels, energy_per_atom_ev=total))


@pytest.mark.real_data
@pytest.mark.parametrize(("true", "named"), [("Mn", "Fe")])
def test_a_real_element_under_another_name_is_refused(real, true, named):
    numbers = real["atomic_numbers"].combine_chunks()
    z, other = (faults.ELEMENT_SYMBOLS.index(s) + 1 for s in (true, named))
    values = numbers.flatten().to_numpy(zero_copy_only=False)
    renamed = pa.ListArray.from_arrays(numbers.offsets, pa.array(np.where(values == z, other, values).astype(np.int16)))
    table = real.set_column(real.schema.get_field_index("atomic_numbers"), "atomic_numbers", renamed)
    with pytest.raises(faults.WrongLabelError, match=f"what is called {named} fits as {true}"):
        faults.refuse_wrong_labels(table, stress_unit="vasp-kbar")


# --- arithmetic, and which check rests on which ---


def test_the_scale_of_work_against_energy_is_the_ratio_of_their_sizes_with_the_sign_of_their_correlation(monkeypatch):
    energy = np.array([1.0, -2.0, 0.5, 3.0, -0.25, 1.5, -1.0, 0.75])
    monkeypatch.setattr(units, "_strain_work", lambda labels: (-160.0 * energy, energy))
    found = units.stress_scale_from_energies(None)
    assert (found.factor, found.cosine) == pytest.approx((-160.0, -1.0))
    assert (found.n, found.is_conclusive) == (8, True)
    monkeypatch.setattr(units, "_strain_work", lambda labels: (energy[:7], energy[:7]))
    assert not units.stress_scale_from_energies(None).is_conclusive


@pytest.mark.parametrize(
    ("level", "high", "judged"),
    [
        ("warning", "r2scan", {"stress": True, "elements": True}),
        ("warning", "hf", {"stress": True, "corrections": True}),
        ("error", "r2scan", {"stress": False}),
        ("error", "hf", {"stress": False}),
    ],
)
def test_stress_corrections_and_elements_are_judged_by_energies_that_hold_only(
    frames, monkeypatch, level, high, judged
):
    asked = {}
    wrong = faults.Finding(level, "energy", "x", ())
    monkeypatch.setattr(faults, "check_energies", lambda *_, **__: [wrong])
    monkeypatch.setattr(faults, "check_stress", lambda *_, use_energies: asked.update(stress=use_energies) or [])
    monkeypatch.setattr(faults, "check_forces", lambda _: [])
    monkeypatch.setattr(faults, "check_corrections", lambda *_: asked.update(corrections=True) or [])
    monkeypatch.setattr(faults, "check_elements", lambda *_: asked.update(elements=True) or [])
    monkeypatch.setattr(faults, "load_model", lambda _: None)
    monkeypatch.setattr(faults, "read_labels", lambda *_: None)
    assert only(faults.find_label_faults(frames, high=high)).level == level
    assert asked == judged
