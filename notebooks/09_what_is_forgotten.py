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
# # What is forgotten?

# %% [markdown]
# :::{admonition} In this lesson
# :class: tip
# **Goal**: train one model in a dozen ways, and measure what each has learned of the new functional beside what it has lost of the old one.
#
# **You need**: {doc}`04_four_methods`.
#
# **You will be able to**: measure forgetting without being fooled by references, write down the equation of each remedy, and choose one for your own data.
#
# **Paper**: none of it; the paper measures the target alone. **Run time**: three to four minutes.
# :::
#
# A pretrained potential knows more than your data do: elements you have no frame of, phases you will meet in a simulation, what two atoms do when they come too close.
# Fine-tuning on a few hundred frames improves what these frames show.
# What does it do to the rest?

# %% tags=["parameters"]
dataset = "pbe-r2scan"  # name or folder; needs frames in both functionals
results_dir = None  # folder for the claims table; None keeps nothing
seed = 0  # first seed; drives split, frames and their order
n_seeds = 2  # runs behind every spread
n_train = 96  # frames of the target to train on
n_eval = 32  # frames each to validate and test on
n_source = 240  # frames of the source, to hold on to and to judge by
n_epochs = 6  # passes over the training frames
max_atoms = 3  # larger cells are left out; 1000 keeps all
batch_size = 8  # frames per optimiser step
learning_rate = 1e-3  # first value; the paper's
n_jobs = 2  # runs at the same time

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from joblib import Parallel, delayed

# %%
import crossfunc as xf
from crossfunc.lessons import LessonResults, figures, own_data
from crossfunc.lessons.forgetting_figures import (
    draw_dimers,
    draw_kinds,
    draw_plane,
)
from crossfunc.training import LabelledFrames, finetune, start_model
from crossfunc.training.dimers import find_dimers, read_dimers
from crossfunc.training.forgetting import COLUMNS
from crossfunc.training.source import (
    make_source,
    other_functional,
    split_source,
    without_labels,
)

# %%
figures.use_style()
ds = xf.open_dataset(dataset)
results = LessonResults("09_what_is_forgotten", results_dir, ds)
print(f"{ds.name}: {ds.label_notice}")

# %% tags=["hide-input"]
if lack := own_data.describe_lack(ds, "forces"):
    own_data.stop_here(lack, results)
source_key = other_functional(ds)
if source_key is None:
    own_data.stop_here(
        "These data have frames in one functional only; "
        "forgetting is measured in the other.",
        results,
    )

# %% [markdown]
# The *target* is the functional that we go to, the *source* the one that the pretrained model comes from.
# Small cells keep the page quick; of each material all frames are on one side of the split, in both functionals.


# %%
def small(frames, usable=None):
    keep = frames.crystals.n_atoms <= max_atoms
    keep &= True if usable is None else usable
    return frames.take(np.flatnonzero(keep))


target = LabelledFrames.from_dataset(ds)
usable = target.labelled("forces") & target.labelled("energy")
wanted = n_train + 2 * n_eval
max_atoms = own_data.fit_size_limit(
    target.crystals.n_atoms[usable], max_atoms, wanted
)
target = small(target, usable)
source = small(LabelledFrames.from_dataset(ds, source_key))


# %%
def choose(s):
    """Split of a seed: so many frames of each part, of materials of its own."""
    parts = xf.split_by_material(
        target.material_ids, (0.6, 0.2, 0.2), seed=s
    )
    rng = np.random.default_rng(s)
    sizes = {"train": n_train, "validation": n_eval, "test": n_eval}
    return {
        part: np.sort(rng.permutation(parts[part])[:n])
        for part, n in sizes.items()
    }


seeds = range(seed, seed + n_seeds)
splits = {s: choose(s) for s in seeds}
rows = np.random.default_rng(seed).permutation(len(source))[: 4 * n_source]
is_near = np.isin(source.material_ids, target.material_ids)
kept = [rows[is_near[rows] == near][: n_source // 2] for near in (1, 0)]
source = source.take(np.sort(np.concatenate(kept)))
print(
    f"{len(target)} target frames to choose from, {len(source)} of the source"
)

# %% [markdown]
# ## How do you measure forgetting?
#
# Not by the error in the old functional, at least not as it comes.
# The target's {term}`element references <element reference>` are eV/atom away from the source's *on purpose*, and whoever wants the source back can put its references back.
# So take references out of the comparison: put the pretrained ones in place of the model's own, and refit what is left,
#
# ```{math}
# :label: eq-forgetting
# \epsilon = \Big\langle \Big| y - E_\theta + X (c_\theta - c_0) - X r \Big| \Big\rangle, \qquad
# r = \arg\min_r \sum \big( y - E_\theta + X(c_\theta - c_0) - X r \big)^2,
# ```
#
# with labels $y$ of the source, energies $E_\theta$ and references $c_\theta$ of the trained model, and $c_0$ of the pretrained one.
# $r$ is fitted to other materials than those it is subtracted from.
# Forces need none of this: a derivative knows no references.
#
# And *where* do you measure it?
# Near the training frames per model may keep what it loses elsewhere.
# So the frames to judge by come in kinds, from near to far.

# %%
origin = split_source(source, target, None, target, splits[seed])
pd.Series(
    {"to hold on to": len(origin.pool)}
    | {kind: len(frames) for kind, frames in origin.held_out.items()},
    name="source frames",
).to_frame()

# %% [markdown]
# "Held-out materials" have the chemistry of the target but are not trained on.
# "Other chemistry" holds combinations of elements that no training frame has.
# Frames with large forces or stresses count as "far from equilibrium", where there are any.
#
# :::{admonition} What the surrogate can show
# :class: note
# On the embedded data the source labels *are* the pretrained model's own predictions.
# Its error before training is then zero by construction, on every kind of frames: what we measure is how far a model has moved away from its start, and a model that came closer to the real functional could not be told from one that lost it.
# Replay and two readouts are self-distillation here.
# Real labels in both functionals do not have this defect; real dimers, below, are one kind of them.
# :::
#
# ## The methods, one equation each
#
# All start from the pretrained network with model-aware references (lesson 3), take the same steps on the same frames, and differ in one line.
# $L$ is the loss of lesson 4, $\theta^0$ the pretrained weights.
#
# | key | what it does | equation |
# |---|---|---|
# | `model-aware-trained` | nothing more | $\min_\theta L(\theta)$ |
# | `readout-only` | features stay | $\dot\theta_l = 0$ but for the readouts |
# | `soft-freezing` | slower towards the input | $\eta_l = \eta\,\gamma^{L-l}$ |
# | `lora` | thin changes | $W = W_0 + BA$, with $B$ and $A$ of rank 8 |
# | `l2-sp` | pulled to the start | $L + \frac\lambda2 \lvert\theta - \theta^0\rvert^2$ |
# | `ewc` | pulled where it matters to the source | $L + \frac\lambda2 \sum_i F_i (\theta_i - \theta^0_i)^2$ |
# | `replay` | source frames in every step | $\langle L \rangle$ over target and source |
# | `two-readouts` | a readout each, one backbone | $E^f = \sum_i g^f(h_i) + X c^f$ |
# | `delta` | a small network beside a frozen one | $E = E_0 + \Delta E_\theta$ |
#
# $F$ needs a word.
# The usual choice, the mean squared gradient of the source loss, vanishes where the model itself made the labels: no error, no gradient.
# The *Gauss-Newton* diagonal, $F_i = \langle\sum_k w_k (\partial \hat y_k/\partial\theta_i)^2\rangle$, asks instead how much predictions change when a parameter moves, and needs no labels at all.
#
# Each starts exactly where the pretrained model is; that can be checked to the last bit.

# %%
LATER = ["model-aware-trained", "readout-only", "soft-freezing", "lora"]
LATER += ["l2-sp", "ewc", "replay", "two-readouts", "delta"]
base = xf.load_model("0.3.0")
train = target.take(splits[seed]["train"])
few = train.take(np.arange(min(8, len(train))))
own = make_source(without_labels(few), base)
before = xf.predict(base, few.crystals)
for key in LATER:
    model = start_model(
        key, few, pretrained=base, references="pretrained", source=own
    ).model
    after = xf.predict(model, few.crystals)
    for name in ("forces_ev_per_a", "magmoms_mub"):
        assert all(map(np.array_equal, before[name], after[name]))
    for name in ("energy_per_atom_ev", "stress_gpa"):
        assert np.array_equal(before[name], after[name])
print(f"{len(LATER)} methods start at the same bits")

# %% [markdown]
# ## Training
#
# Beside these, three of the paper's: from scratch (1), and with a network that must make up the offset (3) or is given plain refitted references (4).

# %%
CASES = ["1", "3", "4", *LATER]
budget = {
    "n_epochs": n_epochs,
    "batch_size": batch_size,
    "learning_rate": learning_rate,
    "validate_every_n_epochs": 2,
    "progress": False,
}


def train_one(key, s):
    began = time.perf_counter()
    run = finetune(
        key, target, split=splits[s], source=source, seed=s, **budget
    )
    return run, time.perf_counter() - began


# %%
tasks = [(key, s) for s in seeds for key in CASES]
done = Parallel(n_jobs=n_jobs)(delayed(train_one)(*task) for task in tasks)
runs = {task: run for task, (run, _) in zip(tasks, done, strict=True)}
for note in {
    note for run in runs.values() for note in run.forgetting.notes
}:
    print(note)


# %% [markdown]
# ## What is gained, what is lost?

# %%
NAMES = {key: xf.METHODS[key].name for key in CASES}
NAMES["1"], NAMES["3"], NAMES["4"] = (
    f"Method {n}" for n in ("1 (scratch)", 3, 4)
)
NAMES["pretrained"] = "pretrained, not trained"
ENERGY, FORCE = COLUMNS[:2]


def lost(table, column, when="after"):
    """Mean over the frames of all kinds but dimers."""
    table = table.drop(index="dimers", errors="ignore")
    return np.average(table[f"{column}_{when}"], weights=table["n_frames"])


# %%
points = []
for (key, s), run in runs.items():
    new, table = run.metrics["test"], run.forgetting.table
    row = {"method": key, "seed": s, "target_energy": new[ENERGY]}
    row |= {"target_force": new[FORCE]}
    row |= {"source_energy": lost(table, ENERGY)}
    points.append(row | {"source_force": lost(table, FORCE)})
for s in seeds:
    start = start_model(
        "model-aware", target.take(splits[s]["train"])
    ).model
    new = xf.evaluate(start, target, rows=splits[s]["test"])
    table = runs["4", s].forgetting.table
    row = {"method": "pretrained", "seed": s, "target_energy": new[ENERGY]}
    row |= {"target_force": new[FORCE]}
    row |= {"source_energy": lost(table, ENERGY, "before")}
    points.append(row | {"source_force": lost(table, FORCE, "before")})
points = pd.DataFrame(points)

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 2, figsize=figures.wide())
for ax, what, unit in zip(
    axes, ("energy", "force"), ("meV/atom", "meV/Å"), strict=True
):
    x, y = f"target_{what}", f"source_{what}"
    draw_plane(ax, points, names=NAMES, x=x, y=y)
    ax.set(
        xlabel=f"{what} error, target ({unit})",
        ylabel=f"{what} error, source ({unit})",
    )
axes[0].get_legend().remove()
fig.tight_layout()
means = points.groupby("method")[["target_energy", "source_energy"]].mean()
figures.show(
    fig,
    alt="Two scatter plots, energies and forces: error on the target's test frames against error on source frames, a point for each method and seed. Mean energy errors, target and source, in meV/atom: "
    + "; ".join(
        f"{NAMES[k]} {row.target_energy:.0f} and {row.source_energy:.0f}"
        for k, row in means.iterrows()
    )
    + ".",
    caption="Gained to the left, lost to the top: errors in target and source after training",
    name="fig-09-plane",
    dataset=ds,
)

# %% [markdown]
# Read {numref}`fig-09-plane` from its corners.
# The pretrained model with new references sits at the bottom: it has lost nothing, and forces in the target are as good as they come for free.
# A network from scratch is far up: it had nothing to lose.
# A good method goes left without going up.
#
# Then look at Method 3.
# Its references stay those of the source, so its network has to make up an offset of several eV/atom; the refit {eq}`eq-forgetting` takes out what is linear in composition, and what remains is the damage.
# Compare that with what separates the remedies from plain training: references come first, remedies after.

# %%
spread = points.groupby("method", sort=False).agg(["mean", "min", "max"])
order = ["pretrained", *CASES]


def as_range(column):
    part = spread[column].loc[order]
    return [
        f"{m:.0f} ({a:.0f}–{b:.0f})"
        for m, a, b in zip(
            part["mean"], part["min"], part["max"], strict=True
        )
    ]


quantities = [
    "target_energy",
    "source_energy",
    "target_force",
    "source_force",
]
pd.DataFrame(
    {name.replace("_", " "): as_range(name) for name in quantities},
    index=[NAMES[key] for key in order],
)

# %% [markdown]
# Energies in meV/atom, forces in meV/Å, mean and range over seeds.

# %% tags=["hide-input", "remove-output"]
for key in order:
    for name in ("target_energy", "source_energy", "source_force"):
        mean, low, high = spread[name].loc[key, ["mean", "min", "max"]]
        kind, quantity = name.split("_")
        results.record(
            f"{name}_{key.replace('-', '_')}",
            mean,
            unit="meV/atom" if quantity == "energy" else "meV/Å",
            interval=(low, high) if n_seeds > 1 else None,
            title=f"{quantity.capitalize()} error in the {kind}: {NAMES[key]}",
            note=f"range over {n_seeds} seed{'s' * (n_seeds > 1)}",
        )

# %% [markdown]
# ## Where is it lost?

# %%
by_kind = pd.concat(
    {
        (key, s): run.forgetting.table[f"{ENERGY}_after"]
        for (key, s), run in runs.items()
    },
    axis=1,
).T
by_kind = by_kind.drop(columns="dimers", errors="ignore")
by_kind = by_kind.groupby(level=0).mean().loc[CASES]

# %% tags=["hide-input"]
fig, ax = plt.subplots()
draw_kinds(ax, by_kind.rename(index=NAMES))
ax.set(xlabel="energy error in the source after a refit (meV/atom)")
fig.tight_layout()
figures.show(
    fig,
    alt="Energy error in the source by method, a marker for each kind of frames. "
    + "; ".join(
        f"{kind}: from {by_kind[kind].min():.0f} to {by_kind[kind].max():.0f} meV/atom"
        for kind in by_kind
    )
    + ".",
    caption="What is lost near the training frames and far from them",
    name="fig-09-kinds",
    dataset=ds,
)

# %% [markdown]
# If a method holds on to what it rehearses and to nothing else, its markers in {numref}`fig-09-kinds` are far apart.
#
# ## Two atoms, close together
#
# A pair of atoms is as far from a relaxed crystal as one can get, and a simulation at high temperature goes there.
# For 74 elements there are {term}`DFT` curves in PBE and r²SCAN with one set of pseudopotentials, though not with this book: a folder named in `CROSSFUNC_DATA` has to hold them.

# %% tags=["hide-input"]
path = find_dimers()
if path is None:
    print("No dimer curves at hand: no folder of CROSSFUNC_DATA has them.")
else:
    shown = {"before": base}
    for key in ("3", "model-aware-trained", "replay"):
        shown[NAMES[key]] = runs[key, seed].model
    curves = {}
    for element in ("O", "Fe", "Na"):
        frames = read_dimers(path, elements=[element])
        distance = np.linalg.norm(
            np.diff(frames.crystals.positions_a.reshape(-1, 2, 3), axis=1),
            axis=(1, 2),
        )
        lines = {"PBE": (distance, 2 * frames.energy_per_atom_ev)}
        for label, model in shown.items():
            energy = xf.predict(model, frames.crystals, derivatives=False)
            lines[label] = (distance, 2 * energy["energy_per_atom_ev"])
        curves[f"{element}–{element}"] = lines
    fig, axes = plt.subplots(1, 3, figsize=figures.wide())
    draw_dimers(axes, curves)
    fig.tight_layout()
    figures.show(
        fig,
        alt="Energy of three dimers against distance: PBE, the pretrained model, and three trained ones.",
        caption="Dimers before and after: PBE against CHGNet",
        name="fig-09-dimers",
        dataset=None,
    )

# %% [markdown]
# ## What does it cost?

# %%
cost = pd.DataFrame(
    {
        "seconds of training": [
            np.mean([runs[key, s].seconds for s in seeds]) for key in CASES
        ],
        "seconds in all": [
            np.mean(
                [
                    t
                    for (k, _), (_, t) in zip(tasks, done, strict=True)
                    if k == key
                ]
            )
            for key in CASES
        ],
    },
    index=[NAMES[key] for key in CASES],
)
cost.style.format("{:.1f}")

# %% [markdown]
# "In all" has the start (references, labels of source frames, the diagonal $F$) and the measuring of what was forgotten in it.
# Replay and two readouts compute a fifth more frames per step; the others cost about a plain step, and `crossfunc bench train --methods` measures by how much.
#
# ## Which one, then?
#
# | you have | and want | take |
# |---|---|---|
# | any of these | anything | model-aware references first |
# | a few materials | energies of these, soon | `model-aware` without training, or `readout-only` |
# | hundreds of frames | the best target error | `model-aware-trained`, early stopping |
# | the same | simulations that leave the training set | `replay`, with frames of what you will meet |
# | no source frames | to stay close to the start | `l2-sp`, `lora`, or `soft-freezing` |
# | both functionals in one model | one backbone for two | `two-readouts` |
# | a model you may not touch | a correction beside it | `delta`; drop it, and nothing was forgotten |
#
# The table says what each method is *made for*; {numref}`fig-09-plane` says how far it gets on these data, within these steps.
#
# ## Try it yourself
#
# :::{admonition} Exercise 1
# How much of what Method 3 seems to have forgotten is only its references?
# Measure its error in the source without any refit, and compare.
# :::

# %% tags=["hide-cell"]
# Solution: errors as they come hold the offset that the network has learned; the refit takes it out.
run = runs["3", seed]
kind, frames = next(
    iter(
        split_source(
            source, target, None, target, splits[seed]
        ).held_out.items()
    )
)
raw = xf.evaluate(run.model, frames)[ENERGY]
refitted = run.forgetting.table.loc[kind, f"{ENERGY}_after"]
print(
    f"{kind}: {raw:.0f} meV/atom as it comes, {refitted:.0f} after a refit"
)

# %% [markdown]
# :::{admonition} Exercise 2
# A stiffer spring loses less and learns less.
# Train `l2-sp` with a strength a hundred times larger: which way does its point move in {numref}`fig-09-plane`?
# :::

# %% tags=["hide-cell"]
# Solution: down and to the right, towards the pretrained model; at infinite strength it is that model.
stiff = finetune(
    "l2-sp",
    target,
    split=splits[seed],
    source=source,
    seed=seed,
    options={"strength": 0.1},
    **budget,
)
for name, run in {
    "as above": runs["l2-sp", seed],
    "stiffer": stiff,
}.items():
    print(
        f"{name}: target {run.metrics['test'][ENERGY]:.0f}, "
        f"source {lost(run.forgetting.table, ENERGY):.0f} meV/atom"
    )

# %% [markdown]
# ## Check yourself
#
# **1.** After fine-tuning, a model's energies in the old functional are wrong by 6 eV/atom. How much has it forgotten?
#
# :::{admonition} Answer
# :class: dropdown
# That cannot be said yet: new references alone do that, on purpose.
# Put the old ones back and refit; what is left is forgotten.
# :::
#
# **2.** Why is the empirical Fisher of EWC zero on the embedded data?
#
# :::{admonition} Answer
# :class: dropdown
# It is the mean squared gradient of the source loss, and the pretrained model made the source labels: it has no error on them, so no gradient.
# The Gauss-Newton diagonal looks at how predictions change instead.
# :::
#
# **3.** A frozen model with a small network beside it scores badly on source frames. Has it forgotten?
#
# :::{admonition} Answer
# :class: dropdown
# No: leave the small network out, and every bit is there.
# The sum of the two is a model of the target alone.
# :::

# %% [markdown]
# ## Recap
#
# - Forgetting is what a refit of references leaves of the error in the old functional ({eq}`eq-forgetting`).
# - It depends on where one looks ({numref}`fig-09-kinds`).
# - References first: what they spare the network, no remedy has to repair ({numref}`fig-09-plane`).
# - Each remedy is one line in the same loop, starts at the pretrained model to the last bit, and trades target for source.
# - On the embedded data the source labels are the start's own, so the page shows distances from it; real labels decide.
#
# Numbers of this page:

# %%
results.save()
results.table()
