"""The importer of MP-r2SCAN and MPtrj: units, ledger, malformed input of every kind, kills, and bounded memory."""

import copy
import gzip
import hashlib
import json
import multiprocessing
import random
import shutil
import signal
import time
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from crossfunc.bench.imports import _measure_import, write_synthetic_json
from crossfunc.bench.progress import in_fresh_process
from crossfunc.datasets import DatasetError, open_dataset
from crossfunc.datasets import json_stream as stream_module
from crossfunc.datasets.importers.mp_r2scan import import_mp_frames
from crossfunc.units import UnitError


def frame(energy=-5.0, **changes):
    """LiF in a cube of 4 Å as MP-r2SCAN holds it; stress in kBar."""
    site = [{"species": [{"element": e, "occu": 1}], "abc": [x] * 3, "label": e} for e, x in (("Li", 0.0), ("F", 0.5))]
    lattice = {"matrix": [[4.0, 0, 0], [0, 4.0, 0], [0, 0, 4.0]], "pbc": [True, True, True]}
    return {
        "structure": {"lattice": lattice, "sites": site},
        "uncorrected_total_energy": 2 * energy,
        "energy_per_atom": energy,
        "force": [[0.1, 0.0, 0.0], [-0.1, 0.0, 0.0]],
        "stress": [[10.0, 1.0, 2.0], [1.0, 20.0, 3.0], [2.0, 3.0, 30.0]],
        "magmom": [0.5, -0.25],
        "bandgap": None,
    } | changes


def good(n=4):
    """Good frames of two materials."""
    return {"mp-1": {f"mp-1-{k}": frame(-5.0 - k) for k in range(n)}, "mp-2": {"mp-2-0": frame()}}


def write(folder, content, name="data.json"):
    path = folder / name
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def load(tmp_path, content, **options):
    return import_mp_frames(write(tmp_path, content), tmp_path / "out", **options)


def files_of(folder):
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.iterdir())}


# --- what a good file becomes ---


def test_rows_are_in_the_projects_units(tmp_path):
    summary = load(tmp_path, good())
    table = open_dataset(summary.path).frames
    row = table.to_pylist()[1]
    assert (summary.n_frames, summary.n_materials, summary.n_rejected) == (5, 2, 0)
    assert (row["frame_id"], row["material_id"], row["functional"], row["energy_kind"]) == (
        *("mp-1-1", "mp-1", "r2scan", "raw"),
    )
    assert row["atomic_numbers"] == [3, 9]
    assert row["energy_per_atom_ev"] == -6.0
    assert row["lattice_a"] == [4.0, 0, 0, 0, 4.0, 0, 0, 0, 4.0]
    assert row["frac_coords"] == [0.0] * 3 + [0.5] * 3
    assert row["forces_ev_per_a"] == [0.1, 0, 0, -0.1, 0, 0]
    assert row["stress_gpa"] == pytest.approx([-1, -0.1, -0.2, -0.1, -2, -0.3, -0.2, -0.3, -3])
    assert row["magmoms_mub"] == [0.5, -0.25]


def test_the_summary_is_one_line(tmp_path):
    content = good()
    content["mp-2"]["bad"] = None
    text = str(load(tmp_path, content))
    assert "\n" not in text
    assert "5 frames of 2 materials" in text
    assert "1 rows left out, listed in rejected.parquet" in text


def test_dataset_json_says_where_the_frames_are_from(tmp_path):
    summary = load(tmp_path, good())
    meta = open_dataset(summary.path).meta
    sha256 = hashlib.sha256((tmp_path / "data.json").read_bytes()).hexdigest()
    assert sha256 in meta["provenance"]
    assert "vasp-kbar" in meta["provenance"]
    assert str(tmp_path) not in json.dumps(meta)


def test_gzip_gives_the_same_tables(tmp_path):
    plain = load(tmp_path, good())
    zipped = import_mp_frames(write(tmp_path, good(), "data.json.gz"), tmp_path / "zipped")
    assert files_of(plain.path)["frames.parquet"] == files_of(zipped.path)["frames.parquet"]


@pytest.mark.parametrize("block_bytes", [50, 173, 1000])
def test_where_the_blocks_end_does_not_show(tmp_path, monkeypatch, block_bytes):
    whole = load(tmp_path, good())
    monkeypatch.setattr(stream_module.ByteSource.__init__, "__defaults__", (block_bytes,))
    cut = import_mp_frames(tmp_path / "data.json", tmp_path / "cut")
    assert files_of(whole.path)["frames.parquet"] == files_of(cut.path)["frames.parquet"]


def test_escapes_braces_in_strings_and_white_space_are_json_too(tmp_path):
    content = {'mp-"1"\\': {"a{b}[\\": frame(note='}]"\\\\" {'), "ü": frame()}}
    summary = import_mp_frames(write(tmp_path, json.dumps(content, indent=3).encode()), tmp_path / "out")
    table = open_dataset(summary.path).frames
    assert table["frame_id"].to_pylist() == ["a{b}[\\", "ü"]
    assert set(table["material_id"].to_pylist()) == {'mp-"1"\\'}


def test_a_null_magmom_is_no_label(tmp_path):
    summary = load(tmp_path, {"mp-1": {"a": frame(magmom=None), "b": frame()}})
    assert open_dataset(summary.path).frames["magmoms_mub"].to_pylist() == [None, [0.5, -0.25]]


@pytest.mark.parametrize(
    ("unit", "first"), [("vasp-kbar", -1.0), ("kbar", 1.0), ("gpa", 10.0), ("ev/a3", 1602.1766208)]
)
def test_the_unit_of_the_stress_is_an_option(tmp_path, unit, first):
    summary = load(tmp_path, good(), stress_unit=unit)
    assert open_dataset(summary.path).frames["stress_gpa"][0][0].as_py() == pytest.approx(first)


def test_an_unknown_unit_is_an_error_that_names_the_known_ones(tmp_path):
    with pytest.raises(UnitError, match="'bar' is none of vasp-kbar, kbar, gpa"):
        load(tmp_path, good(), stress_unit="bar")
    assert not (tmp_path / "out").exists()


def test_the_lowest_frame_of_an_element_is_its_ground_state(tmp_path):
    content = good()
    content["mp-3"] = {"a": lithium(-2.0), "b": lithium(-2.5)}
    elements = open_dataset(load(tmp_path, content).path).elements
    assert elements.to_dict("records") == [
        {"element": "Li", "functional": "r2scan", "energy_kind": "raw", "energy_per_atom_ev": -2.5}
    ]


def lithium(energy):
    one = frame(energy)
    one["structure"]["sites"] = one["structure"]["sites"][:1]
    return one | {"uncorrected_total_energy": energy, "force": [[0.0] * 3], "magmom": [0.0]}


def test_mptrj_has_corrected_gga_energies(tmp_path):
    corrected = {"mp-1": {"a": frame(-5.0, corrected_total_energy=-10.0, uncorrected_total_energy=-9.0)}}
    table = open_dataset(load(tmp_path, corrected, kind="mptrj").path).frames
    assert (table["functional"][0].as_py(), table["energy_kind"][0].as_py()) == ("gga", "mp2020")


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        ({"mp-1": {"a": frame(corrected_total_energy=-10.0)}}, "mp-r2scan", "this is MPtrj.*import mptrj"),
        ({"mp-1": {"a": frame()}}, "mptrj", "this is not MPtrj.*import mp-r2scan"),
        ([frame()], "mp-r2scan", "import matpes"),
    ],
)
def test_another_dataset_is_recognised(tmp_path, content, kind, message):
    with pytest.raises(DatasetError, match=message):
        load(tmp_path, content, kind=kind)


def test_the_command_imports_and_prints_the_summary(tmp_path):
    from crossfunc.cli import app

    file = write(tmp_path, good())
    arguments = ["data", "import", "mp-r2scan", str(file), "--out", str(tmp_path / "out"), "--no-check"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "5 frames of 2 materials" in result.stdout
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 1
    assert "exists; choose another folder" in again.stderr


# --- malformed input: one bad frame among good ones ---

NAN, HUGE = float("nan"), 1e30
S = "structure"


def changed(path, value):
    """A frame with one value changed, found by its path."""
    new = copy.deepcopy(frame())
    place = new
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return new


BAD_FRAMES = {
    "null frame": (None, "null where a frame"),
    "number for a frame": (5, "5 where a frame"),
    "list for a frame": ([frame()], "where a frame"),
    "empty frame": ({}, "energy_per_atom, force, stress, structure missing"),
    "no stress": ({k: v for k, v in frame().items() if k != "stress"}, "stress missing"),
    "null force": (frame(force=None), "force is null, not a list"),
    "null in force": (frame(force=[[None, 0, 0], [0, 0, 0]]), "force holds null"),
    "text in force": (frame(force=[["1.0", 0, 0], [0, 0, 0]]), "force holds text"),
    "truth in force": (frame(force=[[True, 0, 0], [0, 0, 0]]), "force holds a truth value"),
    "ragged force": (frame(force=[[0, 0], [0, 0, 0]]), "force is ragged: rows of 2, 3"),
    "flat force": (frame(force=[0, 0]), "force is not a list of rows"),
    "too few forces": (frame(force=[[0, 0, 0]]), "force has 1 rows where 2"),
    "stress of two rows": (frame(stress=[[0, 0, 0]] * 2), "stress has 2 rows where 3"),
    "text as energy": (frame(energy_per_atom="-5"), "energy_per_atom is text, not a number"),
    "null energy": (frame(energy_per_atom=None), "energy_per_atom is null"),
    "NaN energy": (frame(energy_per_atom=NAN), "holds NaN, which is not JSON"),
    "infinite stress": (frame(stress=[[-float("inf"), 0, 0]] * 3), "holds Infinity"),
    "huge force": (frame(force=[[HUGE, 0, 0], [0, 0, 0]]), "forces_ev_per_a holds a number beyond 10000 eV/Å"),
    "huge coordinate": (changed((S, "sites", 0, "abc"), [HUGE, 0, 0]), "frac_coords holds a number beyond"),
    "huge energy": (frame(1e200), "energy_per_atom_ev holds a number beyond"),
    "total for per atom": (frame(energy_per_atom=-10.0), "energy_per_atom is the total energy of the cell"),
    "energy of another": (frame(energy_per_atom=-7.0), "energy_per_atom is not uncorrected_total_energy / number"),
    "short magmom": (frame(magmom=[0.1]), "magmom is 1 values where 2"),
    "huge magmom": (frame(magmom=[1e5, 0]), "magmoms_mub holds a number beyond"),
    "no structure": (frame(structure=None), "structure is null, not an object"),
    "no lattice": (changed((S, "lattice"), None), "structure has no lattice.matrix"),
    "lattice of two": (changed((S, "lattice", "matrix"), [[4, 0, 0], [0, 4, 0]]), "lattice.matrix has 2 rows where 3"),
    "zero volume": (changed((S, "lattice", "matrix"), [[4, 0, 0], [0, 4, 0], [4, 4, 0]]), "spans no volume"),
    "thin cell": (changed((S, "lattice", "matrix"), [[4, 0, 0], [0, 4, 0], [4, 4, 0.1]]), "thinner than 1 Å"),
    "slab": (changed((S, "lattice", "pbc"), [True, True, False]), "not periodic in all directions"),
    "no sites": (changed((S, "sites"), []), "structure has no sites"),
    "overlapping atoms": (changed((S, "sites", 1, "abc"), [0.99, 1.0, -1.0]), "two atoms overlap"),
    "no coordinates": (changed((S, "sites", 0), {"species": [{"element": "Li", "occu": 1}]}), "site 0 has no frac"),
    "two coordinates": (changed((S, "sites", 0, "abc"), [0, 0]), "abc is ragged"),
    "unknown element": (changed((S, "sites", 0, "species"), [{"element": "Xx", "occu": 1}]), "unknown element 'Xx'"),
    "no element": (changed((S, "sites", 0, "species"), [{"occu": 1}]), "its species has no element"),
    "half occupied": (changed((S, "sites", 0, "species"), [{"element": "Li", "occu": 0.5}]), "site is disordered"),
    "two species": (changed((S, "sites", 0, "species"), [{"element": "Li", "occu": 0.5}] * 2), "several species"),
    "of another material": (frame(mp_id="mp-9"), "mp_id is 'mp-9', but it is filed under another"),
    "another functional": (frame(functional="PBE"), "functionals are mixed"),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
def test_a_bad_frame_is_in_the_ledger_and_the_good_ones_survive(tmp_path, name):
    bad, reason = BAD_FRAMES[name]
    content = good()
    content["mp-1"] = {"mp-1-0": frame(), "bad": bad, "mp-1-1": frame(-6.0)}
    summary = load(tmp_path, content)
    dataset = open_dataset(summary.path)
    assert dataset.frames["frame_id"].to_pylist() == ["mp-1-0", "mp-1-1", "mp-2-0"]
    (row,) = dataset.rejected.to_dict("records")
    assert (row["table"], row["row"]) == ("frames", 1)
    assert row["id"].endswith("bad")
    assert reason in row["reason"]


def raw(text, at='"mp-1-1": '):
    """Good content as text with something put before one frame."""
    return json.dumps(good()).replace(at, text).encode()


RAW_BAD_FRAMES = {
    "duplicate id": (raw('"mp-1-0": '), "frame_id occurs twice"),
    "id of another material": (raw('"mp-2-0": '), "frame_id occurs twice"),
    "not UTF-8": (json.dumps(good()).encode().replace(b'"Li"', b'"L\xff"', 1), "not UTF-8"),
    "number too long": (json.dumps(good()).encode().replace(b"0.1", b"1e999", 1), ""),
    "nested too deep": (json.dumps(good()).encode().replace(b"null", b"[" * 3000 + b"]" * 3000, 1), "is not JSON"),
    "unquoted": (json.dumps(good()).encode().replace(b'"Li"', b"Li", 1), "is not JSON"),
}


@pytest.mark.parametrize("name", RAW_BAD_FRAMES)
def test_text_that_is_wrong_within_a_frame_spoils_that_frame_only(tmp_path, name):
    content, reason = RAW_BAD_FRAMES[name]
    summary = load(tmp_path, content)
    rejected = open_dataset(summary.path).rejected
    assert (summary.n_frames, len(rejected)) == (4, 1)
    assert reason in rejected["reason"][0]


TEXT = json.dumps(good()).encode()
BAD_FILES = {
    "cut within a frame": (TEXT[:700], "was cut off.*fetch it again"),
    "cut before the end": (TEXT[:-1], "was cut off"),
    "empty": (b"", "empty"),
    "white space": (b" \n", "empty"),
    "empty object": (b"{}", "holds no frames"),
    "text": (b"not found", "no JSON object"),
    "HTML": (b"<html><body>404</body></html>", "no JSON object"),
    "two values": (TEXT + b"{}", "a second value"),
    "rubbish behind": (TEXT + b" xyz", "no JSON object"),
    "brackets swapped": (TEXT[:-2] + b"]}", "closed by"),
    "closed twice": (TEXT + b"}", "never opened"),
    "list of frames in a material": (json.dumps({"mp-1": [frame()]}).encode(), r"'\[' where '\{' is expected in mp-1"),
    "no comma": (TEXT.replace(b', "mp-2"', b' "mp-2"'), "not JSON|comma is missing"),
    "two commas": (TEXT.replace(b', "mp-2"', b',, "mp-2"'), "not JSON"),
    "no colon": (TEXT.replace(b'"mp-2": ', b'"mp-2" '), "not JSON"),
    "frames without materials": (json.dumps(good()["mp-1"]).encode(), "unusable|expected"),
    "UTF-16": (json.dumps(good()).encode("utf-16"), "UTF-16"),
    "half of a gzip": (gzip.compress(TEXT)[:-20], "gzip stream is damaged"),
    "spoilt gzip": (gzip.compress(TEXT)[:60] + b"\0" * 30 + gzip.compress(TEXT)[90:], "gzip stream is damaged"),
    "every row bad": (json.dumps({"mp-1": {"a": frame(force=None)}}).encode(), "1 of 1 rows are unusable"),
    "most rows bad": (json.dumps({"m": {"a": frame(), "b": 1, "c": 2, "d": 3}}).encode(), "3 of 4 rows are unusable"),
    "all total energies": (
        json.dumps({"m": {str(k): frame(energy_per_atom=-10.0) for k in range(3)}}).encode(),
        "divide it by the number of atoms",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_an_error_and_nothing_is_written(tmp_path, name):
    content, message = BAD_FILES[name]
    with pytest.raises(DatasetError, match=message):
        load(tmp_path, content)
    assert [f.name for f in tmp_path.iterdir()] == ["data.json"]


def test_at_least_thirty_kinds_of_malformed_input_are_tried():
    assert len(BAD_FRAMES) + len(RAW_BAD_FRAMES) + len(BAD_FILES) >= 60


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"nowhere\.json: not readable \(No such file"):
        import_mp_frames(tmp_path / "nowhere.json", tmp_path / "out")


def test_an_error_leaves_the_dataset_that_was_there(tmp_path):
    before = files_of(load(tmp_path, good()).path)
    with pytest.raises(DatasetError, match="cut off"):
        load(tmp_path, TEXT[:-5], overwrite=True)
    assert files_of(tmp_path / "out") == before


def test_what_looks_at_the_sample_can_refuse(tmp_path):
    def refuse(frames):
        raise DatasetError(f"{frames.num_rows} frames looked at")

    with pytest.raises(DatasetError, match="5 frames looked at"):
        load(tmp_path, good(), inspect=refuse)
    assert not (tmp_path / "out").exists()


# --- memory ---


def test_an_object_without_end_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(stream_module, "MAX_OBJECT_BYTES", 1_000_000)
    monkeypatch.setattr(stream_module.ByteSource.__init__, "__defaults__", (100_000,))
    content = b'{"mp-1": {"a": {"force": [' + b"[0.0, 0.0, 0.0], " * 2_000_000
    tracemalloc.start()
    with pytest.raises(DatasetError, match="one value of more than 1 MB"):
        load(tmp_path, content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60_000_000  # the content itself, made here, is 34 MB of it


def test_an_id_without_end_does_not_fill_the_ledger(tmp_path):
    content = good()
    content["mp-2"]["x" * 100_000] = None
    rejected = open_dataset(load(tmp_path, content).path).rejected
    assert len(rejected["id"][0]) <= 300


def test_memory_does_not_grow_with_the_file(tmp_path):
    peaks = []
    for n_frames in (4_000, 20_000):
        write_synthetic_json(tmp_path / "big.json", n_frames, n_distinct=50)
        measured = in_fresh_process(_measure_import, str(tmp_path / "big.json"), str(tmp_path / f"out{n_frames}"))
        peaks.append(measured["peak_rss_gb"])
    if peaks[0] is None:
        pytest.skip("this system does not tell a process's peak memory")
    assert peaks[1] < peaks[0] + 0.06  # the second file is 0.15 GB longer; the allocator's own noise is some 0.02 GB
    assert peaks[1] < 1


# --- kills ---


@pytest.fixture(scope="module")
def start_import():
    """Function that starts an import in a process of its own; the modules are loaded once, for all of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["crossfunc.datasets.importers.mp_r2scan", "crossfunc.datasets.importers.pairing"])

    def start(file, out):
        process = context.Process(target=import_mp_frames, args=(str(file), str(out)))
        process.start()
        return process

    return start


def test_twenty_kills_at_random_then_a_restart_gives_the_same_bytes(tmp_path, start_import):
    file, out = tmp_path / "big.json", tmp_path / "one" / "out"
    write_synthetic_json(file, 1_500, n_distinct=40)
    start_import(file, tmp_path / "warm" / "out").join()
    began = time.perf_counter()
    start_import(file, tmp_path / "undisturbed" / "out").join()
    duration = time.perf_counter() - began
    expected = files_of(tmp_path / "undisturbed" / "out")
    draw, killed = random.Random(0), 0
    for _ in range(20):
        process = start_import(file, out)
        time.sleep(draw.uniform(0, duration))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        assert {f.name for f in out.parent.glob("*")} <= {"out", ".out.partial"}
        if out.exists():  # faster than the kill
            assert files_of(out) == expected
            shutil.rmtree(out)
    assert killed >= 10
    start_import(file, out).join()
    assert files_of(out) == expected
    assert [f.name for f in out.parent.iterdir()] == ["out"]


def test_two_imports_to_one_place_at_a_time_are_refused(tmp_path):
    from crossfunc.datasets.writer import DatasetWriter

    with (
        DatasetWriter(tmp_path / "out"),
        pytest.raises(DatasetError, match="another import is writing this dataset"),
        DatasetWriter(tmp_path / "out"),
    ):
        pass


# --- real frames ---


@pytest.mark.real_data
def test_the_real_frames_are_as_near_to_the_model_as_chgnet_itself_finds_them(real_data_folder, tmp_path):
    from crossfunc.potential import Crystals, load_model, predict
    from crossfunc.vendor import import_chgnet

    summary = import_mp_frames(real_data_folder / "tm_fluorides_r2scan.json", tmp_path / "out")
    assert (summary.n_frames, summary.n_materials, summary.n_rejected) == (137, 28, 0)
    table = open_dataset(summary.path).frames
    ours = predict(load_model("r2scan"), Crystals.from_frames(table))
    energy, energy_by_material, force, stress = errors(table, arrays(ours, range(137)))
    assert energy == pytest.approx(0.0147, abs=0.001)
    assert energy_by_material == pytest.approx(0.022, abs=0.002)
    assert force == pytest.approx(0.037, abs=0.001)
    assert stress == pytest.approx(0.204, abs=0.003)

    rows = list(range(0, 137, 4))  # chgnet itself is slow
    part = table.take(pa.array(rows))
    theirs = import_chgnet("chgnet.model").CHGNet.load(model_name="r2scan", use_device="cpu", verbose=False)
    structures = Crystals.from_frames(part).to_structures()
    direct = direct_arrays(theirs.predict_structure(structures, task="efs", batch_size=8))
    assert errors(part, direct) == pytest.approx(errors(part, arrays(ours, rows)), rel=1e-3)


def arrays(predicted, rows):
    """Energies, forces and stresses of some of the crystals predicted."""
    forces = np.concatenate([predicted["forces_ev_per_a"][k] for k in rows])
    return predicted["energy_per_atom_ev"][rows], forces, predicted["stress_gpa"][rows]


def direct_arrays(predictions):
    """Energies, forces and stresses (GPa) from chgnet's own predictions."""
    stress = np.stack([np.asarray(p["s"]) for p in predictions])
    return np.array([float(p["e"]) for p in predictions]), np.concatenate([p["f"] for p in predictions]), stress


def errors(table, predicted):
    """Mean absolute errors: energy a frame and a material (eV/atom), force (eV/Å), stress (GPa)."""
    energy, forces, stress = predicted
    off = np.abs(energy - table["energy_per_atom_ev"].to_numpy())
    materials = np.array(table["material_id"].to_pylist())
    by_material = np.mean([off[materials == m].mean() for m in np.unique(materials)])
    labels = table["forces_ev_per_a"].combine_chunks().flatten().to_numpy().reshape(-1, 3)
    tensors = np.array(table["stress_gpa"].to_pylist()).reshape(-1, 3, 3)
    return off.mean(), by_material, np.abs(forces - labels).mean(), np.abs(stress - tensors).mean()


def test_materials_whose_compositions_differ_between_functionals_are_no_pair(tmp_path):
    """Both layouts are read one functional at a time; what pairs them is the same for every importer."""
    import pyarrow as pa

    from crossfunc.datasets.functionals import describe_functionals, parse_functionals
    from crossfunc.datasets.importers.pairing import add_elements_and_pairs
    from crossfunc.datasets.schema import FRAMES
    from crossfunc.datasets.writer import DatasetWriter

    def row(key, material, numbers, energy, edge):
        coords = [k / len(numbers) for k in range(len(numbers)) for _ in range(3)]
        names = {"frame_id": f"{material}/{key}", "material_id": material, "functional": key, "energy_kind": "raw"}
        cell = {"atomic_numbers": numbers, "lattice_a": [edge, 0, 0, 0, edge, 0, 0, 0, edge], "frac_coords": coords}
        return names | cell | {"energy_per_atom_ev": energy}

    rows = [
        row("pbe", "m1", [11, 17], -3.4, 4.0),
        row("r2scan", "m1", [12, 8], -12.0, 4.1),  # MgO under the id of NaCl
        row("pbe", "m2", [3, 9], -5.0, 4.0),
        row("r2scan", "m2", [9, 3], -15.0, 4.1),
    ]
    functionals = parse_functionals(describe_functionals("PBE", "r²SCAN"), "toy")
    with DatasetWriter(tmp_path / "out") as writer:
        writer.add_frames(pa.Table.from_pylist(rows, schema=pa.schema([c.field for c in FRAMES])), [0, 1, 2, 3])
        assert add_elements_and_pairs(writer, functionals)[:2] == (2, 1)
        (reason,) = writer.reasons
    assert reason == "material id: NaCl in the low functional, MgO in the high one: frames kept, not paired"
