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
# **Goal**: measure how errors fall with the number of training frames, for transfer and from scratch, and turn the gap into a number of frames.
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
learning_rate = 1e-3  # first value; the paper's
n_start_epochs = 6  # passes over the low labels that teach a start, or 0
curves = [  # learning curves; also: "published", "plain start"
    "transfer",
    "model-aware",
    "scratch",
]
n_looks = 1  # validations (and checkpoints) of a run, the last among them
keep_runs = False  # keep each run, so that a stopped lesson goes on
n_bootstrap = 2000  # resamples behind each interval

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback

import crossfunc as xf
from crossfunc.bootstrap import mean_error
from crossfunc.lessons import LessonResults, figures, own_data, units
from crossfunc.lessons.figures import scaling as draw
from crossfunc.training import (
    ScalingError,
    data_efficiency,
    evaluate,
    fit_power_law,
    frame_errors,
    predict_frames,
    why_not_quote,
    zero_errors,
)
from crossfunc.training.settings import Settings, learning_rate_at
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

# %% tags=["hide-input"]
if lack := own_data.describe_lack(ds, "forces"):
    own_data.stop_here(lack, results)

# %%
names = "seed n_seeds sizes n_validation max_atoms max_steps batch_size learning_rate curves n_looks n_start_epochs"
parameters = {name: globals()[name] for name in names.split()}
frames, pool, validation, sizes, references = units.plan_scaling(
    ds, parameters
)
print(
    f"{len(pool)} training frames of {len(np.unique(frames.material_ids[pool]))} "
    f"materials, {len(validation)} validation frames of "
    f"{len(np.unique(frames.material_ids[validation]))} others; N = {sizes}"
)
if sizes != parameters["sizes"]:
    print(
        f"Of the sizes asked for, {parameters['sizes']}, those beyond the {len(pool)} training frames are passed over; "
        "the largest set is then all of these, unless a size comes near."
    )

# %% tags=["hide-input"]
if len(sizes) < 2:
    own_data.stop_here(
        f"A curve needs two sizes at least; choose some below {len(pool)} with -p sizes=[...].",
        results,
    )

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
folder = (
    units.units_folder(results_dir, results.lesson) if keep_runs else None
)
start = units.scaling_start(ds, frames, pool, validation, parameters)
made, origin, taught = {}, "0.3.0", "the pretrained model as it comes"
if start is not None:
    (run,) = run_units([start], frames, folder)
    made, origin = {start.name: run}, start.model_of(run)
    low_name = ds.functional("low").name
    taught = f"CHGNet 0.3.0, taught {low_name} on {len(start.split['train'])} frames"
print(f"transfer starts from {taught}")

# %% tags=["hide-input"]
possible = units.curves_of(curves, references, start)
if len(possible) < len(curves):
    left_out = ", ".join(c for c in curves if c not in possible)
    print(f"These data cannot have the curve {left_out}.")
curves = possible

# %% [markdown]
# ## Where does transfer stand without any training?
#
# The curve of transfer has a point at N = 0: that start with references for the new functional, not trained on it at all.
# The references did see the energies of all training frames, as they do at every other N; what is zero is the number of frames that the *network* has learned from.
# That is also how the paper draws it.
# Beside it stands what lesson 3 recommends: references fitted to what the pretrained network *leaves* of the energies.

# %%
METRICS = {
    "energy": "validation_energy_mae_mev_per_atom",
    "force": "validation_force_mae_mev_per_a",
}
common = {"dataset": frames, "references": references["transfer"]}
common |= {"progress": False, "prior": "trend", "pretrained": origin}

# %%
split = {"train": pool, "validation": validation}
untrained = {
    "refitted": xf.finetune("references-only", split=split, **common),
    "model-aware": xf.finetune(
        "model-aware", split=split, **common | {"references": None}
    ),
}
if start is not None:
    plain = common | {"references": None, "pretrained": "0.3.0"}
    untrained["plain start"] = xf.finetune(
        "model-aware", split=split, **plain
    )
if "published" in curves:
    untrained["published"] = xf.finetune(
        "references-only",
        split=split,
        **common | {"references": "MP-r2SCAN"},
    )

# %%
at_zero = pd.DataFrame(
    {
        name: {m: run.history.iloc[0][c] for m, c in METRICS.items()}
        for name, run in untrained.items()
    }
).T
zero = zero_errors(frames.take(validation))
FREE = {  # the lowest error that costs no training
    "energy": at_zero["energy"].min(),
    "force": min(zero["force_mae_mev_per_a"], at_zero["force"].min()),
}
SCRATCH_FREE = FREE | {"force": zero["force_mae_mev_per_a"]}
at_zero.loc["predict zero"] = [np.nan, zero["force_mae_mev_per_a"]]
at_zero.add_suffix(" MAE (meV)").style.format("{:.0f}", na_rep="–")

# %% [markdown]
# Forces are the same in the first two rows, because references do not touch them.
# Energies are not: a plain refit counts the *difference* between this set's average bonding and that of the pretraining set twice, once in the reference and once in the network (lesson 3).
# Transfer by Method 4 has to unlearn that first, which scratch does not, so look out for it at the left end of the energy curves.
# *Plain start*, where it is listed, has model-aware references on the pretrained model as it comes; what the taught start gains on it is what the change of code had left.
# The last row is what a model without any forces gets.
#
# These rows cost no training on the new functional.
# A curve that lies above them does not measure how fast r²SCAN is learned, but how fast something misplaced is unlearned, or nothing; so this lesson quotes no exponent and no factor from such a curve, and says where that is.

# %% [markdown]
# ## The runs
#
# Method 4 starts from the network above (*transfer*), Method 1 from random weights (*scratch*); nothing else differs.
# A third curve starts from the same network with model-aware references; the profile `converged` adds others, the published table where it applies.
# Each point is the error after the last step.
# Nothing is stopped early, so no choice was made on the validation frames.

# %%
planned = units.scaling_units(
    frames,
    pool,
    validation,
    references,
    {**parameters, "curves": curves, "sizes": sizes},
    start,
)
done = run_units(list(planned.values()), frames, folder, made=made)


# %%


def measure(key, run):
    """The last row of a run's history, and the error on its own frames."""
    name, n, k = key
    rows = run.split["train"]
    some = np.random.default_rng(k).permutation(rows)[:n_validation]
    own = evaluate(run.last_model, frames.take(some))
    own = {f"train_{m}": own[m] for m in own if "_mae_" in m}
    return (
        run.history.iloc[-1].to_dict()
        | own
        | {"method": name, "seed": k, "n": n}
    )


# %%
METHODS = {"4": "transfer", "1": "scratch"}
runs = pd.DataFrame(
    measure(key, run) for key, run in zip(planned, done, strict=True)
)
SHORT = {column: f"{metric} MAE" for metric, column in METRICS.items()}
means = runs.rename(columns=SHORT).groupby(["method", "n"])
means[list(SHORT.values())].mean().style.format("{:.0f}")

# %% [markdown]
# ## Is it a power law?
#
# Many learning curves fall as a power of the number of frames,
#
# $$\mathrm{MAE}(N) = a\,N^{-b},$$ (eq-scaling)
#
# which is a straight line of slope $-b$ when both axes are logarithmic.
# The paper fits it above 1,000 frames; here it is fitted from `n_min` on.
# The interval comes from resampling seeds, so it knows how much runs scatter, but not whether the law is the right one: that is for $R^2$ and the eye.
# Too few sizes, and the fit declines.


# %%
def attempt(function, *arguments, **options):
    try:
        return function(*arguments, **options), ""
    except ScalingError as reason:
        return None, str(reason)


# %%
options = {"n_min": n_min, "n_bootstrap": n_bootstrap, "seed": seed}
laws = {}
for metric, column in METRICS.items():
    for name in curves:
        curve = runs[runs["method"] == name]
        free = (SCRATCH_FREE if name == "scratch" else FREE)[metric]
        why = why_not_quote(
            curve["n"], curve[column], free, what=f"{metric}, {name}"
        )
        law = None
        if not why:
            law, why = attempt(
                fit_power_law, curve["n"], curve[column], **options
            )
        laws[metric, name] = law
        print(f"{metric}, {name}: {law.summary()}" if law else why)

# %% tags=["hide-input"]
UNITS = {"energy": "meV/atom", "force": "meV/Å"}
LOOKS = {"transfer": "method_4", "scratch": "method_1"}

# %% tags=["hide-input"]
fig, axes = plt.subplots(1, 2, figsize=figures.wide())
for ax, metric in zip(axes, METRICS, strict=True):
    lines = at_zero[metric].dropna().to_dict()
    if metric == "force":  # references do not touch them
        lines = {"no training": lines["refitted"]} | {
            name: lines[name]
            for name in ("plain start", "predict zero")
            if name in lines
        }
    found = {name: laws[metric, name] for name in curves}
    draw.draw_learning_curves(ax, runs, METRICS[metric], found, lines)
    ax.set_ylabel(f"validation {metric} MAE ({UNITS[metric]})")
    ax.legend(
        fontsize="small",
        loc="lower center",
        bbox_to_anchor=(0.5, 1),
        ncols=2,
    )
if None in laws.values():
    fig.supxlabel("dotted: means; no law is quoted", fontsize="small")
fig.tight_layout()
last = runs[runs["n"] == sizes[-1]].groupby("method")
best, other = (last[list(METRICS.values())].mean().loc[m] for m in LOOKS)
figures.show(
    fig,
    alt="Two log-log plots of the validation error against the number of training frames, energy left and force right, for "
    f"transfer and from scratch, with fitted lines where one may be quoted and dashed lines for what costs no training; at N = {sizes[-1]} transfer reaches "
    f"{best.iloc[0]:.0f} meV/atom and {best.iloc[1]:.0f} meV/Å, scratch {other.iloc[0]:.0f} and {other.iloc[1]:.0f}; without training there are {FREE['energy']:.0f} meV/atom.",
    caption=f"At N = {sizes[-1]} transfer errs by {best.iloc[0]:.0f} meV/atom, scratch by {other.iloc[0]:.0f}, model-aware references without training by {at_zero.loc['model-aware', 'energy']:.0f}",
    name="fig-07-curves",
    dataset=ds,
)

# %% tags=["hide-input", "remove-output"]
seeds = f"{n_seeds} seed{'s' * (n_seeds > 1)}"


TABLES = {
    "refitted": "refitted references",
    "model-aware": "model-aware references",
    "plain start": "model-aware references on the pretrained model as it comes",
    "published": "published references",
}


def key_of(name):
    """Name of a curve in a result's key."""
    return name.replace("-", "_").replace(" ", "_")


def over_materials(model, metric):
    """Interval of an error over the validation materials."""
    seen = predict_frames(model, frames.take(validation))
    target = {"energy": "energy", "force": "forces"}[metric]
    e = mean_error(frame_errors(seen, target), seen.frames.material_ids)
    return e.interval or (e.value, e.value)


results.record(
    "force_zero",
    zero["force_mae_mev_per_a"],
    unit="meV/Å",
    title="Force MAE of predicting zero",
    note="validation frames",
)

# %% tags=["hide-input", "remove-output"]
for metric, column in METRICS.items():
    for name in (
        at_zero.index.drop("predict zero")
        if metric == "energy"
        else ["refitted"]
    ):
        results.record(
            f"{metric}_n0_{key_of(name)}",
            at_zero.loc[name, metric],
            unit=UNITS[metric],
            interval=over_materials(untrained[name].model, metric),
            title=f"Validation {metric} MAE of transfer at N = 0"
            + (f", {TABLES[name]}" if metric == "energy" else ""),
            note=f"references from {len(pool)} training frames, network untrained; 95 % over validation materials",
        )
    for name in curves:
        end = runs[(runs["method"] == name) & (runs["n"] == sizes[-1])][
            column
        ]
        first = dict(zip(planned, done, strict=True))[name, sizes[-1], seed]
        low, high = over_materials(first.last_model, metric)
        results.record(
            f"{metric}_largest_{key_of(name)}",
            end.mean(),
            interval=(min(low, end.min()), max(high, end.max())),
            unit=UNITS[metric],
            title=f"Validation {metric} MAE at the largest N: {name}",
            note=f"N = {sizes[-1]}, {max_steps} steps; range over {seeds} and 95 % over validation materials",
        )

# %% tags=["hide-input", "remove-output"]
for (metric, name), law in laws.items():
    if law is not None:
        results.record(
            f"{metric}_exponent_{key_of(name)}",
            law.exponent,
            interval=law.exponent_interval,
            title=f"Exponent b of the {metric} error: {name}",
            note=f"N from {law.n.min():.0f} to {law.n.max():.0f}, R² = {law.r2:.2f}; 95 % interval",
        )

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
# The flatter its curve, the further the law has to be stretched: an exponent of 0.05 turns a factor of two in the error into a million frames.
# So a factor is drawn only where the interval of scratch's exponent is clear of zero and where at most ten times as many scratch frames are needed as were tried.
#
# And it is quoted only if neither curve lies above what costs no training.
#
# What needs no law at all is a lower limit: wherever transfer at $N$ was measured to be better than scratch at its largest $N_\mathrm{max}$, even in its worst seed against the best, one transfer frame is worth more than $N_\mathrm{max}/N$ scratch frames.

# %%
REACH = 10  # how far beyond the largest scratch run a law is followed


def factor_within_reach(metric, *points):
    for name, n, error in zip(
        METHODS.values(), points[::2], points[1::2], strict=True
    ):
        free = (SCRATCH_FREE if name == "scratch" else FREE)[metric]
        if why := why_not_quote(n, error, free, what=name):
            raise ScalingError(why)
    factor = data_efficiency(*points, **options)
    if factor.scratch.exponent_interval[0] <= 0:
        low, high = factor.scratch.exponent_interval
        raise ScalingError(
            f"the exponent of scratch may be zero ({low:.2f} to {high:.2f})"
        )
    near = factor.n_scratch <= REACH * sizes[-1]
    if not near.any():
        raise ScalingError(f"all lie beyond {REACH} times the largest run")
    return data_efficiency(*points, at=factor.n[near], **options)


# %%
worth, limits = {}, {}
for metric, column in METRICS.items():
    both = [runs[runs["method"] == m] for m in METHODS.values()]
    points = [c[name] for c in both for name in ("n", column)]
    worth[metric], why = attempt(factor_within_reach, metric, *points)
    print(f"{metric}: {worth[metric].summary() if worth[metric] else why}")

    worst = both[0].groupby("n")[column].max()
    goal = both[1].groupby("n")[column].min().loc[sizes[-1]]
    better = worst.index[worst < goal]
    limits[metric] = pd.Series(sizes[-1] / better, better)
    if goal >= SCRATCH_FREE[metric]:  # scratch has learned nothing yet
        limits[metric] = limits[metric].iloc[:0]
    no_training = at_zero.loc["refitted", metric]
    print(
        f"scratch at its best, N = {sizes[-1]}: {goal:.0f} {UNITS[metric]}; "
        f"transfer untrained: {no_training:.0f}; better from N = "
        f"{better.min() if len(better) else 'nowhere'} on"
    )

# %% tags=["hide-input", "remove-output"]
for metric, factor in worth.items():
    if len(limits[metric]):
        results.record(
            f"{metric}_factor_at_least",
            limits[metric].max(),
            title=f"One transfer frame is worth more scratch frames than this, {metric} error",
            note=f"measured: transfer at N = {limits[metric].idxmax()}, worst of {seeds}, against "
            f"scratch at N = {sizes[-1]}, best",
        )
    if factor is None:
        continue
    low, high = factor.mean_factor_interval
    open_end = (
        "" if np.isfinite(high) else f", from {low:.2g}, no upper end"
    )
    results.record(
        f"{metric}_factor",
        factor.mean_factor,
        interval=(low, high) if np.isfinite(high) else None,
        title=f"Scratch frames that one transfer frame is worth, {metric} error",
        note=f"N from {factor.n.min():.0f} to {factor.n.max():.0f}, {factor.extrapolated.sum()} "
        f"of {len(factor.n)} beyond the runs made; 95 % interval{open_end}",
    )


# %% tags=["hide-input"]
fig, ax = plt.subplots()
draw.draw_worth(ax, worth, limits, sizes)
text = "; ".join(
    f"{metric} more than {limit.max():.0f} at N = {limit.idxmax()}"
    for metric, limit in limits.items()
    if len(limit)
)
figures.show(
    fig,
    alt="Scratch frames that one transfer frame is worth against N, on logarithmic axes; triangles are lower limits "
    f"without a law: {text or 'none'}.",
    caption=f"What one transfer frame is worth in scratch frames: {text or 'not settled by these runs'}",
    name="fig-07-worth",
    dataset=ds,
)

# %% [markdown]
# ## Are the data the limit, or the steps?
#
# A scaling law in N means something only where N is what limits the error.
# With a small budget it need not be: a model that has not yet fitted its own training frames cannot profit from more of them.
# The ratio of the validation error to the training error tells the two apart, together with how often each frame was seen.

# %%
overfit = runs.assign(
    ratio=runs[METRICS["force"]] / runs["train_force_mae_mev_per_a"],
    seen=max_steps * batch_size / runs["n"],
)
table = overfit.pivot_table("ratio", "n", "method")
table.columns = [f"validation / training, {m}" for m in table]
table["times each frame is seen"] = overfit.groupby("n")["seen"].mean()
table.style.format("{:.1f}")

# %% [markdown]
# Far above 1, more data would help: the left of the table.
# Near 1, more *steps* would, and the curve there is flatter than it would be with enough of them.
# With the few steps that two cores allow in minutes, much of the table may lie near 1: a flat curve then shows the budget, not a law, and a fit says so by an exponent whose interval touches zero.
# So an exponent is quoted with its budget, and compares with the paper's only in its sign.
# {doc}`/long_run` shows these figures after ten times the steps; profiles with larger budgets (`long`, `converged`, `gpu`, `paper`) change parameters and nothing else.

# %% [markdown]
# ## A schedule that depends on N
#
# One more thing changes with N unless somebody takes care: the learning rate.
# CHGNet's own `Trainer` lowers it ten times an epoch along a cosine of ten steps an epoch.
# With fewer than ten batches an epoch, several of these ten moments fall on the same batch, and all but one are lost.
# Here is its rule, before each step, beside PyTorch's scheduler under the same calls.


# %%
def chgnet_rates(n_batches, n_epochs, fraction=0.01):
    """Learning rates of chgnet's Trainer over the first of them."""
    acts = set(np.arange(1, 11) * n_batches // 10)  # batches, from 1
    k, rates = 0, []
    for step in range(n_batches * n_epochs):
        cosine = (1 + np.cos(np.pi * k / (10 * n_epochs))) / 2
        rates.append(fraction + (1 - fraction) * cosine)
        k += (step % n_batches + 1) in acts
    return np.array(rates)


optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
    optimizer, T_max=10 * 6, eta_min=0.01
)
for step, rate in enumerate(chgnet_rates(n_batches=3, n_epochs=6)):
    assert np.isclose(rate, scheduler.get_last_lr()[0])
    optimizer.step()
    if (step % 3 + 1) in np.arange(1, 11) * 3 // 10:
        scheduler.step()

# %% tags=["hide-input"]
n_drawn = 50  # epochs
drawn = {b: chgnet_rates(b, n_drawn) for b in (1, 2, 5, 10)}


def draw_schedules(ax):
    shades = plt.colormaps["viridis"](np.linspace(0.85, 0, 4))
    for (b, rates), shade in zip(drawn.items(), shades, strict=True):
        few = (
            f" N ≤ {b * batch_size}" if b < 10 else f" N > {9 * batch_size}"
        )
        ax.plot(np.linspace(0, 1, len(rates)), rates, color=shade, lw=2.5)
        ax.annotate(few, (1, rates[-1]), color=shade, va="center")
    given = Settings(learning_rate=1.0)
    ours = [learning_rate_at(k, 500, given) for k in range(500)]
    style = {"color": figures.COLORS["method_1"], "ls": "--"}
    ax.plot(
        np.linspace(0, 1, 500), ours, label="here, for every N", **style
    )
    ax.set(xlabel="share of the training done", xlim=(0, 1.15))
    ax.set(ylabel="learning rate / first learning rate")
    ax.set_xticks([0, 0.5, 1])
    ax.legend(loc="lower left")


# %% tags=["hide-input"]
fig, ax = plt.subplots()
draw_schedules(ax)
ends = ", ".join(f"{r[-1]:.2f} with {b}" for b, r in drawn.items())
figures.show(
    fig,
    alt=f"Learning rate over its first value during training by chgnet's Trainer with batches of {batch_size}; by batches "
    f"an epoch it ends at {ends}. With ten it coincides with the dashed curve used here for every N.",
    caption="With few batches, chgnet's learning rate never comes down",
    name="fig-07-schedule",
)

# %% [markdown]
# With one batch an epoch, the rate is still at 98 % of its first value when training ends.
# That is a constant learning rate under the name of a cosine, and at the left end of the curve only.
# What it does to one point can be measured: the smallest N again, with the same frames, seeds and number of steps, and chgnet's rates.


# %%
class GivenRates(Callback):
    """Sets the learning rate of each step, just before it."""

    def __init__(self, rates):
        self.rates = rates

    def on_before_optimizer_step(self, trainer, module, optimizer):  # noqa: ARG002
        k = min(module.n_steps_done, len(self.rates) - 1)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * self.rates[k]


# %%
n_batches = -(-sizes[0] // batch_size)
rates = chgnet_rates(n_batches, -(-max_steps // n_batches))
budget = {"max_steps": max_steps, "batch_size": batch_size}
budget |= {"learning_rate": learning_rate, "validate_every_n_epochs": 10**6}
smallest = [
    planned["transfer", sizes[0], k] for k in range(seed, seed + n_seeds)
]

# %%
as_chgnet = pd.DataFrame(
    xf.finetune(
        "4",
        split=unit.split,
        seed=unit.seed,
        callbacks=[GivenRates(rates)],
        **budget,
        **common,
    ).history.iloc[-1]
    for unit in smallest
)[list(METRICS.values())].reset_index(drop=True)
as_here = runs[(runs["method"] == "transfer") & (runs["n"] == sizes[0])]
as_here = as_here[list(METRICS.values())].reset_index(drop=True)
pd.DataFrame(
    {"chgnet's": as_chgnet.mean(), "ours": as_here.mean()}
).T.rename(columns=SHORT).rename_axis("schedule").style.format("{:.1f}")

# %% [markdown]
# The sign is not a law.
# Once a model has fitted its few frames, a high rate keeps it jumping about, and annealing wins; while steps are what it lacks, a rate that stays high gets further.
# Either way the left end of the curve was made by another recipe than the right end, and a line through both measures the recipe along with $N$.

# %% tags=["hide-input", "remove-output"]
for metric, column in METRICS.items():
    more = 100 * (as_chgnet[column] / as_here[column] - 1)
    results.record(
        f"schedule_{metric}",
        more.mean(),
        interval=(more.min(), more.max()) if n_seeds > 1 else None,
        unit="%",
        title=f"Change of the {metric} error at the smallest N by chgnet's schedule",
        note=f"N = {sizes[0]}, {n_batches} batch{'es' * (n_batches > 1)} an epoch; range over {seeds}",
    )
results.record(
    "schedule_final_rate",
    100 * rates[-1],
    unit="%",
    title="Last learning rate of chgnet's Trainer at the smallest N, of the first",
    note="1 % is meant",
)

# %% [markdown]
# :::{admonition} What these labels can and cannot show
# :class: note
# On {term}`DFT` labels of a few hundred frames, the change of functional moves forces little, less than a model errs: what training improves there is mostly its distance from *any* DFT, and a start that has been taught the low functional has that behind it.
# The embedded surrogate's r²SCAN labels were made by a CHGNet that descends from the very GGA model that transfer starts from, and has the same architecture.
# Transfer has less to learn there than on DFT, so its curve lies too low and the factor {eq}`eq-efficiency` comes out too large; labels of a smooth model also have no noise floor.
# What carries over is the method: equal budgets, nested subsets, intervals, and the limit that needs no law.
# The paper finds on DFT labels that the advantage of transfer persists up to 0.2 million frames; neither dataset can test that.
# :::
#
# ## Try it yourself
#
# :::{admonition} Exercise 1
# Leave the largest size out of the fit of scratch and predict its error from the others.
# Is the measured one inside the interval?
# What does that say about reading {eq}`eq-efficiency` far beyond the runs?
# :::

# %% tags=["hide-cell"]
# Solution: the interval of the law knows the scatter between seeds, not a bend of the curve.
scratch = runs[runs["method"] == "scratch"]
column = METRICS["energy"]
fewer = scratch[scratch["n"] < sizes[-1]]
law, why = attempt(fit_power_law, fewer["n"], fewer[column], n_min=1)
if law is None:
    print(why)
else:
    low, high = law.interval(sizes[-1])
    found = scratch[scratch["n"] == sizes[-1]][column].mean()
    print(
        f"predicted {law.predict(sizes[-1]):.0f} ({low:.0f} to {high:.0f}), "
        f"measured {found:.0f} meV/atom"
    )

# %% [markdown]
# :::{admonition} Exercise 2
# Fit the references of the smallest subset to that subset alone, as somebody with so few calculations would have to.
# What happens to N = 0?
# :::

# %% tags=["hide-cell"]
# Solution: elements that the subset lacks are guessed, and those it holds in one compound only carry its bonds.
few = smallest[0].split
alone = xf.finetune(
    "references-only", split=few, **common | {"references": None}
)
print("\n".join(alone.notes))
pd.Series(
    {
        f"{len(pool)} frames": at_zero.loc["refitted", "energy"],
        f"{sizes[0]} frames": alone.history.iloc[0][METRICS["energy"]],
    }
).to_frame("energy MAE at N = 0 (meV/atom)").rename_axis(
    "references from"
).style.format("{:.0f}")

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
