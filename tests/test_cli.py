"""The command line as a person meets it: what is printed, where, and the exit status."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pandas as pd
import pytest
import typer.main
from small_checkouts import HEADER, write_checkout
from typer.testing import CliRunner

from crossfunc.cli import app

LESSON = """\
# %% tags=["parameters"]
n = 1
label = "a"

# %%
assert n > 0, "n must be positive"
"""


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    write_checkout(tmp_path, {"01_first": LESSON}, profiles=("laptop", "smoke"))
    monkeypatch.chdir(tmp_path / "notebooks")
    return tmp_path


@pytest.fixture
def fake(monkeypatch):
    """Stand in for a module of the package that the command imports when it runs."""

    def install(name, **content):
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, child = name.rpartition(".")
        monkeypatch.setattr(importlib.import_module(parent), child, module, raising=False)

    return install


# --- run ---


def test_a_dataset_that_is_not_here_is_refused_before_lessons_are_read(monkeypatch):
    monkeypatch.setattr("crossfunc.lessons.plans.plan_run", lambda *_, **__: pytest.fail("lessons were read"))
    for given in (["-p", "dataset=/nowhere"], ["--dataset", "/nowhere"]):
        result = CliRunner().invoke(app, ["run", "03", *given])
        assert result.exit_code != 0
        assert "no dataset '/nowhere'" in result.output


def test_run_executes_then_leaves_fresh_lessons_alone_and_check_agrees(checkout):
    first = call("run", "1", "--profile", "smoke")
    assert first.exit_code == 0, first.output
    assert first.stdout.startswith("01_first  done ")
    assert first.stderr == ""  # no bar: this is no terminal
    notebook = checkout / "build/smoke/notebooks/01_first.ipynb"
    assert notebook.exists()
    assert "fresh" in call("run", "--profile", "smoke").stdout
    assert call("run", "--profile", "smoke", "--check").exit_code == 0
    (checkout / "notebooks" / "01_first.py").write_text(HEADER + LESSON + "\nprint(n)\n")
    stale = call("run", "--profile", "smoke", "--check")
    assert stale.exit_code == 1
    assert "01_first: stale: changed since it was run: source (notebooks/01_first.py)" in stale.stdout
    assert "0 of 1 lessons are fresh" in stale.stdout


def test_run_of_a_failing_lesson_shows_the_cell_and_ends_with_status_1(checkout):
    failed = call("run", "-p", "n=-1", "--out", checkout / "elsewhere")
    assert failed.exit_code == 1
    assert failed.stdout.startswith("01_first  failed ")
    assert "error: lesson 01_first, cell 3 of 3 (notebooks/01_first.py, line 17) failed" in failed.stderr
    assert "AssertionError: n must be positive" in failed.stderr
    assert (checkout / "elsewhere/notebooks/01_first.failed.ipynb").exists()
    assert not (checkout / "build").exists()


def test_other_values_than_the_profiles_go_to_a_folder_that_is_named(checkout):
    arguments = ("run", "--profile", "smoke", "-p", "n=2", "-p", "label=a")
    checked = call(*arguments, "--check")
    assert checked.stdout.startswith(
        f"n: not as in profile smoke, so the folder is {checkout / 'build/smoke-custom'}; "
        "build/smoke stays as it is (--out names another)\n01_first: missing: "
    )
    done = call(*arguments)
    assert done.exit_code == 0, done.output
    assert "build/smoke-custom/notebooks/01_first.ipynb" in done.stdout
    assert sorted(path.name for path in (checkout / "build").iterdir()) == ["smoke-custom"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "m=2"], "error: -p m: no selected lesson declares it. Declared: label='a', n=1."),
        (["-p", "n"], "error: -p n: expected name=value."),
        (["-p", "label=2"], "parameter `label` takes str (default 'a'), got 2 (int)"),
        (["--profile", "paper"], "no profile 'paper'"),
        (["--dataset", "surrogate"], "-p dataset: no selected lesson declares it"),
        (["--dataset", "x", "-p", "dataset=y"], "dataset is given twice"),
        (["09"], "error: no lesson '09'; there are: 01_first."),
    ],
)
def test_mistakes_are_told_in_one_block_without_a_traceback(checkout, arguments, message):
    result = call("run", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_debug_adds_the_traceback(checkout):
    result = call("--debug", "run", "09")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert result.stderr.rstrip().endswith("error: no lesson '09'; there are: 01_first.")


def test_run_outside_a_checkout_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("run")
    assert result.exit_code == 1
    assert "not inside a checkout of the book" in result.stderr
    assert "give --root" in result.stderr


def test_a_mistake_of_ours_is_not_told_as_one_of_the_users(checkout, monkeypatch):
    from crossfunc.lessons import plans

    def broken(*_args, **_options):
        raise ValueError("a bug")

    monkeypatch.setattr(plans, "plan_run", broken)
    result = call("run")
    assert isinstance(result.exception, ValueError)
    assert "error:" not in result.stderr


# --- data ---


def test_data_check_prints_the_report_and_fails_on_an_error(fake):
    reports = {
        "good": [SimpleNamespace(level="info", file="pairs.parquet", message="3 rows")],
        "bad": [SimpleNamespace(level="error", file="pairs.parquet", message="no column composition")],
    }

    class Report:
        def __init__(self, name):
            self.findings = reports[name]

        def __str__(self):
            return "\n".join(f"{f.level} {f.file}: {f.message}" for f in self.findings)

        def to_dict(self):
            return {"findings": [vars(f) for f in self.findings]}

    fake("crossfunc.datasets", check_dataset=Report)
    good, bad = call("data", "check", "good", "--no-labels"), call("data", "check", "bad", "--json")
    assert (good.exit_code, good.stdout) == (0, "info pairs.parquet: 3 rows\n")
    assert bad.exit_code == 1
    assert json.loads(bad.stdout)["findings"][0]["message"] == "no column composition"


def test_data_check_of_nothing_is_an_error_that_says_where_it_looked(tmp_path):
    result = call("data", "check", tmp_path / "nothing")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: no dataset ")


def test_data_list_names_licence_and_place_and_survives_a_broken_dataset(fake):
    class DatasetError(ValueError):
        pass

    def open_dataset(path, verify):
        if path == "/data/bad":
            raise DatasetError("no licence")
        return SimpleNamespace(meta={"licence": "CC-BY-4.0"})

    found = {"good": "/data/good", "bad": "/data/bad"}
    fake("crossfunc.datasets", DatasetError=DatasetError, list_datasets=lambda: found, open_dataset=open_dataset)
    rows = json.loads(call("data", "list", "--json").stdout)
    assert rows == [
        {"name": "good", "licence": "CC-BY-4.0", "path": "/data/good"},
        {"name": "bad", "licence": "cannot be opened: no licence", "path": "/data/bad"},
    ]
    assert "good\n  licence  CC-BY-4.0\n  found    /data/good\n" in call("data", "list").stdout
    found.clear()
    assert "CROSSFUNC_DATA" in call("data", "list").stdout


def test_make_surrogate_hands_its_options_on(fake, tmp_path):
    calls = []
    fake("crossfunc.surrogate.generate", make_surrogate=lambda out, **options: calls.append((out, options)))
    result = call("data", "make-surrogate", "--out", tmp_path / "s", "--seed", "3", "--limit", "5")
    assert result.exit_code == 0, result.output
    assert calls == [(tmp_path / "s", {"seed": 3, "n_limit": 5, "n_jobs": 1, "overwrite": False})]
    assert "wrote" in result.stdout


# --- atomref ---


@pytest.fixture
def pairs():
    """Element references are exactly Na = -1 and Cl = -2 eV/atom in gga, and 10 eV lower in r2scan."""
    gga = [-1.0, -2.0, -1.5]
    return pd.DataFrame(
        {
            "material_id": ["a", "b", "c"],
            "composition": ["Na", "Cl2", "NaCl"],
            "low_energy_per_atom_ev": gga,
            "high_energy_per_atom_ev": [energy - 10 for energy in gga],
        }
    )


@pytest.fixture
def dataset(monkeypatch, pairs):
    import pyarrow as pa

    from crossfunc import datasets

    functionals = datasets.describe_functionals("GGA", "r²SCAN", energy_kinds=("mp2020", "raw"))
    meta = {"functionals": functionals, "label_notice": "toy labels"}
    opened = datasets.Dataset("toy", meta, Path("toy"), {"pairs": pa.Table.from_pandas(pairs)})
    monkeypatch.setattr(datasets, "open_dataset", lambda name: opened)
    return opened


@pytest.mark.parametrize(
    ("functional", "sodium"), [("gga", -1.0), ("r2scan", -11.0), ("low", -1.0), ("high", -11.0), ("GGA", -1.0)]
)
def test_atomref_fits_the_functional_asked_for(dataset, functional, sodium):
    result = call("atomref", "toy", "--functional", functional, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["elements"]["Na"]["energy_ev"] == pytest.approx(sodium)
    assert document["elements"]["Fe"]["energy_ev"] is None
    expected = ("gga", "mp2020") if sodium == -1.0 else ("r2scan", "raw")
    assert (document["functional"], document["energy_kind"]) == expected
    assert document["label_notice"] == "toy labels"
    assert document["refit_advice"]["refit"] is True
    assert document["refit_advice"]["initial_mae_ev_per_atom"] == pytest.approx(10)


def test_atomref_prints_table_summary_advice_and_notice(dataset):
    text = call("atomref", "toy").stdout
    assert "energy_ev" in text
    assert "toy, r²SCAN. 3 frames, 2 elements, rank 2" in text
    assert "From GGA with MP2020 corrections to r²SCAN: Refit: " in text
    assert text.rstrip().endswith("toy labels")


def test_atomref_on_frames_can_count_each_material_once(dataset):
    import pyarrow as pa

    del dataset._tables["pairs"]
    dataset._tables["frames"] = pa.table(
        {
            "material_id": ["a", "a", "a", "b", "a"],
            "frame_id": ["1", "2", "3", "4", "5"],
            "functional": ["gga", "gga", "gga", "gga", "r2scan"],
            "energy_kind": ["mp2020"] * 4 + ["raw"],
            "atomic_numbers": pa.array([[11], [11], [11], [11], [11]], pa.list_(pa.int16())),
            "energy_per_atom_ev": [-1.0, -1.0, -1.0, -3.0, -9.0],
        }
    )
    by_frame = json.loads(call("atomref", "toy", "--functional", "gga", "--json").stdout)
    by_material = json.loads(call("atomref", "toy", "--functional", "gga", "--by-material", "--json").stdout)
    assert by_frame["elements"]["Na"]["energy_ev"] == pytest.approx(-1.5)  # (3 x -1 - 3) / 4
    assert by_material["elements"]["Na"]["energy_ev"] == pytest.approx(-2.0)  # (-1 - 3) / 2
    assert by_frame["refit_advice"] is None
    assert "No pairs of both functionals here" in call("atomref", "toy", "--functional", "gga").stdout


def test_atomref_of_an_unknown_functional_or_dataset_is_an_error(dataset, monkeypatch):
    refused = call("atomref", "toy", "--functional", "pbe")
    assert (refused.exit_code, "no functional 'pbe'; it has gga (low: GGA)" in refused.stderr) == (1, True)
    del dataset._tables["pairs"]
    result = call("atomref", "toy")
    assert result.exit_code == 1
    assert "neither pairs nor frames" in result.stderr


# --- bench, help, version ---


def test_bench_atomref_prints_what_was_measured(fake):
    measured = {"n_frames": 100, "seconds": 0.012345}
    fake("crossfunc.bench.atomref", run=lambda: measured, format_report=lambda m: f"frames  {m['n_frames']}")
    assert json.loads(call("bench", "atomref", "--json").stdout) == measured  # nothing else, so it can go to a file
    assert call("bench", "atomref").stdout == "frames  100\n"


def test_version_is_the_packages():
    from importlib.metadata import version

    assert call("--version").stdout == f"crossfunc {version('crossfunc')}\n"


@pytest.mark.parametrize(
    "command", [[], ["run"], ["data"], ["data", "check"], ["data", "list"], ["atomref"], ["bench"]]
)
def test_every_command_explains_itself(command):
    result = call(*command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.stdout


def test_help_is_laid_out_as_it_is_written():
    lines = call("--help").stdout.splitlines()
    first = lines.index("  First steps:")
    assert [line.split("  ")[2] for line in lines[first + 1 : first + 4]] == [
        "crossfunc data list",
        "crossfunc atomref surrogate",
        "crossfunc run 01 --profile smoke",
    ]

    def every(command, path=()):
        yield path
        for name, inner in getattr(command, "commands", {}).items():
            yield from every(inner, (*path, name))

    for path in every(typer.main.get_command(app)):
        assert "\\b" not in call(*path, "--help").stdout


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom crossfunc.cli import app\n"
        "CliRunner().invoke(app, ['run', '--help'])\n"
        "print([m for m in ('numpy', 'pandas', 'pyarrow', 'torch', 'papermill', 'pymatgen') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
