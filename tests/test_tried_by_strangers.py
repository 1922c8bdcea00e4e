"""What people tried who had not written the code: each once went wrong, and has its right value here."""

import codecs
import gzip
import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from kill_commands import make_dataset
from own_files import write_pair
from small_checkouts import CLI
from test_import_identity import block, load
from typer.testing import CliRunner

from crossfunc.cli import app
from crossfunc.datasets import DatasetError, open_dataset
from crossfunc.datasets.importers.extxyz import Keys, import_extxyz
from crossfunc.files import write_atomically


def call(*words, status=1):
    called = CliRunner().invoke(app, [str(word) for word in words])
    assert called.exit_code == status, (called.output, called.exception)
    assert called.exception is None or isinstance(called.exception, SystemExit), called.exception
    return called.output


# --- identity and pairing ---


def test_the_mark_of_windows_editors_before_the_text_is_passed_over(tmp_path):
    assert load(tmp_path, ["\ufeff", block(), block(energy=-11.0)]).n_frames == 2


def test_text_of_two_bytes_a_letter_is_named(tmp_path):
    (tmp_path / "a.xyz").write_bytes(block().encode("utf-16"))
    with pytest.raises(DatasetError, match=r"UTF-16.*save it as UTF-8"):
        import_extxyz(None, tmp_path / "a.xyz", tmp_path / "out")


@pytest.mark.parametrize("side", ["low", "high"])
@pytest.mark.parametrize("pbc", ['pbc="F F F"', 'pbc="T T F"'])
def test_the_reason_why_no_frame_can_be_used_is_told_and_no_other(tmp_path, side, pbc):
    frames = {name: [block()] * 4 for name in ("low", "high")}
    frames[side] = [block().replace('pbc="T T T"', pbc)] * 2  # a minority of all frames
    with pytest.raises(DatasetError, match=f"{side}.xyz: .* none of its frames can be used; 2 x not periodic"):
        load(tmp_path, frames["high"], frames["low"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("other", ["REF_energy=-3.0", "free_energy=-10.5", "enthalpy=-9.0", "pressure=3.0"])
def test_a_second_energy_is_noted(tmp_path, other):
    summary = load(tmp_path, [block(comment=other)])
    assert summary.notes == [f"high.xyz: not read: {other.split('=')[0]} (a number)"]


def test_of_a_structure_labelled_twice_in_one_functional_the_lowest_counts(tmp_path):
    high = [block(comment="s=1", energy=-10.0), block(comment="s=1", energy=-11.0)]
    for order in (high, high[::-1]):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        dataset = open_dataset(load(folder, order, [block(comment="s=1")], structure_id="s").path)
        assert dataset.pairs["high_energy_per_atom_ev"].tolist() == [-5.5]


def test_one_name_for_several_cells_pairs_nothing_and_is_told(tmp_path):
    high = [block(comment="s=1"), block(comment="s=1", edge=4.4)]
    dataset = open_dataset(load(tmp_path, high, [block(comment="s=1")], structure_id="s").path)
    assert dataset.pairs is None
    assert "one structure id on several cells in one functional" in dataset.rejected["reason"].item()


@pytest.mark.parametrize(("symbol", "n_ground_states"), [("Li", 0), ("O", 2)])
def test_a_dimer_in_a_box_is_a_ground_state_of_a_gas_only(tmp_path, symbol, n_ground_states):
    dimer = block(f"{symbol} {symbol}", edge=20.0).replace("10.0000 10.0000 10.0000", "1.4 0 0")
    dataset = open_dataset(load(tmp_path, [dimer, block()], [dimer, block()]).path)
    assert dataset.frames.num_rows == 4
    assert (0 if dataset.elements is None else len(dataset.elements)) == n_ground_states


def test_twins_leave_a_dataset_of_ones_own(tmp_path):
    folder = tmp_path / "own"
    import_extxyz(*write_pair(tmp_path, {"Li", "O"}), folder, keys=Keys(material_id="material"))
    before = open_dataset(folder)
    call("data", "drop-twins", folder, "--out", tmp_path / "less", status=0)
    after = open_dataset(tmp_path / "less")
    kept = before.pairs[before.pairs["material_id"].isin(after.pairs["material_id"])].reset_index(drop=True)
    assert kept.equals(after.pairs)  # formation energies stay those of the dataset's own ground states
    assert "has none" in call("data", "drop-twins", make_dataset(tmp_path / "small"), "--out", tmp_path / "x")


@pytest.mark.parametrize("label", ["force", "virial"])
def test_a_label_that_some_frames_have_under_another_name_is_named(tmp_path, label):
    named = {
        "force": (":forces:R:3", ":force:R:3"),
        "virial": ('stress="1 0 0 0 1 0 0 0 1"', 'virial="1 0 0 0 1 0 0 0 1"'),
    }
    if label == "force":
        frames = [block(columns=columns, cells=[(0.1, 0, 0), (-0.1, 0, 0)]) for columns in named[label]]
    else:
        frames = [block(comment=comment) for comment in named[label]]
    with pytest.raises(DatasetError, match=f"nothing written: .*\n  {label} .*\n.*--leave-out {label}"):
        load(tmp_path, frames)
    assert load(tmp_path, frames, leave_out=(label,)).n_frames == 2


@pytest.mark.parametrize("names", ["fx fy fz", "force_x force_y force_z", "FX FY FZ"])
def test_forces_in_three_columns_are_named_with_a_remedy_that_works(tmp_path, names):
    columns = "".join(f":{name}:R:1" for name in names.split())
    frame = block(columns=columns, cells=[(0.1, 0.2, 0.3), (-0.1, -0.2, -0.3)])
    with pytest.raises(DatasetError, match=f"{names.split()[0]} .*make one column of the three, forces:R:3"):
        load(tmp_path, [frame])
    dataset = open_dataset(load(tmp_path, [frame.replace(columns, ":forces:R:3")]).path)
    assert dataset.frames["forces_ev_per_a"][0].as_py() == pytest.approx([0.1, 0.2, 0.3, -0.1, -0.2, -0.3])


NESTED = "[[1,0,0],[0,1,0],[0,0,1]]"


@pytest.mark.parametrize("text", [NESTED, NESTED.replace(",", ", "), f'"{NESTED}"', '"1,0,0,0,1,0,0,0,1"'])
def test_a_tensor_in_any_brackets_is_one(tmp_path, text):
    frame = block(comment=f"dft_virial={text}")
    with pytest.raises(
        DatasetError, match=r"dft_virial \(9 numbers\): --stress-key dft_virial --stress-unit ev-virial"
    ):
        load(tmp_path, [frame])
    dataset = open_dataset(load(tmp_path, [frame], stress="dft_virial", stress_unit="ev-virial").path)
    right = -np.eye(3).ravel() / 64 * 160.21766208  # -W / V in GPa, V = 4 Å cubed
    assert dataset.frames["stress_gpa"][0].as_py() == pytest.approx(right)


@pytest.mark.parametrize("entry", ["energy=-3.0", 'Lattice="5 0 0 0 5 0 0 0 5"', 'pbc="T T T"'])
def test_an_entry_that_stands_twice_is_not_read_as_either(tmp_path, entry):
    with pytest.raises(DatasetError, match=f"{entry.split('=')[0]} occurs twice in the comment line"):
        load(tmp_path, [block(comment=entry)])


@pytest.mark.parametrize("key", ["stress", "dft_stress"])
def test_a_stress_that_is_not_symmetric_is_none(tmp_path, key):
    frame = block(comment=f'{key}="0.1 0.02 0 0.05 0.1 0 0 0 0.1"')
    with pytest.raises(DatasetError, match=rf"{key} is not symmetric \(xy 0.02, yx 0.05\).*--leave-out {key}"):
        load(tmp_path, [frame], stress=key)
    summary = load(tmp_path, [frame], stress=key, leave_out=(key,))
    assert open_dataset(summary.path).frames["stress_gpa"].null_count == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", ["nan", "inf"])
def test_a_position_that_is_no_number_is_told_by_the_ledger_alone(tmp_path, number):
    summary = load(tmp_path, [block().replace("2.0000 2.0000 2.0000", f"2 2 {number}"), block(), block()])
    assert open_dataset(summary.path).rejected["reason"].tolist() == ["frac_coords holds NaN or infinity"]


def test_one_file_for_both_functionals_is_refused(tmp_path):
    (tmp_path / "a.xyz").write_text(block())
    (tmp_path / "link.xyz").symlink_to(tmp_path / "a.xyz")
    for other in ("a.xyz", "link.xyz"):
        words = (
            "data",
            "import",
            "extxyz",
            tmp_path / "a.xyz",
            tmp_path / other,
            "--out",
            tmp_path / "o",
            "--no-check",
        )
        assert "given for both functionals" in call(*words)


def test_two_files_without_any_pair_say_so(tmp_path):
    summary = load(tmp_path, [block(comment="s=1")], [block(comment="s=01")], structure_id="s")
    assert (summary.n_frames, summary.n_pairs) == (2, 0)
    assert "no pairs: no frames of the two files are one structure or one material" in str(summary)


@pytest.mark.parametrize("symbol", ["D", "Li1", "3", "Fe3+"])
def test_a_species_that_is_no_element_is_named_with_what_to_write(tmp_path, symbol):
    dataset = open_dataset(load(tmp_path, [block(f"{symbol} F"), block(), block()]).path)
    assert dataset.rejected["reason"].tolist() == [
        f"unknown element '{symbol}'; write one of H to Pu, as Fe for Fe3+ and H for D"
    ]


# --- any size ---


@pytest.mark.parametrize("edge", [0.3, 0.6])
def test_a_cell_without_room_is_refused_before_it_fills_the_memory(edge):
    from ase import Atoms

    from crossfunc.potential import load_model, predict

    with pytest.raises(ValueError, match="denser than any crystal; is its cell in Å"):
        predict(load_model("0.3.0"), [Atoms("Na", cell=[edge] * 3, pbc=True)])


def test_a_cell_without_volume_is_named():
    from ase import Atoms

    from crossfunc.potential import load_model, predict

    flat = Atoms("NaCl", [[0, 0, 0], [1, 1, 1]], cell=[[4, 0, 0], [8, 0, 0], [0, 0, 4]], pbc=True)
    with pytest.raises(ValueError, match="structure 0: its cell has no volume") as caught:
        predict(load_model("0.3.0"), [flat])
    assert type(caught.value).__module__.startswith("crossfunc.")


# --- ended runs ---


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGUSR2", "SIGXCPU"])
def test_what_queues_send_before_they_kill_is_told(name):
    code = (
        "import os, signal, time\nimport crossfunc.datasets\n"
        f"def end(*a, **k):\n    os.kill(os.getpid(), signal.{name}); time.sleep(60)\n"
        "crossfunc.datasets.list_datasets = end\n"
        "from crossfunc.cli import app; app(['data', 'list'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 128 + getattr(signal, name)
    assert done.stderr == f"error: stopped by a signal ({name}).\n"


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_a_help_text_that_cannot_be_written_is_told(word):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run([*CLI, word], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "No space left" in done.stderr


@pytest.mark.parametrize("command", [["data", "list"], ["hull", "surrogate", "--json"], ["--version"]])
def test_a_result_that_nobody_can_get_is_no_success(command):
    done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *CLI, *command], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: standard output is closed; send it to a file, or to /dev/null.\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    make_dataset(folder / "data")
    words = ["finetune", "--method", "references-only", "--dataset", folder / "data", "--out", folder / "run"]
    call(*words, status=0)
    return folder / "run", words


@pytest.mark.parametrize("content", [None, b"", b"\0" * 200, b"epoch,st", b"a,b\n1,2\n"])
def test_a_damaged_history_is_a_sentence(trained, content):
    folder, words = trained
    history = folder / "history.csv"
    whole = history.read_bytes()
    try:
        history.unlink() if content is None else history.write_bytes(content)
        assert "history.csv: missing or damaged; delete the folder" in call(*words)
    finally:
        history.write_bytes(whole)


@pytest.mark.parametrize("name", ["best.pt", "last.pt"])
@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04"])
def test_a_damaged_model_of_a_complete_run_is_named_with_the_remedy(trained, name, content):
    folder, words = trained
    whole = (folder / name).read_bytes()
    try:
        (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
        assert f"{name}: missing or damaged; delete the folder" in call(*words)
    finally:
        (folder / name).write_bytes(whole)


def test_the_folder_of_a_run_is_no_model_file_and_its_file_is_named(trained):
    folder, words = trained
    dataset = words[words.index("--dataset") + 1]
    assert "a folder; give a model's file in it (of a training run best.pt)" in call(
        "verdict", dataset, "--model", folder
    )


def test_a_folder_that_is_no_run_is_no_model(tmp_path):
    assert "no folder of a run" in call("evaluate", "--model", tmp_path, "--dataset", "surrogate")


def test_a_hull_without_any_result_is_no_success(tmp_path):
    (tmp_path / "e.csv").write_text("id,composition,energy_per_atom_ev\na,LiF,-4.8\nb,MgO,-6\n")
    words = ("hull", tmp_path / "e.csv", "--functional", "r2scan", "--energy-kind", "raw")
    assert "2 of 2 targets have no result" in call(*words)
    assert len(json.loads(call(*words, "--json"))) == 2


def test_a_run_that_was_refused_does_not_keep_the_mended_command_out(trained, tmp_path):
    _, words = trained
    words = [*words[:-1], tmp_path / "run"]
    assert "no prior 'x'" in call(*words, "--prior", "x")
    call(*words, status=0)
    assert "holds another run" in call(*words, "--prior", "trend")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hull", "{entries}", "--jobs", "0"], "give 1 or more, or -1"),
        (["evaluate", "--dataset", "surrogate", "--model", "0.3.0", "--jobs", "-7"], "give 1 or more, or -1"),
        (
            ["evaluate", "--dataset", "surrogate", "--model", "0.3.0", "--split-seed", "-1"],
            "greater than or equal to 0",
        ),
        (["data", "make-surrogate", "--seed", "-1"], "greater than or equal to 0"),
        (["data", "make-dft", "--out", "x", "--seed", "-1"], "greater than or equal to 0"),
    ],
)
def test_numbers_that_mean_nothing_are_refused_where_they_stand(tmp_path, words, message):
    (tmp_path / "e.csv").write_text("id,composition,energy_per_atom_ev\na,Na,-1.3\n")
    words = [word.format(entries=tmp_path / "e.csv") for word in words]
    assert message in " ".join(call(*words, status=2).split())


def test_a_device_that_there_is_none_of_is_named():
    assert "device 'tpu' is neither cpu nor cuda" in call("bench", "train", "--device", "tpu")


def test_a_split_by_a_negative_seed_is_a_sentence():
    from crossfunc.datasets.splits import SplitError, split_by_material

    with pytest.raises(SplitError, match="seed -1: give a whole number from 0 on"):
        split_by_material([f"m{k}" for k in range(20)], seed=-1)


# --- files ---


def test_a_pipe_or_device_is_written_to_and_stays_what_it_is(tmp_path):
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write_atomically(pipe, "text")
    reader.join(30)
    assert got == [b"text"]
    assert pipe.is_fifo()


def test_a_name_that_is_no_text_is_a_sentence(tmp_path):
    (tmp_path / "a.xyz").write_text(block())
    out = os.fsencode(tmp_path) + b"/\xff\xfe"
    words = ("data", "import", "extxyz", "-", tmp_path / "a.xyz", "--out", os.fsdecode(out), "--no-check")
    assert "must be text in UTF-8" in call(*words)


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_what_is_no_dataset_is_not_said_to_be_replaceable(tmp_path, overwrite):
    (tmp_path / "a.xyz").write_text(block())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    os.mkfifo(tmp_path / "pipe")
    for name in ("mine", "a.xyz", "pipe"):
        words = ("data", "import", "extxyz", "-", tmp_path / "a.xyz", "--out", tmp_path / name, "--no-check")
        assert "is no dataset (dataset.json is missing): not replaced; choose another name" in call(*words, *overwrite)
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_no_one_is_told_to_repeat_what_cannot_work(tmp_path):
    (tmp_path / "a.xyz").write_text(block())
    said = call("data", "import", "extxyz", "-", tmp_path / "a.xyz", "--out", tmp_path / "a.xyz" / "o", "--no-check")
    assert "a file is in the way" in said
    assert "same command" not in said


# --- tables ---


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id;composition;energy_per_atom_ev\na;Na;-1,3\n", r"commas instead of ';', and write -1\.5, not -1,5"),
        (b"id\tcomposition\tenergy_per_atom_ev\na\tNa\t-1.3\n", r"commas instead of '\\t'"),
        (b"PK\x03\x04" + b"\0" * 50, "an Excel workbook; save it as CSV"),
        (codecs.BOM_UTF16_LE + "id,composition".encode("utf-16-le"), "UTF-16; save it as CSV in UTF-8"),
        ("id,composition,energy_per_atom_ev\né,Na,-1.3\n".encode("latin-1"), "not UTF-8 .*save it as UTF-8"),
    ],
)
def test_a_table_of_another_kind_is_named_with_the_remedy(tmp_path, content, message):
    import re

    (tmp_path / "e.csv").write_bytes(content)
    said = call("hull", tmp_path / "e.csv", "--functional", "r2scan", "--energy-kind", "raw")
    assert re.search(message, said), said


def test_entries_cannot_unpack_to_more_than_their_file_justifies(tmp_path):
    with gzip.open(tmp_path / "e.json.gz", "wb") as file:
        for _ in range(300):
            file.write(b" " * 1_000_000)
        file.write(b"[]")
    assert "which no entries do" in call("hull", tmp_path / "e.json.gz")


@pytest.mark.parametrize("filling", [b"\n", b" ", b"\t\n"])
def test_frames_that_are_nothing_but_room_are_not_read_to_their_end(tmp_path, filling):
    with gzip.open(tmp_path / "a.xyz.gz", "wb", compresslevel=1) as file:
        for _ in range(50):
            file.write(filling * 1_000_000)
    with pytest.raises(DatasetError, match="more than 1 MB of nothing"):
        import_extxyz(None, tmp_path / "a.xyz.gz", tmp_path / "out")


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_a_file_without_frames_is_said_to_have_none(tmp_path, content):
    with pytest.raises(DatasetError, match="it holds no frames"):
        load(tmp_path, [content])


def test_honest_entries_unpack(tmp_path):
    draw = np.random.default_rng(0)
    rows = [{"composition": {"Na": 1.0}, "energy": -1.3, "entry_id": f"e{k}", "x": draw.random()} for k in range(2000)]
    (tmp_path / "e.json.gz").write_bytes(gzip.compress(json.dumps(rows).encode()))
    said = call("hull", tmp_path / "e.json.gz", "--functional", "r2scan", "--energy-kind", "raw", "--json", status=0)
    assert len(json.loads(said)) == 2000
