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
# Every step is shown twice: as a command for the terminal, in an activated environment ({doc}`/rerun`), and as the code that this page runs.

# %% tags=["parameters"]
dataset = "surrogate"  # dataset that practice files are cut from
results_dir = None  # folder for the claims table and the model
low_file: str | None = None  # file of your first functional (full path)
high_file: str | None = (
    None  # file of your second functional; None: files for practice
)
low_name = "low functional"  # name of the first functional in prose
high_name = "high functional"  # name of the second functional
low_kind = "raw"  # "mp2020" if the energies hold its corrections
material_key: str | None = "material"  # key of a material; None: formula
stress_unit = "ev/a3"  # unit of stress in the files; ASE writes eV/Å³
pretrained = "0.3.0"  # the model to start from
elements = ["Li", "Mg", "Fe", "Co", "O"]  # elements of the practice files
seed = 0  # seed of the split and of the frames' order
n_epochs = 6  # passes over the training frames
batch_size = 8  # frames per optimiser step
real_file = "tm_fluorides_r2scan.json"  # DFT, if CROSSFUNC_DATA has it
n_epochs_real = 3  # passes over the training frames of real_file
max_atoms_real = 20  # larger crystals of real_file are left out

# %%
import tempfile
from pathlib import Path

import numpy as np
from ase import Atoms
from IPython.display import display

import crossfunc as xf
from crossfunc import label_checks
from crossfunc.datasets.functionals import functional_key
from crossfunc.datasets.importers import extxyz, mp_r2scan
from crossfunc.lessons import LessonResults, figures, own_data, own_pair

# %%
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

# %% tags=["remove-cell"]
if high_file is None and dataset != own_data.BOOKS_DATASET:
    own_data.stop_here(
        f"This page starts from files; {Path(dataset).name} is a dataset already. Give files with -p low_file=... -p high_file=...",
        LessonResults("08_own_pair", results_dir, xf.open_dataset(dataset)),
    )

# %%
files = {"low": low_file, "high": high_file}
names, kinds, notice = (low_name, high_name), (low_kind, "raw"), None
if high_file is None:
    source = xf.open_dataset(dataset)
    names, kinds = own_pair.names_and_kinds(source)
    notice = source.label_notice
    files = own_pair.practice_files(source, work, elements)
    print("\n".join(files["high"].read_text().splitlines()[:4]))

# %% [markdown]
# ## From files to a dataset
#
# ```bash
# crossfunc data import extxyz gga.extxyz r2scan.extxyz --out own-pair \
#     --low-name "GGA/GGA+U" --high-name "r²SCAN" --low-kind mp2020 --material-key material
# ```
#
# Keys and units are options, because no two groups agree on them: `--energy-key REF_energy`, `--energy-unit hartree`, `--stress-unit vasp-kbar` (VASP's OUTCAR has kBar with the opposite sign), and of six numbers the order: `--stress-order vasp`.
# A wrong one is the most common reason for a fine-tuned model that is worse than before, and it is found late.
# So the import does not take your word for it.
# It lets a published model predict a sample of the frames, and compares.
# Say that you thought the stresses were in GPa:


# %%
def import_pair(unit):
    options = {"stress_unit": unit, "high": functional_key(names[1])}
    return extxyz.import_extxyz(
        files["low"],
        files["high"],
        work / "own-pair",
        functionals=names,
        energy_kinds=kinds,
        keys=extxyz.Keys(material_id=material_key, stress_unit=unit),
        label_notice=notice,
        overwrite=True,  # of an earlier run of this cell
        inspect=lambda frames: label_checks.refuse_wrong_labels(
            frames, absolute=False, **options
        ),
    )


# %%
if high_file is None:
    try:
        import_pair("gpa")
    except label_checks.WrongLabelError as refusal:
        print(refusal)

# %% [markdown]
# Nothing was written.
# The message holds the evidence, and the option that reads these files right.
# Now with the unit that they have:

# %%
summary = import_pair(stress_unit)
own = xf.open_dataset(summary.path)
results = LessonResults("08_own_pair", results_dir, own)
print(f"{summary.n_frames} frames of {summary.n_materials} materials,")
print(f"{summary.n_pairs} of them in both functionals;")
print(f"{summary.n_rejected} rows left out. {own.label_notice}")

# %% [markdown]
# Frames that cannot be used (a force that is not a number, two atoms in one place, an unknown element) would now be listed in `own-pair/rejected.parquet`, each with its reason; the others are not touched by them.
#
# ## What does the report say?
#
# ```bash
# crossfunc data check own-pair
# ```

# %%
own_pair.report_table(summary.path)

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
pairs = own.pairs
if pairs is None:
    print("Frames of one functional alone: there is nothing to compare.")
else:
    X, ids = xf.composition_matrix(pairs), pairs["material_id"]
    both = [pairs[one.column()].to_numpy() for one in own.functionals]
    fits = [xf.fit_atomref(X, e, material_ids=ids) for e in both]
    left = [fit.remove(X, e) for fit, e in zip(fits, both, strict=True)]
    total, rest = np.corrcoef(both)[0, 1], np.corrcoef(left)[0, 1]
    print(f"Pearson r {total:.3f}, minus refitted references {rest:.3f}")

# %%
if pairs is not None:
    shift = both[1] - both[0]
    advice = xf.refit_advice(X, shift, material_ids=ids, seed=seed)
    results.record("pearson_total", total, n=len(pairs))
    results.record("pearson_refitted", rest, n=len(pairs))
    own_pair.record_offsets(results, advice)
    print(advice.reason)

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
# The first row is the pretrained model as it comes, the second the same network with refitted references, which costs a least-squares fit and no training at all, and the third the model after all epochs.
# If the second row is not much better than the first in energy, the references were not the trouble, and if the third is worse in forces than the first, train longer or with a lower learning rate before you believe anything else.

# %%
frames = xf.LabelledFrames.from_dataset(summary.path, "high")
split = xf.split_by_material(frames.material_ids, seed=seed)
settings = {"seed": seed, "batch_size": batch_size}

# %%
options = {"split": split, "pretrained": pretrained, "progress": False}
options |= settings
untrained = xf.finetune("references-only", frames, **options)
to = {"out": tempfile.mkdtemp(dir=work), "n_epochs": n_epochs}
run = xf.finetune("4", frames, **to, **options)
print("\n".join(run.notes))

# %%
base = xf.load_model(pretrained)
errors = {
    "as it comes": xf.evaluate(base, frames, rows=split["test"]),
    "new references": untrained.metrics["test"],
    "fine-tuned": run.metrics["test"],
}

# %%
n_train, n_test = len(run.split["train"]), len(run.split["test"])
sizes = {"pretrained": pretrained, "n_epochs": n_epochs, "n_train": n_train}
own_pair.record_errors(results, errors, **sizes)
print(
    f"{n_train} frames to learn from, {n_test} of other materials to judge"
)
own_pair.error_table(errors)

# %% tags=["remove-cell"]
energy = own_pair.energy_errors(errors)
own_data.check_claim(
    energy["new references"] < energy["as it comes"],
    "new references alone lower the energy error",
    own if high_file else xf.open_dataset(dataset),
)

# %% [markdown]
# ## Use the model
#
# A run folder holds `best.pt`, which stock chgnet loads as well, `best.safetensors`, the history, and `run.json` with the settings and the fingerprints of data and split.
# In ASE it is a calculator like any other:

# %%
if results.folder is not None:
    kept = results.folder / f"{results.lesson}.model.pt"
    origin = {"dataset": own.name, "method": "4"}
    xf.save_model(run.model, kept, provenance=origin)

# %%
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
real = own_data.find_real_file(real_file)
fluorides = work / "fluorides"
if real is None:
    print(f"{real_file} is not here, so this section is left out.")
else:
    how = {"inspect": label_checks.refuse_wrong_labels, "overwrite": True}
    taken = mp_r2scan.import_mp_frames(real, fluorides, **how)
    print(f"{taken.n_frames} frames of {taken.n_materials} materials")

# %%
if real is not None:
    labelled = xf.LabelledFrames.from_dataset(fluorides, "high")
    labeller = xf.load_model("r2scan")
    published = xf.evaluate(labeller, labelled, with_predictions=True)
    over_frames, over_materials = own_pair.record_published(
        results, published
    )
    print(
        f"published r²SCAN model: {over_frames:.1f} meV/atom over frames,"
    )
    print(f"{over_materials:.1f} meV/atom over materials")

# %% [markdown]
# The two energy errors are both right and must not be mixed up: materials with long relaxations count once in the second and often in the first.
# Everywhere else in this book, errors are means over frames.
# The published model was trained on 0.2 million frames; here is how far a few dozen of these carry the GGA/GGA+U model, on fluorides that this run has not seen:

# %%
if real is not None:
    passes = {"n_epochs": n_epochs_real, "max_atoms": max_atoms_real}
    settings_real = settings | passes | {"pretrained": pretrained}
    run_real, errors_real = own_pair.tune(
        fluorides, tempfile.mkdtemp(dir=work), **settings_real
    )

# %%
if real is not None:
    sizes_real = {part: len(rows) for part, rows in run_real.split.items()}
    own_pair.record_fluorides(results, errors_real, sizes_real)
    display(own_pair.error_table(errors_real))

# %%
stages = {own.name: energy}
if real is not None:
    stages["fluorides, DFT"] = own_pair.energy_errors(errors_real)
said = own_pair.in_words(stages)

# %%
figures.show(
    figures.error_stages(stages),
    alt="Energy errors on held-out materials at three stages in meV/atom, on a "
    f"logarithmic axis: {said}.",
    caption=f"Energy errors in meV/atom, as it comes, with new references, fine-tuned: {said}",
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
