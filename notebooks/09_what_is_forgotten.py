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
# # What is forgotten?

# %% [markdown]
# :::{admonition} In this lesson
# :class: tip
# **Goal**: train one model in a dozen ways, and measure what each has learned of the new functional beside what it has lost of the old one.
#
# **You need**: {doc}`04_four_methods`.
#
# **You will be able to**: measure forgetting without being fooled by references, write down the equation of each remedy, and choose one for your own data.
#
# **Paper**: none of it; the paper measures the target alone. **Run time**: three to four minutes.
# :::
#
# A pretrained potential knows more than your data do: elements you have no frame of, phases you will meet in a simulation, what two atoms do when they come too close.
# Fine-tuning on a few hundred frames improves what these frames show.
# What does it do to the rest?

# %% tags=["parameters"]
dataset = "pbe-r2scan"  # name or folder; needs frames in both functionals
results_dir = None  # folder for the claims table; None keeps nothing
seed = 0  # first seed; drives split, frames and their order
n_seeds = 2  # runs behind every spread
n_train = 96  # frames of the target to train on
n_eval = 32  # frames each to validate and test on
n_start_epochs = 6  # passes over the source labels that teach a start, or 0
n_source = 240  # frames of the source, to hold on to and to judge by
n_epochs = 6  # passes over the training frames
max_atoms = 3  # larger cells are left out; 1000 keeps all
batch_size = 8  # frames per optimiser step
learning_rate = 1e-3  # first value; the paper's
n_jobs = 2  # runs at the same time
keep_runs = False  # take runs made by crossfunc units, and keep them

# %%
import numpy as np
import pandas as pd
from IPython.display import Markdown, display

import crossfunc as xf
from crossfunc.lessons import LessonResults, figures, forgetting, own_data
from crossfunc.lessons.forgetting import CASES, LATER, NAMES
from crossfunc.potential.low_rank import share_of_low_rank
from crossfunc.training.dimers import find_dimers
from crossfunc.training.source import (
    make_source,
    other_functional,
    without_labels,
)

# %%
figures.use_style()
ds = xf.open_dataset(dataset)
results = LessonResults("09_what_is_forgotten", results_dir, ds)
source_key = other_functional(ds)
print(f"{ds.name}: {ds.label_notice}")

# %% tags=["remove-cell"]
if lack := own_data.describe_lack(ds, "forces"):
    own_data.stop_here(lack, results)

# %% tags=["remove-cell"]
if source_key is None:
    own_data.stop_here(
        "These data have frames in one functional only; "
        "forgetting is measured in the other.",
        results,
    )

# %% [markdown]
# The *target* is the functional that we go to, the *source* the one that the pretrained model comes from.
# Small cells keep the page quick; of each material all frames are on one side of the split, in both functionals.

# %%
names = "seed n_seeds n_train n_eval n_source max_atoms n_start_epochs n_epochs batch_size learning_rate n_jobs keep_runs"
parameters = {name: globals()[name] for name in names.split()}
planned = forgetting.plan_runs(ds, parameters)
target, source, splits = planned[:3]
print(f"{len(target)} target frames to choose from,")
print(f"{len(source)} of the source")

# %% [markdown]
# ## How do you measure forgetting?
#
# Not by the error in the old functional, at least not as it comes.
# The target's {term}`element references <element reference>` are eV/atom away from the source's *on purpose*, and whoever wants the source back can put its references back.
# So take references out of the comparison: put the pretrained ones in place of the model's own, and refit what is left,
#
# ```{math}
# :label: eq-forgetting
# \epsilon = \Big\langle \Big| y - E_\theta + X (c_\theta - c_0) - X r \Big| \Big\rangle, \qquad
# r = \arg\min_r \sum \big( y - E_\theta + X(c_\theta - c_0) - X r \big)^2,
# ```
#
# with labels $y$ of the source, energies $E_\theta$ and references $c_\theta$ of the trained model, and $c_0$ of the pretrained one.
# $r$ is fitted to other materials than those it is subtracted from, of all kinds of frames together, for a model has one table of references.
# Forces need none of this: a derivative knows no references.
#
# And *where* do you measure it?
# Close to its training frames, a model may keep what it loses elsewhere.
# So the frames to judge by come in kinds, from near to far.

# %%
origin = planned.origin(seed)
parts = {"to hold on to": origin.pool} | origin.held_out
counts = {
    kind: (len(of_kind), len(np.unique(of_kind.material_ids)))
    for kind, of_kind in parts.items()
}
columns = ["source frames", "materials"]
pd.DataFrame.from_dict(counts, orient="index", columns=columns)

# %% [markdown]
# "Held-out materials" are above all those of the target's own validation and test: no step trains on them, though they are small cells like those of training.
# Labels of the validation materials in the *target* do choose which epoch is kept, for every method alike; their frames in the source are judged all the same, because those of the test alone would be few.
# "Other chemistry" holds combinations of elements that no training frame has, in structure types that training has; "other prototype" holds the structure types that it lacks, most of them with other elements as well.
# Where the data name no prototypes, a ratio of counts that training lacks ("other stoichiometry") stands in.
# Frames with large forces or stresses count as "far from equilibrium", where there are any.
#
# Source cells may be larger than the target's, for within its limit the target holds almost every material.
# A larger cell is most often of another structure type and of other elements at once, so where the data are few, as on `pbe-r2scan`, hardly a frame is of other chemistry alone: the table counts them, and a mean over so few says little.
#
# :::{admonition} Whose labels are the source's?
# :class: note
# On `pbe-r2scan` they are density-functional ones, on the same crystals as the target's.
# The pretrained model then has an error of its own in the source, before any training: it learned from another code with other pseudopotentials, on other crystals, and the refit takes out only what is linear in composition.
# Training on the target can even *lower* that error, as far as both functionals agree; what is forgotten is what a method loses against its start.
#
# On surrogate labels (`-p dataset=surrogate`) they are the pretrained model's own predictions.
# Its error before training is then zero by construction, on every kind of frames: what is measured is how far a model has moved away from its start, and a model that came closer to the real functional could not be told from one that lost it.
# Replay and two readouts are self-distillation there.
# Which of the two holds for these data is printed beside the runs.
# :::
#
# ## The methods, one equation each
#
# All start from the pretrained network with model-aware references (lesson 3), take the same steps on the same frames, and differ in one line.
# $L$ is the loss of lesson 4, $\theta^0$ the pretrained weights.
#
# | key | what it does | equation |
# |---|---|---|
# | `model-aware-trained` | nothing more | $\min_\theta L(\theta)$ |
# | `readout-only` | features stay | $\dot\theta_l = 0$ but for the readouts |
# | `soft-freezing` | slower towards the input | $\eta_l = \eta\,\gamma^{L-l}$ |
# | `lora` | thin changes | $W = W_0 + BA$, with $B$ and $A$ of rank 8 |
# | `l2-sp` | pulled to the start | $L + \frac\lambda2 \lvert\theta - \theta^0\rvert^2$ |
# | `ewc` | pulled where it matters to the source | $L + \frac\lambda2 \sum_i F_i (\theta_i - \theta^0_i)^2$ |
# | `replay` | source frames among the others | $\langle L \rangle$ over target and source |
# | `two-readouts` | a readout each, one backbone | $E^f = \sum_i g^f(h_i) + X c^f$ |
# | `delta` | a small network beside a frozen one | $E = E_0 + \Delta E_\theta$ |
# | kernel ridge | a regression beside a frozen one, no training | $E = E_0 + \sum_i a_i k(x, x_i)$ |
#
# All but the last are keys of `xf.METHODS`, for `xf.finetune` and the command line; kernel ridge takes no steps, so it is a function of the library alone, `xf.fit_frozen_model`.
#
# $F$ needs a word.
# The usual choice, the mean squared gradient of the source loss, vanishes where the model itself made the labels, as on the surrogate: no error, no gradient.
# The *Gauss-Newton* diagonal, $F_i = \langle\sum_k w_k (\partial \hat y_k/\partial\theta_i)^2\rangle$, asks instead how much predictions change when a parameter moves, and needs no labels at all.
#
# Each starts exactly where the pretrained model is, and the check is one of bits.

# %%
base = xf.load_model("0.3.0")
few = target.take(splits[seed]["train"][:8])
own = make_source(without_labels(few), base)
before = xf.predict(base, few.crystals)
for key in LATER:
    options = {"references": "pretrained", "source": own}
    model = xf.start_model(key, few, pretrained=base, **options).model
    after = xf.predict(model, few.crystals)
    for name in ("forces_ev_per_a", "magmoms_mub"):
        assert all(map(np.array_equal, before[name], after[name]))
    for name in ("energy_per_atom_ev", "stress_gpa"):
        assert np.array_equal(before[name], after[name])
print(f"{len(LATER)} methods start at the same bits")

# %% [markdown]
# How thin may a change be?
# Two published checkpoints answer that without any training: the paper's Method 4, with 50 epochs of real r²SCAN data, started from the model that we start from.
# Take the difference of their weights, layer by layer, and ask which share of it (of its squared length) the best matrix of rank 8 holds; the singular value decomposition has the answer.

# %%
share = share_of_low_rank(base, xf.load_model("r2scan"), rank=8)
ends = (100 * share.min(), 100 * share.max())
results.record("share_of_rank_8", 100 * share.median(), ends)
print(f"rank 8 holds {ends[0]:.0f} to {ends[1]:.0f} % of a layer's")
print(f"change, {100 * share.median():.0f} % in the median layer")

# %% [markdown]
# ## Training
#
# Beside these, three of the paper's: from scratch (1), and with a network that must make up the offset (3) or is given plain refitted references (4).
# A model can forget only what it knew, and what separates two codes is not the functional.
# So, as in lesson 4, where the data hold source labels that the pretrained model does not give already, every run starts from a model that was taught them on the training frames.

# %%
runs = forgetting.make_runs(planned, parameters, results_dir)
print(
    *sorted(
        {
            n
            for r in runs.values()
            if r.forgetting
            for n in r.forgetting.notes
        }
    )
)

# %% [markdown]
# Have the runs arrived?

# %% tags=["hide-input"]
Markdown(forgetting.record_arrival(results, runs))

# %% [markdown]
# ## What is gained, what is lost?

# %%
learned = forgetting.Learned(runs, target, splits, planned.beyond)
points = learned.points
means = points.drop(columns="seed").groupby("method", sort=False).mean()

# %%
in_words = "; ".join(
    f"{NAMES[k]} {row.target_energy:.0f} and {row.source_energy:.0f}"
    for k, row in means.iterrows()
)

# %%
figures.show(
    figures.gained_and_lost(points, NAMES, learned.zero),
    alt="Two scatter plots, energies and forces: error on the target's test frames against error on source frames, a point for each method and seed. "
    f"Mean energy errors, target and source, in meV/atom: {in_words}.",
    caption="Gained to the left, lost to the top: errors in target and source after training",
    name="fig-09-plane",
    dataset=ds,
)

# %% [markdown]
# Read {numref}`fig-09-plane` from its corners.
# The pretrained model with new references is where everything starts: it has lost nothing, and its forces in the target are as good as they come for free.
# A network from scratch is the opposite corner: it had nothing to lose, and where it comes near the dotted lines it knows no more of forces than that they are zero.
# A plain refit of references without any training (lesson 3) has the forces of the first corner and, because references are no part of what is forgotten, its errors in the source too: the two differ in target energies alone.
# A good method goes left without going up.
# One that goes left *and down* has learned something that is true in both functionals, which only real source labels can show.
#
# Then look at Method 3.
# Its references stay those of the source, so its network has to make up the whole offset; the refit {eq}`eq-forgetting` takes out what is linear in composition, and what remains is the damage.
# Compare that with what separates the remedies from plain training: references come first, remedies after.

# %%
learned.ranges()

# %% [markdown]
# Energies in meV/atom, forces in meV/Å, mean and range over seeds; *refitted* is the energy after a last refit of references to the training frames, which leaves what is in the network.
# Is there a method that beats Method 4 in both at once, by paired differences over materials?

# %%
Markdown(forgetting.best_in_words(learned))

# %% tags=["remove-cell"]
forgetting.record_errors(results, learned)
forgetting.record_differences(results, learned)

# %% [markdown]
# ## And what is lost in the target?
#
# The test frames of {numref}`fig-09-plane` are cells like those of training.
# A simulation meets others: structure types that no training frame has, new combinations of elements, large forces.
# Where the target labels such crystals, the same question has a harder form: is the trained model better there than the one that was not trained at all, and only got new references?
# Where it is worse, training has cost something that would have been right in the very functional it was for.
#
# Behind each error stands the verdict on its difference from no training, paired over materials.
# Volumes and bulk moduli are those of test materials that the data hold at several volumes of one cell: minimum and curvature of $E(V)$ by the model against the same fit to the labels, as the median deviation.
# A minimum outside these volumes is extrapolated, and does not count.

# %%
forgetting.record_beyond(results, learned)

# %%
Markdown(forgetting.beyond_in_words(learned))

# %% [markdown]
# A slope below 1 says that a model's forces are too small: its crystals are too soft, and vibrate too slowly.
#
# ## What do others say?
#
# Published comparisons do not agree, and few give spreads.
# One finds that of seven strategies only replay keeps what a model knew far from its training set {cite:p}`tompa2026finetuning`, another that readouts alone cannot be moved to a new functional, because the features below them are made for the old one {cite:p}`gardner2025multifidelity`.
# And the singular values above say how much of the published change a LoRA of rank 8 could hold: where that is far from all of it, it should fall short of training everything.
#
# Each of these is a difference of two errors on the same frames, with an interval from materials that are drawn again and again, widened by what seeds differ beyond that: against training everything from the *same* model-aware references, so that nothing but the remedy differs.
# What replay keeps is asked where the claim asks it, on source frames far from training: other chemistry, other prototypes, large forces, as far as every seed has such frames.

# %%
forgetting.compare_published(results, learned)

# %% [markdown]
# "Unclear" means that the interval holds zero, or that there are too few materials for one.
# A short training decides nothing about a long one; {doc}`../claims` has these verdicts beside their sources.

# %% [markdown]
# ## Where is it lost?

# %%
by_kind = learned.by_kind
from_to = "; ".join(
    f"{kind} {by_kind[kind].min():.0f} to {by_kind[kind].max():.0f}"
    for kind in by_kind
)

# %%
figures.show(
    figures.lost_by_kind(by_kind.rename(index=NAMES)),
    alt=f"Energy error in the source by method, a marker for each kind of frames, in meV/atom: {from_to}.",
    caption="What is lost near the training frames and far from them",
    name="fig-09-kinds",
    dataset=ds,
)

# %% [markdown]
# If a method holds on to what it rehearses and to nothing else, its markers in {numref}`fig-09-kinds` are far apart.
#
# ## Two atoms, close together
#
# A pair of atoms is as far from a relaxed crystal as one can get, and a simulation at high temperature goes there.
# For 74 elements there are {term}`DFT` curves in PBE and r²SCAN with one set of pseudopotentials, though not with this book: a folder named in `CROSSFUNC_DATA` has to hold them.

# %%
path = find_dimers()
if path is None:
    print("No dimer curves: no folder of CROSSFUNC_DATA has them.")
else:
    shown = {"before": forgetting.model_before(planned, runs, seed)}
    shown |= {NAMES[k]: runs[k, seed].model for k in forgetting.DIMERS_OF}
    some = forgetting.DIMER_ELEMENTS
    curves = forgetting.curves_of_dimers(path, shown, some)
    figures.show(
        figures.dimer_curves(curves),
        alt="Energy of three dimers against distance: PBE, the pretrained model, and three trained ones.",
        caption="Dimers before and after: PBE against CHGNet",
        name="fig-09-dimers",
        dataset=None,
    )

# %% [markdown]
# The same in numbers, over all dimers that there are curves of: energies after a refit to each curve in meV/atom, forces in meV/Å.

# %% tags=["hide-input"]
if len(learned.dimers):
    display(learned.dimers.style.format("{:.0f}"))
else:
    print("These runs were not asked about dimers.")

# %% [markdown]
# ## What does it cost?

# %%
cost = {
    NAMES[key]: {
        "seconds of training": np.mean(
            [runs[key, s].seconds for s in splits]
        ),
        "seconds in all": np.mean(
            [runs[key, s].seconds_in_all for s in splits]
        ),
    }
    for key in CASES
}
pd.DataFrame(cost).T.style.format("{:.1f}")

# %% [markdown]
# "In all" has the start (references, labels of source frames, the diagonal $F$) and the measuring of what was forgotten in it.
# Replay and two readouts read a source frame for every five of the target, so where a step has one frame every fifth has two; the others cost about a plain step, and `crossfunc bench train --methods` measures by how much.
#
# ## Which one, then?
#
# | you have | and want | take |
# |---|---|---|
# | any of these | anything | model-aware references first |
# | a few materials | energies of these, soon | `model-aware` without training |
# | hundreds of frames | a low target error, simply | `model-aware-trained`, early stopping |
# | the same | simulations that leave the training set | `replay`, with frames of what you will meet |
# | no source frames | to stay close to the start | `l2-sp`, `lora`, or `soft-freezing` |
# | both functionals in one model | one backbone for two | `two-readouts` |
# | a model you may not touch | a correction beside it | `delta`; drop it, and nothing was forgotten |
#
# This table follows from no result: it says what each method is *made for*, as its equation has it.
# {numref}`fig-09-plane` says how far each gets on these data, within these steps, and where the two disagree, what is measured goes first.
# And which of them could you take here? For each error the method with the lowest mean, and those that paired differences cannot tell from it. With three seeds these rule out only what is far behind in each of them:

# %%
forgetting.choices(learned).style

# %% [markdown]
# Where many share a row, the data do not choose for you: take the simplest.
#
# ## Try it yourself
#
# :::{admonition} Exercise 1
# How much of what Method 3 seems to have forgotten is only its references?
# Measure its error in the source without any refit, and compare.
# :::

# %% tags=["hide-cell"]
# Solution: errors as they come hold the offset that the network has learned; the refit takes it out.
bent = runs["3", seed]
kind, judged_by = next(iter(planned.origin(seed).held_out.items()))
raw = xf.evaluate(bent.model, judged_by)[forgetting.ENERGY]
table = bent.forgetting.table
refitted = table.loc[kind, f"{forgetting.ENERGY}_after"]
print(f"{kind}: {raw:.0f} meV/atom as it comes,")
print(f"{refitted:.0f} after a refit")
own_data.check_claim(refitted < raw, "a refit takes an offset out", ds)

# %% [markdown]
# :::{admonition} Exercise 2
# A stiffer spring lets the weights move less, so there is less to lose and less to learn.
# Train `l2-sp` with a strength a hundred times larger (`options={"strength": 0.1}`): which way does its point move in {numref}`fig-09-plane`?
# :::

# %% tags=["hide-cell"]
# Solution: towards the pretrained model; at infinite strength it is that model.
stiff = runs[forgetting.STIFF, seed]
pair = {"as above": runs["l2-sp", seed], "stiffer": stiff}
what = forgetting.ENERGY
begun = forgetting.lost(stiff.forgetting.table, what, "before")
away = {}
print(f"pretrained model: source {begun:.0f} meV/atom")
for said, run in pair.items():
    in_target = run.metrics["test"][what]
    in_source = forgetting.lost(run.forgetting.table, what)
    away[said] = abs(in_source - begun)
    print(
        f"{said}: target {in_target:.0f}, source {in_source:.0f} meV/atom"
    )
nearer = away["stiffer"] < away["as above"]
own_data.check_claim(nearer, "the stiffer spring ends nearer its start", ds)

# %% [markdown]
# ## Check yourself
#
# **1.** After fine-tuning, a model's energies in the old functional are wrong by 6 eV/atom. How much has it forgotten?
#
# :::{admonition} Answer
# :class: dropdown
# That cannot be said yet: new references alone do that, on purpose.
# Put the old ones back and refit; what is left is forgotten.
# :::
#
# **2.** Why is the empirical Fisher of EWC zero on surrogate labels?
#
# :::{admonition} Answer
# :class: dropdown
# It is the mean squared gradient of the source loss, and the pretrained model made the source labels: it has no error on them, so no gradient.
# The Gauss-Newton diagonal looks at how predictions change instead.
# :::
#
# **3.** A frozen model with a small network beside it scores badly on source frames. Has it forgotten?
#
# :::{admonition} Answer
# :class: dropdown
# No: leave the small network out, and every bit is there.
# The sum of the two is a model of the target alone.
# :::

# %% [markdown]
# ## Recap
#
# - Forgetting is what a refit of references leaves of the error in the old functional ({eq}`eq-forgetting`).
# - It depends on where one looks ({numref}`fig-09-kinds`).
# - References first: what they spare the network, no remedy has to repair ({numref}`fig-09-plane`).
# - Each remedy is one line in the same loop and starts at the pretrained model to the last bit; whether one is better in both functionals at once is a list above, not a matter of taste.
# - With real source labels the start has an error of its own, and training may lower it; on surrogate labels the source is the start itself, and the page shows distances from it.
#
# Numbers of this page:

# %%
results.save()
results.table()
