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
# **Paper**: Fig. 3a of {cite:t}`huang2025crossfunctional`. **Run time**: two minutes.
# :::
#
# Give CHGNet r²SCAN energies without changing its {term}`element references <element reference>`, and predictions are off by eV per atom, while its forces are what they were.
# Fine-tuning then starts with an energy error that says nothing about any bond.
# What does that error do to the layers that know about forces?

# %% tags=["parameters"]
dataset = "pbe-r2scan"  # name or folder; needs frames with r²SCAN forces
results_dir = None  # folder for the claims table; None keeps nothing
seed = 0  # first seed of split, choice and order of the frames
n_seeds = 3  # runs behind every spread
n_epochs = 4  # passes over the frames; gradients most closely in the first
n_start_epochs = 8  # passes in which a start is taught; 0: not at all
n_train = 128  # frames of the epochs that are watched
n_validation = 64  # frames on which the outcome is measured
n_probe = 4  # batches for the closer look at the start
max_atoms = 8  # larger cells are left out; 1000 keeps all
batch_size = 8  # frames per optimiser step
learning_rate = 1e-3  # learning rate of the first step, as in the paper

# %%
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown

import crossfunc as xf
from crossfunc.lessons import (
    LessonResults,
    figures,
    first_epoch,
    own_data,
    units,
)
from crossfunc.lessons.figures import gradients as draw
from crossfunc.lessons.figures.widgets import parity_over_epochs
from crossfunc.lessons.first_epoch import STARTS

# %%
from crossfunc.training import TARGETS
from crossfunc.training.batches import step_loader
from crossfunc.training.gradients import (
    PAPER_LAYERS,
    GradientRecorder,
    term_gradients,
    total_gradient,
)
from crossfunc.training.loss import LossSettings
from crossfunc.training.parity import ParityRecorder

# %%
figures.use_style()
ds = xf.open_dataset(dataset)
results = LessonResults("05_gradient_diagnostics", results_dir, ds)
low_name = ds.functional("low").name
print(f"{ds.name}: {ds.label_notice}")

# %% [markdown]
# Frames come from the materials of a split, as in lesson 1; only frames with energies and forces can show how the two interact.

# %% tags=["remove-cell"]
if lack := own_data.describe_lack(ds, "forces"):
    own_data.stop_here(lack, results)

# %%
n_wanted = n_train + n_validation
frames = units.usable_frames(ds, max_atoms, n_wanted, need_forces=True)
split = units.watched_split(frames, n_train, n_validation, seed)
train, held_out = (frames.take(rows) for rows in split.values())

# %%
counts = {t: int(train.labelled(t).sum()) for t in TARGETS}
used = [term for term in TARGETS if counts[term]]
n_materials = len(np.unique(train.material_ids))
print(f"{len(train)} training frames of {n_materials} materials")
print(f"labelled: {counts}; {len(held_out)} frames to measure on")

# %% [markdown]
# ## Where does each run start?
#
# From a network that has been taught the code as far as its training frames allow: where the dataset has the same crystals in its low functional too, and the model did not make these labels itself, it is first taught those of the training frames (lesson 4 says why, and why of these alone).

# %%
budget = {"batch_size": batch_size, "learning_rate": learning_rate}
parameters = budget | {"seed": seed, "n_start_epochs": n_start_epochs}
low = units.taught_labels(ds, frames, parameters)
base = units.begin(frames, low, split, parameters)
print(
    f"the start was taught {low_name}"
    if low
    else "nothing to teach here: the start is the published model"
)

# %% [markdown]
# Three runs share this network and differ in their references alone:
#
# - *GGA references* (Method 3 of the paper): those of the start, frozen;
# - *refitted* (Method 4): fitted to the r²SCAN energies of the training frames, then frozen;
# - *model-aware*: fitted to what the network leaves of these energies, the better refit of lesson 3.

# %%
models, before = {}, {}
options = {"pretrained": base, "prior": "trend", "other_frames": held_out}
for key in STARTS:
    models[key] = xf.start_model(key, train, **options).model
    before[key] = xf.evaluate(models[key], train, with_predictions=True)

# %%
first_epoch.errors_at_start(before).style.format("{:,.0f}").set_caption(
    "on the training frames"
)

# %%
forces = [b["predictions"].forces_ev_per_a for b in before.values()]
assert all(np.array_equal(f, forces[0]) for f in forces)

# %% [markdown]
# The forces are the same to the last bit, for a reference depends on the composition and not on where the atoms are.
# Only the energies differ.
# All runs are trained on the same forces and stresses, so what happens to the forces *differently* from run to run is the doing of the energy term.
#
# ## What is the gradient of an offset?
#
# The loss adds four terms, one for each target, each a weight times the mean of a {term}`Huber loss` $h_\delta$ with $\delta = 0.1$.
# For energies, with errors $\varepsilon_i = \hat y_i - y_i$ over $n$ frames and weight $w_E = 3$, the gradient by a weight $\theta$ of the network is
#
# $$\frac{\partial L_E}{\partial \theta} = \frac{w_E}{n} \sum_i h_\delta'(\varepsilon_i)\,\frac{\partial \hat y_i}{\partial \theta}, \qquad h_\delta'(\varepsilon) = \max(-\delta, \min(\delta, \varepsilon)).$$ (eq-offset-gradient)
#
# An offset enters through $h_\delta'$ alone, and there it saturates: an error of 20 eV/atom pulls exactly as hard as one of 0.1 eV/atom.
# So the *size* of the offset cannot blow up the gradient.
# Two other things can: how many frames are saturated, and whether all of them pull in the same direction.
# If every $h_\delta'$ equals $+\delta$, the sum in {eq}`eq-offset-gradient` is $w_E\,\delta$ times the mean of $\partial \hat y_i/\partial\theta$: the direction that changes the *mean* energy fastest, the direction of an offset.
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

# %%
saturated = ", ".join(
    f"{row['saturated']:.0%} ({name})" for name, row in pulls.iterrows()
)
figures.show(
    draw.pulls(energy_error, delta, STARTS),
    alt="Histograms of the energy errors of three starts on a logarithmic axis, with the pull of a frame as a curve that "
    f"rises to a plateau at 0.1 eV/atom; on the plateau lie {saturated}.",
    caption="The Huber loss makes all large errors pull alike",
    name="fig-05-pull",
    dataset=ds,
)

# %% [markdown]
# Whoever expects a refit to bring the errors below $\delta$ may find a surprise in {numref}`fig-05-pull`.
# It need not: a plain refit counts the difference between this set's average bonding and that of the pretraining set twice, as lesson 3 found.
# What a refit can do is the last column of the table: pulls in both directions, which cancel.

# %%
Markdown(first_epoch.pulls_in_words(pulls))

# %% tags=["remove-cell"]
first_epoch.record_pulls(results, pulls)
own_data.check_claim(
    pulls["same direction"].idxmax() == "GGA references",
    "the pulls cancel least with GGA references",
    ds,
)

# %% [markdown]
# ## What do the layers feel in the first epoch?
#
# Now train from each start and record, at every tenth of the first epoch, the gradient of each term in each of the eight layers of the paper's Fig. 3a.
# The recorder is a callback: it computes its gradients beside the training step, which stays the same to the last bit.

# A second callback asks the model about the held-out frames as it learns.


# %%
parity = {key: ParityRecorder(held_out, per_epoch=2) for key in STARTS}


def watch(key, k):
    first = GradientRecorder()
    course = GradientRecorder(per_epoch=2, n_epochs=n_epochs)
    asked = [parity[key]] if k == seed else []
    run = xf.finetune(
        key,
        frames,
        split=split,
        pretrained=base,
        prior="trend",
        callbacks=[first, course, *asked],
        n_epochs=n_epochs,
        seed=k,
        progress=False,
        **budget,
    )
    tables = (first.table(), course.table(), run.history)
    return [table.assign(start=key, seed=k) for table in tables]


# %%
seeds = range(seed, seed + n_seeds)
watched = [watch(key, k) for k in seeds for key in STARTS]
records, courses, histories = map(pd.concat, zip(*watched, strict=True))

# %%
ratio = first_epoch.ratio_by_layer(records)
of_total = records[records["term"] == "total"]
by_start = of_total[of_total["layer"] == "network"].groupby("start")
size = by_start["norm"].mean()

# %%
figures.show(
    draw.layer_norms(records, PAPER_LAYERS, STARTS),
    alt="Eight small plots, one per layer, of the norm of the loss gradient over the first epoch, for "
    "three starts with the spread over seeds; over the whole network the mean norm is "
    + ", ".join(f"{size[k]:.2f} ({name})" for k, name in STARTS.items())
    + ".",
    caption=f"Without a refit, {ratio.loc['network'].mean():.1f} times the gradient in the first epoch",
    name="fig-05-layers",
    dataset=ds,
)

# %% [markdown]
# Each panel of {numref}`fig-05-layers` has its own scale, from zero; bands are the range over seeds, and what all three lines share is the batch.
# In numbers: the gradient with GGA references over the one with refitted references, at the same step of the same seed.

# %%
of_seeds = {"smallest": ratio.min(axis=1), "largest": ratio.max(axis=1)}
pd.DataFrame({"mean": ratio.mean(axis=1), **of_seeds}).style.format(
    "{:.2f} x"
)

# %%
Markdown(first_epoch.layers_in_words(ratio))

# %% tags=["remove-cell"]
first_epoch.record_ratios(results, ratio)
own_data.check_claim(
    ratio.loc["network"].mean() > 1,
    "the gradient is larger without a refit",
    ds,
)

# %% [markdown]
# The paper finds a larger gradient in every layer without the refit; the table says in which layers that is so here for every seed (*smallest* above 1) and where it is not clear.
# And look at *which* layers.
# An offset common to all elements can be made in the readout, `MLP_Layer0`; one for each element needs what tells elements apart, the rows of `AtomEmb`, which residual connections carry straight to the readout.
# Neither needs the structure.
#
# ## Which term is pulling?
#
# The gradient of a sum is the sum of the gradients, so each term's part can be looked at alone.
# Set beside each other are the share of each term in the *loss*, which trainers usually log, and the size of its *gradient*, which is what moves the weights.

# %%
at_start = first_epoch.norms_at_start(records, "energy")
first_norms = ", ".join(
    f"{v:.2f} ({STARTS[k]})" for k, v in at_start.items()
)

# %%
figures.show(
    draw.term_norms(records, used, STARTS),
    alt="Three plots, one per start, of the gradient norm of each loss term over the first epoch on a logarithmic axis; the "
    f"energy term starts at {first_norms}.",
    caption=f"Energy's gradient at the first step: {first_norms}",
    name="fig-05-terms",
    dataset=ds,
)

# %%
share = first_epoch.shares(records, histories)
of_each = ", ".join(
    f"{row.loss:.0f} and {row.gradient:.0f} ({STARTS[k]})"
    for k, row in share.iterrows()
)

# %%
figures.show(
    draw.shares(share, STARTS),
    alt=f"Two bars per start, the energy's share of the loss and of the summed gradient norms in the first epoch, in percent: {of_each}.",
    caption=f"Energy's share of the loss and of the gradient, in percent: {of_each}",
    name="fig-05-shares",
    dataset=ds,
)

# %% tags=["remove-cell"]
first_epoch.record_shares(results, share)

# %% [markdown]
# Beyond $\delta$ the Huber loss itself goes on growing, as $\delta(|\varepsilon| - \delta/2)$, while its gradient does not.
# So the larger an offset, the more of the loss is energy, and the curve that one watches shows little else; the gradient can be less one-sided than the loss suggests, which is what the two columns compare.
# The squared loss has no plateau, and shows what the Huber loss is saving us from.


# %%
def probe(model, loss):
    """Gradients of the same few batches at the start, term by term."""
    options = {"batch_size": batch_size, "seed": seed, "shuffle": True}
    loader = step_loader(frames, split["train"], **options)
    for _, batch in zip(range(n_probe), loader, strict=False):
        yield term_gradients(model, batch.to(dtype=torch.float32), loss)


# %%
kinds = {"Huber": LossSettings(), "squared": LossSettings(kind="mse")}
probes = {
    (key, kind): list(probe(models[key], loss))
    for key in STARTS
    for kind, loss in kinds.items()
}

# %%
norms = pd.Series(
    {
        which: np.mean(
            [first_epoch.flatten(g["energy"]).norm() for g in found]
        )
        for which, found in probes.items()
    }
)
norms = norms.rename_axis(["start", "loss"]).reset_index(name="norm")
norms = norms.pivot_table("norm", "start", "loss").loc[list(STARTS)]
norms.rename(index=STARTS).style.format("{:.3g}")

# %% tags=["remove-cell"]
for kind in kinds:
    by_refit = norms.loc["3", kind] / norms.loc["4", kind]
    results.record(
        f"energy_gradient_ratio_{kind.lower()}", by_refit, n=n_probe
    )

# %% [markdown]
# ## Do energy and forces pull the same way?
#
# Two gradients can be compared by the angle between them, $\cos = g_E \cdot g_F / (|g_E|\,|g_F|)$.
# Above zero, a step for one also helps the other; below zero they fight; at zero they ignore each other.
# What counts for the forces in the end is the angle between *their* gradient and the whole one, along which a plain gradient step would go (Adam rescales it weight by weight).


# %%
angles = first_epoch.angles(probes)
to_forces = angles["whole and forces"]["mean"]
angles.rename(index=STARTS).style.format(first_epoch.cosine_text)

# %%
figures.show(
    draw.cosines(records, angles, first_epoch.SHOWN_LAYERS, STARTS),
    alt="Left, the cosine between energy and force gradients in eight layers and the network, for three starts, with its "
    "spread over the epoch; right, the cosine between the gradient of the whole loss and that of the forces at the start: "
    + ", ".join(
        f"{first_epoch.cosine_text(to_forces[k])} ({name})"
        for k, name in STARTS.items()
    )
    + ".",
    caption=f"Without a refit, the whole gradient has a cosine of {first_epoch.cosine_text(to_forces['3'])} with that of the forces",
    name="fig-05-angles",
    dataset=ds,
)

# %%
Markdown(first_epoch.angles_in_words(angles))

# %% tags=["remove-cell"]
first_epoch.record_angles(results, angles, n_probe)

# %% [markdown]
# Read the left panel of {numref}`fig-05-angles` first: is any group of points clearly below zero?
# An offset knows nothing of forces, so there is no reason why its gradient should oppose theirs; among this many parameters, two unrelated directions are nearly at right angles.
# An offset that is at right angles to the forces does not *fight* them, it *outshouts* them.
# The right panel says by how much: the closer to zero, the less of a step along the whole gradient serves the forces.
# What is left of the energy error once the offset is gone depends on the structure, as forces do, so the two may agree or oppose.
# References that fit the model's own errors leave what the model does not know.
# A plain refit leaves more: the difference between the average bonding here and in the pretraining set, large for some crystals and of the other sign for others, and that is no constant whose gradient would be neutral.
# So compare the refitted run with the model-aware one before you put a force error down to old references: a plain refit can do harm of its own.
#
# Two remarks before reading too much into an angle.
# Batches scatter widely, as the bars show, so one batch proves nothing.
# And once the energy is no longer the loudest term, another one may be ({numref}`fig-05-terms`), and the angle between the whole gradient and the forces then says something about *that*.
#
# ## What does it cost?
#
# The forces were the same at the start.
# Are they still after training?

# %%
first_epoch.outcome(histories).style.format("{:,.0f}")

# %% tags=["remove-cell"]
first_epoch.record_forces(results, histories)

# %% [markdown]
# Energies are in meV/atom, forces in meV/Å, both on materials that training has not seen; the number is the epoch.
# What the first epoch does to the forces need not be what the next ones do: as long as much of an offset is left, it goes on pulling.
# Where the window ends, others go on: the histories of {doc}`04_four_methods`, and those of {doc}`/long_run`, where every method has come down to its own training energies.

# %%
Markdown(first_epoch.window_in_words(histories))

# %%
force = histories.rename(columns={first_epoch.FORCE: "force"})
agree = courses[
    (courses["term"] == "forces") & (courses["layer"] == "network")
]
times = first_epoch.times_force(histories, n_epochs).mean(axis=1)

# %%
begun = force[force["epoch"] == 0].groupby("start")["force"].mean()
figures.show(
    draw.course(
        agree, force, STARTS, first_epoch.zero_force(frames, split)
    ),
    alt="Above, the cosine of energy and force gradients over the epochs for three starts; below, the force error on "
    "validation frames, which goes from "
    + ", ".join(
        f"{begun[k]:.0f} to {begun[k] * times[k]:.0f} meV/Å ({name})"
        for k, name in STARTS.items()
    )
    + ".",
    caption=f"After {n_epochs} epochs without a refit, {times['3']:.1f} times the force error of the start; with one, {times['4']:.1f} times",
    name="fig-05-course",
    dataset=ds,
)

# %% [markdown]
# Play it, frame by frame: energies in the upper row walk to the line, and the lower row shows what that walk does to the forces of the same crystals (one seed).

# %%
parity_over_epochs(parity, STARTS)

# %%
Markdown(first_epoch.course_in_words(histories))

# %%
Markdown(first_epoch.answer_in_words(histories))

# %% [markdown]
# Would it be the same without teaching the start first?
# The published model knows neither this code nor these pseudopotentials, so that its references *and* its forces are another code's, and more than the functional has to change.

# %%
settings = parameters | {"n_seeds": n_seeds, "n_epochs": n_epochs}
start = (low, frames, split, settings)
Markdown(first_epoch.record_from_published(results, *start))

# %% [markdown]
# {doc}`04_four_methods` measures the forces on its test materials, with intervals.
# The upper panel of {numref}`fig-05-course` tells fighting and outshouting apart.
# If the two targets fought, the cosine would be below zero.
# Where it stays near zero or above and forces still get worse, it is what many loud steps in a direction that knows nothing of forces do to weights that forces depend on: not step by step, but in sum.
#
# :::{admonition} What carries over
# :class: note
# On the surrogate the r²SCAN labels come from a CHGNet that was itself fine-tuned from the GGA/GGA+U one, so what pulls at the forces is one network's difference from another, and not that of two functionals; its offset is the published one, element by element.
# On {term}`DFT` labels of another code the start is taught the low functional first, so that what pulls is the functional.
# The shape of {eq}`eq-offset-gradient` (saturation, sign, angle) does not depend on whose labels these are; sizes of ratios do.
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
        energy, to = map(first_epoch.flatten, (g["energy"], g["forces"]))
        whole = first_epoch.flatten(total_gradient(g))
        whole = whole + (factor - 1) * energy
        cosines.append(first_epoch.cosine(whole, to))
    served[f"{LossSettings().energy * factor:g}"] = np.mean(cosines)
whole_term = next(iter(served.values()))
assert np.isclose(whole_term, to_forces["3"], atol=1e-3)
enough = [w for w, value in served.items() if value >= to_forces["4"]]
print(
    f"with a refit: {to_forces['4']:+.2f}; without, reached at an energy weight of "
    f"{enough[0] if enough else 'no value tried, not even zero'}"
)
pd.Series(served, name="cosine of whole and forces").to_frame().T

# %% [markdown]
# :::{admonition} Exercise 2
# Adam moves a weight by at most about the learning rate per step, whatever the size of the gradient.
# How many steps would the bias of the last layer need to take up the mean offset alone?
# How far did the first epoch come?
# :::

# %% tags=["hide-cell"]
# Solution: a bias needs offset / rate steps; the whole network is faster, because everything upstream moves with it.
offset = abs(np.mean(energy_error["3"]))
n_steps = -(-len(train) // batch_size)
of_gga = histories[histories["start"] == "3"].groupby("epoch")
energy_mae = of_gga[first_epoch.ENERGY].mean() / 1000
print(
    f"bias alone: {offset / learning_rate:,.0f} steps for {offset:.1f} eV/atom; "
    f"{n_steps} steps brought the error from {energy_mae[0]:.1f} to {energy_mae[1]:.1f} eV/atom"
)
is_faster = energy_mae[0] - energy_mae[1] > n_steps * learning_rate
own_data.check_claim(is_faster, "the network outruns its bias", ds)

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
# No.
# It shortens the gradient and leaves its direction, and Adam, which divides the gradient's size out, hardly steps shorter for it.
# Most of each step would still go into the offset.
# :::

# %% [markdown]
# ## Recap
#
# - With a Huber loss an offset of any size has the same gradient {eq}`eq-offset-gradient`; what makes it strong is that all frames pull the same way ({numref}`fig-05-pull`).
# - The share of a term in the loss is not its share in the gradient ({numref}`fig-05-shares`).
# - {numref}`fig-05-layers` shows in which layers an offset is felt most.
# - An offset has no reason to oppose the forces; whether it outshouts them, {numref}`fig-05-angles` says, and what epochs of that do to them, {numref}`fig-05-course`.
# - New references remove the offset before the first step. They cost labels, not training: lesson 3 says how many. Whether forces are then better than without training is another question: plainly refitted references count the difference between this set's average bonding and that of the pretraining set twice, and {numref}`fig-05-course` shows what model-aware ones do instead.
#
# Paper and this page side by side:

# %%
results.save()
results.table()
