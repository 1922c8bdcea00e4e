# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Bring your own functional pair

# %% [markdown]
# :::{admonition} On this page
# :class: tip
# **Goal**: go from two files with your own calculations to a fine-tuned model, and know what it is worth.
#
# **You need**: two extended XYZ files (or ASE databases), one for each functional; for practice the page makes them.
#
# **You will be able to**: import labels without trusting them, read the report on what they are, fine-tune, and hand on numbers that others can check.
#
# **Run time**: under a minute.
# :::
#
# Nothing in the lessons is about GGA/GGA+U and r²SCAN in particular.
# A *low* functional is one for which a pretrained model exists, a *high* one is where you want to get.
# Every step is shown twice: as a command for the terminal, and as the code that this page runs.

# %% tags=["parameters"]
dataset = "surrogate"  # practice files are cut out of this one
results_dir = None  # folder for the claims table and the model
low_file: str | None = None  # file of your first functional (full path)
high_file: str | None = (
    None  # file of your second functional; None: files for practice
)
low_name = "low functional"  # name of the first functional in prose
high_name = "high functional"  # name of the second functional
low_kind = "raw"  # "mp2020" if the energies hold its corrections
material_key: str | None = "material"  # comment-line entry; None: formula
stress_unit = "ev/a3"  # what your files have; ASE's convention is eV/Å³
pretrained = "0.3.0"  # the model to start from
elements = ["Li", "Mg", "Fe", "Co", "O"]  # elements of the practice files
seed = 0  # split and order of the frames
n_epochs = 6  # passes over the training frames
batch_size = 8  # frames per optimiser step
real_file = "tm_fluorides_r2scan.json"  # DFT, if CROSSFUNC_DATA has it
n_epochs_real = 3  # passes over the training frames of real_file
max_atoms_real = 20  # larger crystals of real_file are left out

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from IPython.display import display

import crossfunc as xf
from crossfunc.datasets import check_dataset
from crossfunc.datasets.functionals import functional_key
from crossfunc.datasets.importers import extxyz, mp_r2scan
from crossfunc.lessons import LessonResults, figures, own_data
from crossfunc.potential import trust
from crossfunc.symbols import ELEMENT_SYMBOLS
from crossfunc.units import EV_PER_A3_TO_GPA

figures.use_style()
scratch = tempfile.TemporaryDirectory()
work = Path(scratch.name)

# %% [markdown]
# ## Two files
#
# An extended XYZ file holds one crystal after another: the number of atoms, a comment line with the cell and the energy, and a line for each atom with its position and its force.
# ASE writes it from nearly every code.
# One thing is worth adding to the comment line: which *material* a frame belongs to, so that two frames of one relaxation never end up on both sides of a split.
# Which frames of the two files are the same structure is found out from the atoms themselves.
#
# For practice we cut some hundred frames out of the embedded dataset.
# Its first functional has energies alone, the second one forces, stresses and moments as well; that is how it often is, for a good reason: training needs labels of the second functional only.
# (If you have no file of the first one at all, give `-` in its place; what compares the functionals then has nothing to compare.)

# %% tags=["hide-input"]
if high_file is None and dataset != own_data.BOOKS_DATASET:
    own_data.stop_here(
        f"This page starts from files; {Path(dataset).name} is a dataset already. Give files with -p low_file=... -p high_file=...",
        LessonResults("08_own_pair", results_dir, xf.open_dataset(dataset)),
    )

# %%
inside = set(elements)
SOURCES = ["dense: relaxed", "dense: strained", "dense: path-0"]


def to_ase(row):
    """One frame of a dataset as ASE's Atoms with its labels."""
    atoms = Atoms(
        row["atomic_numbers"],
        cell=np.reshape(row["lattice_a"], (3, 3)),
        scaled_positions=np.reshape(row["frac_coords"], (-1, 3)),
        pbc=True,
        info={"material": row["material_id"]},
    )
    labels = {"energy": row["energy_per_atom_ev"] * len(atoms)}
    if row["forces_ev_per_a"] is not None:
        labels["forces"] = np.reshape(row["forces_ev_per_a"], (-1, 3))
        stress = np.reshape(row["stress_gpa"], (3, 3)) / EV_PER_A3_TO_GPA
        labels["stress"] = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        labels["magmoms"] = row["magmoms_mub"]
    atoms.calc = SinglePointCalculator(atoms, **labels)
    return atoms


# %%
files = {"low": low_file, "high": high_file}
notice = None  # of your own labels, the names of the functionals
if high_file is None:
    source = xf.open_dataset(dataset)
    notice = source.label_notice
    low_kind = source.functional("low").energy_kind
    low_name, high_name = (one.name for one in source.functionals)
    rows = source.frames.filter(
        np.isin(source.frames["source"].to_pylist(), SOURCES)
    ).to_pylist()
    for side in files:
        key = source.functional(side).key
        chosen = [
            to_ase(row)
            for row in rows
            if row["functional"] == key
            and {ELEMENT_SYMBOLS[z - 1] for z in row["atomic_numbers"]}
            <= inside
        ]
        files[side] = work / f"{key}.extxyz"
        write(files[side], chosen, format="extxyz")
        print(f"{files[side].name}: {len(chosen)} frames")

# %%
if high_file is None:
    print("\n".join(files["high"].read_text().splitlines()[:4]))

# %% [markdown]
# ## From files to a dataset
#
# ```bash
# crossfunc data import extxyz gga.extxyz r2scan.extxyz --out own-pair \
#     --low-name "GGA/GGA+U" --high-name "r²SCAN" --low-kind mp2020 --material-key material
# ```
#
# Keys and units are options, because no two groups agree on them: `--energy-key REF_energy`, `--energy-unit hartree`, `--stress-unit vasp-kbar` (VASP's OUTCAR has kBar with the opposite sign).
# A wrong one is the most common reason for a fine-tuned model that is worse than before, and it is found late.
# So the import does not take your word for it.
# It lets a published model predict a sample of the frames, and compares.
# Say that you thought the stresses were in GPa:


# %%
def refuse(frames, unit):
    """What the command does: look at a sample before writing."""
    high = functional_key(high_name)
    options = {"absolute": False, "stress_unit": unit, "high": high}
    trust.refuse_wrong_labels(frames, **options)


def import_pair(unit):
    return extxyz.import_extxyz(
        files["low"],
        files["high"],
        work / "own-pair",
        functionals=(low_name, high_name),
        energy_kinds=(low_kind, "raw"),
        keys=extxyz.Keys(material_id=material_key, stress_unit=unit),
        label_notice=notice,
        inspect=lambda frames: refuse(frames, unit),
    )


if high_file is None:
    try:
        import_pair("gpa")
    except trust.TrustError as error:
        print(error)

# %% [markdown]
# Nothing was written.
# The message holds the evidence, and the option that reads these files right.
# Now with the unit that they have:

# %%
summary = import_pair(stress_unit)
own = xf.open_dataset(summary.path)
results = LessonResults("08_own_pair", results_dir, own)
print(
    f"{summary.n_frames} frames of {summary.n_materials} materials, "
    f"{summary.n_pairs} of them in both functionals, "
    f"{summary.n_rejected} rows left out"
)
print(own.label_notice)

# %% [markdown]
# Frames that cannot be used (a force that is not a number, two atoms in one place, an unknown element) would now be listed in `own-pair/rejected.parquet`, each with its reason; the others are not touched by them.
#
# ## What does the report say?
#
# ```bash
# crossfunc data check own-pair
# ```


# %%
def show_report(folder):
    """The findings of `crossfunc data check` as a table."""
    report = check_dataset(folder)
    trust.add_label_findings(report, xf.open_dataset(folder))
    lines = [(f.level, f.file, f.message) for f in report.findings]
    table = pd.DataFrame(lines, columns=["level", "what", "finding"])
    left = {"text-align": "left", "white-space": "normal"}
    shown = table.style.format(escape="html").hide(axis="index")
    return shown.set_properties(**left)


show_report(summary.path)

# %% [markdown]
# Read it from the end: what was *measured* stands there.
# A factor near 1 and a cosine near 1 say that the stress has the unit and sign it should have; the model need not be right for that, only better than a factor of ten.
# The energies of two neighbouring frames differ by the work of stress and forces between them, which tells the unit without any model (where a relaxation was imported).
# The energies of the first file are told to hold MP2020 corrections; import it without `--low-kind mp2020`, and this report calls that an error, because CHGNet 0.3.0 knows corrected energies when it sees them.
# A *warning* is something to look at, such as an element that occurs in two materials only; an *error* means that the data must not be used as they are.
#
# ## Do the two functionals need new references?
#
# ```bash
# crossfunc atomref own-pair
# ```
#
# Lesson {doc}`03_atomref_correlation` in two cells: how far apart are the energies, and how much of that is elemental?

# %%
pairs, correlation, offsets = own.pairs, {}, {}
if pairs is None:
    print("Frames of one functional alone: there is nothing to compare.")
else:
    X = xf.composition_matrix(pairs)
    low = pairs["low_energy_per_atom_ev"].to_numpy()
    high = pairs["high_energy_per_atom_ev"].to_numpy()
    ids = pairs["material_id"]
    fits = [xf.fit_atomref(X, e, material_ids=ids) for e in (low, high)]
    low_left, high_left = fits[0].remove(X, low), fits[1].remove(X, high)
    correlation["total energies"] = np.corrcoef(low, high)[0, 1]
    correlation["minus refitted references"] = np.corrcoef(
        low_left, high_left
    )[0, 1]
    advice = xf.refit_advice(X, high - low, material_ids=ids, seed=seed)
    offsets["before a refit"] = advice.initial_mae_ev_per_atom
    offsets["after a refit, held out"] = advice.refitted_mae_ev_per_atom
    print(advice.reason)
pd.Series(correlation, dtype=float).round(3).to_frame("Pearson r")

# %% tags=["hide-input", "remove-output"]
for name, r in correlation.items():
    results.record(
        "pearson_" + name.split()[-2],
        r,
        title=f"Pearson r between the functionals, {name}",
        note=f"{len(pairs)} materials",
    )
for what, value in offsets.items():
    results.record(
        f"offset_{what.split()[0]}",
        1000 * value,
        unit="meV/atom",
        title=f"Mean difference of the functionals {what}",
    )

# %% [markdown]
# ## Fine-tune
#
# ```bash
# crossfunc finetune --method 4 --dataset own-pair --out run --epochs 50
# crossfunc evaluate --model run/best.pt --dataset own-pair --by-split
# ```
#
# Method 4 of {doc}`04_four_methods`: keep the network, refit the references, train.
# If the advice above was *no*, take method 2, which leaves the references to training; and `--method model-aware` is the better refit of lesson 3.
# The split is by material, 8:1:1; a killed run goes on where it was when the command is given again.
# This page trains for far too short a time, so that it runs anywhere: read the three rows for their order.


# %%
def tune(folder, out, epochs, max_atoms=1000):
    """Errors on held-out materials: as it comes, new references, trained."""
    frames = xf.LabelledFrames.from_dataset(folder, "high")
    small = np.flatnonzero(frames.crystals.n_atoms <= max_atoms)
    frames = frames.take(small)
    split = xf.split_by_material(frames.material_ids, seed=seed)
    options = {"split": split, "pretrained": pretrained, "progress": False}
    options |= {"seed": seed, "batch_size": batch_size}
    base = xf.load_model(pretrained)
    untrained = xf.finetune("references-only", frames, **options)
    run = xf.finetune("4", frames, out=out, n_epochs=epochs, **options)
    errors = {
        "as it comes": xf.evaluate(base, frames, rows=split["test"]),
        "new references": untrained.metrics["test"],
        "fine-tuned": run.metrics["test"],
    }
    for note in run.notes:
        print(note)
    return run, errors


run, errors = tune(summary.path, work / "run", n_epochs)

# %%
UNITS = {
    "energy_mae_mev_per_atom": ("energy", "meV/atom"),
    "force_mae_mev_per_a": ("force", "meV/Å"),
    "stress_mae_gpa": ("stress", "GPa"),
    "magmom_mae_mub": ("magmom", "μB"),
}


def as_table(errors):
    """One row per model, one column per label; a dash where nothing is labelled."""
    table = pd.DataFrame(errors).T[list(UNITS)].astype(float)
    names = {m: f"{what} ({unit})" for m, (what, unit) in UNITS.items()}
    return table.rename(columns=names)


def style(table):
    digits = [",.0f", ",.0f", ".2f", ".3f"]
    columns = zip(table.columns, digits, strict=True)
    return table.style.format(
        {c: f"{{:{d}}}" for c, d in columns}, na_rep="–"
    )


# %%
n_test = len(run.split["test"])
print(
    f"{len(run.split['train'])} frames to learn from, {n_test} of other materials to be judged on"
)
style(as_table(errors))

# %%
energy = [e["energy_mae_mev_per_atom"] for e in errors.values()]
own_data.check_claim(
    energy[1] < energy[0],
    "new references alone lower the energy error",
    own if high_file else xf.open_dataset(dataset),
)

# %% tags=["hide-input", "remove-output"]
notes = {
    "as it comes": f"checkpoint {pretrained}",
    "new references": "no training",
    "fine-tuned": f"{n_epochs} epochs, {len(run.split['train'])} frames",
}
for name, found in errors.items():
    for metric, (what, unit) in UNITS.items():
        if found[metric] is not None and np.isfinite(found[metric]):
            results.record(
                f"{what}_mae_{name.replace(' ', '_').replace('-', '_')}",
                found[metric],
                unit=unit,
                title=f"{what.capitalize()} error on held-out materials, model {name}",
                note=notes[name],
            )

# %% [markdown]
# ## Use the model
#
# A run folder holds `best.pt`, which stock chgnet loads as well, `best.safetensors`, the history, and `run.json` with the settings and the fingerprints of data and split.
# In ASE it is a calculator like any other:

# %%
if results.folder is not None:
    about = {"dataset": own.name, "method": "4"}
    file = results.folder / f"{results.lesson}.model.pt"
    xf.save_model(run.model, file, provenance=about)
atoms = Atoms("FeO", cell=2.15 * (np.ones((3, 3)) - np.eye(3)), pbc=True)
atoms.set_scaled_positions([[0, 0, 0], [0.5, 0.5, 0.5]])
atoms.calc = xf.CHGNetCalculator(run.model)
print(f"FeO: {atoms.get_potential_energy() / 2:.3f} eV/atom")

# %% [markdown]
# And every lesson runs on your data with one option:
#
# ```bash
# crossfunc run -p dataset=own-pair
# ```
#
# Where your data lack what a part of a lesson needs (energies of both functionals, forces, the elements' ground states), it says so in a sentence and goes on.
# This page takes your files directly, by their full paths; give `--force` when they have changed, for the runner does not look into them:
#
# ```bash
# crossfunc run 08 -p low_file=/full/path/low.extxyz -p high_file=/full/path/high.extxyz
# ```
#
# ## And with real DFT?
#
# Training needs frames of the second functional alone.
# If a folder of the environment variable `CROSSFUNC_DATA` holds `tm_fluorides_r2scan.json` (relaxations of transition-metal fluorides in r²SCAN, as VASP computed them, in the layout of the paper's dataset MP-r2SCAN), this section takes it the same way:
#
# ```bash
# crossfunc data import mp-r2scan tm_fluorides_r2scan.json --out fluorides
# crossfunc evaluate --model r2scan --dataset fluorides
# ```

# %%
given = os.environ.get("CROSSFUNC_DATA", "").split(os.pathsep)
places = [Path(folder) / real_file for folder in given if folder]
real = next((path for path in places if path.is_file()), None)
if real is None:
    print(f"{real_file} is not here, so this section is left out.")
else:
    fluorides = work / "fluorides"
    summary = mp_r2scan.import_mp_frames(
        real, fluorides, inspect=trust.refuse_wrong_labels
    )
    print(f"{summary.n_frames} frames of {summary.n_materials} materials")

# %%
if real is not None:
    frames = xf.LabelledFrames.from_dataset(fluorides, "high")
    published = xf.evaluate(
        xf.load_model("r2scan"), frames, with_predictions=True
    )
    off = np.abs(np.subtract(*published["predictions"].pairs("energy")))
    by_material = pd.Series(1000 * off).groupby(frames.material_ids).mean()
    print(
        f"the published r²SCAN model, energies: {published['energy_mae_mev_per_atom']:.1f} meV/atom as the mean over frames,\n"
        f"{by_material.mean():.1f} meV/atom as the mean over materials; "
        f"forces {published['force_mae_mev_per_a']:.0f} meV/Å, "
        f"stress {published['stress_mae_gpa']:.2f} GPa"
    )

# %% [markdown]
# The two energy errors are both right and must not be mixed up: materials with long relaxations count once in the second and often in the first.
# Everywhere else in this book, errors are means over frames.
# The published model was trained on 0.2 million frames; here is how far a few dozen of these carry the GGA/GGA+U model, on fluorides that it has not seen:

# %%
if real is not None:
    run_real, errors_real = tune(
        fluorides, work / "run-fluorides", n_epochs_real, max_atoms_real
    )
    table = as_table(errors_real)
    n = {part: len(rows) for part, rows in run_real.split.items()}
    about = (
        f"{n['train']} training and {n['test']} test frames; r²SCAN, DFT"
    )
    display(style(table).set_caption(about))

# %% tags=["hide-input", "remove-output"]
if real is not None:
    for key, value, what in (
        (
            "frames",
            published["energy_mae_mev_per_atom"],
            "mean over frames",
        ),
        ("materials", by_material.mean(), "mean over materials"),
    ):
        results.record(
            f"fluorides_energy_mae_{key}",
            value,
            unit="meV/atom",
            title=f"Published r²SCAN model on DFT of fluorides, energy, {what}",
            note=f"{len(frames)} frames of {len(by_material)} materials",
        )
    for name, found in errors_real.items():
        results.record(
            "fluorides_energy_mae_"
            + name.replace(" ", "_").replace("-", "_"),
            found["energy_mae_mev_per_atom"],
            unit="meV/atom",
            title=f"Energy error on held-out fluorides (DFT), model {name}",
            note=about,
        )

# %% tags=["hide-input"]
shown = {own.name: energy}
if real is not None:
    shown["fluorides, DFT"] = [
        e["energy_mae_mev_per_atom"] for e in errors_real.values()
    ]
fig, ax = plt.subplots()
looks = zip(shown.items(), "os", ("method_4", "r2scan"), strict=False)
for (name, values), mark, color in looks:
    ax.plot(
        list(errors),
        values,
        marker=mark,
        ms=7,
        color=figures.COLORS[color],
        label=name,
    )
ax.set(yscale="log", ylabel="energy MAE, held out (meV/atom)")
ax.legend()
figures.show(
    fig,
    alt="Energy errors on held-out materials at three stages, on a logarithmic axis: "
    + "; ".join(
        f"{name} {', '.join(f'{v:.0f}' for v in values)} meV/atom"
        for name, values in shown.items()
    )
    + ".",
    caption="Most of the error goes before training starts"
    + ("; squares are DFT, circles" if real is not None else ""),
    name="fig-08-stages",
    dataset=own,
)

# %% [markdown]
# ## The claims table
#
# What goes into a paper, with the sizes it was measured on:

# %%
results.save()
results.table()
