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
# # Element references bring the functionals together

# %% [markdown]
# :::{admonition} In this lesson
# :class: tip
# **Goal**: remove the elemental part of total energies, and see how well two functionals agree on the rest.
#
# **You need**: {doc}`01_data_statistics` and least squares.
#
# **You will be able to**: fit element references and know when a fit is not determined; decide whether a model needs new references before fine-tuning; and start a model on the new functional without training it at all.
#
# **Paper**: Figs. 2a and 2b of {cite:t}`huang2025crossfunctional`. **Run time**: ten seconds.
# :::
#
# Lesson 1 ended with a suspicion: the energies of two functionals differ by something that comes with the atoms.
# If that is so, one number per element should remove it.
# Three kinds of evidence are at hand: calculations of this book in both functionals, free atoms, which have no bonds at all, and the Materials Project's energies where a copy of them is there.

# %% tags=["parameters"]
dataset = "pbe-r2scan"  # name or folder; "surrogate" has 88 elements
results_dir = None  # folder for the claims table; None keeps nothing
seed = 0  # seed of the folds and of the resampling
n_splits = 5  # folds of the cross-validation over materials
n_bootstrap = 1000  # resamples behind each interval
n_subset = (
    40  # materials of the deliberately small subsets, half of all at most
)
n_draws = 20  # draws of few real materials, where there are any

# %%
import numpy as np
import pandas as pd
from IPython.display import display

import crossfunc as xf
from crossfunc.bootstrap import mean_error
from crossfunc.energies import correlation_text, scale_held_out
from crossfunc.lessons import LessonResults, figures, own_data, real_pairs
from crossfunc.lessons import references as evidence
from crossfunc.lessons.figures import references as draw
from crossfunc.lessons.figures.widgets import two_references
from crossfunc.symbols import ATOMIC_NUMBERS, ELEMENT_SYMBOLS

figures.use_style()

# %%
ds = xf.open_dataset(dataset)
results = LessonResults("03_atomref_correlation", results_dir, ds)
print(f"{ds.name}: {ds.label_notice}")

# %% tags=["remove-cell"]
if ds.pairs is None:
    own_data.stop_here(
        "No material has both functionals in these data, so there is nothing to compare; lesson 4 fits references "
        "to their frames.",
        results,
    )

# %%
X = xf.composition_matrix(ds.pairs)
ids = ds.pairs["material_id"].to_numpy()
low, high = (ds.pairs[one.column()].to_numpy() for one in ds.functionals)
names = [one.name for one in ds.functionals]
print(f"{len(ids)} materials in {names[0]} and in {names[1]}")

# %% [markdown]
# ## What is an element reference?
#
# An {term}`element reference` $c_j$ is the energy that a functional assigns to one atom of element $j$, whatever its surroundings.
# A material's reference energy is the weighted mean over its elements,
#
# $$E^\mathrm{ref}_i = \sum_j X_{ij}\, c_j = (X c)_i,$$ (eq-reference)
#
# a row of the composition matrix times a column of references.
# CHGNet calls this layer {term}`AtomRef`, and the network above it only has to learn the rest.
# For LiCoO₂, with the references that CHGNet ships for r²SCAN:

# %%
published = {
    "gga": xf.published_atomref("MPtrj"),
    "r2scan": xf.published_atomref("MP-r2SCAN"),
}
row = xf.composition_matrix(["LiCoO2"])
c = published["r2scan"].energies_ev[row.indices]
by_hand = sum(x * energy for x, energy in zip(row.data, c, strict=True))
assert np.isclose(by_hand, published["r2scan"].predict(row)[0])
print(row.data.round(2), "times", c.round(3), f"= {by_hand:.3f} eV/atom")

# %%
elements = [ELEMENT_SYMBOLS[j] for j in row.indices]
parts = zip(row.data, c, strict=True)
figures.show(
    figures.reference_scheme(dict(zip(elements, parts, strict=True))),
    alt="A row of boxes, the atomic fractions of LiCoO2 with zeros for all other elements, times a column of boxes, the "
    f"r²SCAN references, equals {by_hand:.2f} eV/atom.",
    caption="A reference energy is a composition row times a column of references",
    name="fig-03-scheme",
)

# %% [markdown]
# ## How are references fitted?
#
# By least squares: choose $c$ so that $Xc$ is as close as possible to the energies $y$,
#
# $$c = \arg\min_c \lVert Xc - y \rVert^2.$$ (eq-atomref)
#
# Written out once by hand, on the elements that occur, and compared with the library:

# %%
present = np.unique(X.indices)
dense = X[:, present].toarray()
c_by_hand, *_ = np.linalg.lstsq(dense, high, rcond=None)

fit = {
    "low": xf.fit_atomref(X, low, material_ids=ids),
    "high": xf.fit_atomref(X, high, material_ids=ids),
}
assert np.allclose(dense @ c_by_hand, fit["high"].predict(X), atol=1e-8)
print(fit["high"].summary())

# %% [markdown]
# Two words in that summary deserve attention.
# The *rank* counts how many combinations of references the data determine; when it equals the number of elements, each reference stands on its own.
# And an element that is *absent* has no reference at all, which is not the same as a reference of zero.
#
# Fit two of them yourself.
# Below, the *shift* of each element from one functional to the other is taken off already, for all elements but the two most frequent.
# Move the two that are left until the points lie on the line; then ask for least squares.

# %%
by_element_shift = fit["high"].energies_ev - fit["low"].energies_ev
formulas = ds.pairs["composition"]
table, two = evidence.two_elements(
    formulas, X, high - low, by_element_shift
)
two_references(table, two)

# %% [markdown]
# Each point is a material, and the error is smallest only where both shifts are right: a compound of both ties them together, and only others tell them apart.

# %% [markdown]
# ## Do the functionals agree now?
#
# Subtract from each total energy the references of its own functional and repeat the plot of lesson 1.
# References that were fitted to the very points of the plot would flatter it.
# So the materials are dealt into folds, and each is judged by references fitted to the others: *held out*.
# A material with an element that the other folds leave undetermined cannot be judged, and is not drawn.

# %%
options = {"n_splits": n_splits, "seed": seed}
held = scale_held_out(X, low, high, material_ids=ids, **options)
judged = held.index.to_numpy()
results.record("n_judged", len(judged), n=len(ids))
print(f"{len(judged)} of {len(ids)} materials can be judged")

# %%
before = np.corrcoef(low[judged], high[judged])[0, 1]
after = np.corrcoef(held["low"], held["high"])[0, 1]
panels = {
    "total energy": (high[judged], low[judged]),
    "minus element references": (held["high"], held["low"]),
}
figures.show(
    figures.before_and_after(panels, names)[0],
    alt=f"Two scatter plots of {names[0]} against {names[1]} energies of {len(judged)} materials: total energies with "
    f"Pearson's r {correlation_text(before)}, and the same minus element references fitted to other materials, with r {correlation_text(after)}.",
    caption=f"Minus element references, r goes from {correlation_text(before)} to {correlation_text(after)} on the same materials",
    name="fig-03-story",
    dataset=ds,
)

# %% [markdown]
# Why do total energies agree so badly in the first place?
# A code with pseudopotentials counts both functionals from the *same* atoms: those without spin, in PBE, for which the pseudopotentials were made.
# In PBE such an atom has no energy left, and a total energy is little else than bonding.
# In r²SCAN the same atom has another energy, and a total energy holds bonding *and* that change.
# So PBE energies spread by what bonds are worth, the change of functional by which elements there are, and how far total energies correlate depends on the mix of elements:

# %%
spread = {names[0]: low, names[1]: high, "their difference": high - low}
for name, energy in spread.items():
    print(f"{name}: standard deviation {np.std(energy):.2f} eV/atom")

# %% [markdown]
# With both marginals, as the paper draws it:

# %%
figures.show(
    figures.joint_energy_plot(
        held["high"],
        held["low"],
        x_label=ds.label("high_scaled_energy_per_atom_ev"),
        y_label=ds.label("low_scaled_energy_per_atom_ev"),
        identity=True,
    ),
    alt=f"Scatter of {names[0]} against {names[1]} energies, each minus its own element references, with histograms and "
    f"the identity line; Pearson's r is {correlation_text(after)}.",
    caption="Minus element references, the two functionals side by side",
    name="fig-03-scaled",
    dataset=ds,
)

# %% [markdown]
# The report below adds the cases that a careful reader would ask for, each with an interval from resampled materials.
# *Low only* subtracts the low functional's references from both, the mistake of carrying over a model without touching its references.
# *Refitted* fits both functionals to these very materials, and *held out* is the figure above.
# *Published* takes the tables that ship with CHGNet, and stands here only where the labels are on their scale: they were fitted to energies of VASP, and another code counts from other atoms.
# *Free atoms* fits nothing at all: it subtracts isolated atoms computed by the code that made the labels, and what is left are cohesive energies, with a minus sign.
# It stands here where those atoms are known, from the dataset's own records or, for VASP, from `crossfunc.energies.free_atoms`.

# %%
resampled = options | {"n_bootstrap": n_bootstrap}
report = evidence.correlations(ds, **resampled)
report.drop(columns="note").style.format(precision=3)

# %% tags=["remove-cell"]
r = report["pearson"]
ends = report[["interval_low", "interval_high"]]
for name, n in report["n_points"].items():
    key = name.replace(", ", "_").replace(" ", "_")
    results.record(f"pearson_{key}", r[name], tuple(ends.loc[name]), n=n)

# %% tags=["remove-input"]
own_data.check_claim(r["none"] < 0.5, "total energies hardly correlate", ds)
own_data.check_claim(
    r["refitted, held out"] > 0.9,
    "minus references fitted to other materials, they correlate strongly",
    ds,
)
own_data.check_claim(
    r["low only"] < 0.5, "the low references alone help little", ds
)

# %% [markdown]
# The paper's two numbers stand at the end of this page.
# The same lines from energies of the Materials Project {cite:p}`jain2013materialsproject`, computed with VASP, where `CROSSFUNC_DATA` names a folder that has them ({doc}`/datasets`):

# %%
mp = own_data.open_if_there("mp-thermo-pairs", "pairs")
if mp is None:
    print("mp-thermo-pairs is not here, so these lines are left out.")
else:
    mp_report = evidence.correlations(mp, **resampled)
    for stage in ("none", "published", "free atoms"):
        mp_r, *mp_ends = mp_report.iloc[:, :3].loc[stage]
        last = stage.split()[0]
        results.record(f"mp_pearson_{last}", mp_r, tuple(mp_ends))
        print(f"{stage}: r = {correlation_text(mp_r)}")

# %% [markdown]
# The first number depends on which elements a dataset mixes and how often, so it differs from one to the next; the jump is what they share.
# Where free atoms bring it about as well, without any fit, the shift is a property of atoms and no average of bonds.

# %% [markdown]
# ## Which elements shift, and by how much?
#
# The references of the *difference* are the shift itself, and its errors are small because bonding cancels.
# Only elements count that the materials determine one by one; of these, the eight that move most:

# %%
difference = xf.fit_atomref(X, high - low, material_ids=ids)
shifts = evidence.shift_evidence(ds, difference)
if shifts.empty:
    print("Too few materials to fix any single reference.")
top = shifts.sort_values("fitted", key=np.abs, ascending=False).head(8)
top = top.rename(columns=evidence.HEADINGS)
top.style.format(precision=2, na_rep="–", escape="html")

# %% tags=["hide-input"]
if len(shifts):
    largest = shifts["fitted"].abs().idxmax()
    shift = shifts.loc[largest, "fitted"]
    results.record("largest_shift", shift, element=largest)
    figures.show(
        figures.periodic_table_interactive(
            shifts["fitted"],
            f"element reference, {names[1]} − {names[0]} (eV/atom)",
            diverging=True,
            fmt=".1f",
        ),
        alt=f"Periodic table of the shift of element references from {names[0]} to {names[1]}; the largest is that of "
        f"{largest}, {shift:.1f} eV; elements that the data do not fix are blank.",
        caption=f"{largest} shifts most, by {shift:.0f} eV",
        name="fig-03-shifts",
        dataset=ds,
    )

# %% [markdown]
# The fit is one source of these numbers, and there are up to three more.
# A *free atom* in both functionals has a shift without any fit: of the code of this book where the dataset's records hold the atom, and of VASP for most elements (A. Kaplan's isolated atoms, in the package).
# CHGNet's *published* tables give the shift of VASP's energies in crystals.

# %%
if len(shifts):
    far = evidence.agreements(shifts).get("agreement", np.nan)
    figures.show(
        draw.draw_shift_evidence(shifts, names),
        alt="Shift of the element references in order of atomic number, by source: fitted here with standard errors, free "
        f"atoms, and published tables; fitted and published differ by {far:.2f} eV in the median.",
        caption="Shifts of the element references from every source at hand",
        name="fig-03-agreement",
        dataset=ds,
    )

# %% tags=["remove-cell"]
for key, off in evidence.agreements(shifts).items():
    results.record(f"shift_{key}", off)

# %% [markdown]
# Read the figure by pairs.
# Crystals and free atoms *of one code* are to be compared with each other: as far as they agree, the shift is a property of the atom in that code, and no bonding is hidden in it.
# (A free atom that stands far aside, as VASP's lanthanum does, may have been computed with another pseudopotential than the crystals, or in another state of its open shell.)
# Fitted and published shifts compare two *codes* (on the embedded surrogate one and the same, which its labels come from), and there heavy elements may be far apart.
#
# What do pseudopotentials have to do with it?
# Neither code computes the whole atom.
# Inner electrons are frozen as PBE left them, and energies count from an atom in PBE.
# But exchange and correlation do not add up from core and valence: a new functional is evaluated on both together, and changes the energy of the core along with that of the bonds.
# How much of that change a code counts depends on which electrons it freezes, and on how much of the core's density, and of the kinetic-energy density that only a meta-GGA asks for, it keeps near the nucleus.
# In every compound it is very nearly the same number per atom, which is what makes it a reference.
# Light elements have small cores, and there little depends on such choices.
# This fits the figure; it does not prove that the cores make *all* of the difference between the codes, because neither prints the core's part alone.
# Two smaller things are mixed into the published tables besides: {term}`MP2020` corrections of the anions, and +*U*.
# So never blame a shift on exchange and correlation alone, and never carry it from one code to another.

# %% [markdown]
# ## When is a fit not determined?
#
# References are often fitted to small data sets, and there a trap waits.
# With fewer independent compositions than elements, infinitely many $c$ fit equally well.
# The textbook shortcut, solving the normal equations $X^\top X c = X^\top y$ in single precision, then divides by numbers that are nothing but rounding errors.
# CHGNet's own fit does exactly that; here is its formula on small random subsets, ten copies of each material as ten frames of a relaxation would be.


# %%
def single_precision(X, y):
    """RMSE of chgnet's formula on its own rows, eV/atom."""
    A = X.toarray().astype(np.float32)
    c = np.linalg.pinv(A.T @ A) @ A.T @ y.astype(np.float32)
    return np.sqrt(np.mean((A @ c - y) ** 2))


# %%
rng = np.random.default_rng(seed)
n_few = min(n_subset, len(ids) // 2)
rmse = []
for _ in range(10):
    some = np.repeat(rng.choice(len(ids), n_few, replace=False), 10)
    y = high[some] + rng.normal(0, 0.02, len(some))
    small = xf.fit_atomref(X[some], y)
    rmse.append([single_precision(X[some], y), small.rmse_ev_per_atom])

# %%
errors = 1000 * pd.DataFrame(rmse, columns=["float32", "float64"])
worst = errors.max()
assert (errors["float64"] <= errors["float32"] + 1e-3).all()
results.record("small_fit_worst", worst["float32"], n=n_few)
results.record("small_fit_ours", worst["float64"], n=n_few)
errors.agg(["min", "median", "max"]).style.format("{:,.0f} meV/atom")

# %% [markdown]
# Both are fitted to the same rows, and both should do at least as well as any other $c$; the assertion holds the second to that.
# Where the two columns differ, it was single precision that failed, and which subset you happen to draw decides whether its fit is usable.
# The library stays at the least-squares optimum, and it says which references are fixed only together with others, so that nobody quotes them alone; of the last subset:

# %%
print(f"rank {small.rank} for {small.n_elements} elements")
print(
    "fixed only together:", ", ".join(small.null_space_elements) or "none"
)

# %% [markdown]
# It can also pull what the data leave open towards a prior, for instance the source functional's references (`ridge=` and `prior=`).
#
# And absent is absent.
# The published r²SCAN table has six elements that never occurred in its training data, stored there as zeros.
# Adding a zero where the neighbours have −37 eV would be a silent error of 18 eV/atom for an oxide, so ytterbium is refused by name:

# %%
try:
    published["r2scan"].predict(xf.composition_matrix(["YbO"]))
except xf.AtomRefError as error:
    print(error)

# %% [markdown]
# ## Refit or not?
#
# Before fine-tuning, the practical question is whether the model needs new references at all.
# Its answer is a number: how much of the initial error goes away when references are refitted, judged on materials that the refit has not seen.

# %%
advice = xf.refit_advice(
    X, high - low, material_ids=ids, n_splits=n_splits, seed=seed
)
real_pairs.record_advice(results, advice)
print(advice.reason)

# %% [markdown]
# ## How far do references alone go?
#
# There are two ways to give a GGA model new references.
# *Refit*: fit them to the r²SCAN energies, as Method 4 of the paper does, and replace the old ones.
# *Model-aware*: fit only what the model gets wrong, $y - \hat y$, and add that to its references, so that what it already knows is not fitted again.
# Neither needs a single training step.
# The best GGA model imaginable is the GGA functional itself.
# So let the low functional's energies play its part, with the references that CHGNet 0.3.0 would bring along, and judge each material by references that have not seen it.
# (A real model stands beside it: {doc}`/claims` says what CHGNet 0.3.0 leaves of the Materials Project's r²SCAN energies with each of these references, and with the published table.)

# %%
predicted = evidence.untrained(
    X, low, high, ids, published["gga"], n_splits=n_splits, seed=seed
)
missed = 1000 * predicted.sub(high[predicted.index], axis=0).abs()
n0 = missed.mean()
print(f"{len(missed)} materials judged")
missed.agg(["mean", "median"]).T.style.format("{:,.0f} meV/atom")

# %%
of = ids[missed.index]
for key, way in zip(("none", "refit", "aware"), missed, strict=True):
    mean = mean_error(missed[way], of, n_bootstrap=n_bootstrap, seed=seed)
    results.record(f"n0_{key}", mean.value, mean.interval, n=len(missed))

# %% tags=["remove-input"]
own_data.check_claim(
    n0["model-aware"] < n0["refit (Method 4)"] < 0.2 * n0["as it is"],
    "a refit removes four fifths of the error, a model-aware one more",
    ds,
)

# %% [markdown]
# Why should a model-aware refit be the better one?
#
# Write the references of a functional as $c = a + b(\text{set})$: what the atoms themselves contribute, plus the average bonding energy of each element *in the set they were fitted to*, because a fit cannot tell the two apart.
# The pretrained model's own references hold the average bonding of its training set, MPtrj, and its network has learned the rest, on that understanding.
# A plain refit replaces them by references with the average bonding of *this* set.
# Where this set is like MPtrj, nothing is lost.
# Where it is not, the *difference* $X\,(b(\text{this set}) - b(\text{MPtrj}))$ is counted twice: once in the new references, once in the network.
# So is whatever else separates the two sets in the *low* functional, such as another code's zero of energy or MP2020's corrections.
# A model-aware refit fits what the model leaves, so all of that cancels.
#
# The explanation can be checked without r²SCAN.
# Least squares is linear, so the plain refit's prediction for a held-out material minus the model-aware one's *is* $X\,(c_\text{low} - c_\text{published})$, with $c_\text{low}$ fitted to the low energies of the same other materials.

# %%
folds = {"n_splits": n_splits, "seed": seed}
twice = evidence.counted_twice(X, low, ids, published["gga"], **folds)
of_both = predicted["refit (Method 4)"] - predicted["model-aware"]
assert np.allclose(twice, of_both)

# %%
counted = 1000 * twice.abs().mean()
results.record("n0_bonding_difference", counted)
print(
    f"counted twice: {counted:.0f} meV/atom; error of the plain refit: "
    f"{n0['refit (Method 4)']:.0f}, of the model-aware one: {n0['model-aware']:.0f}"
)

# %% [markdown]
# So material by material the error of the plain refit is the error of the model-aware one and what is counted twice.
# How large the latter is belongs to the dataset: the paper's references were fitted to a set like the model's own, and there a plain refit loses little.
# What remains after a model-aware refit is what fine-tuning is for.

# %% [markdown]
# ## How many materials does that take?
#
# Who has thirty r²SCAN calculations sees most elements once or never, and then it matters what the fit is pulled to.
# This can be asked of a real model: where `CROSSFUNC_DATA` names a folder with crystals of the Materials Project in both functionals (`mp_paired_structures.jsonl.gz`, {doc}`/datasets`), CHGNet 0.3.0 predicts them and references are fitted to a few.
#
# Two priors are compared.
# *q Z²* knows nothing but that shifts grow with the atomic number, with q from the data.
# *Published shift* is the difference of the two published tables: for these functionals *in VASP* the answer is known for 88 elements, and a handful of materials need only correct it.
# (For an element that the tables do not hold, the shift of the free atom stands in, or that of its neighbours; `crossfunc.energies.published_shift` says which.)

# %%
real = real_pairs.find_file()
if real is None:
    print(f"{real_pairs.FILE} is not here, so this section is left out.")
else:
    pairs = real_pairs.read_paired_crystals(
        real, xf.load_model("0.3.0"), with_features=False
    )
    few = real_pairs.compare_few_materials(
        pairs, [10, 30, 60, 120, 240], n_draws=n_draws
    )
    by_n = few.drop(columns="draw").groupby("n").mean()
None if real is None else by_n.style.format("{:.0f} meV/atom")

# %%
if real is not None:
    first = by_n.iloc[0]
    figures.show(
        draw.draw_few_materials(few),
        alt="Error on other materials against the number of materials that references were fitted to, logarithmic: with "
        f"{by_n.index[0]} materials the model-aware fit errs by {first['trend']:.0f} meV/atom with the prior q Z² and by "
        f"{first['published']:.0f} with the published shift.",
        caption=f"On DFT, {by_n.index[0]} materials and a known shift do for {first['published']:.0f} meV/atom (Materials Project, r²SCAN)",
        name="fig-03-few",
    )

# %% tags=["remove-cell"]
if real is not None:
    real_pairs.record_few(results, few)

# %% [markdown]
# New references are not free: they cost the labels that they are fitted to.
# How many, the prior decides: the table says what a handful does with one that knows nothing, and with the known shift.
# That shift is for energies of VASP.
# On those of another code, pull to the shifts of *its* free atoms, or to q Z²; the surrogate cannot show the gain honestly either, because the table is part of its labels.

# %% [markdown]
# ## Try it yourself
#
# :::{admonition} Exercise 1
# References are fitted to a mixture of compounds, so they depend on which compounds.
# Fit them to oxides only (`xf.fit_atomref`) and judge them on everything else: `fit.remove(X, energies)` is what they leave, and `fit.is_determined_for(X)` says where they say anything.
# How wrong are they there, and which elements move?
# :::

# %% tags=["hide-cell"]
# Solution: oxygen and metals trade bonding that oxides alone cannot share out, so what fits oxides need not fit others.
oxygen = X[:, [ATOMIC_NUMBERS["O"] - 1]].toarray().ravel() > 0
if oxygen.any():
    of_oxides = xf.fit_atomref(X[oxygen], high[oxygen])
    others = ~oxygen & of_oxides.is_determined_for(X)
    on = {"oxides": oxygen, "others": others}
    unlike = {n: of_oxides.remove(X[k], high[k]) for n, k in on.items()}
    wrong = {n: pd.Series(e).abs().mean() for n, e in unlike.items()}
    print(*(f"{n}: {e:.2f} eV/atom" for n, e in wrong.items()), sep="\n")
    is_worse = not wrong["others"] < wrong["oxides"]
    own_data.check_claim(is_worse, "what was not fitted is worse off", ds)
    moved = of_oxides.energies_ev - fit["high"].energies_ev
    moved = pd.Series(moved, ELEMENT_SYMBOLS)[of_oxides.determined].round(2)
    display(moved.sort_values(key=np.abs).tail(8).to_frame("shift (eV)").T)
else:
    print("These data hold no oxide.")

# %% [markdown]
# :::{admonition} Exercise 2
# Add the same constant to every energy in the high functional.
# Does the correlation after a refit change? Why must it not?
# :::

# %% tags=["hide-cell"]
# Solution: fractions add up to one, so a constant is a shift of every reference by the same amount.
shifted = xf.fit_atomref(X, high + 5.0, material_ids=ids)
rest = shifted.remove(X, high + 5.0), fit["high"].remove(X, high)
assert np.allclose(*rest, atol=1e-6)
print(f"largest change of the rest: {np.abs(np.subtract(*rest)).max():.0e}")

# %% [markdown]
# :::{admonition} Exercise 3
# Subtract CHGNet's *published* references from these energies, whatever code they come from.
# How far do the functionals then agree, and which of the two tables is to blame if they do not?
# :::

# %% tags=["hide-cell"]
# Solution: a GGA table fits another code's PBE about as well, for each counts from its own PBE atoms; the r²SCAN table
# holds the change of VASP's atoms, and on energies of another code it leaves the difference between the codes' atoms.
in_both = published["r2scan"].is_determined_for(X)
rest = {}
for name, energy in (("gga", low), ("r2scan", high)):
    rest[name] = published[name].remove(X[in_both], energy[in_both])
    print(f"{name}: the rest spreads by {rest[name].std():.2f} eV/atom")
print("r =", correlation_text(np.corrcoef(*rest.values())[0, 1]))
blamed = rest["gga"].std() < rest["r2scan"].std()
own_data.check_claim(blamed, "the r²SCAN table fits less well", ds)

# %% [markdown]
# ## Check yourself
#
# **1.** Why does subtracting the GGA references from *both* functionals leave their difference as it was?
#
# :::{admonition} Answer
# :class: dropdown
# The same linear function of the composition is taken from both sides, and with it nothing of the shift.
# :::
#
# **2.** A fit has rank 12 for 14 elements. Which of its predictions may be used?
#
# :::{admonition} Answer
# :class: dropdown
# Those for compositions that are linear combinations of the fitted ones, mixtures among them.
# The references named as fixed only together must not be quoted, or moved to other compositions, one by one.
# :::
#
# **3.** The references removed nearly all of the difference. Has the model learned r²SCAN?
#
# :::{admonition} Answer
# :class: dropdown
# It has learned the part that depends on composition alone.
# Two crystals of the same formula still differ as they did before, and their order is what chemistry asks for.
# :::

# %% [markdown]
# ## Recap
#
# - A reference energy is a linear function of composition {eq}`eq-reference`, fitted by least squares {eq}`eq-atomref`.
# - The disagreement between two functionals is mostly that of their references: judge it on materials that no reference was fitted to ({numref}`fig-03-story`).
# - The shift is a property of functional *and* code ({numref}`fig-03-agreement`): do not carry it from one to another.
# - A reference needs data: know the rank, and never read an absent element as zero.
# - A plain refit counts the *difference* between this set's average bonding and that of the pretraining set twice; a model-aware one does not.
# - With few materials the prior decides: where the shift between two functionals is known for the code, use it.

# %%
results.save()
results.table()
