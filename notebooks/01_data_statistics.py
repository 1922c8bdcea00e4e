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
# # Two functionals, one set of materials

# %% [markdown]
# :::{admonition} In this lesson
# :class: tip
# **Goal**: know what the data hold, and see that {term}`total energies <total energy>` of two functionals do not compare.
#
# **You need**: the idea of a density functional, means and correlations.
#
# **You will be able to**: turn formulas into a composition matrix, split data without leaks, and read a correlation of total energies with suspicion.
#
# **Paper**: Figs. 1a and 1b of {cite:t}`huang2025crossfunctional`. **Run time**: ten seconds.
# :::
#
# A potential is trained on numbers that somebody else computed.
# Before any training, three questions decide what those numbers can teach: which elements are in them, which rows belong together, and whether the energies of two sources mean the same thing.
# The third one has a surprising answer.

# %% tags=["parameters"]
dataset = "surrogate"  # name or folder; "mp-thermo-pairs" is real DFT
results_dir = None  # folder for the claims table; None keeps nothing
seed = 0  # seed of the splits and of the resampling
n_bootstrap = 1000  # resamples behind each interval

# %%
import numpy as np
import pandas as pd

import crossfunc as xf
from crossfunc.energies import correlation_text, pearson
from crossfunc.lessons import LessonResults, figures, own_data
from crossfunc.symbols import ATOMIC_NUMBERS, ELEMENT_SYMBOLS

figures.use_style()
ds = xf.open_dataset(dataset)
results = LessonResults("01_data_statistics", results_dir, ds)
print(f"{ds.name}: {ds.label_notice}")

# %% [markdown]
# ## What does a row look like?
#
# The table `pairs` holds one row per material.
# Each material was relaxed twice, once in each functional, and carries the energy of each relaxed structure.
# Read a row from left to right: the same crystal, two energies, and they are far apart.
# (MP2020 corrections, where the name of a functional has them, are the Materials Project's own shifts of GGA energies; lesson 2 meets them.)

# %%
low, high = ds.functionals
print(f"low: {low.full_name}; high: {high.full_name}")
table = own_data.energy_table(ds)
some_rows = table.sample(min(6, len(table)), random_state=seed)
some_rows.style.hide(axis="index").format(precision=3, escape="html")

# %% [markdown]
# ## Which elements are in the data?
#
# Everything in the first lessons rests on one object, the {term}`composition matrix`.
# Its entry $X_{ij}$ is the {term}`atomic fraction` of element $j$ in row $i$,
#
# $$X_{ij} = \frac{n_{ij}}{\sum_k n_{ik}},$$ (eq-composition)
#
# where $n_{ij}$ counts the atoms of element $j$.
# For LiCoO₂ that is a row of 94 numbers, three of which are not zero.

# %%
by_hand = np.zeros(len(ELEMENT_SYMBOLS))
for symbol, count in {"Li": 1, "Co": 1, "O": 2}.items():
    by_hand[ATOMIC_NUMBERS[symbol] - 1] = count / 4

licoo2 = xf.composition_matrix(["LiCoO2"]).toarray()[0]
assert np.allclose(by_hand, licoo2)
pd.DataFrame(
    [licoo2[licoo2 > 0]], ["x"], np.array(ELEMENT_SYMBOLS)[licoo2 > 0]
)

# %% [markdown]
# The library builds the same matrix for a whole table, sparse, because a material holds a handful of elements out of 94.
# Where the dataset has {term}`frames <frame>`, we count those labelled with the high functional, here r²SCAN, as Fig. 1a of the paper does; a table of pairs alone counts materials.

# %%
rows, unit = own_data.rows_of(ds)
materials = own_data.as_series(rows["material_id"])
X = xf.composition_matrix(rows)
in_rows = pd.Series((X > 0).sum(axis=0), index=ELEMENT_SYMBOLS)
counts = in_rows[in_rows > 0].sort_values(ascending=False)
results.record("n_rows", X.shape[0])
results.record("n_elements", len(counts))
counts.head(8).to_frame(unit).T

# %%
figures.show(
    figures.periodic_table_interactive(counts, unit, log=True, fmt=".0f"),
    alt="Periodic table coloured by how many rows contain each element; "
    f"{counts.idxmax()} leads with {counts.max()}, {in_rows[in_rows > 0].idxmin()} is "
    f"rarest with {counts.min()}; elements without data are blank.",
    caption="A few elements fill the data, and most are rare",
    name="fig-01-elements",
    dataset=ds,
)

# %% [markdown]
# Colours are logarithmic: the most common element occurs far more often than the rarest one.
# That matters twice.
# A rare element has a poorly known reference energy, which lesson 3 quantifies.
# And an element that never occurs is not "zero": nothing at all is known about it, so its tile stays blank.

# %% [markdown]
# ## Which rows belong together?
#
# Two frames of one relaxation are nearly the same crystal.
# If one is trained on and the other tested on, the test measures memory.
# So a split must move whole materials, never single frames.
# Watch what a careless split by frame does.

# %%
rng = np.random.default_rng(seed)
careless_test = rng.random(len(materials)) < 0.1
seen = set(materials[~careless_test])
leak = np.mean([material in seen for material in materials[careless_test]])
results.record("leak_by_frame", 100 * leak)
print(f"{leak:.0%} of the test rows have a sibling in training")

# %% [markdown]
# And what a split by material does, which the library makes and reproduces from its seed:

# %%
parts = xf.split_by_material(
    materials, fractions=(0.8, 0.1, 0.1), seed=seed
)
train = set(materials.iloc[parts["train"]])
test = set(materials.iloc[parts["test"]])
assert train.isdisjoint(test)

# %% [markdown]
# A table with one row per material cannot leak this way and shows 0 %.
# With frames, a split by frame leaks for nearly every material that has more than one.
# All later lessons split by material: 8:1:1 as in the paper where there are hundreds of materials, with a larger test part where there are fewer (lesson 4).

# %% [markdown]
# ## Do the energies of two functionals agree?
#
# Here is the question of the paper.
# The straight way to ask it is Pearson's correlation between the energies $x$ and $y$ of the same materials,
#
# $$r = \frac{\sum_i (x_i - \bar x)(y_i - \bar y)}{\sqrt{\sum_i (x_i - \bar x)^2 \sum_i (y_i - \bar y)^2}}.$$ (eq-pearson)

# %% tags=["remove-cell"]
if ds.pairs is None:
    own_data.stop_here(
        "Nothing to correlate without energies of both.", results
    )

# %%
x = ds.pairs["high_energy_per_atom_ev"]
y = ds.pairs["low_energy_per_atom_ev"]
dx, dy = x - x.mean(), y - y.mean()
r_by_hand = (dx * dy).sum() / np.sqrt((dx**2).sum() * (dy**2).sum())

# %% [markdown]
# The library adds an interval, from resampling the materials {term}`with replacement <bootstrap>`.

# %%
draws = {"n_bootstrap": n_bootstrap, "seed": seed}
total = pearson(x, y, material_ids=ds.pairs["material_id"], **draws)
assert np.isclose(total.r, r_by_hand)
results.record("pearson_total", total.r, (total.low, total.high))
print(total)

# %%
x_label, y_label = ds.label(x.name), ds.label(y.name)
figures.show(
    figures.joint_energy_plot(
        x, y, x_label=x_label, y_label=y_label, identity=True
    ),
    alt=f"Scatter of {low.name} total energies against {high.name} ones of the same "
    f"materials with histograms on both sides: {(y > x).mean():.0%} of the points lie above "
    f"the dashed identity line, and Pearson's r is {correlation_text(total.r)}.",
    caption=f"Total energies of the same materials: Pearson's r is {correlation_text(total.r)}",
    name="fig-01-totals",
    dataset=ds,
)

# %% [markdown]
# The two functionals describe the same crystals.
# Yet their total energies agree badly: GGA energies stay within some fifteen eV/atom, those of r²SCAN reach down by many tens.
# Either one of the functionals is badly wrong, or the total energy contains something that has nothing to do with the crystal.

# %% [markdown]
# ## What does the difference follow?
#
# A clue is cheap: forget the structure altogether and take the simplest property of a composition, its mean atomic number $\bar Z_i = \sum_j X_{ij} Z_j$.

# %%
pair_matrix = xf.composition_matrix(ds.pairs)
mean_z = pair_matrix @ np.arange(1, pair_matrix.shape[1] + 1)
difference = (x - y).to_numpy()
with_z = pearson(mean_z, difference, **draws)
results.record("pearson_shift_with_z", with_z.r, (with_z.low, with_z.high))
results.record("mean_shift", float(difference.mean()))

# %%
figures.show(
    figures.shift_against_z(mean_z, difference, ds),
    alt=f"Interactive scatter: the difference between {high.name} and {low.name} falls "
    f"steeply as the mean atomic number grows; Pearson's r is {correlation_text(with_z.r)}.",
    caption="The disagreement follows the elements, not the crystals",
    name="fig-01-difference",
    dataset=ds,
)

# %% [markdown]
# Nothing in $\bar Z$ knows how the atoms are arranged or bonded, and still it accounts for most of the difference.
# So the difference is mainly *elemental*: it comes with the atoms themselves.
# Part of it is the functional, part the {term}`pseudopotentials <pseudopotential>`, which changed together with it: they decide how many electrons an atom brings and where its zero of energy lies.
# Total energies cannot tell the two causes apart, and need not: {doc}`03_atomref_correlation` removes both at once.

# %% [markdown]
# ## Try it yourself
#
# :::{admonition} Exercise 1
# Formation energies are measured from each functional's own elements.
# Compute their Pearson correlation between the two functionals (`ds.pairs` has them as `low_formation_energy_per_atom_ev` and `high_...`), and say why it is so different from that of total energies.
# :::

# %% tags=["hide-cell"]
# Solution: whatever belongs to the elements cancels, because the same shift is subtracted again.
formation = own_data.formation_energies(ds.pairs)
if len(formation) > 2:  # the elements' ground states are there
    among = pearson(*formation.to_numpy().T, **draws)
    claim = "formation energies correlate better than total energies"
    own_data.check_claim(among.r > total.r, claim, ds)
    results.record("pearson_formation", among.r, (among.low, among.high))
    print(among)

# %% [markdown]
# :::{admonition} Exercise 2
# Keep only materials whose heaviest element is lighter than argon.
# Predict first: does the correlation of total energies go up or down?
# :::

# %% tags=["hide-cell"]
# Solution: it goes up, because the shift grows with the atomic number and light atoms are shifted least.
heavy_part = pair_matrix[:, ATOMIC_NUMBERS["Ar"] - 1 :].sum(axis=1)
light = np.asarray(heavy_part).ravel() == 0
if light.sum() > 2:
    without = pearson(x[light], y[light])
    print(f"all: {total}\nlight: {without}")
    rises = without.r > total.r
    own_data.check_claim(rises, "light elements correlate better", ds)

# %% [markdown]
# ## Check yourself
#
# **1.** A split by frame gives a test error that is half of that of a split by material. Which of the two do you report?
#
# :::{admonition} Answer
# :class: dropdown
# The one by material.
# The other measures how well the model remembers crystals that it has nearly seen.
# :::
#
# **2.** No row holds technetium. Which colour does its tile deserve, and which number its reference energy?
#
# :::{admonition} Answer
# :class: dropdown
# None.
# A tile in the colour of zero, or a reference of zero, would claim knowledge that nobody has.
# :::
#
# **3.** Total energies of two functionals correlate badly. Is one of the functionals wrong?
#
# :::{admonition} Answer
# :class: dropdown
# It need not be.
# Each measures energies from a zero of its own for each element, and the correlation of the sums shows mostly these zeros.
# Differences between materials of the same atoms can still agree.
# :::

# %% [markdown]
# ## Recap
#
# - A composition matrix {eq}`eq-composition` holds all that a fit of element references needs to know of a material.
# - Rows of one material stay in one part of a split; by frame, tests leak.
# - Total energies of two functionals correlate badly where many elements mix {eq}`eq-pearson`: the difference follows the elements.
#
# Paper and this page side by side:

# %%
results.save()
results.table()
