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
# # Four ways to carry a model over

# %% [markdown]
# :::{admonition} In this lesson
# :class: tip
# **Goal**: bring a CHGNet that was trained on GGA/GGA+U to r²SCAN, in the four ways that the paper compares, and see why one of them wins.
#
# **You need**: {doc}`03_atomref_correlation`, and to have met gradient descent.
#
# **You will be able to**: write down the loss of a potential, fine-tune one, tell a fair comparison of methods from an unfair one, and find out where in a network training has acted.
#
# **Paper**: Table 1, Figs. 3b and 3c of {cite:t}`huang2025crossfunctional`. **Run time**: five minutes.
# :::
#
# Lesson 3 moved a model to another functional without training it at all: new element references removed most of its error.
# What is left is chemistry, and that takes training.
# How should a model that knows GGA/GGA+U be trained on r²SCAN?
# Start from its weights, or anew? And what is to become of its references?

# %% tags=["parameters"]
dataset = "surrogate"  # name or folder of a dataset with r²SCAN frames
results_dir = None  # folder for claims and models; None keeps nothing
pretrained = "0.3.0"  # the GGA/GGA+U model, or a file with another one
seed = 0  # first seed; each has a split, an order and fresh weights
n_seeds = 2  # repeats behind every spread
n_train_frames = 256  # frames that every method learns from
n_eval_frames = 96  # frames of validation, and as many of the test
n_epochs = 6  # passes over the training frames
batch_size = 8  # frames per optimiser step
learning_rate = 1e-3  # of Adam, at its first step; the paper's
max_atoms = 8  # larger frames are left out: small ones are cheap
n_jobs = 2  # runs side by side, one CPU thread each; 1 on a GPU
n_workers = 0  # processes that build graphs ahead; 0 for none

# %%
import re
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

import crossfunc as xf
from crossfunc.lessons import LessonResults, figures, format_value, own_data
from crossfunc.plain_text import in_html
from crossfunc.symbols import ELEMENT_SYMBOLS
from crossfunc.training.loss import LossSettings, batch_loss
from crossfunc.training.methods import STARTS, find_method
from crossfunc.training.settings import learning_rate_at

figures.use_style()
ds = xf.open_dataset(dataset)
results = LessonResults("04_four_methods", results_dir, ds)
print(f"{ds.name}: {ds.label_notice}")

# %% [markdown]
# ## What does the model learn from?
#
# Each {term}`frame` is a crystal with up to four kinds of label: its energy, the force on each atom, the stress on the cell, and a magnetic moment on each atom.
# A dataset need not have all of them, so the first thing to do is to count.
# Where some frames have forces, we leave out those without: a relaxed crystal and its energy alone teach little about forces.

# %% tags=["hide-input"]
if lack := own_data.describe_lack(ds):
    own_data.stop_here(lack, results)

# %%
every_frame = xf.LabelledFrames.from_dataset(ds, "high")
usable, n_atoms = (
    every_frame.labelled("energy"),
    every_frame.crystals.n_atoms,
)
if every_frame.labelled("forces").any():
    usable &= every_frame.labelled("forces")
n_wanted = n_train_frames + 2 * n_eval_frames
max_atoms = own_data.fit_size_limit(n_atoms[usable], max_atoms, n_wanted)
usable &= n_atoms <= max_atoms
frames = every_frame.take(np.flatnonzero(usable))

pd.DataFrame(
    {
        target: {
            "frames with the label": counts.astype(bool).sum(),
            "numbers": counts.sum(),
        }
        for target, counts in frames.label_counts.items()
    }
).style.format("{:,}")

# %% [markdown]
# Most of the numbers are force components: one frame has a single energy, but three force components for each of its atoms.
# Every label is a piece of the same potential energy surface $E$, which the model predicts: forces are its slope with the positions, $\mathbf F_a = -\partial E / \partial \mathbf r_a$, and the stress is its slope with the strain.
# Only the moments come from an output of their own.

# %% [markdown]
# ## Who is held out?
#
# As in lesson 1, a material is either trained on, or used to choose the best epoch (validation), or kept for the final verdict (test).
# Each seed draws its own split, so the spread between seeds also holds the luck of the draw.
#
# A small training set must still show every element, or the references have nothing to hold on to.
# So we first take one frame of each material, those with the rarest elements in front, then a second frame of each, until there are enough.


# %%
def choose(rows, n, rng):
    """At most n of these frames, spread over materials and elements."""
    rows = rng.permutation(rows)
    ids = frames.material_ids[rows]
    turn = pd.Series(ids).groupby(ids).cumcount()  # 0: first of its own
    has = frames.composition[rows].toarray() > 0
    seen = np.where(has, has.cumsum(axis=0), len(rows) + 1)
    order = np.lexsort([seen.min(axis=1), turn])
    return np.sort(rows[order[:n]])


# %%
repeats = (
    f"{n_seeds} seeds, ± standard deviation" if n_seeds > 1 else "1 seed"
)
sizes = [n_train_frames, n_eval_frames, n_eval_frames]
splits = {}
for s in range(seed, seed + n_seeds):
    parts = xf.split_by_material(frames.material_ids, seed=s)
    rng = np.random.default_rng(s)
    splits[s] = {
        part: choose(rows, n, rng)
        for (part, rows), n in zip(parts.items(), sizes, strict=True)
    }

# %%
train = frames.take(splits[seed]["train"])
held_out = frames.take(splits[seed]["test"])
assert not set(train.material_ids) & set(held_out.material_ids)
per_element = np.asarray((train.composition > 0).sum(axis=0)).ravel()
per_element = per_element[per_element > 0]
print(
    f"seed {seed}: {len(train)} training frames of"
    f" {len(set(train.material_ids))} materials with"
    f" {len(per_element)} elements, each in {per_element.min()} or more;"
    f" {len(held_out)} test frames"
)

# %% [markdown]
# ## What is minimised?
#
# One number has to stand for four kinds of error.
# For the targets $t$ (energy per atom, forces, stress, moments) with labels $y_{ti}$ and predictions $\hat y_{ti}$ it is
#
# $$L = \sum_t \frac{w_t}{N_t} \sum_{i=1}^{N_t} h_\delta(\hat y_{ti} - y_{ti}), \qquad h_\delta(e) = \begin{cases} e^2/2 & |e| \le \delta \\ \delta\,(|e| - \delta/2) & \text{otherwise,} \end{cases}$$ (eq-loss)
#
# with the paper's weights $w$ = 3 (energy), 1 (forces), 0.1 (stress) and 1 (moments), and $\delta = 0.1$ in the unit of each target.
# The sums run over the labels that are there, so a frame without stress is no obstacle.
# This is the {term}`Huber loss`: $h_\delta$ is a parabola for small errors and a straight line for large ones: past $\delta$, an error pulls no harder however large it is.
# Keep that in mind for later.
#
# By hand, for one crystal of two atoms with an energy, a missing stress, and some forces and moments:

# %%
output = {
    "energy_per_atom_ev": torch.tensor([-5.00]),
    "forces_ev_per_a": torch.tensor([[0.02, 0, 0], [-0.02, 0, 0]]),
    "stress_gpa": torch.zeros(1, 3, 3),
    "magmoms_mub": torch.tensor([1.0, 0.0]),
}
labels = {
    "energy": torch.tensor([-5.30]),  # off by 0.3 eV/atom: linear
    "forces": torch.zeros(2, 3),  # two of six are off by 0.02 eV/Å
    "stress": torch.full((1, 3, 3), torch.nan),  # no label
    "magmoms": torch.tensor([1.05, 0.0]),
}

# %%
n_labels = {"energy": 1, "forces": 6, "stress": 0, "magmoms": 2}
by_hand = (
    3 * 0.1 * (0.3 - 0.1 / 2)
    + 1 * (2 * 0.02**2 / 2) / 6
    + 1 * (0.05**2 / 2) / 2
)
loss, parts, _ = batch_loss(output, labels, n_labels, LossSettings())
assert np.isclose(loss, by_hand, rtol=1e-5)
{target: f"{part:.6f}" for target, part in parts.items()}

# %% [markdown]
# ## Which four methods?
#
# The paper asks two questions about the start of training, and one about what happens then:
# where do the network's weights come from, where do the {term}`element references <element reference>` come from, and may training move the references?
# Its four methods are four answers; the two rows below them train nothing.

# %%
pd.DataFrame(
    [
        {
            "method": m.number or "–",
            "name": m.name,
            "weights": m.start,
            "references": m.references,
            "trains": " and ".join(
                ["network"] * m.train_network
                + ["references"] * m.train_references
            )
            or "nothing",
        }
        for m in map(find_method, STARTS)
    ]
).style.hide(axis="index")

# %% [markdown]
# - **Method 1** forgets all that the GGA/GGA+U model knew, and gives a fresh network the r²SCAN references.
# - **Method 2** keeps everything and lets training sort it out, references included.
# - **Method 3** keeps everything and freezes the references, which are those of GGA/GGA+U: the network has to learn the shift.
# - **Method 4** keeps the network and refits the references before training.
#
# Methods 2 and 3 begin as exactly the pretrained model.
# Method 4 begins as the same network on another zero of energy: its energies differ by a function of composition alone, and its forces, stresses and moments not at all, for a derivative does not know about constants.
# That can be checked to the last bit.

# %%
base = xf.load_model(pretrained)
few = train.take(np.arange(min(16, len(train))))
before = xf.predict(base, few.crystals)
for key in ("2", "3", "4"):
    model, references, _ = xf.start_model(key, train, pretrained=pretrained)
    after = xf.predict(model, few.crystals)
    for name in ("forces_ev_per_a", "magmoms_mub"):
        assert all(map(np.array_equal, before[name], after[name]))
    assert np.array_equal(before["stress_gpa"], after["stress_gpa"])
    change = after["energy_per_atom_ev"] - before["energy_per_atom_ev"]
    if references is None:
        assert np.array_equal(change, np.zeros(len(few)))
    else:
        new, old = map(xf.element_references, (model, base))
        by_composition = few.composition @ np.nan_to_num(new - old)
        # What is left is the last digit of float32 energies.
        assert np.abs(change - by_composition).max() < 1e-4
    print(
        f"method {key}: largest change {np.abs(change).max():.3f} eV/atom"
    )

# %% [markdown]
# ## Training
#
# A comparison of methods is fair if they differ in the method and in nothing else.
# So all runs of a seed see the same frames in the same order, take the same number of steps at the same learning rates, and minimise {eq}`eq-loss`; the model kept is that of the epoch with the lowest validation loss.
#
# Two more runs go beyond the paper.
# It does not say which references its Method 1 was given: we give it the refitted ones, and run it with those of GGA/GGA+U as well, to see what that choice is worth.
# And model-aware references need not be the end: the last run goes on to train from there.
#
# No run needs another, so they are made side by side.

# %%
ABLATION, AWARE = "1 on GGA references", "model-aware, then trained"
cases = {key: (key, None) for key in STARTS}
cases |= {ABLATION: ("1", "pretrained"), AWARE: ("model-aware", None)}
budget = {
    "n_epochs": n_epochs,
    "batch_size": batch_size,
    "learning_rate": learning_rate,
    "n_workers": n_workers,
}


# %%
def train_one(name, s):
    began = time.perf_counter()
    method, references = cases[name]
    trains = xf.METHODS[method].train_network or name == AWARE
    run = xf.finetune(
        method,
        frames,
        split=splits[s],
        pretrained=pretrained,
        references=references,
        seed=s,
        progress=False,
        **(budget if trains else {}),
    )
    return run, time.perf_counter() - began


# %%
keys = [(name, s) for s in splits for name in cases]
done = Parallel(n_jobs=n_jobs)(delayed(train_one)(*key) for key in keys)
runs = {key: run for key, (run, _) in zip(keys, done, strict=True)}
n_steps = int(runs["4", seed].history["step"].iloc[-1])
print(f"{len(runs)} runs, {n_steps} steps each where there is training")
for note in {note for run in runs.values() for note in run.notes}:
    print(note)

# %% [markdown]
# ## What do the histories look like?
#
# The paper shows the energy error of Methods 3 and 4 over the epochs (its Fig. 3b and c).
# We add the other two, and the forces beside the energies.


# %% tags=["hide-input"]
def history(name, column):
    """One column of the histories of all seeds, epoch by seed."""
    return pd.DataFrame(
        {
            s: runs[name, s].history.set_index("epoch")[column]
            for s in splits
        }
    )


def draw_history(ax, name, quantity):
    paper = name in list("1234")
    key = f"method_{name}" if paper else "fit"
    look = {"color": figures.COLORS[key], "ls": "-" if paper else "--"}
    validation = history(name, f"validation_{quantity}")
    ax.plot(
        validation.mean(axis=1),
        label=f"Method {name}" if paper else name,
        marker=figures.MARKERS.get(key, "^"),
        ms=9 if name == "2" else 5,  # Method 3 lies on top of it
        **look,
    )
    ax.fill_between(
        validation.index,
        validation.min(axis=1),
        validation.max(axis=1),
        color=look["color"],
        alpha=0.18,
        linewidth=0,
    )


# %% tags=["hide-input"]
panels = {
    "energy_mae_mev_per_atom": "energy MAE, validation (meV/atom)",
    "force_mae_mev_per_a": "force MAE, validation (meV/Å)",
}
panels = {
    quantity: label
    for quantity, label in panels.items()
    if history("4", f"validation_{quantity}").notna().any(axis=None)
}

# %% tags=["hide-input"]
fig, axes = plt.subplots(
    1, len(panels), figsize=figures.wide(), squeeze=False
)
for ax, (quantity, label) in zip(axes[0], panels.items(), strict=True):
    for name in [*"1234", AWARE]:
        draw_history(ax, name, quantity)
    ax.set(xlabel="epoch", ylabel=label)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
axes[0, 0].set_yscale("log")
fig.tight_layout()
lines, names = axes[0, 0].get_legend_handles_labels()
fig.legend(
    lines, names, ncol=5, loc="lower center", bbox_to_anchor=(0.5, 1.0)
)
first = next(iter(panels))
ends = {
    m: history(m, f"validation_{first}").iloc[-1].mean() for m in "1234"
}
figures.show(
    fig,
    alt="Validation errors against epochs for the four methods, mean and range over seeds, on a logarithmic axis. The energy error "
    + ", ".join(f"of Method {m} ends at {v:.0f}" for m, v in ends.items())
    + " meV/atom.",
    caption=f"During training Method 3 comes down to {ends['3']:.0f} meV/atom, Method 4 to {ends['4']:.0f}; mean and range over seeds",
    name="fig-04-histories",
    dataset=ds,
)

# %% [markdown]
# Read the left panel first.
# Method 4 starts thousands of meV/atom below the methods that keep the GGA/GGA+U references, and they hardly catch up: within this budget, they are still busy with the offset.
# Method 1 starts near Method 4, for both have the same references, but it has to learn everything else and is slow to.
# The dashed curve is below all others before its first step: references fitted to the *model's own errors* (lesson 3) are worth more than all the training that Method 4 gets here.
#
# Now the right panel.
# Constants have no slope, so the offset has nothing to do with forces, and all transfer methods start at the same force error.
# What training on energies does to them is another matter: a network that must invent an offset of many eV out of bonds and angles bends its forces with it.

# %% [markdown]
# ## Who wins, on materials that nobody has seen?
#
# Here is Table 1 of the paper, without its last two columns, which lesson 6 takes up: mean absolute errors on the test frames.
# Three rows stand above the methods because they cost nothing: the GGA/GGA+U model as it comes, and the two ways to give it new references.

# %%
METRICS = {
    "energy_mae_mev_per_atom": ("energy", "meV/atom"),
    "force_mae_mev_per_a": ("force", "meV/Å"),
    "stress_mae_gpa": ("stress", "GPa"),
    "magmom_mae_mub": ("magmom", "μB"),
}
AS_IT_IS = "GGA model as it comes"
found = {
    (name, s): run.metrics["test"] for (name, s), run in runs.items()
} | {
    (AS_IT_IS, s): xf.evaluate(base, frames, rows=splits[s]["test"])
    for s in splits
}
scores = pd.DataFrame(found).T[list(METRICS)].astype(float)
mean = scores.groupby(level=0).mean()
spread = scores.groupby(level=0).std(ddof=1).fillna(0)

# %% tags=["hide-input"]
PAPER = pd.DataFrame(
    {
        "1": [27, 45, 0.239, 0.019],
        "2": [26, 54, 0.266, 0.027],
        "3": [26, 52, 0.257, 0.026],
        "4": [17, 38, 0.167, 0.023],
    },
    index=list(METRICS),
).T
UNTRAINED = [AS_IT_IS, "references-only", "model-aware"]
ORDER = [*UNTRAINED, "1", ABLATION, *"234", AWARE]


def cell(name, metric):
    value, half = mean.loc[name, metric], spread.loc[name, metric]
    if np.isnan(value):
        return "no labels"
    return format_value(value, (value - half, value + half))


table_1 = pd.DataFrame(index=pd.Index(ORDER, name="method"))
for metric, (quantity, unit) in METRICS.items():
    column = f"{quantity} ({unit})"
    table_1[column, "here"] = [cell(name, metric) for name in ORDER]
    table_1[column, "paper"] = [
        f"{PAPER.loc[name, metric]:g}" if name in PAPER.index else "–"
        for name in ORDER
    ]
table_1.columns = pd.MultiIndex.from_tuples(table_1.columns)
table_1.index = [
    f"Method {name}" if name[0].isdigit() else name for name in ORDER
]
table_1.style.set_caption(
    f"MAE on the test frames ({repeats}); {in_html(ds.label_notice)}"
)

# %% tags=["hide-input"]
shown = {m: u for m, u in METRICS.items() if mean[m].notna().any()}


def mark_decades(ax):
    """Few and plain labels on a logarithmic axis."""
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    steps = (1,) if high > 50 * low else (1, 3)
    if high < 10 * low:
        steps = (1, 2, 5)
    ax.xaxis.set_major_locator(LogLocator(subs=steps))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.grid(axis="y", color="#e6e6e6", lw=0.6)


# %% tags=["hide-input"]
fig, axes = plt.subplots(
    1, len(shown), figsize=figures.wide(), sharey=True, squeeze=False
)
for ax, (metric, (quantity, unit)) in zip(
    axes[0], shown.items(), strict=True
):
    for row, name in enumerate(ORDER):
        key = "fit" if name == AWARE else f"method_{name[0]}"
        hollow = name == ABLATION or name in UNTRAINED
        color = figures.COLORS.get(key, figures.COLORS["identity"])
        ax.errorbar(
            mean.loc[name, metric],
            row,
            xerr=spread.loc[name, metric],
            fmt=figures.MARKERS.get(key, "o"),
            color=color,
            mfc="white" if hollow else color,
            ms=7,
            capsize=2,
        )
        if name in PAPER.index:
            ax.plot(PAPER.loc[name, metric], row, "|", color=color, ms=12)
    ax.set_xlabel(f"{quantity} ({unit})")
    mark_decades(ax)
axes[0, 0].set(yticks=range(len(ORDER)), yticklabels=table_1.index)
axes[0, 0].invert_yaxis()
fig.tight_layout()
figures.show(
    fig,
    alt=f"Dots with error bars, one panel a label and one row a method, logarithmic: among the trained methods, the energy error is {mean.loc['4'].iloc[0]:.0f} meV/atom for Method 4 "
    f"and {mean.loc['3'].iloc[0]:.0f} for Method 3. Ticks mark the paper's values.",
    caption=f"Without new references, {mean.loc['3'].iloc[0] / mean.loc['4'].iloc[0]:.0f} times the energy error (Method 3 over 4); ticks are the paper's",
    name="fig-04-errors",
    dataset=ds,
)

# %%
first = next(iter(METRICS))  # the energy; one value a seed below
energy = {name: scores.loc[name][first] for name in ORDER}
for other in "23":
    claim = f"Method 4 has a lower energy error than Method {other}"
    own_data.check_claim((energy["4"] < energy[other]).all(), claim, ds)
ratio = energy["3"] / energy["4"]
print(
    f"energy error of Method 3 over Method 4: {ratio.mean():.1f}"
    f" ({ratio.min():.1f} to {ratio.max():.1f} over seeds)"
)

# %% tags=["hide-input", "remove-output"]
small = f"{len(train)} training frames and {n_epochs} epochs, not 190,000 and 50"
why = f"{ds.meta.get('differs_from_paper', 'other materials')}; {small}"


def interval(value, half):
    return (value - half, value + half) if half else None


for metric, (quantity, unit) in shown.items():
    for name in "1234":
        value, half = mean.loc[name, metric], spread.loc[name, metric]
        results.record(
            metric.split("_mae")[0] + f"_mae_method_{name}",
            value,
            unit=unit,
            interval=interval(value, half),
            title=f"{quantity.capitalize()} error of Method {name}",
            paper=PAPER.loc[name, metric],
            why=why if metric == first else "as for the energies",
            note=repeats,
        )

# %% tags=["hide-input", "remove-output"]
for name in ("references-only", "model-aware", AWARE):
    value, half = mean.loc[name, first], spread.loc[name, first]
    results.record(
        "energy_mae_" + re.sub(r"\W+", "_", name),
        value,
        unit="meV/atom",
        interval=interval(value, half),
        title=f"Energy error: {name}",
        note=repeats,
    )

# %% tags=["hide-input", "remove-output"]
for name, paper in {"3": 18.37, "4": 11.82}.items():
    lowest = history(name, f"train_{first}").min()
    results.record(
        f"train_energy_mae_method_{name}",
        lowest.mean(),
        unit="meV/atom",
        interval=(lowest.min(), lowest.max()) if n_seeds > 1 else None,
        title=f"Lowest training energy error of Method {name}",
        paper=paper,
        why=small,
        note="mean over an epoch in which the weights change",
    )
for metric in list(shown)[:2]:
    trained = pd.concat([scores.loc[m][metric] for m in "1234"], axis=1)
    trained.columns = list("1234")
    results.record(
        f"method_4_best_{shown[metric][0]}",
        int((trained.idxmin(axis=1) == "4").sum()),
        title=f"Seeds in which Method 4 has the lowest {shown[metric][0]} error of the four",
        note=f"of {n_seeds}",
    )
results.record(
    "ratio_3_to_4",
    ratio.mean(),
    interval=(ratio.min(), ratio.max()) if n_seeds > 1 else None,
    title="Energy error of Method 3 divided by that of Method 4",
    paper=26 / 17,
    why="long training learns the offset in the end; here there is no time for it",
    note=f"mean and range of {n_seeds} seeds",
)

# %% [markdown]
# The order is the paper's, the distances are not.
# With a budget of millions of steps, Methods 2 and 3 learn the offset in the end and pay for it elsewhere: in the paper their errors exceed those of Method 4 by half.
# With a small budget, and that is the situation of whoever has a few hundred expensive calculations, they do not get there at all.
# Method 1 has the right references but a network that knows nothing, so it is its forces that give it away.
#
# Two more reasons forbid reading the columns as a competition with the paper.
# Surrogate labels come from a model that was itself fine-tuned from the GGA one, so transfer is easier here than on DFT.
# And our test materials are not the paper's; an element or two more or less changes an error in the table more than a second decimal.

# %% [markdown]
# ## What does an error of that size look like?
#
# A mean hides how errors are distributed.
# A parity plot shows every frame: the label against the prediction.
# Total energies span tens of eV and would show nothing but their references, so both are shown minus the r²SCAN references of Method 4.


# %%
c = np.nan_to_num(runs["4", seed].references.energies_ev)
points = {}
for name in "1234":
    seen = xf.evaluate(
        runs[name, seed].model,
        frames,
        rows=splits[seed]["test"],
        with_predictions=True,
    )["predictions"]
    there = ~np.isnan(seen.frames.energy_per_atom_ev)
    shift = (seen.frames.composition @ c)[there]
    points[name, "energy"] = [e - shift for e in seen.parity("energy")]
    points[name, "forces"] = seen.parity("forces")

# %% tags=["hide-input"]
rows = {"energy": "energy − references"}
if len(points["4", "forces"][0]):
    rows["forces"] = "force component"
MAES = {
    (name, row): np.abs(np.subtract(*points[name, row])).mean()
    for name in "1234"
    for row in rows
}


def draw_parity(ax, name, row):
    color = figures.COLORS["identity"]
    ax.axline((0, 0), slope=1, color=color, lw=1, ls="--")
    color = figures.COLORS[f"method_{name}"]
    ax.scatter(*points[name, row], s=7, alpha=0.4, lw=0, color=color)
    unit = "eV/Å" if row == "forces" else "eV/atom"
    title = f"Method {name}\nMAE {MAES[name, row]:.2g} {unit}"
    ax.set_title(title, size=9, loc="left")
    ax.set_xlabel(f"label ({unit})")
    # At least as high as wide: a flat cloud must not look steep.
    ends = np.concatenate([ax.get_xlim(), ax.get_ylim()])
    ax.set_ylim(ends.min(), ends.max())


# %% tags=["hide-input"]
width, height = figures.wide()
fig, axes = plt.subplots(
    len(rows),
    4,
    figsize=(width, 0.62 * height * len(rows)),
    sharex="row",
    squeeze=False,
)
for row, line in zip(rows, axes, strict=True):
    for name, ax in zip("1234", line, strict=True):
        draw_parity(ax, name, row)
    line[0].set_ylabel(f"predicted {rows[row]}")
fig.tight_layout()
figures.show(
    fig,
    alt="Predictions against labels for Methods 1 to 4 on test frames, energies minus references above and force components "
    "below where there are any. Mean absolute errors of the energies: "
    + ", ".join(
        f"{MAES[m, 'energy']:.2g} eV/atom for Method {m}" for m in "1234"
    )
    + ".",
    caption="An offset that was not learned shows in the energies alone; first seed, each panel on its own axis",
    name="fig-04-parity",
    dataset=ds,
)

# %% [markdown]
# Along the dashed line, prediction and label agree.
# Method 3's cloud of energies lies far above it: these are materials whose offset has not been learned, the heavier the elements the further.
# Its forces still point the right way, for references do not enter them, and that makes the mistake easy to overlook.
# But they scatter more than Method 4's and are mostly too large: a network that has to make up an offset out of bonds and angles bends the slopes as well.

# %% [markdown]
# ## What moved?
#
# Which part of the network did the work?
# For every block of it, from the embeddings to the readout, compare the weights at the end with those of the pretrained model, as the length of the change relative to the length of the weights,
#
# $$\frac{\lVert \theta_\text{end} - \theta_\text{start} \rVert}{\lVert \theta_\text{start} \rVert}.$$ (eq-moved)

# %%
BLOCKS = {
    "atom embedding": "atom_embedding",
    "bond embedding": ("bond_basis", "bond_embedding", "bond_weights"),
    "angle embedding": ("angle_basis", "angle_embedding"),
    **{f"atom update {k + 1}": f"atom_conv_layers.{k}" for k in range(4)},
    **{f"bond update {k + 1}": f"bond_conv_layers.{k}" for k in range(3)},
    **{f"angle update {k + 1}": f"angle_layers.{k}" for k in range(2)},
    "moments": "site_wise",
    "energy readout": ("readout_norm", "mlp"),
}


# %%
def weights(model, prefixes):
    chosen = [
        p.detach().flatten()
        for name, p in model.named_parameters()
        if name.startswith(prefixes)
    ]
    return torch.cat(chosen)


def moved(name, prefixes):
    """Relative change of a block, one value a seed."""
    first = weights(base, prefixes)
    lasts = [weights(runs[name, s].last_model, prefixes) for s in splits]
    return [float((last - first).norm() / first.norm()) for last in lasts]


change = {
    name: pd.DataFrame({b: moved(name, p) for b, p in BLOCKS.items()})
    for name in "234"
}

# %% tags=["hide-input"]
fig, ax = plt.subplots()
for k, (name, table) in enumerate(change.items()):
    percent = 100 * table
    ax.errorbar(
        percent.mean(),
        np.arange(len(BLOCKS)) + 0.22 * (k - 1),
        xerr=[
            percent.mean() - percent.min(),
            percent.max() - percent.mean(),
        ],
        fmt=figures.MARKERS[f"method_{name}"],
        color=figures.COLORS[f"method_{name}"],
        label=f"Method {name}",
        ms=5,
    )
ax.set(
    yticks=range(len(BLOCKS)),
    yticklabels=BLOCKS,
    xlabel="change of the weights (% of their length)",
)
mark_decades(ax)
ax.invert_yaxis()
ax.legend()
most = {name: t.mean().idxmax() for name, t in change.items()}
figures.show(
    fig,
    alt="Relative change of the weights of each block of the network for Methods 2, 3 and 4; the block that moved most is "
    + ", ".join(f"{b} for Method {m}" for m, b in most.items())
    + ".",
    caption=f"Training moved {most['3']} most in Method 3, {most['4']} in Method 4",
    name="fig-04-moved",
    dataset=ds,
)

# %% [markdown]
# And the references themselves?
# Method 2 was free to move them, so why does it not simply do what Method 4 does?
# Adam scales each step to about the learning rate, however large the gradient, so no parameter can travel further than the learning rates of all steps add up to.

# %%
fit = runs["4", seed].references
known = fit.determined & (fit.frames_per_element > 0)
old = xf.element_references(base)
needed = np.abs(fit.energies_ev - old)[known]
trained = xf.element_references(runs["2", seed].last_model)
went = np.abs(trained - old)[known]
reach = sum(
    learning_rate_at(k, n_steps, runs["2", seed].settings)
    for k in range(n_steps)
)
print(f"references have to move by {np.median(needed):.2f} eV (median)")
print(f"Method 2 moved them by     {np.median(went):.3f} eV")
print(f"learning rates add up to   {reach:.3f} eV in {n_steps} steps")

# %% tags=["hide-input", "remove-output"]
results.record(
    "reference_shift_needed",
    np.median(needed),
    unit="eV",
    title="Median shift of an element reference by the refit",
)
results.record(
    "reference_shift_method_2",
    np.median(went),
    unit="eV",
    title="Median shift of an element reference by training, Method 2",
    note=f"{n_steps} steps of Adam at {learning_rate:g}",
)

# %% [markdown]
# That is the whole secret of Method 2: it may go where Method 4 starts, but it would have to walk, at a thousandth of an eV a step.
# Least squares gets there at once, and exactly.
# Adam would need tens of thousands of steps for the heavier elements, and all that time the Huber loss {eq}`eq-loss` pulls at the rest of the network with full strength.

# %% [markdown]
# ## Which references for a network from scratch?
#
# Method 1 was given refitted references, which is our reading of the paper.
# Its run on GGA/GGA+U references shows what that choice is worth.

# %%
scratch = mean.loc[["1", ABLATION], list(shown)]
scratch.rename(
    columns={m: f"{q} ({u})" for m, (q, u) in shown.items()}
).style.format("{:.3g}")

# %% tags=["hide-input", "remove-output"]
from_gga = energy[ABLATION]
results.record(
    "energy_mae_scratch_gga_references",
    from_gga.mean(),
    unit="meV/atom",
    interval=(from_gga.min(), from_gga.max()) if n_seeds > 1 else None,
    title="Energy error of a network from scratch on GGA/GGA+U references",
    note=f"mean and range of {n_seeds} seeds",
)

# %% [markdown]
# A network from scratch has nothing to lose, so wrong references cost it the offset, as they cost Method 3, and nothing else.
# Whoever compares "transfer" with "scratch" must therefore say which references each of them had: with the right ones for one side only, either side can be made to win.

# %% [markdown]
# ## What did it cost?
#
# The methods differ in where they start, not in what a step costs.
# The times below are of the machine that made this page.

# %%
cost = pd.DataFrame(
    {
        "steps": {
            key: run.history["step"].iloc[-1] for key, run in runs.items()
        },
        "frames seen": {
            key: len(run.split["train"]) * run.history["epoch"].iloc[-1]
            for key, run in runs.items()
        },
        "seconds": {
            key: duration
            for key, (_, duration) in zip(keys, done, strict=True)
        },
    }
)
in_epochs = pd.Series({key: run.seconds for key, run in runs.items()})
cost["ms per frame and step"] = 1000 * in_epochs / cost["frames seen"]
cost = cost.groupby(level=0).mean().loc[[*cases]]
cost.replace(np.inf, np.nan).style.format("{:,.0f}", na_rep="–")

# %% [markdown]
# *Seconds* is all that a run takes, from fitting references to measuring the best model; the last column counts training with the validation after each epoch.
# The rows without steps are the cheapest improvement in this book.

# %% tags=["hide-input", "remove-output"]
results.record(
    "ms_per_frame_and_step",
    cost.loc["4", "ms per frame and step"],
    unit="ms",
    title="Time for one training frame in one step, Method 4",
    note="on the machine that made this page, validation included",
)

# %% [markdown]
# ## What do later lessons get?
#
# Lesson 6 asks whether these models can tell a stable crystal from an unstable one.
# So every model is kept, with its test errors and with the materials that it has not seen.

# %%
kept = []
for (name, s), run in runs.items():
    if name not in STARTS or results.folder is None:
        continue
    short = name.replace("-", "_")
    file = f"{results.lesson}.method_{short}_seed_{s}.pt"
    about = {"method": name, "seed": s, "dataset": ds.name}
    xf.save_model(run.model, results.folder / file, provenance=about)
    kept.append(
        {"file": file, "method": name, "seed": s, **run.metrics["test"]}
    )

# %%
held = [
    {"seed": s, "part": part, "material_id": material}
    for s, split in splits.items()
    for part, chosen in split.items()
    for material in np.unique(frames.material_ids[chosen])
]
results.save_table("models", pd.DataFrame(kept))
results.save_table("split", pd.DataFrame(held))
print(
    f"{len(kept)} models kept" if kept else "no results_dir: nothing kept"
)

# %% [markdown]
# ## Try it yourself
#
# :::{admonition} Exercise 1
# A mean over test frames hides on which elements a model is wrong.
# Break the test errors of Method 4 down by element (`xf.evaluate(..., by_element=True)`), with the number of training frames beside them.
# Is it the rare elements that are worst?
# :::

# %% tags=["hide-cell"]
# Solution: the columns run from the worst element on; compare their numbers of training frames with the median.
table = xf.evaluate(
    runs["4", seed].model,
    frames,
    rows=splits[seed]["test"],
    by_element=True,
)["by_element"]
n_train = pd.Series(
    np.asarray((train.composition > 0).sum(axis=0)).ravel(),
    ELEMENT_SYMBOLS,
    name="training frames",
)
by_element = table.join(n_train).sort_values(first, ascending=False)
print(
    f"median of the training frames: {by_element[n_train.name].median():.0f}"
)
by_element[[n_train.name, "n_frames", first]].head(8).T.round(0)

# %% [markdown]
# :::{admonition} Exercise 2
# How many steps would Method 2 need, at least, until its references have arrived at those of Method 4?
# How many epochs is that with the paper's training set, at our batch size?
# :::

# %% tags=["hide-cell"]
# Solution: a cosine schedule spends half of the steps' learning rate, so n steps reach about n/2 times its start.
steps_needed = 2 * needed.max() / learning_rate
print(f"{steps_needed:,.0f} steps for the element that moves furthest,")
print(f"{steps_needed * batch_size / 190_000:.1f} epochs of the paper")

# %% [markdown]
# :::{admonition} Exercise 3
# In Method 4's history the energy error falls fast at first.
# How much of that is something that references could have learned?
# Refit them on the *trained* model's residuals and see what is left.
# :::

# %% tags=["hide-cell"]
# Solution: whatever is linear in the composition goes into the references; a well-trained network leaves little of it.
model = runs["4", seed].model
residual = (
    train.energy_per_atom_ev
    - xf.predict(model, train.crystals, derivatives=False)[
        "energy_per_atom_ev"
    ]
)
correction = xf.fit_atomref(
    train.composition, residual, material_ids=train.material_ids, ridge=0.1
)
left = residual - correction.predict(train.composition)
print(f"training frames: {1000 * np.abs(residual).mean():.0f} meV/atom")
print(f"minus a refit:   {1000 * np.abs(left).mean():.0f} meV/atom")

# %% [markdown]
# ## Check yourself
#
# **1.** Method 3 ends with energies that are wrong by eV per atom and forces that still follow the labels. How can both be true?
#
# :::{admonition} Answer
# :class: dropdown
# A force is a derivative by a position, and references do not depend on positions.
# Whatever is wrong with them cannot reach the forces directly, only through what the network does to make up for it.
# :::
#
# **2.** Two methods are compared after the same number of epochs, one with refitted references and one without. What does the comparison measure?
#
# :::{admonition} Answer
# :class: dropdown
# Mostly the references.
# To compare the starting weights, both need the same references; to compare references, both need the same weights.
# :::
#
# **3.** Which of the four methods would you choose for a new functional, and what would you check first?
#
# :::{admonition} Answer
# :class: dropdown
# Method 4, or the model-aware refit where the pretrained model is good.
# First: does every element occur often enough for its reference to be determined?
# :::

# %% [markdown]
# ## Recap
#
# - A potential is trained on one weighted sum over whatever labels are there {eq}`eq-loss`.
# - Four methods differ in two things, weights and references at the start, and in whether the references may move.
# - New references before training are worth more than any amount of training that this page could afford ({numref}`fig-04-histories`, {numref}`fig-04-errors`).
# - An optimiser with a bounded step cannot walk tens of eV, so references must be solved for, not trained.
#
# Paper and this page side by side:

# %%
results.save()
results.table()
