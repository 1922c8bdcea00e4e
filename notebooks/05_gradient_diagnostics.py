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
# # Does the offset fight the forces?

# %% [markdown]
# :::{admonition} In this lesson
# :class: tip
# **Goal**: watch what an energy offset does to the gradients of the first epoch, layer by layer and term by term of the loss, and to the forces in the epochs after it.
#
# **You need**: {doc}`03_atomref_correlation`, and the idea of a gradient step.
#
# **You will be able to**: say which part of a loss is pulling at a network, tell a large loss from a large gradient, and judge whether two targets pull the same way.
#
# **Paper**: Fig. 3a of {cite:t}`huang2025crossfunctional`. **Run time**: four minutes.
# :::
#
# Give CHGNet r²SCAN energies without changing its {term}`element references <element reference>`, and every prediction is off by many eV/atom, while its forces are nearly right.
# Fine-tuning then starts with an energy error that it cannot mean.
# What does that error do to the layers that know about forces?

# %% tags=["parameters"]
dataset = "pbe-r2scan"  # name or folder; needs frames with r²SCAN forces
results_dir = None  # folder for the claims table; None keeps nothing
seed = 0  # first seed; drives split, choice and order of the frames
n_seeds = 3  # runs behind every spread
n_epochs = 4  # passes over the frames; gradients most closely in the first
n_train = 240  # frames of the epochs that are watched
n_validation = 48  # frames on which the outcome is measured
n_probe = 4  # batches for the closer look at the start
max_atoms = 8  # larger cells are left out; 1000 keeps all
batch_size = 16  # frames per optimiser step
learning_rate = 1e-3  # first value; the paper's

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import crossfunc as xf
from crossfunc.lessons import LessonResults, figures, own_data
from crossfunc.lessons.figures import gradients as draw
from crossfunc.training import (
    TARGETS,
    LabelledFrames,
    evaluate,
    start_model,
)
from crossfunc.training.batches import step_loader
from crossfunc.training.gradients import (
    PAPER_LAYERS,
    GradientRecorder,
    term_gradients,
    total_gradient,
)
from crossfunc.training.loss import LossSettings

# %%
figures.use_style()
ds = xf.open_dataset(dataset)
results = LessonResults("05_gradient_diagnostics", results_dir, ds)
print(f"{ds.name}: {ds.label_notice}")

# %% [markdown]
# Frames come from the materials of a split, as in lesson 1; only frames with energies and forces can show how the two interact.

# %% tags=["hide-input"]
if lack := own_data.describe_lack(ds, "forces"):
    own_data.stop_here(lack, results)

# %%
frames = LabelledFrames.from_dataset(ds)
usable, n_atoms = frames.labelled("energy"), frames.crystals.n_atoms
usable &= frames.labelled("forces")
n_wanted = n_train + n_validation
max_atoms = own_data.fit_size_limit(n_atoms[usable], max_atoms, n_wanted)
usable &= n_atoms <= max_atoms
frames = frames.take(np.flatnonzero(usable))
parts = xf.split_by_material(frames.material_ids, seed=seed)
rng = np.random.default_rng(seed)
split = {
    part: np.sort(rng.permutation(parts[part])[:n])
    for part, n in (("train", n_train), ("validation", n_validation))
}
train, held_out = (frames.take(rows) for rows in split.values())
counts = {t: int(train.labelled(t).sum()) for t in TARGETS}
print(
    f"{len(train)} training frames of {len(np.unique(train.material_ids))} "
    f"materials, labelled: {counts}; {len(held_out)} to measure on"
)

# %% [markdown]
# ## Where does each run start?
#
# Three starts share one pretrained network and differ in their references alone:
#
# - *GGA references* (Method 3 of the paper): as pretrained, then frozen;
# - *refitted* (Method 4): fitted to the r²SCAN energies of the training frames, then frozen;
# - *model-aware*: fitted to what the network leaves of these energies, the better refit of lesson 3.

# %%
STARTS = {
    "3": "GGA references",
    "4": "refitted",
    "model-aware": "model-aware",
}
models, before = {}, {}
for key in STARTS:
    models[key] = start_model(
        key, train, prior="trend", other_frames=held_out
    ).model
    before[key] = evaluate(models[key], train, with_predictions=True)

# %%
pd.DataFrame(
    {
        name: {
            "energy MAE (eV/atom)": before[key]["energy_mae_mev_per_atom"]
            / 1000,
            "force MAE (eV/Å)": before[key]["force_mae_mev_per_a"] / 1000,
        }
        for key, name in STARTS.items()
    }
).T.style.format("{:.3f}")

# %%
forces = [b["predictions"].forces_ev_per_a for b in before.values()]
assert all(np.array_equal(f, forces[0]) for f in forces)

# %% [markdown]
# The forces are the same to the last bit, for a reference depends on the composition and not on where the atoms are.
# Only the energies differ.
# Whatever now happens to the forces is the doing of the energy term.
#
# ## What is the gradient of an offset?
#
# The loss adds four terms, one a target, each a weight times the mean of a {term}`Huber loss` $h_\delta$ with $\delta = 0.1$.
# For energies, with errors $\varepsilon_i = \hat y_i - y_i$ over $n$ frames and weight $w_E = 3$, the gradient by a weight $\theta$ of the network is
#
# $$\frac{\partial L_E}{\partial \theta} = \frac{w_E}{n} \sum_i h_\delta'(\varepsilon_i)\,\frac{\partial \hat y_i}{\partial \theta}, \qquad h_\delta'(\varepsilon) = \max(-\delta, \min(\delta, \varepsilon)).$$ (eq-offset-gradient)
#
# An offset enters through $h_\delta'$ alone, and there it saturates: an error of 20 eV/atom pulls exactly as hard as one of 0.1 eV/atom.
# So the *size* of the offset cannot blow up the gradient.
# Two other things can: how many frames are saturated, and whether all of them pull in the same direction.
# If every $h_\delta'$ equals $+\delta$, the sum in {eq}`eq-offset-gradient` is $w_E\,\delta$ times the mean of $\partial \hat y_i/\partial\theta$: the direction that lowers *all* energies at once, the direction of an offset.
# Pulls of mixed sign cancel instead.


# %%
delta = LossSettings().delta


def describe_pull(error):
    pull = np.clip(error, -delta, delta)  # h' of the equation
    return {
        "saturated": np.mean(np.abs(error) > delta),
        "mean |pull| / δ": np.mean(np.abs(pull)) / delta,
        "same direction": abs(pull.sum()) / np.abs(pull).sum(),
    }


energy_error = {}
for key in STARTS:
    labels, predicted = before[key]["predictions"].parity("energy")
    energy_error[key] = predicted - labels
pulls = pd.DataFrame(
    {name: describe_pull(energy_error[k]) for k, name in STARTS.items()}
).T
pulls.style.format("{:.0%}")

# %% tags=["hide-input"]
COLORS = {
    "3": figures.COLORS["method_3"],
    "4": figures.COLORS["method_4"],
    "model-aware": figures.COLORS["fit"],
}


named = {STARTS[key]: error for key, error in energy_error.items()}
of_name = {STARTS[key]: COLORS[key] for key in STARTS}


# %% tags=["hide-input"]
fig, ax = plt.subplots()
draw.draw_pulls(ax, named, delta, of_name)
saturated = ", ".join(
    f"{row['saturated']:.0%} with {name} references"
    for name, row in pulls.set_axis(
        ["GGA", "refitted", "model-aware"]
    ).iterrows()
)
figures.show(
    fig,
    alt="Histograms of the energy errors of three starts on a logarithmic axis, with the pull of a frame as a curve that "
    f"rises to a plateau at 0.1 eV/atom; on the plateau lie {saturated}.",
    caption="The Huber loss makes all large errors pull alike",
    name="fig-05-pull",
    dataset=ds,
)

# %% [markdown]
# {numref}`fig-05-pull` holds a surprise for whoever expects the refit to bring the errors below $\delta$.
# It need not: a plain refit counts the difference between this set's average bonding and that of the pretraining set twice, as lesson 3 found, and on these data most of its frames stay on the plateau.
# What it changes for certain is the last column of the table: pulls in both directions, which cancel.
# The model-aware references do both.

# %%
own_data.check_claim(
    pulls["same direction"].idxmax() == "GGA references",
    "the pulls cancel least with GGA references",
    ds,
)

# %% tags=["hide-input", "remove-output"]
SHORT = {"3": "gga", "4": "refit", "model-aware": "aware"}
for key, name in STARTS.items():
    row = pulls.loc[name]
    results.record(
        f"saturated_{SHORT[key]}",
        100 * row["saturated"],
        unit="%",
        title=f"Training frames on the plateau of the Huber loss at the start: {name}",
    )
    results.record(
        f"coherence_{SHORT[key]}",
        100 * row["same direction"],
        unit="%",
        title=f"Share of the energy term's pull that does not cancel at the start: {name}",
    )

# %% [markdown]
# ## What do the layers feel in the first epoch?
#
# Now train from each start and record, at every tenth of the first epoch, the gradient of each term in each of the eight layers of the paper's Fig. 3a.
# The recorder is a callback: it computes its gradients beside the training step, which stays the same to the last bit.


# %%
def watch(key, k):
    first = GradientRecorder()
    course = GradientRecorder(per_epoch=2, n_epochs=n_epochs)
    run = xf.finetune(
        key,
        frames,
        split=split,
        prior="trend",
        callbacks=[first, course],
        n_epochs=n_epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=k,
        progress=False,
    )
    tables = (first.table(), course.table(), run.history)
    return [table.assign(start=key, seed=k) for table in tables]


# %%
seeds = range(seed, seed + n_seeds)
watched = [watch(key, k) for k in seeds for key in STARTS]
records, courses, histories = map(pd.concat, zip(*watched, strict=True))

# %% tags=["hide-input"]
total = records[records["term"] == "total"]


def draw_layer(ax, layer):
    for key, name in STARTS.items():
        at = total[(total["layer"] == layer) & (total["start"] == key)]
        norm, style = at.groupby("fraction")["norm"], {"color": COLORS[key]}
        ax.plot(norm.mean(), label=name, **style)
        x = norm.mean().index
        ax.fill_between(x, norm.min(), norm.max(), alpha=0.2, lw=0, **style)
    ax.set(xlim=(0, 1), xticks=[0, 0.5, 1], ylim=(0, None))
    ax.ticklabel_format(axis="y", scilimits=(-1, 3), useMathText=True)
    ax.yaxis.get_offset_text().set_fontsize("small")
    place = {"ha": "center", "va": "bottom", "transform": ax.transAxes}
    ax.text(0.6, 1.02, layer, **place)


def legend_above(fig, ax, n_columns):
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1)}
    handles, names = ax.get_legend_handles_labels()
    fig.legend(handles, names, ncols=n_columns, **place)


# %% tags=["hide-input"]
fig, axes = plt.subplots(2, 4, figsize=figures.wide(), sharex=True)
for ax, layer in zip(axes.flat, PAPER_LAYERS, strict=True):
    draw_layer(ax, layer)
fig.supxlabel("fraction of the first epoch")
fig.supylabel("norm of the gradient")
fig.tight_layout()
legend_above(fig, axes.flat[0], 3)
by_start = (
    total[total["layer"] == "network"].groupby("start")["norm"].mean()
)
figures.show(
    fig,
    alt="Eight small plots, one a layer, of the norm of the loss gradient over the first epoch, for "
    "three starts with the spread over seeds; over the whole network the mean norm is "
    + ", ".join(f"{by_start[k]:.2f} ({name})" for k, name in STARTS.items())
    + ".",
    caption=f"Without a refit, {by_start[next(iter(STARTS))] / by_start[list(STARTS)[1]]:.1f} times the gradient in the first epoch",
    name="fig-05-layers",
    dataset=ds,
)

# %% [markdown]
# Each panel of {numref}`fig-05-layers` has its own scale, from zero; bands are the range over seeds, and what all three lines share is the batch.
# The same in numbers: the gradient with GGA references over the one with refitted references, at the same step of the same seed.


# %%
def norms_of(start, term):
    chosen = (records["start"] == start) & (records["term"] == term)
    index = ["layer", "seed", "step"]
    return records[chosen].set_index(index)["norm"]


def ratio_by_layer(term, above="3", below="4"):
    ratio = np.log(norms_of(above, term) / norms_of(below, term))
    ratio = ratio[np.isfinite(ratio)]
    per_seed = ratio.groupby(["layer", "seed"]).mean()
    table = per_seed.reset_index().pivot_table("norm", "layer", "seed")
    return np.exp(table)  # geometric means over the epoch


ratio = ratio_by_layer("total")
pd.DataFrame(
    {
        "mean": ratio.mean(axis=1),
        "smallest": ratio.min(axis=1),
        "largest": ratio.max(axis=1),
    }
).loc[[*PAPER_LAYERS, "network"]].style.format("{:.2f} x")

# %% tags=["hide-input", "remove-output"]
network = ratio.loc["network"]
results.record(
    "gradient_ratio",
    network.mean(),
    interval=(network.min(), network.max()),
    title="Gradient of the network in the first epoch, GGA over refitted references",
    paper="larger in every layer (Fig. 3a)",
    why="other data, and the paper gives no ratio",
    note=f"geometric mean over the epoch; range over {n_seeds} seed{'s' * (n_seeds > 1)}",
)
of_layers = ratio.loc[list(PAPER_LAYERS)]
layers_up = int((of_layers.mean(axis=1) > 1).sum())
ends = [
    int((end(axis=1) > 1).sum()) for end in (of_layers.min, of_layers.max)
]
results.record(
    "layers_with_larger_gradient",
    layers_up,
    interval=tuple(ends) if n_seeds > 1 else None,
    title="Of the eight layers, those with a larger gradient when references are not refitted",
    note=f"in the mean; interval: in every one of {n_seeds} seeds, and in any",
    paper=8,
    why="surrogate labels, few frames" if ds.label_notice else "other data",
)

# %%
own_data.check_claim(
    ratio.loc["network"].mean() > 1,
    "the gradient is larger without a refit",
    ds,
)

# %% [markdown]
# The paper's finding is there: without the refit the gradient is larger; the table says in which layers it is so for every seed (*smallest* above 1) and where it is not clear.
# But look at *which* layers.
# The readout, `MLP_Layer0`, feels the offset most, the last convolution before it comes next, and in the embeddings and first layers there is little to see.
# That makes sense: an offset can be learned without looking at the structure at all, and the readout is the shortest way.
#
# ## Which term is pulling?
#
# The gradient of a sum is the sum of the gradients, so each term's part can be looked at alone.
# Set beside each other are the share of each term in the *loss*, which trainers usually log, and the size of its *gradient*, which is what moves the weights.

# %% tags=["hide-input"]
used = [term for term in TARGETS if counts[term]]
shades = plt.colormaps["viridis"](np.linspace(0, 0.85, len(TARGETS)))
looks = dict(
    zip(
        TARGETS,
        zip(shades, ("-", "--", "-.", ":"), strict=True),
        strict=True,
    )
)


def draw_terms(ax, key):
    for term in used:
        norm = norms_of(key, term).loc["network"].groupby("step").mean()
        shade, dashes = looks[term]
        ax.plot(norm, color=shade, ls=dashes, label=term)
    ax.set(yscale="log", xlabel="optimiser step")
    place = {"ha": "center", "va": "bottom", "transform": ax.transAxes}
    ax.text(0.5, 1.02, STARTS[key], **place)
    return norms_of(key, "energy").loc["network"].groupby("step").mean()


# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 3, figsize=figures.wide(), sharey=True)
first = {
    STARTS[key]: draw_terms(ax, key).iloc[0]
    for ax, key in zip(axes, STARTS, strict=True)
}
axes[0].set(ylabel="norm of the term's gradient")
fig.tight_layout()
legend_above(fig, axes[0], 4)
figures.show(
    fig,
    alt="Three plots, one a start, of the gradient norm of each loss term over the first epoch on a logarithmic axis; the "
    "energy term starts at "
    + ", ".join(f"{norm:.2f} ({name})" for name, norm in first.items())
    + ".",
    caption="With better references, the energy pulls less; the other terms stay",
    name="fig-05-terms",
    dataset=ds,
)


# %%
def gradient_share(key):
    norm = {t: norms_of(key, t).loc["network"].mean() for t in used}
    return 100 * norm["energy"] / sum(norm.values())


in_loss = histories[histories["epoch"] == 1].groupby("start")
table = pd.DataFrame(
    {
        "loss": 100 * in_loss["energy_loss_share"].mean(),
        "gradient": {key: gradient_share(key) for key in STARTS},
    }
).loc[list(STARTS)]
table.add_prefix("energy's % of the ").rename(index=STARTS).style.format(
    "{:.1f}"
)

# %% tags=["hide-input", "remove-output"]
for key, name in STARTS.items():
    for column in table:
        results.record(
            f"energy_share_of_{column}_{SHORT[key]}",
            table.loc[key, column],
            unit="%",
            title=f"Energy's share of the {column} in the first epoch: {name}",
            note="of the summed norms of the terms"
            if column == "gradient"
            else "",
        )

# %% [markdown]
# Beyond $\delta$ the Huber loss itself goes on growing, as $\delta(|\varepsilon| - \delta/2)$, while its gradient does not.
# So with an offset of many eV/atom the energy is nearly the whole loss, and the curve that one watches shows nothing else; the gradient is less one-sided than the loss suggests.
# The squared loss has no plateau, and shows what the Huber loss is saving us from.


# %%
def probe(model, loss):
    """Gradients of the same few batches at the start, term by term."""
    options = {"batch_size": batch_size, "seed": seed, "shuffle": True}
    loader = step_loader(frames, split["train"], **options)
    for _, batch in zip(range(n_probe), loader, strict=False):
        yield term_gradients(model, batch.to(dtype=torch.float32), loss)


def flatten(gradient):
    return torch.cat([g.flatten() for g in gradient.values()]).double()


# %%
kinds = {"Huber": LossSettings(), "squared": LossSettings(kind="mse")}
probes = {
    (key, kind): list(probe(models[key], loss))
    for key in STARTS
    for kind, loss in kinds.items()
}
norms = pd.DataFrame(
    {
        kind: {
            key: np.mean(
                [flatten(g["energy"]).norm() for g in probes[key, kind]]
            )
            for key in STARTS
        }
        for kind in kinds
    }
)
norms.rename(index=STARTS).style.format("{:.3g}")

# %% tags=["hide-input", "remove-output"]
for kind in kinds:
    results.record(
        f"energy_gradient_ratio_{kind.lower()}",
        norms.loc["3", kind] / norms.loc["4", kind],
        title=f"Energy gradient at the start, GGA over refitted references, {kind} loss",
        note=f"{n_probe} batches",
    )

# %% [markdown]
# ## Do energy and forces pull the same way?
#
# Two gradients can be compared by the angle between them, $\cos = g_E \cdot g_F / (|g_E|\,|g_F|)$.
# Above zero, a step for one also helps the other; below zero they fight; at zero they ignore each other.
# What counts for the forces in the end is the angle between *their* gradient and the whole one, along which the weights move.


# %%
def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


angles = []
for key in STARTS:
    for gradient in probes[key, "Huber"]:
        whole = flatten(total_gradient(gradient))
        energy, force = (
            flatten(gradient["energy"]),
            flatten(gradient["forces"]),
        )
        angles.append(
            {
                "start": key,
                "energy and forces": cosine(energy, force),
                "whole and energy": cosine(whole, energy),
                "whole and forces": cosine(whole, force),
            }
        )
angles = pd.DataFrame(angles).groupby("start").agg(["mean", "min", "max"])
angles.loc[list(STARTS)].rename(index=STARTS).style.format("{:+.2f}")

# %% tags=["hide-input"]
layers = [*PAPER_LAYERS, "network"]


def draw_cosines(ax, right):
    forces = records[records["term"] == "forces"]
    for k, (key, name) in enumerate(STARTS.items()):
        at = forces[forces["start"] == key].groupby("layer")
        at = at["cosine_with_energy"]
        style = {"fmt": "Dos"[k], "color": COLORS[key], "capsize": 2}
        x = np.arange(len(layers)) + 0.2 * (k - 1)
        ax.errorbar(
            x, at.mean()[layers], at.std()[layers], label=name, **style
        )
        mean, low, high = angles.loc[key, "whole and forces"]
        right.errorbar([k], [mean], [[mean - low], [high - mean]], **style)
    for axis in (ax, right):
        axis.axhline(0, color=figures.COLORS["identity"], lw=1, ls="--")
        axis.set(ylim=(-1.05, 1.05))
    ax.set_xticks(range(len(layers)), layers, rotation=35, ha="right")
    ax.set(ylabel="cosine of two gradients")
    right.set_xticks(range(3), STARTS.values(), rotation=35, ha="right")
    right.set(xlim=(-0.5, 2.5))


# %% tags=["hide-input"]
fig, axes = plt.subplots(
    1, 2, figsize=figures.wide(), sharey=True, width_ratios=(3, 1)
)
draw_cosines(*axes)
place = {"xycoords": "axes fraction", "va": "bottom"}
axes[0].annotate("energy and forces, first epoch", (0.01, 1), **place)
axes[1].annotate("whole loss and forces, start", (0.01, 1), **place)
axes[0].legend(loc="lower left", ncols=3)
fig.tight_layout()
to_forces = angles["whole and forces"]["mean"]
figures.show(
    fig,
    alt="Left, the cosine between energy and force gradients in eight layers and the network, for three starts, with its "
    "spread over the epoch; right, the cosine between the gradient of the whole loss and that of the forces at the start: "
    + ", ".join(
        f"{to_forces[k]:+.2f} ({name})" for k, name in STARTS.items()
    )
    + ".",
    caption=f"Without a refit, the whole gradient has a cosine of {to_forces[next(iter(STARTS))]:.2f} with that of the forces",
    name="fig-05-angles",
    dataset=ds,
)

# %% tags=["hide-input", "remove-output"]
for key, name in STARTS.items():
    for what, title in (
        ("energy and forces", "Cosine of energy and force gradients"),
        (
            "whole and forces",
            "Cosine of the whole gradient and the forces'",
        ),
    ):
        mean, low, high = angles.loc[key, what][["mean", "min", "max"]]
        results.record(
            f"cosine_{what.replace(' ', '_')}_{SHORT[key]}",
            mean,
            interval=(low, high) if n_probe > 1 else None,
            title=f"{title} at the start: {name}",
            note=f"whole network; range over {n_probe} batches",
        )

# %% [markdown]
# Read the left panel of {numref}`fig-05-angles` first: is any group of points clearly below zero?
# An offset knows nothing of forces, so there is no reason why its gradient should oppose theirs; among this many parameters, two unrelated directions are nearly at right angles.
# So at the start the offset does not *fight* the forces, it *outshouts* them.
# The right panel says by how much: the closer to zero, the less of a step along the whole gradient serves the forces.
# With refitted references energies and forces tend to agree, since what is then left of the energy error depends on the structure, as forces do.
#
# Two remarks before reading too much into an angle.
# Batches scatter widely, as the bars show, so one batch proves nothing.
# And with references as good as the model-aware ones the energy is no longer the loudest: the magnetic moments take over ({numref}`fig-05-terms`), and the angle between the whole gradient and the forces then says something about *them*.
#
# ## What does it cost?
#
# The forces were the same at the start.
# Are they still after one epoch?

# %%
measured = [
    "validation_energy_mae_mev_per_atom",
    "validation_force_mae_mev_per_a",
]
outcome = histories.pivot_table(measured, ["start", "seed"], "epoch")
force_change = 100 * (outcome[measured[1], 1] / outcome[measured[1], 0] - 1)
summary = outcome.groupby("start").mean().loc[list(STARTS)]
summary.columns = [
    f"{name.split('_')[1]}, epoch {epoch}"
    for name, epoch in summary.columns
]
summary.rename(index=STARTS).style.format("{:,.0f}")

# %% tags=["hide-input", "remove-output"]
for key, name in STARTS.items():
    change = force_change[key]
    results.record(
        f"force_change_{SHORT[key]}",
        change.mean(),
        unit="%",
        interval=(change.min(), change.max()) if n_seeds > 1 else None,
        title=f"Change of the validation force error by the first epoch: {name}",
        note=f"range over {n_seeds} seed{'s' * (n_seeds > 1)}",
    )

# %% [markdown]
# Energies are in meV/atom, forces in meV/Å, both on materials that training has not seen; the number is the epoch.
#
# Read it in two steps.
# After the *first* epoch forces have improved from every start, and by a similar amount: nothing is destroyed yet, and who stops watching here will say that the offset does no harm.
# But little of the offset is gone, and it goes on pulling, at a learning rate that has hardly come down.
# The next epochs show what that does.

# %% tags=["hide-input"]
force = histories.rename(columns={measured[1]: "force"})
agree = courses[
    (courses["term"] == "forces") & (courses["layer"] == "network")
]
fig, axes = plt.subplots(2, 1, sharex=True, figsize=(6.4, 5.2))
draw.draw_course(axes, agree, force, COLORS, STARTS)
axes[1].legend()
fig.tight_layout()
begin, end = (
    force[force["epoch"] == e].groupby("start")["force"].mean()
    for e in (0, n_epochs)
)
figures.show(
    fig,
    alt="Above, the cosine of energy and force gradients over the epochs for three starts; below, the force error on "
    "validation frames, which goes from "
    + ", ".join(
        f"{begin[k]:.0f} to {end[k]:.0f} meV/Å ({name})"
        for k, name in STARTS.items()
    )
    + ".",
    caption=f"After {n_epochs} epochs without a refit, {end['3'] / begin['3']:.1f} times the force error of the start; with one, {end['4'] / begin['4']:.1f} times",
    name="fig-05-course",
    dataset=ds,
)

# %% tags=["hide-input", "remove-output"]
by_seed = force.pivot_table("force", ["start", "seed"], "epoch")
for key, name in STARTS.items():
    times = (by_seed[n_epochs] / by_seed[0]).loc[key]
    results.record(
        f"force_after_epochs_{SHORT[key]}",
        times.mean(),
        interval=(times.min(), times.max()) if n_seeds > 1 else None,
        title=f"Validation force error after {n_epochs} epochs over that of the start: {name}",
        note=f"range over {n_seeds} seed{'s' * (n_seeds > 1)}",
    )

# %% [markdown]
# Without a refit the forces are worse at the end than they were before training, although forces are in the loss all the time: {doc}`04_four_methods` measures the same on its test materials.
# The upper panel says that it is no quarrel between two targets at a point (the cosine stays near zero or above).
# It is what many loud steps in a direction that knows nothing of forces do to weights that forces depend on.
# So the answer to the title is: not step by step, but in sum.
#
# :::{admonition} What the surrogate can show
# :class: note
# On the embedded data the r²SCAN labels come from a CHGNet that was itself fine-tuned from the GGA one, so forces of the start are closer to their labels than they would be to {term}`DFT`, and force gradients are smaller.
# The offset is the published one, element by element.
# So the shape of {eq}`eq-offset-gradient` (saturation, sign, angle) carries over to DFT labels; sizes of ratios need not.
# :::
#
# ## Try it yourself
#
# :::{admonition} Exercise 1
# If the energy term drowns the forces, turn it down.
# How small must the energy weight be before a step without a refit serves the forces as well as it does with one?
# Note that no new gradient has to be computed.
# :::

# %% tags=["hide-cell"]
# Solution: terms are linear in their weights, so the recorded ones can be scaled. The answer may be: no weight is small enough.
served = {}
for factor in (1, 0.3, 0.1, 0.03, 0.01, 0):
    cosines = []
    for g in probes["3", "Huber"]:
        energy, force = flatten(g["energy"]), flatten(g["forces"])
        whole = flatten(total_gradient(g)) + (factor - 1) * energy
        cosines.append(cosine(whole, force))
    served[f"{LossSettings().energy * factor:g}"] = np.mean(cosines)
goal = to_forces["4"]
enough = [weight for weight, value in served.items() if value >= goal]
print(
    f"with a refit: {goal:+.2f}; without, reached at an energy weight of "
    f"{enough[0] if enough else 'no value tried, not even zero'}"
)
pd.Series(served, name="cosine of whole and forces").rename_axis(
    "energy weight"
).to_frame().T.style.format("{:+.2f}")

# %% [markdown]
# :::{admonition} Exercise 2
# Adam moves a weight by about the learning rate a step, whatever the size of the gradient.
# How many steps would the bias of the last layer need to take up the mean offset alone?
# How far did the first epoch come?
# :::

# %% tags=["hide-cell"]
# Solution: a bias needs offset / rate steps; the whole network is faster, because everything upstream moves with it.
offset = abs(np.mean(energy_error["3"]))
n_steps = -(-len(train) // batch_size)
energy_mae = outcome[measured[0]].loc["3"].mean() / 1000
print(
    f"bias alone: {offset / learning_rate:,.0f} steps for {offset:.1f} eV/atom; "
    f"{n_steps} steps brought the error from {energy_mae[0]:.1f} to {energy_mae[1]:.1f} eV/atom"
)

# %% [markdown]
# ## Check yourself
#
# **1.** A training log says that 99 % of the loss is energy. Is 99 % of each step energy, too?
#
# :::{admonition} Answer
# :class: dropdown
# No.
# Beyond $\delta$ the Huber loss grows with the error but its gradient does not, so the share in the loss overstates the pull.
# :::
#
# **2.** The gradients of energy and forces have a cosine of 0.1. Do the two targets fight?
#
# :::{admonition} Answer
# :class: dropdown
# Hardly: they are nearly perpendicular, so a small step along one leaves the other about as it is.
# A fight would be a cosine clearly below zero.
# :::
#
# **3.** Would gradient clipping be as good as new references?
#
# :::{admonition} Answer
# :class: dropdown
# It limits the size of a step, not its direction.
# Most of the clipped step would still go into the offset, and the forces would get less.
# :::

# %% [markdown]
# ## Recap
#
# - With a Huber loss an offset of any size has the same gradient {eq}`eq-offset-gradient`; what makes it strong is that all frames pull the same way ({numref}`fig-05-pull`).
# - The share of a term in the loss is not its share in the gradient ({numref}`fig-05-terms`).
# - It is felt most in the readout, next to the energy, and least in the first layers ({numref}`fig-05-layers`).
# - The offset does not oppose the forces at the start, it outshouts them ({numref}`fig-05-angles`); a few epochs of that make them worse than no training ({numref}`fig-05-course`).
# - New references remove the cause before the first step. They cost labels, not training: lesson 3 says how many.
#
# Paper and this page side by side:

# %%
results.save()
results.table()
