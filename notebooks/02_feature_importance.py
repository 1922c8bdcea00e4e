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
import numpy as np
import pandas as pd
from IPython.display import Markdown

import crossfunc as xf
from crossfunc.energies import (
    add_raw_gga,
    element_importance,
    mp2020_corrections,
    share_change,
)
from crossfunc.lessons import LessonResults, figures, own_data, scores

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
corrections = table.set_index("composition")["correction_per_atom_ev"]
# Li2O has three atoms, one of them oxygen
results.record("oxide_correction", 3 * corrections["Li2O"])
corrections.to_frame().style.format(precision=4, escape="html")

# %% [markdown]
# An alloy gets nothing, an oxide about −0.7 eV for each oxygen, and iron oxide both parts.
# So the same GGA table exists in two forms, and they differ by chemistry.
# We put both beside each other: *with* corrections as the table has it, *without* as the label minus pymatgen's correction.

# %% tags=["remove-cell"]
if lack := own_data.describe_lack_of_formation(ds, at_least=5 * n_splits):
    own_data.stop_here(lack, results)

# %%
low, high = ds.functionals
pairs = add_raw_gga(ds)
target = pairs[high.column(formation=True)]
as_listed = pairs[low.column(formation=True)] - target
raw = pairs[low.column("raw", formation=True)] - target
names = ["with corrections", "without corrections"]
difference = pd.concat([as_listed, raw], axis=1, keys=names).dropna()
difference.describe().loc[["count", "mean", "std", "min", "max"]].round(3)

# %% [markdown]
# ## How does a tree see an element?
#
# We want a function that predicts the difference $\Delta_i = E^\mathrm{GGA}_{\mathrm f,i} - E^\mathrm{r^2SCAN}_{\mathrm f,i}$ of a material (mind the sign: low minus high here, high minus low in lessons 1 and 3) from its atomic fractions,
#
# $$\Delta_i \approx f(X_{i1}, \ldots, X_{i,94}),$$ (eq-importance)
#
# Then ask which of its inputs that function could not do without.
# The paper uses gradient-boosted trees ({term}`XGBoost` {cite:p}`chen2016xgboost`), which need no scaling and find thresholds such as "holds any oxygen".
# "Could not do without" has three common meanings; {term}`SHAP` is the third:
#
# - *gain*: how much the splits on an element lowered the training loss, on average;
# - *permutation*: how much worse held-out predictions get when the element's column is shuffled;
# - *SHAP*: how much the element moves held-out predictions, in eV/atom.
#
# Importance of a model that predicts nothing means nothing.
# So every map below comes with the model's cross-validated $R^2$.

# %%
X = xf.composition_matrix(pairs.loc[difference.index])
trees = {"n_trees": n_trees, "seed": seed, "n_threads": n_threads}
repeats = trees | {"n_seeds": n_seeds, "n_splits": n_splits}
importance = {}
for name, delta in difference.items():
    importance[name] = element_importance(X, delta.to_numpy(), **repeats)

# %%
for name, fit in importance.items():
    mean, ends = scores.over_seeds(fit.r2_per_seed)
    results.record(f"r2_{name.split()[0]}", mean, ends, n_seeds=n_seeds)
    print(f"{name}: {fit.summary()}")

# %% [markdown]
# An $R^2$ well above zero says that composition alone explains a good part of the difference; what is missing needs the structure.
# With that licence, look at the maps.
# Both have the same colours for the same number of meV/atom.

# %%
maps = {name: fit.table for name, fit in importance.items()}
highest = 1000 * max(table["shap_mean"].max() for table in maps.values())
first = {n: list(fit.ranked("shap").index) for n, fit in importance.items()}

# %%
top = first["with corrections"]
figures.show(
    figures.importance_map(maps["with corrections"], (0, highest)),
    alt="Periodic table of the importance of each element for the formation-energy "
    f"difference with corrections; the largest values are on {', '.join(top[:5])}.",
    caption=f"With MP2020 corrections, it follows {', '.join(top[:3])} most",
    name="fig-02-corrected",
    dataset=ds,
)

# %%
top_raw = first["without corrections"]
figures.show(
    figures.importance_map(maps["without corrections"], (0, highest)),
    alt="Periodic table of the importance of each element for the formation-energy "
    f"difference without corrections, highest for {', '.join(top_raw[:5])}.",
    caption=f"Without corrections, it follows {', '.join(top_raw[:3])} most",
    name="fig-02-raw",
    dataset=ds,
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

# %%
shap = pd.DataFrame({n: table["shap_mean"] for n, table in maps.items()})
groups = {g: shap.loc[m.split()].sum() for g, m in GROUPS.items()}
shares = (pd.DataFrame(groups).div(shap.sum(), axis=0)).T
shares.loc["all others"] = 1 - shares.sum()
shares.style.format("{:.0%}")

# %%
of_anions = ["pnictogens", "chalcogens", "halogens"]
anions = shares.loc[of_anions].sum()
symbols = " ".join(GROUPS[group] for group in of_anions).split()
change = share_change(*importance.values(), symbols)

# %% tags=["remove-cell"]
for name in shares:
    results.record(f"anion_share_{name.split()[0]}", 100 * anions[name])
ends, n = (100 * change.low, 100 * change.high), len(difference)
results.record("anion_share_change", 100 * change.value, ends, n=n)

# %%
figures.show(
    figures.share_bars(shares),
    alt="Bars of the share of importance on pnictogens, chalcogens, halogens, metals "
    "with a U and all others; the three anion groups together hold "
    f"{anions.iloc[0]:.0%} with corrections and {anions.iloc[1]:.0%} without.",
    caption=f"Anions: {anions.iloc[0]:.0%} with corrections, {anions.iloc[1]:.0%} without",
    name="fig-02-groups",
    dataset=ds,
)

# %% [markdown]
# One reads off the paper's Figs. 1c and d that with the corrections on the difference follows the anions more; their caption says only that the corrections are applied to these elements.
# {numref}`fig-02-groups` does not show that on the embedded data: switching the corrections on takes share *from* the anions, for here the difference without them is mostly the corrections themselves, and these sit on anions.
# The {doc}`claims page </claims>` judges it by whether their share grows with the corrections.
# Which group gains depends on what a dataset holds.
# Uncorrected +*U* energies put the metals in front wherever their oxides are common, as in the Materials Project; where they are few, the anions stay in front and lose share once their corrections are on.
# Run this page on `mp-thermo-pairs` beside the embedded data to see both.

# %%
Markdown(scores.explained_in_words(importance))

# %% tags=["remove-cell"]
own_data.check_claim(
    anions["with corrections"] < anions["without corrections"],
    "corrections take share from the anions",
    ds,
)

# %% [markdown]
# ## Which importance may you believe?
#
# Gain is what most plots in the literature show; it is measured on training data, and a few lucky splits on a rare element can put it high.
# A first test is simple: do three measures and several seeds agree on the first ten elements?
# The figure shows the first ten elements by SHAP, each measure as its share of the sum over all elements, with the spread over seeds.

# %%
corrected = importance["with corrections"]
first_ten, shared = first["with corrections"][:10], {}
for measure in ("permutation", "gain"):
    others = corrected.ranked(measure).index[:10]
    shared[measure] = len(set(first_ten) & set(others))
    results.record(f"top_ten_{measure}", shared[measure])
shared

# %%
figures.show(
    figures.measure_shares(corrected.table, first_ten),
    alt=f"Shares of SHAP, permutation and gain importance of {', '.join(first_ten)} "
    f"with error bars over seeds; {shared['permutation']} of them are also among the "
    f"first ten by permutation, {shared['gain']} by gain.",
    caption=f"Of SHAP's first ten, {shared['permutation']} are also permutation's and {shared['gain']} gain's",
    name="fig-02-measures",
    dataset=ds,
)

# %% [markdown]
# And this is how the same fits would look in a paper that maps gain: compare them with {numref}`fig-02-corrected` and {numref}`fig-02-raw`.

# %%
by_gain = corrected.ranked("gain").index
figures.show(
    figures.importance_map(corrected.table, measure="gain"),
    alt="Periodic table of the share of gain on each element for the formation-energy "
    f"difference with corrections; the largest values are on {', '.join(by_gain[:5])}.",
    caption=f"By gain, the first are {', '.join(by_gain[:3])}; by SHAP, {', '.join(top[:3])}",
    name="fig-02-gain",
    dataset=ds,
)

# %%
figures.show(
    figures.importance_map(maps["without corrections"], measure="gain"),
    alt="Periodic table of the share of gain on each element, without corrections.",
    caption="By gain, without corrections",
    name="fig-02-gain-raw",
    dataset=ds,
)

# %% [markdown]
# The more names two measures share, the less this test can say against either: it looks at membership in the first ten and at nothing else.
# Then compare how the bars fall off. Gain tends to flatten the picture, for an element that splits a few materials well counts as much as one that moves thousands; SHAP and permutation are both measured on held-out materials.
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

ids = pairs.loc[difference.index, "material_id"]
for name, fit in importance.items():
    y = difference[name].to_numpy()
    linear = 1000 * held_out_error(X, y, ids, seed=seed)["mae_ev_per_atom"]
    by_trees = 1000 * fit.mae_per_seed_ev_per_atom.mean()
    print(f"{name}: linear {linear:.0f}, trees {by_trees:.0f} meV/atom")
    own_data.check_claim(by_trees < linear, "trees err less", ds)

# %% [markdown]
# :::{admonition} Exercise 2
# Deal the differences out to the materials at random, so that there is nothing to learn, and ask for the importances again.
# What do they look like, and what gives them away?
# :::

# %% tags=["hide-cell"]
# Solution: some elements always come first; only an R² that is not above zero says that this order means nothing.
rng = np.random.default_rng(seed)
dealt = rng.permutation(difference["with corrections"])
few = trees | {"n_seeds": 1, "n_trees": 50}
nothing = element_importance(X, dealt, n_splits=n_splits, **few)
print(nothing.summary())
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
results.save_table("importance", maps["with corrections"].reset_index())
results.save()
results.table()
