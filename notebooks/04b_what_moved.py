# ---
# jupyter:
#   crossfunc:
#     needs: [04_four_methods]
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
# # What moved, what it cost, and why

# %% [markdown]
# :::{admonition} In this lesson
# :class: tip
# **Goal**: follow the runs of {doc}`04_four_methods` into the network: what their errors look like, which parts training has moved, how far references can walk, and what a run costs.
#
# **You need**: the first page, {doc}`04_four_methods`.
#
# **You will be able to**: tell an offset from a scatter, measure where in a network training has acted, and work out beforehand whether an optimiser can get where you want it.
#
# **Paper**: Table 1 of {cite:t}`huang2025crossfunctional`, and its two published checkpoints. **Run time**: one minute after the first page, four without it.
# :::
#
# The first page compared four ways to carry a model over by their errors on new materials.
# An error does not say where it comes from.
# This page opens the models.

# %% tags=["parameters"]
dataset = "pbe-r2scan"  # name or folder of a dataset with r²SCAN frames
results_dir = None  # folder for claims and shared runs; None: no sharing
pretrained = "0.3.0"  # the GGA/GGA+U model, or a file with another one
seed = 0  # first seed; each has a split, an order and fresh weights
n_seeds = 2  # repeats behind every spread
n_train_frames = 192  # frames that every method learns from
n_eval_frames = 96  # frames of validation, and as many of the test
n_epochs = 5  # passes over the training frames
n_start_epochs = 8  # passes in which a start is taught; 0: not at all
n_orders = 1  # more orders of the training frames, on the first split
max_steps: int | None = None  # optimiser steps, instead of epochs
validate_every_n_epochs = 1  # epochs between two points of a history
keep_runs = False  # take the runs from units that were made apart
batch_size = 8  # frames per optimiser step
learning_rate = 1e-3  # learning rate of the first step, as in the paper
max_atoms = 8  # frames of more atoms, which cost more, are left out
n_jobs = 2  # runs side by side, one CPU thread each; 1 on a GPU
n_workers = 0  # processes that build graphs ahead; 0 for none

# %% tags=["hide-input"]
import numpy as np
import torch
from IPython.display import Markdown

import crossfunc as xf
from crossfunc.lessons import (
    LessonResults,
    figures,
    four_methods,
    own_data,
    units,
)
from crossfunc.lessons.figures import methods as draw
from crossfunc.lessons.figures.widgets import reach_of_references
from crossfunc.training.baselines import slope_and_cosine
from crossfunc.training.settings import learning_rate_at

# %%
figures.use_style()
ds = xf.open_dataset(dataset)
results = LessonResults("04b_what_moved", results_dir, ds)
print(f"{ds.name}: {ds.label_notice}")

# %% tags=["remove-cell"]
if lack := own_data.describe_lack(ds):
    own_data.stop_here(lack, results)

# %% [markdown]
# ## Which runs?
#
# Those of the first page: frames, splits and units are planned by the same functions from the same values.
# What that page has left in the folder of its results is read back, and nothing is trained twice; what is not there is trained here.
# (So whoever changes a value gives it to both: `crossfunc run 04 04b -p n_epochs=20`.)

# %%
names = "seed n_seeds n_train_frames n_eval_frames max_atoms n_epochs max_steps batch_size learning_rate n_workers validate_every_n_epochs n_start_epochs pretrained keep_runs n_jobs"
parameters = {name: globals()[name] for name in names.split()}
frames, planned = units.plan_methods(ds, parameters)
followed = four_methods.FOLLOWED
runs = units.make_runs(
    planned, frames, results_dir, parameters, cases=followed
)
starts = four_methods.starts_of(planned, runs, pretrained)
n_steps = int(runs["4", seed].history["step"].iloc[-1])
print(f"{len(runs)} runs, {n_steps} steps each where there is training")

# %% [markdown]
# ## What does an error of that size look like?
#
# A mean hides how errors are distributed.
# A parity plot shows every frame: the label against the prediction.
# Total energies span tens of eV and would show nothing but their references, so both are shown minus the r²SCAN references of Method 4.

# %%
seen = four_methods.predictions_of(planned, runs, frames, seed)
points = four_methods.parity_points(seen, runs["4", seed])
off = {m: np.abs(np.subtract(*points[m, "energy"])).mean() for m in "1234"}
slopes = {m: slope_and_cosine(seen[m])[0] for m in "1234"}

# %%
figures.show(
    draw.parity_grid(points, slopes),
    alt="Predictions against labels for Methods 1 to 4 on test frames, energies minus references above and force components "
    "below where there are any. Mean absolute errors of the energies: "
    + ", ".join(f"{v:.2g} eV/atom for Method {m}" for m, v in off.items())
    + ".",
    caption="An offset that was not learned shows in the energies; first seed, one range per row",
    name="fig-04-parity",
    dataset=ds,
)

# %% [markdown]
# Along the dashed line, prediction and label agree.
# A cloud of energies that lies off it as a whole belongs to materials whose offset has not been learned.
# References do not enter the forces, so a model with such a cloud may have forces along the line, and that makes the mistake easy to overlook.
# Look at the slope of the forces, too: a network that has to make up an offset out of bonds and angles may bend the slopes as well.

# %%
Markdown(four_methods.offsets_in_words(seen))

# %% [markdown]
# The first number of each line is the mean of the signed errors, the part that one constant could mend; the second is how far errors scatter about it.
# References do more than one constant, an element each, and less than a network.

# %% [markdown]
# ## What moved?
#
# Which part of the network did the work?
# For every block of it, from the embeddings to the readout, compare the weights at the end with those of the start, as the length of the change relative to the length of the weights,
#
# $$\frac{\lVert \theta_\text{end} - \theta_\text{start} \rVert}{\lVert \theta_\text{start} \rVert}.$$ (eq-moved)
#
# The published r²SCAN checkpoint is the paper's own Method 4 at its end, so it can be measured as well, against the GGA/GGA+U model that it came from.

# %%
change = four_methods.changes_of(runs, starts)
published_change = four_methods.published_change()
most = {m: table.mean().idxmax() for m, table in change.items()}

# %%
least, largest = 100 * published_change.min(), 100 * published_change.max()
figures.show(
    draw.moved(change, published_change),
    alt="Relative change of the weights of each block of the network for Methods 2, 3 and 4; the block that moved most is "
    + ", ".join(f"{b} for Method {m}" for m, b in most.items())
    + ".",
    caption=f"The paper's own Method 4 moved every block by {least:.0f} to {largest:.0f} % (stars)",
    name="fig-04-moved",
    dataset=ds,
)

# %% [markdown]
# The stars are the paper's own Method 4 at its end: fifty epochs moved every block, embeddings and readout, and left none where it was.
# Whoever freezes part of the network for fine-tuning gives up changes that training would have made.
# Compare Methods 2 and 3 with Method 4: what they move beyond it may have been spent on the offset; a length alone does not prove it.

# %%
Markdown(four_methods.moved_in_words(change, published_change))

# %% [markdown]
# And what did the moving buy?
# Beside it stands the error on new materials, as it is and after a *last refit* of the references to what the trained network leaves of its training energies.
# What a refit takes away was an offset; what it leaves has to do with structure, and no reference can mend it.

# %%
after = four_methods.errors_after_refit(planned, runs, frames)
four_methods.moved_table(change, runs, after)

# %% [markdown]
# ## Why does training not move the references?
#
# Method 2 was free to move them, so why does it not simply do what Method 4 does?
# Adam {cite:p}`kingma2015adam` divides each gradient $g$ by the root of the running mean of its square,
#
# $$\Delta\theta = -\eta\,\frac{\langle g\rangle}{\sqrt{\langle g^2\rangle}},$$ (eq-adam)
#
# so a gradient that always points the same way moves a parameter by the learning rate $\eta$ per step, whether it is tiny or huge.
# An element that only every $k$-th step shows has no gradient in the others: $\langle g\rangle$ is $k$ times smaller, the root only $\sqrt k$ times, and what is left of each step is $\eta/\sqrt k$.
# By hand, with the same reference pulled a thousand times harder, and with one that is seen in every fourth step:

# %%
for pull, k in ((0.01, 1), (10.0, 1), (10.0, 4)):
    reference = torch.zeros(1, requires_grad=True)
    adam = torch.optim.Adam([reference], lr=1e-3)
    for step in range(400):
        reference.grad = torch.tensor([pull if step % k == 0 else 0.0])
        adam.step()
    print(f"pull {pull}, seen in 1/{k}: {abs(reference.item()):.3f} eV")
    assert np.isclose(abs(reference.item()), 0.4 / np.sqrt(k), rtol=0.01)

# %% [markdown]
# So no reference can travel further than the learning rates of all steps add up to, and that of a rare element not even so far.
# How far is that here, and how far would it have to be?

# %%
walk = four_methods.reference_walk(
    runs["4", seed], runs["2", seed], starts[seed], frames
)
given = runs["2", seed].settings
summed = sum(learning_rate_at(k, n_steps, given) for k in range(n_steps))
assert np.isclose(summed, walk["reach"])
Markdown(four_methods.walk_in_words(walk))

# %% tags=["remove-cell"]
results.record("reference_shift_needed", walk["median"])
results.record("reference_shift_method_2", walk["went"], n_steps=n_steps)
results.record("reference_reach", walk["reach"], n_steps=n_steps)

# %% [markdown]
# What would it take?
# Move the learning rate and the number of steps, and see which elements arrive; a cosine schedule spends half of the first learning rate, on average over its steps.
# A bar is the way of a reference over the root of the share of steps that show its element: what the learning rates have to add up to.

# %%
reach_of_references(
    four_methods.rates_needed(runs["4", seed], starts[seed], frames),
    learning_rate=learning_rate,
    n_steps=n_steps,
)

# %% [markdown]
# Least squares gets there at once, and exactly.
# Adam walks, and all the while the Huber loss {eq}`eq-loss` pulls at the rest of the network with full strength.
# Whether a short walk explains the paper's Table 1, where Method 2 is behind as well, is what exercise 1 asks.

# %% [markdown]
# ## Which references for a network from scratch?
#
# Method 1 was given refitted references, which is our reading of the paper.
# Its run on references of the low functional shows what that choice is worth.

# %%
of_scratch = four_methods.scratch_table(runs, after)
of_scratch.style.format("{:.3g}")

# %%
Markdown(four_methods.scratch_in_words(of_scratch))

# %% [markdown]
# The second column takes the offset out: what differs there is no matter of references any more, but of what the network spent its steps on.
# A network from scratch has nothing to lose, yet wrong references may cost it more than the offset.
# It is the mechanism of Method 3: the energy term pulls at full strength, and what it asks for has nothing to do with the structure.
# Whoever compares "transfer" with "scratch" must therefore say which references each of them had: with the right ones for one side only, either side can be made to win.

# %% [markdown]
# ## What does a seed change?
#
# A seed draws two things: which materials are held out, and the order of the training frames (with it the weights of a network from scratch).
# Repeats that change both say how far a result moves, but not why.
# So here the first split is trained on again, in other orders.

# %%
orders = units.order_units(planned, n_orders)
again = units.make_runs(
    planned, frames, results_dir, parameters, others=orders
)
spread = four_methods.spread_of_seeds(runs, again, frames)
spread.style.format("{:.3g}", na_rep="–")

# %%
Markdown(four_methods.spread_in_words(spread))

# %% tags=["remove-cell"]
four_methods.record_spread(results, spread)

# %% [markdown]
# A spread over splits holds the materials that happen to be in the test as well as those that happen to be in training; intervals on the first page hold both: the draw of materials, and by how much more than that explains the seeds differ.
# Repeating with other orders costs as much and tells less; of a network that starts from nothing, whose weights are drawn as well, it tells more than of a fine-tuned one.

# %% [markdown]
# ## What did it cost?
#
# The methods differ in where they start, not in what a step costs.
# The times below are of the machine that trained the runs; they count training with the validation after each epoch.

# %%
cost = four_methods.costs(runs)
results.record(
    "ms_per_frame_and_step", cost.loc["4", "ms per frame and step"]
)
cost.style.format("{:,.0f}", na_rep="–")

# %% [markdown]
# The rows without steps are the cheapest improvement in this book.

# %% [markdown]
# ## Try it yourself
#
# :::{admonition} Exercise 1
# How many steps would Method 2 need, at least, until its references have arrived at those of Method 4?
# The farthest way is `walk["largest"]`, in eV (about 16 on the DFT of this book); take it that every step shows the element, and a cosine schedule spends half of `learning_rate`, 0.001 here and in the paper, per step on average.
# The paper's references had a longer way: read that of lead off lesson 3's figure of shifts from every source ({numref}`fig-03-agreement`), from zero to the published tables, whose code is VASP.
# Its run, with the sizes of profile `paper` (190,598 frames, 50 epochs, and 64 frames per step, which the paper does not say): how many steps were that, and were they enough?
# :::

# %% tags=["hide-cell"]
# Solution: a cosine schedule spends half of the steps' learning rate, so n steps reach about n/2 times its start.
steps_needed = 2 * walk["largest"] / learning_rate
tables = [xf.published_atomref(name) for name in ("MPtrj", "MP-r2SCAN")]
gga, r2scan = (table.energies_ev[81] for table in tables)  # lead
of_lead, steps_of_paper = 2 * abs(r2scan - gga) / 0.001, 50 * 190_598 / 64
print(f"{steps_needed:,.0f} steps for the element that moves furthest;")
print(f"{of_lead:,.0f} for lead, of the paper's {steps_of_paper:,.0f}.")
# Just enough where every step shows the element; seen in one step of k, the way is longer by the square root of k.
assert of_lead < steps_of_paper

# %% [markdown]
# :::{admonition} Exercise 2
# How much of what Method 4 still gets wrong on its training frames could references alone take away?
# Refit them on the *trained* model's residuals and see what is left.
# :::

# %% tags=["hide-cell"]
# Solution: whatever is linear in the composition goes into the references; how large a part that is says the last line.
trained = runs["4", seed].model
train = frames.take(runs["4", seed].split["train"])
said = xf.predict(trained, train.crystals, derivatives=False)
residual = train.energy_per_atom_ev - said["energy_per_atom_ev"]
correction = xf.fit_atomref(
    train.composition, residual, material_ids=train.material_ids, ridge=1e-6
)
left = residual - correction.predict(train.composition)
for what, values in (
    ("training frames", residual),
    ("minus a refit", left),
):
    print(f"{what}: {1000 * np.abs(values).mean():.0f} meV/atom")
part = 1 - np.abs(left).mean() / np.abs(residual).mean()
print(f"{part:.0%} of what training left could still be solved for")
own_data.check_claim(part > 0, "a refit takes some of it away", ds)

# %% [markdown]
# ## Check yourself
#
# **1.** A reference has to go 5 eV, and all learning rates of a run add up to half an eV. Which batch size or loss weight helps?
#
# :::{admonition} Answer
# :class: dropdown
# No loss weight: Adam divides the gradient's size out.
# A smaller batch size helps if it means more steps; otherwise more epochs or a larger learning rate, and best of all a fit before training.
# :::
#
# **2.** The weights of two fine-tuned models have moved equally far from their start. Have both learned the same?
#
# :::{admonition} Answer
# :class: dropdown
# Not at all: a length says nothing about direction.
# One may have made up an offset where the other has learned about bonds; the errors after a last refit tell them apart.
# :::
#
# **3.** A colleague finds that transfer beats scratch by a factor of ten in energy. What do you ask first?
#
# :::{admonition} Answer
# :class: dropdown
# Which references did scratch have?
# On those of another functional it starts with an offset of eV per atom, and any start with the right ones wins.
# :::

# %% [markdown]
# ## Recap
#
# - A parity plot tells an offset from a scatter ({numref}`fig-04-parity`); references cannot touch forces, but a network that makes up for them can.
# - Where training acted is a length for each block {eq}`eq-moved`; the paper's own Method 4 moved all of them ({numref}`fig-04-moved`).
# - An optimiser with a bounded step {eq}`eq-adam` walks at most as far as its learning rates add up to, so references are better solved for than trained.
# - Transfer and scratch compare only with the same references.
#
# Paper and this page side by side:

# %%
results.save()
results.table()
