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
# # Which elements make the difference?

# %% [markdown]
# :::{admonition} In this lesson
# :class: tip
# **Goal**: find the elements behind the difference between GGA/GGA+U and r²SCAN *formation* energies, and what energy corrections do to it.
#
# **You need**: {doc}`01_data_statistics`, and a rough idea of decision trees.
#
# **You will be able to**: explain a difference between two functionals element by element, and tell an importance that you may believe from one that you may not.
#
# **Paper**: Figs. 1c and 1d of {cite:t}`huang2025crossfunctional`. **Run time**: half a minute.
# :::
#
# Total energies differ by tens of eV because of the elements alone.
# Formation energies have those elements subtracted, so what is left between two functionals is chemistry.
# Which elements does it sit on?

# %% tags=["parameters"]
dataset = "surrogate"  # name or folder; "mp-thermo-pairs" is real DFT
results_dir = None  # folder for the claims table; None keeps nothing
seed = 0  # first seed; each further one has its own folds and trees
n_seeds = 3  # repeats behind every spread
n_splits = 5  # folds of the cross-validation over materials
n_trees = 300  # boosted trees per model
n_threads = 2  # CPU threads for the trees

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import crossfunc as xf
from crossfunc.energies import (
    add_raw_gga,
    element_importance,
    mp2020_corrections,
)
from crossfunc.lessons import LessonResults, figures, own_data

figures.use_style()
ds = xf.open_dataset(dataset)
results = LessonResults("02_feature_importance", results_dir, ds)
print(f"{ds.name}: {ds.label_notice}")

# %% [markdown]
# ## What is being corrected?
#
# The Materials Project does not use GGA energies as they come.
# Its {term}`MP2020` scheme {cite:p}`wang2021mp2020` adds a fitted energy per atom of certain anions, and another per atom of transition metals that were computed with a Hubbard *U*.
# r²SCAN energies are used as they are.
# For one oxide the correction is a line of arithmetic: the oxide term for each oxygen, and the term of the metal if it carries a *U*.

# %%
table = mp2020_corrections(["Li2O", "Fe2O3", "NaCl", "TiAl"])
li2o = table["correction_per_atom_ev"].iloc[0]
per_oxygen = 3 * li2o  # three atoms, one of them oxygen
results.record(
    "oxide_correction",
    per_oxygen,
    unit="eV/O atom",
    title="MP2020 correction of an oxide, from Li₂O",
    note="pymatgen's value",
)
table[["composition", "correction_per_atom_ev"]].style.hide(
    axis="index"
).format(precision=4, escape="html")

# %% [markdown]
# An alloy gets nothing, an oxide about −0.7 eV for each oxygen, and iron oxide both parts.
# So the same GGA table exists in two forms, and they differ by chemistry.
# We put both beside each other: *with* corrections as the table has it, *without* as the label minus pymatgen's correction.

# %% tags=["hide-input"]
FORMATION = [
    f"{f}_formation_energy_per_atom_ev" for f in ("gga_mp2020", "r2scan")
]
columns = () if ds.pairs is None else ds.pairs.columns
n_known = 0
if set(FORMATION) <= set(columns):
    n_known = ds.pairs[FORMATION].notna().all(axis=1).sum()
if n_known < 5 * n_splits:
    own_data.stop_here(
        f"{n_known} materials have formation energies in both functionals (they need the elements' ground states); "
        f"trees and their cross-validation need {5 * n_splits} at least.",
        results,
    )
elif "corrections" in ds.meta:
    print(f"corrections in these data: {ds.meta['corrections']}")

# %%
pairs = add_raw_gga(ds.pairs)
formation = {
    "with corrections": pairs["gga_mp2020_formation_energy_per_atom_ev"],
    "without corrections": pairs["gga_formation_energy_per_atom_ev"],
}
usable = pairs["r2scan_formation_energy_per_atom_ev"].notna()
usable &= pd.concat(formation.values(), axis=1).notna().all(axis=1)
X = xf.composition_matrix(pairs[usable])
difference = {
    name: (energy - pairs["r2scan_formation_energy_per_atom_ev"])[
        usable
    ].to_numpy()
    for name, energy in formation.items()
}
print(
    f"{usable.sum()} of {len(pairs)} materials have formation energies in both functionals"
)
pd.DataFrame(difference).describe().loc[
    ["mean", "std", "min", "max"]
].style.format(precision=3)

# %% [markdown]
# ## How does a tree see an element?
#
# We want a function that predicts the difference $\Delta_i = E^\mathrm{GGA}_{\mathrm f,i} - E^\mathrm{r^2SCAN}_{\mathrm f,i}$ of a material from its atomic fractions,
#
# $$\Delta_i \approx f(X_{i1}, \ldots, X_{i,94}),$$ (eq-importance)
#
# and then ask which of its inputs it could not do without.
# The paper uses gradient-boosted trees ({term}`XGBoost` {cite:p}`chen2016xgboost`), which need no scaling and find thresholds such as "holds any oxygen".
# "Could not do without" has three common meanings:
#
# - *gain*: how much the splits on an element lowered the training loss, on average;
# - *permutation*: how much worse held-out predictions get when the element's column is shuffled;
# - *SHAP*: how much the element moves held-out predictions, in eV/atom.
#
# Importance of a model that predicts nothing means nothing.
# So every map below comes with the model's cross-validated $R^2$.

# %%
settings = {
    "n_seeds": n_seeds,
    "n_splits": n_splits,
    "n_trees": n_trees,
    "seed": seed,
    "n_threads": n_threads,
}
importance = {
    name: element_importance(X, d, **settings)
    for name, d in difference.items()
}
for name, fit in importance.items():
    print(f"{name}: {fit.summary()}")

# %% tags=["hide-input"]
for name, fit in importance.items():
    key = name.split()[0]
    spread = fit.r2_per_seed.std(ddof=1) if n_seeds > 1 else 0.0
    mean = fit.r2_per_seed.mean()
    results.record(
        f"r2_{key}",
        mean,
        interval=(mean - spread, mean + spread),
        title=f"Cross-validated R² of the trees, {name}",
        note=f"{n_seeds} seeds, ± standard deviation",
    )

# %% [markdown]
# An $R^2$ well above zero says that composition alone explains a good part of the difference; what is missing needs the structure.
# With that licence, look at the maps.


# %% tags=["hide-input"]
def show_map(name, figure_name, statement):
    table = importance[name].table
    shap = 1000 * table["shap_mean"].dropna()
    hover = {
        e: f"± {1000 * table.loc[e, 'shap_std']:.1f} over seeds, {table.loc[e, 'n_rows']} materials"
        for e in shap.index
    }
    first = ", ".join(shap.sort_values(ascending=False).index[:5])
    figures.show(
        figures.periodic_table_interactive(
            shap, "mean |SHAP| (meV/atom)", fmt=".1f", hover=hover
        ),
        alt=f"Periodic table of the importance of each element for the formation-energy difference {name}; "
        f"the largest values are on {first}.",
        caption=f"{statement}, the difference follows {', '.join(first.split(', ')[:3])} most",
        name=figure_name,
        dataset=ds,
    )


show_map(
    "with corrections",
    "fig-02-corrected",
    "With MP2020 corrections",
)

# %%
show_map(
    "without corrections",
    "fig-02-raw",
    "Without corrections",
)

# %% [markdown]
# Compare the right-hand side of the two maps.
# The corrections are attached to anions and to metals that carry a *U*, so switching them on or off must show up there first.
# To put a number on it, add up the share of the total importance that falls on each group.

# %%
GROUPS = {
    "pnictogens": "N P As Sb Bi",
    "chalcogens": "O S Se Te",
    "halogens": "F Cl Br I",
    "metals with a U": "V Cr Mn Fe Co Ni Mo W",
}


def group_shares(fit, measure="shap"):
    importance_of = fit.table[f"{measure}_mean"].clip(lower=0).fillna(0)
    return pd.Series(
        {
            group: importance_of[members.split()].sum()
            / importance_of.sum()
            for group, members in GROUPS.items()
        }
    )


shares = pd.DataFrame(
    {name: group_shares(fit) for name, fit in importance.items()}
)
shares.loc["all others"] = 1 - shares.sum()
shares.style.format("{:.0%}")

# %% tags=["hide-input"]
for name in shares:
    anions = shares.loc[
        ["pnictogens", "chalcogens", "halogens"], name
    ].sum()
    results.record(
        f"anion_share_{name.split()[0]}",
        100 * anions,
        unit="%",
        title=f"Share of the importance on pnictogens, chalcogens and halogens, {name}",
        paper="corrections act mainly there",
        why="the split between anions and metals depends on how many oxides of metals with a U the data hold",
    )

# %% tags=["hide-input"]
colors = {
    "with corrections": figures.COLORS["r2scan"],
    "without corrections": figures.COLORS["gga"],
}
fig, ax = plt.subplots()
shares.mul(100).plot.barh(ax=ax, color=colors, width=0.75)
ax.invert_yaxis()
ax.set(xlabel="share of the summed importance (%)")
anions = shares.loc[["pnictogens", "chalcogens", "halogens"]].sum()
figures.show(
    fig,
    alt="Bars of the share of importance on pnictogens, chalcogens, halogens, metals with a U and all others; the three "
    f"anion groups together hold {anions['with corrections']:.0%} with corrections and {anions['without corrections']:.0%} without.",
    caption=f"Anions hold {anions['with corrections']:.0%} of the importance with corrections, "
    f"{anions['without corrections']:.0%} without",
    name="fig-02-groups",
    dataset=ds,
)

# %% [markdown]
# Which group gains depends on what a dataset holds.
# Uncorrected +*U* energies put the metals in front wherever their oxides are common, as in the Materials Project; where they are few, the anions stay in front and lose share once their corrections are on.
# Run this page on `mp-thermo-pairs` beside the embedded data to see both.

# %% [markdown]
# ## Which importance may you believe?
#
# Gain is what most plots in the literature show, and it is the least trustworthy: it is measured on training data, and a few lucky splits on a rare element put it high.
# The test is simple: do three measures and several seeds agree?
# The figure shows the first ten elements by SHAP, each measure as its share of the sum over all elements, with the spread over seeds.

# %%
fit = importance["with corrections"]
top = {
    measure: set(fit.ranked(measure).index[:10])
    for measure in ("shap", "permutation", "gain")
}
shared = {
    measure: len(top["shap"] & top[measure])
    for measure in ("permutation", "gain")
}
for measure, n in shared.items():
    results.record(
        f"top_ten_{measure}",
        n,
        title=f"Of the ten first elements by SHAP, also among the ten first by {measure}",
    )
shared

# %% tags=["hide-input"]
table, first = fit.table, fit.ranked("shap").index[:10]
fig, ax = plt.subplots()
for k, measure in enumerate(("shap", "permutation", "gain")):
    total = table[f"{measure}_mean"].clip(lower=0).sum()
    share, spread = (
        table.loc[first, f"{measure}_mean"] / total,
        table.loc[first, f"{measure}_std"] / total,
    )
    ax.errorbar(
        np.arange(len(first)) + 0.2 * (k - 1),
        100 * share,
        100 * spread,
        fmt="osv"[k],
        label=measure,
        capsize=2,
    )
ax.set(
    xticks=range(len(first)),
    xticklabels=first,
    ylabel="share of the measure's sum (%)",
)
ax.legend()
figures.show(
    fig,
    alt=f"Shares of SHAP, permutation and gain importance of {', '.join(first)} with error bars over seeds; "
    f"{shared['permutation']} of them are also among the first ten by permutation, {shared['gain']} by gain.",
    caption=f"Of the ten first elements by SHAP, permutation finds {shared['permutation']}, gain {shared['gain']}",
    name="fig-02-measures",
    dataset=ds,
)

# %% [markdown]
# SHAP and permutation, both measured on held-out materials, put the same elements first.
# Gain flattens the picture: an element that splits a few materials well counts as much as one that moves thousands.
# When you read an importance map elsewhere, ask which measure it is, on which data, and with which $R^2$; the paper does not say which one its Fig. 1c and d show.

# %% [markdown]
# ## Try it yourself
#
# :::{admonition} Exercise 1
# A linear model is the natural baseline for {eq}`eq-importance`.
# Fit $\Delta$ by element references (`xf.fit_atomref`), hold out a fifth of the materials, and compare its error with that of the trees.
# What does the rest tell you?
# :::

# %% tags=["hide-cell"]
# Solution: references are linear in the fractions, so they cannot know that oxygen in an oxide differs from oxygen
# in a peroxide or that a correction needs the metal *and* the anion.
from crossfunc.energies import held_out_error

ids = pairs.loc[usable, "material_id"]
for name, d in difference.items():
    linear = held_out_error(X, d, ids, seed=seed)["mae_ev_per_atom"]
    trees = importance[name].mae_per_seed_ev_per_atom.mean()
    print(
        f"{name}: linear {1000 * linear:.0f} meV/atom, trees {1000 * trees:.0f} meV/atom"
    )

# %% [markdown]
# :::{admonition} Exercise 2
# Deal the differences out to the materials at random, so that there is nothing to learn, and ask for the importances again.
# What do they look like, and what gives them away?
# :::

# %% tags=["hide-cell"]
# Solution: some elements always come first; only an R² that is not above zero says that this order means nothing.
rng = np.random.default_rng(seed)
dealt = rng.permutation(difference["with corrections"])
few = settings | {"n_seeds": 1, "n_trees": 50}
nothing = element_importance(X, dealt, **few)
print(nothing.summary())
print(
    "yet first in importance:", ", ".join(nothing.ranked("shap").index[:5])
)
assert nothing.r2_per_seed.mean() < 0.1

# %% [markdown]
# ## Check yourself
#
# **1.** A model has a cross-validated $R^2$ of zero. What do its importances say?
#
# :::{admonition} Answer
# :class: dropdown
# Nothing about the data.
# They describe how the model failed.
# :::
#
# **2.** An alloy gets no correction at all. Why does switching the corrections on or off still change the importance of metals?
#
# :::{admonition} Answer
# :class: dropdown
# Importances are measured on all materials.
# The corrections of oxides change how much of the whole difference is left for the metals to explain.
# :::
#
# **3.** Of two elements that always occur together, one has all the importance. Is the other one irrelevant?
#
# :::{admonition} Answer
# :class: dropdown
# That cannot be told.
# Trees may split on either, and whichever they pick first takes the credit of both.
# :::

# %% [markdown]
# ## Recap
#
# - Formation energies differ by chemistry, not by the zero of the elements.
# - MP2020 corrections sit on anions and on metals with a *U*; the importance maps {numref}`fig-02-corrected` and {numref}`fig-02-raw` show what they change.
# - Report $R^2$, seeds and the measure together with any importance.

# %%
results.save_table(
    "importance", importance["with corrections"].table.reset_index()
)
results.save()
results.table()
