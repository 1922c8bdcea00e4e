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
# # How many frames is a pretrained model worth?

# %% [markdown]
# :::{admonition} In this lesson
# :class: tip
# **Goal**: measure how errors fall with the number of training frames, for transfer and from scratch, and turn the gap into a number of frames where the data allow it.
#
# **You need**: {doc}`03_atomref_correlation`, and logarithms.
#
# **You will be able to**: draw a learning curve that compares like with like, fit a power law with an honest interval, and say when a scaling law must not be quoted.
#
# **Paper**: Fig. 6 of {cite:t}`huang2025crossfunctional`. **Run time**: four minutes.
# :::
#
# r²SCAN calculations are expensive, so the practical question is not whether transfer helps but how many of them it saves.
# A {term}`learning curve` answers it: train on more and more {term}`frames <frame>`, and watch the error on materials never seen.

# %% tags=["parameters"]
dataset = "pbe-r2scan"  # name or folder; needs frames with r²SCAN forces
results_dir = None  # folder for the claims table; None keeps nothing
seed = 0  # first seed; drives split, subsets, weights and order
n_seeds = 2  # runs behind every point, each on subsets of its own
sizes = [16, 60, 200, 625]  # training frames N; each holds the last
n_min = 16  # power laws are fitted to sizes from here on
n_validation = 96  # frames that every run is measured on
max_atoms = 6  # larger cells are left out; 1000 keeps all
max_steps = 100  # optimiser steps of every run, whatever its N
batch_size = 8  # frames per optimiser step
learning_rate = 1e-3  # learning rate of the first step, as in the paper
n_start_epochs = 6  # passes over the low labels that teach a start, or 0
curves = [  # learning curves; also: "published", "plain start"
    "transfer",
    "model-aware",
    "scratch",
]
n_looks = 1  # validations (and checkpoints) of a run, the last among them
keep_runs = False  # keep each run, so that a stopped lesson goes on
n_bootstrap = 2000  # resamples behind each interval

# %%
import numpy as np
import torch
from IPython.display import Markdown

import crossfunc as xf
from crossfunc.lessons import (
    LessonResults,
    figures,
    learning_curves,
    own_data,
    run_histories,
    units,
)
from crossfunc.lessons.figures import scaling as draw
from crossfunc.training import ScalingError, settings
from crossfunc.training.units import run_units

# %%
figures.use_style()
ds = xf.open_dataset(dataset)
results = LessonResults("07_scaling_laws", results_dir, ds)
print(f"{ds.name}: {ds.label_notice}")

# %% [markdown]
# ## What must be equal?
#
# Two learning curves compare only if everything but the start is the same.
# Five things are easily not:
#
# - *validation frames*: the same for all runs, of materials that no run trains on. An element that no training frame fixes would hide every other error, and forces that vanish by symmetry are right in any model, so frames with either are not judged;
# - *training frames*: at each N and seed the same for both methods, and *nested*, so that a larger set is the smaller one and more;
# - *element references*: those of a curve are the same at every N, fitted once to all training frames. Fitted to each subset instead, the small ones would measure how badly references are known there;
# - *optimisation budget*: the same number of steps of the same batch size for all runs. With a fixed number of epochs, small sets would also train less;
# - *schedule*: the learning rate ends at its minimum in every run.

# %% tags=["remove-cell"]
if lack := own_data.describe_lack(ds, "forces"):
    own_data.stop_here(lack, results)
if not {"transfer", "scratch"} <= set(curves):
    own_data.stop_here(
        "The lesson compares transfer with scratch: -p curves=[...] must hold both.",
        results,
    )

# %%
names = "seed n_seeds sizes curves n_validation max_atoms n_start_epochs "
names += "max_steps batch_size learning_rate n_looks"
parameters = {name: globals()[name] for name in names.split()}
plan = units.plan_scaling(ds, parameters)
frames, pool, validation, fitting, references = plan
held_out = frames.take(validation)

# %%
print("training:", learning_curves.counted(frames.take(pool)))
print("validation:", learning_curves.counted(held_out))
print(f"N = {fitting}, of {sizes} that were asked for")

# %% tags=["remove-cell"]
if len(fitting) < 2:
    own_data.stop_here(
        f"A curve needs two sizes at least; choose some below {len(pool)} with -p sizes=[...].",
        results,
    )

# %% [markdown]
# Sizes beyond the training frames that there are have been passed over; the largest set is then all of these, unless a size comes near.
# What do the references rest on?

# %%
print(references["transfer"].summary())

# %% [markdown]
# ## What does transfer start from?
#
# A published model has learned a GGA from another code.
# Where the labels come from the code that it learned from, the change of functional is all that is left to learn.
# Where they do not, its pseudopotentials and settings are learned along with it, and a curve would measure both.
# So where these data have labels in the low functional on the same crystals, and the model does not give them already, it is first taught *those*, on all training frames: labels in the cheap functional are plentiful, and only the expensive ones are counted below.
# The curves of transfer begin with that model.

# %%
keeps = units.units_folder(results_dir, results.lesson)
folder = keeps if keep_runs else None
start = units.scaling_start(ds, frames, pool, validation, parameters)
made = {}  # a start that no folder keeps is not made twice
if start is not None and folder is None:
    made[start.name] = run_units([start], frames)[0]

# %%
taught = f"taught {ds.functional('low').name}" if start else "as it comes"
print(f"transfer starts from CHGNet 0.3.0, {taught}")
possible = units.curves_of(curves, references, start)
print(f"curves that these data can have: {', '.join(possible)}")

# %% [markdown]
# ## Where does transfer stand without any training?
#
# The curve of transfer has a point at N = 0: that start with references for the new functional, not trained on it at all.
# The references did see the energies of all training frames, as they do at every other N; what is zero is the number of frames that the *network* has learned from.
# That is also how the paper draws it.
# Beside it stands what lesson 3 recommends: references fitted to what the pretrained network *leaves* of the energies.

# %%
shared = pool, validation, references
free = units.untrained_units(*shared, parameters, start)
without = run_units(list(free.values()), frames, folder, made=made)
untrained = dict(zip(free, without, strict=True))
at_start = learning_curves.predictions(free, without, held_out)
at_zero = learning_curves.errors_at_zero(untrained, held_out)
at_zero.add_suffix(" MAE").style.format("{:.3g}", na_rep="–")

# %%
Markdown(learning_curves.free_in_words(at_zero))

# %% [markdown]
# Units are meV/atom, meV/Å and GPa.
# Forces are the same in the first two rows, because references do not touch them.
# Energies are not: a plain refit counts the *difference* between this set's average bonding and that of the pretraining set twice, once in the reference and once in the network (lesson 3).
# Transfer by Method 4 has to unlearn that first, which scratch does not, so look out for it at the left end of the energy curves.
# *Plain start*, where it is listed, has model-aware references on the pretrained model as it comes; the two differ by what teaching changed, which can be for the worse.
# The last row is what a model without any forces gets.
#
# These rows cost no training on the new functional.
# A curve that lies above them does not measure how fast r²SCAN is learned, but how fast something misplaced is unlearned, or nothing.
# So there is one rule for the whole lesson: **no exponent and no factor is quoted from a curve that anywhere lies above what costs nothing**.
# For energies that is the lowest of the rows, for forces of transfer the untrained network.
# Forces of scratch, which does without that network, are held against predicting zero.

# %% [markdown]
# ## The runs
#
# Method 4 starts from the network above (*transfer*), Method 1 from random weights (*scratch*); nothing else differs.
# A third curve starts from the same network with model-aware references; the profile `converged-surrogate` adds one on the published table, which applies there.
# Each point is the error after the last step.
# Nothing is stopped early, so no choice was made on the validation frames.

# %%
chosen = parameters | {"curves": possible, "sizes": fitting}
planned = units.scaling_units(frames, *shared, chosen, start)
done = run_units(list(planned.values()), frames, folder, made=made)
run_histories.check_one_start(free | planned, [*without, *done])
seen = learning_curves.predictions(planned, done, held_out)
runs = learning_curves.last_errors(seen, done, frames, n_validation)
errors = learning_curves.short(runs)

# %%
learning_curves.mean_errors(errors).style.format("{:.0f}")

# %% [markdown]
# What of the energy error is in the references, and what in the network?
# A last refit to training frames of the same run takes out what composition explains of its training errors; in meV/atom, this is left on validation frames:

# %%
learning_curves.mean_refitted(runs).style.format("{:.0f}")

# %% [markdown]
# ## Is it a power law?
#
# Many learning curves fall as a power of the number of frames,
#
# $$\mathrm{MAE}(N) = a\,N^{-b},$$ (eq-scaling)
#
# which is a straight line of slope $-b$ when both axes are logarithmic: take the logarithm, and fit a line by least squares.
# By hand, on a curve that halves its error with every fourfold $N$:

# %%
n_by_hand = np.array([25, 100, 400, 1600])
halved = np.array([80.0, 40.0, 20.0, 10.0])
slope, intercept = np.polyfit(np.log(n_by_hand), np.log(halved), 1)
law_by_hand = xf.fit_power_law(n_by_hand, halved, n_bootstrap=50)
assert np.isclose(law_by_hand.exponent, -slope)
assert np.isclose(law_by_hand.prefactor, np.exp(intercept))
print(f"error = {np.exp(intercept):.0f} N^{slope:.2f}")

# %% [markdown]
# Averaging $N$ independent measurements lowers the error of their mean with just this exponent, which makes one half a landmark: a potential is no mean of its frames, and its exponents are mostly smaller.
#
# The paper fits {eq}`eq-scaling` above 1,000 frames; here it is fitted from `n_min` on.
# The interval comes from resampling seeds, so it knows how much runs scatter, but not whether the law is the right one: that is for $R^2$ and the eye.
# With fewer than three sizes the fit declines, and before any fit comes the rule.

# %%
options = {"n_min": n_min, "n_bootstrap": n_bootstrap, "seed": seed}
laws, why_no_law = learning_curves.fit_laws(
    errors, at_zero, possible, **options
)
Markdown(learning_curves.laws_in_words(laws, why_no_law))

# %%
ends = {
    metric: learning_curves.end_in_words(errors, at_zero, metric)
    for metric in learning_curves.DRAWN
}
figures.show(
    draw.learning_curves(errors, laws, at_zero),
    alt="Two log-log plots of the validation error against the number of training frames, energy left and force right, one line per curve, "
    "with fitted lines where one may be quoted and dashed lines for what costs no training. "
    + "; ".join(ends.values()),
    caption=ends["energy"],
    name="fig-07-curves",
    dataset=ds,
)

# %% tags=["remove-cell"]
seeds = range(seed, seed + n_seeds)
finals = {c: [seen[c, fitting[-1], s] for s in seeds] for c in possible}
tables = (at_zero, at_start, errors, finals)
note = {"n_pool": len(pool), "n_steps": max_steps}
learning_curves.record_errors(results, *tables, **note)
learning_curves.record_laws(results, laws)
learning_curves.record_refitted(results, runs)
learning_curves.record_pairs(results, finals, at_start)

# %% [markdown]
# Look first at the dashed lines, the models that were not trained on the new functional at all.
# The model-aware one costs no training; where it lies far below the refitted one, a few steps from the plain refit need not catch up with it, because the network first has to unlearn what was counted twice.
# A force curve of transfer that rises above its own start says what misplaced references cost: the network is bent to make up for an offset of the energies, and pays in forces ({doc}`04_four_methods`); the model-aware curve has nothing to make up for.
# A curve above such a line is dotted, and no law is quoted from it, however straight it looks: for the energies of transfer, the slope would be that of unlearning a misplaced reference, and for forces of scratch above *predict zero* it would be that of a model that has no forces yet.
#
# Then read {numref}`fig-07-curves` along a horizontal line, not a vertical one.
# Where does scratch reach the error that transfer has at its left end, if at all?
#
# ## How many scratch frames is one transfer frame worth?
#
# Solve the law of scratch for the number of frames that gives the error of transfer at $N$, and divide:
#
# $$\kappa(N) = \frac{1}{N}\left(\frac{a_\mathrm{scratch}}{\mathrm{MAE}_\mathrm{transfer}(N)}\right)^{1/b_\mathrm{scratch}}.$$ (eq-efficiency)
#
# The catch is that scratch may never have been trained on that many frames.
# The flatter its curve, the further the law has to be stretched: an exponent of 0.05 turns a factor of two in the error into a factor of a million in frames.
# So a factor is drawn only where the interval of scratch's exponent is clear of zero and where at most ten times as many scratch frames are needed as were tried.
#
# And it is quoted only if neither curve lies above what costs nothing.
# For scratch that is asked of its forces *and* its stresses, at its largest $N$ and whatever the factor is about: a model that is no better than predicting zero is no potential, and what is worth many of its frames need not be worth much.
#
# What needs no law at all is a lower limit: wherever transfer at $N$ was measured to be better than scratch at its largest $N_\mathrm{max}$, with the whole interval of the difference over materials and seeds, one transfer frame is worth more than $N_\mathrm{max}/N$ scratch frames.
# It counts only where transfer has come below what costs nothing, for otherwise it owes its lead to the start and not to its $N$ frames.

# %%
worth, limits, why_no_factor = learning_curves.worth_of_frames(
    errors, at_zero, seen, **options
)
Markdown(learning_curves.worth_in_words(worth, limits, why_no_factor))

# %%
said = learning_curves.limits_in_words(limits)
figures.show(
    draw.frames_worth(worth, limits, fitting),
    alt="Scratch frames that one transfer frame is worth against N, on logarithmic axes; triangles are lower limits "
    f"without a law: {said or 'none'}.",
    caption=f"What one transfer frame is worth in scratch frames: {said or 'not settled by these runs'}",
    name="fig-07-worth",
    dataset=ds,
)

# %% tags=["remove-cell"]
learning_curves.record_worth(results, worth, limits, errors)

# %% [markdown]
# ## Are the data the limit, or the steps?
#
# A scaling law in N means something only where N is what limits the error.
# With a small budget it need not be: a model that has not yet fitted its own training frames cannot profit from more of them.
# The ratio of the validation error to the training error tells the two apart, here for forces, together with how often each frame was seen.

# %%
ratios = learning_curves.overfit(runs, max_steps * batch_size)
ratios.style.format("{:.1f}")

# %%
Markdown(learning_curves.budget_in_words(ratios))

# %% [markdown]
# Where a run was looked at often enough, its history says whether its steps have brought it where it was going.

# %% tags=["hide-cell"]
Markdown(learning_curves.record_last_fifths(results, planned, done))

# %% [markdown]
# As for the ratio: far above 1, more data would help.
# Near 1, more *steps* would, and the curve there is flatter than it would be with enough of them.
# With the few steps that two cores allow in minutes, much of the table may lie near 1: a flat curve then shows the budget, not a law, and a fit says so by an exponent whose interval touches zero.
# So an exponent is quoted with its budget, and compares with the paper's only in its sign.
# Profiles with larger budgets (`converged`, `gpu`, `paper`) change parameters and nothing else.

# %% [markdown]
# ## And with the steps to arrive?
#
# The same lesson was executed once with 10,000 steps per run, three seeds and up to all training frames, and kept ({doc}`/long_run` has its table and what follows from it, and the same on surrogate labels).
# Its curves:
#
# :::{lesson-figure} 07_scaling_laws fig-07-curves
# :kept: converged
# :::
#
# Compare them with {numref}`fig-07-curves`: which of them lie below what costs nothing, and is it steps or frames that they lack?
# The paper's curves begin at a thousand frames, beyond the last of these.

# %% [markdown]
# ## A schedule that depends on N
#
# One more thing changes with N unless somebody takes care: the learning rate.
# CHGNet's own `Trainer` lowers it ten times in an epoch along a cosine of ten steps per epoch.
# With fewer than ten batches in an epoch, several of these ten moments fall on the same batch, and all but one are lost.
# Here are its calls of PyTorch's scheduler, three batches per epoch, beside the library's formula for them.

# %%
optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
    optimizer, T_max=10 * 6, eta_min=0.01
)
rates = settings.chgnet_learning_rates
for step, rate in enumerate(rates(3, 6)):
    assert np.isclose(rate, scheduler.get_last_lr()[0])
    optimizer.step()
    if (step % 3 + 1) in np.arange(1, 11) * 3 // 10:
        scheduler.step()

# %%
by_batches = {b: rates(b, 50) for b in (1, 2, 5, 10)}
of_lesson = settings.Settings(learning_rate=1.0)
here = [settings.learning_rate_at(k, 500, of_lesson) for k in range(500)]
lasts = [f"{r[-1]:.2f} with {b}" for b, r in by_batches.items()]
last_rates = ", ".join(lasts)

# %%
figures.show(
    draw.schedules(by_batches, here, batch_size),
    alt=f"Learning rate over its first value during training by chgnet's Trainer with batches of {batch_size}; by batches "
    f"per epoch it ends at {last_rates}. With ten it coincides with the dashed curve used here for every N.",
    caption="With few batches, chgnet's learning rate never comes down",
    name="fig-07-schedule",
)

# %%
print(f"chgnet's last rate over its first, by batches: {last_rates}")

# %% [markdown]
# With one batch per epoch, that is a constant learning rate under the name of a cosine, and at the left end of the curve only.
# What it does to one point can be measured: the smallest N again, with the same frames, seeds and number of steps, and chgnet's rates.

# %%
others = units.units_at_chgnets_rates(planned)
at_smallest = {("transfer", fitting[0], unit.seed): unit for unit in others}
theirs = run_units(others, frames, folder, made=made)

# %%
there = learning_curves.predictions(at_smallest, theirs, held_out)
as_chgnet = learning_curves.short(
    learning_curves.last_errors(there, theirs, frames, n_validation)
)
of_transfer = learning_curves.of_curve(errors, "transfer")
as_here = of_transfer[of_transfer["n"] == fitting[0]]
changes = learning_curves.schedule_changes(as_chgnet, as_here)
changes.add_suffix(" error, change (%)").style.format("{:+.1f}")

# %%
Markdown(learning_curves.schedule_in_words(changes))

# %% tags=["remove-cell"]
learning_curves.record_schedule(results, changes, others[0])

# %% [markdown]
# The sign is not a law.
# Once a model has fitted its few frames, a high rate keeps it jumping about, and annealing wins; while steps are what it lacks, a rate that stays high gets further.
# Either way the left end of the curve was made by another recipe than the right end, and a line through both measures the recipe along with $N$.

# %% [markdown]
# :::{admonition} What these labels can and cannot show
# :class: note
# On {term}`DFT` labels of a few hundred frames, the change of functional moves forces little, less than a model errs: what training improves there is mostly its distance from *any* DFT, and a start that has been taught the low functional has that behind it.
# The embedded surrogate's r²SCAN labels were made by a CHGNet that descends from the very GGA model that transfer starts from, and has the same architecture.
# What transfer learns there is one network's difference from another of its kind, so neither the height of its curve nor the factor {eq}`eq-efficiency` carries over; labels of a smooth model also have no noise floor.
# What carries over is the method: equal budgets, nested subsets, intervals, and the limit that needs no law.
# The paper finds on DFT labels that the advantage of transfer persists up to 0.2 million frames; neither dataset can test that.
# :::
#
# ## Try it yourself
#
# :::{admonition} Exercise 1
# Leave the largest size out of the fit of scratch and predict its error from the others: `learning_curves.of_curve(errors, "scratch")` are the runs, `xf.fit_power_law` the fit, and its `interval` what it knows.
# Is the measured one inside the interval?
# What does that say about reading {eq}`eq-efficiency` far beyond the runs?
# :::

# %% tags=["hide-cell"]
# Solution: the interval of the law knows the scatter between seeds, not a bend of the curve; outside it, the law was stretched too far.
scratch = learning_curves.of_curve(errors, "scratch")
fewer = scratch[scratch["n"] < fitting[-1]]
try:
    law = xf.fit_power_law(fewer["n"], fewer["energy"], n_min=1)
except ScalingError as why:
    print(f"{why} Give the lesson more sizes.")
else:
    low, high = law.interval(fitting[-1])
    found = scratch.loc[scratch["n"] == fitting[-1], "energy"].mean()
    print(f"predicted {low:.0f} to {high:.0f}, found {found:.0f} meV/atom")
    print("inside" if low <= found <= high else "outside")

# %% [markdown]
# :::{admonition} Exercise 2
# Fit the references of the smallest subset to that subset alone, as somebody with so few calculations would have to.
# What happens to N = 0?
# :::

# %% tags=["hide-cell"]
# Solution: elements that the subset lacks are guessed, and those it holds in one compound only carry its bonds, so the error grows.
of_few = units.unit_of_few(planned, free)
(few,) = run_units([of_few], frames, folder, made=made)
print("\n".join(few.notes))
alone = few.history.iloc[0]["validation_energy_mae_mev_per_atom"]
print(f"references from {len(pool)} frames, then from {fitting[0]}:")
print(f"{at_zero.loc['refitted', 'energy']:.0f}, then {alone:.0f} meV/atom")
grows = alone > at_zero.loc["refitted", "energy"]
own_data.check_claim(grows, "fewer frames give worse references", ds)

# %% [markdown]
# ## Check yourself
#
# **1.** Two learning curves are parallel straight lines on logarithmic axes. What is a transfer frame worth at small $N$, and what at large?
#
# :::{admonition} Answer
# :class: dropdown
# The same.
# Equal exponents mean a constant horizontal distance, and that distance is the factor.
# :::
#
# **2.** The validation error is about the training error at every $N$. Should you label more crystals?
#
# :::{admonition} Answer
# :class: dropdown
# Not yet.
# The model does not even fit the frames that it has: give it more steps, or more parameters, first.
# :::
#
# **3.** A law with an exponent of 0.05 predicts that scratch needs a million frames. What is wrong with quoting that?
#
# :::{admonition} Answer
# :class: dropdown
# It stretches a line far beyond the runs behind it, and a small change of the exponent changes the number by factors.
# Quote a lower limit that was measured, or say that it is out of reach.
# :::

# %% [markdown]
# ## Recap
#
# - A learning curve compares methods only at equal validation frames, references, budgets and schedules.
# - Draw beside a curve what costs no training; above it, a slope measures something else, and no law is quoted.
# - A power law {eq}`eq-scaling` is a straight line in {numref}`fig-07-curves`; quote it with its range of N, its interval and its budget.
# - The factor {eq}`eq-efficiency` says what pretraining is worth; a lower limit needs no law, and a law must not be stretched ({numref}`fig-07-worth`).
# - A schedule that counts tenths of epochs does not anneal small data sets ({numref}`fig-07-schedule`).
#
# Paper and this page side by side:

# %%
results.save_table("runs", runs)
results.save()
results.table()
