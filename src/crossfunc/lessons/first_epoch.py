"""Lesson 5's tables: what pulls at a network from each start, at which layers, and what became of the forces.

Nothing here knows how a run ends. Sentences about its outcome are formed from the numbers of every seed.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from crossfunc.energies import correlation_text
from crossfunc.lessons.results import count_seeds, listed, seed_range
from crossfunc.lessons.scores import mean_by_students_t
from crossfunc.training import finetune
from crossfunc.training.baselines import zero_errors
from crossfunc.training.gradients import NETWORK, PAPER_LAYERS, TOTAL, total_gradient
from crossfunc.training.labels import TARGETS, LabelledFrames

STARTS = {"3": "GGA references", "4": "refitted", "model-aware": "model-aware"}
"""Runs that are watched: the method, and its references in words."""

SHORT = {"3": "gga", "4": "refit", "model-aware": "aware"}
"""Ends of the keys of their results."""

_IN_WORDS = {"3": "GGA", "4": "refitted", "model-aware": "model-aware"}

FORCE, ENERGY = "validation_force_mae_mev_per_a", "validation_energy_mae_mev_per_atom"
SHOWN_LAYERS = (*PAPER_LAYERS, NETWORK)


def norms_of(records: pd.DataFrame, start: str, term: str) -> pd.Series:
    """Norm of a term's gradient by layer, seed and step."""
    chosen = (records["start"] == start) & (records["term"] == term)
    return records[chosen].set_index(["layer", "seed", "step"])["norm"]


def errors_at_start(before: Mapping[str, Mapping]) -> pd.DataFrame:
    """Energy and force errors of each start as people read them, from `evaluate` by start; a row for each."""
    shown = {"energy_mae_mev_per_atom": "energy MAE (meV/atom)", "force_mae_mev_per_a": "force MAE (meV/Å)"}
    rows = {name: {text: before[start][metric] for metric, text in shown.items()} for start, name in STARTS.items()}
    return pd.DataFrame(rows).T


def zero_force(frames: LabelledFrames, split: Mapping[str, np.ndarray]) -> float:
    """Force error of predicting zero on the validation frames, meV/Å; NaN without labels."""
    error = zero_errors(frames.take(split["validation"]))["force_mae_mev_per_a"]
    return np.nan if error is None else error


def norms_at_start(records: pd.DataFrame, term: str) -> dict[str, float]:
    """Norm of a term's gradient in the whole network at the first step, mean over seeds, by start."""
    of_starts = {start: norms_of(records, start, term).loc[NETWORK] for start in STARTS}
    return {start: float(norm.groupby("step").mean().iloc[0]) for start, norm in of_starts.items()}


def ratio_by_layer(records: pd.DataFrame, term: str = TOTAL, above: str = "3", below: str = "4") -> pd.DataFrame:
    """Gradient from one start over that from another, a row for each layer and a column for each seed.

    Geometric mean over the recorded steps, each compared at the same step of the same seed.
    """
    ratio = np.log(norms_of(records, above, term) / norms_of(records, below, term))
    per_seed = ratio[np.isfinite(ratio)].groupby(["layer", "seed"]).mean()
    per_seed = per_seed.reset_index().pivot_table("norm", "layer", "seed")
    return np.exp(per_seed).reindex(list(SHOWN_LAYERS))


def shares(records: pd.DataFrame, histories: pd.DataFrame) -> pd.DataFrame:
    """Energy's share of the loss and of the summed norms of the terms' gradients in the first epoch, %, by start."""
    in_loss = histories[histories["epoch"] == 1].groupby("start")["energy_loss_share"].mean()
    of_gradient = {}
    for start in STARTS:
        norm = {term: norms_of(records, start, term).loc[NETWORK].mean() for term in TARGETS}
        of_gradient[start] = 100 * norm["energy"] / sum(value for value in norm.values() if np.isfinite(value))
    return pd.DataFrame({"loss": 100 * in_loss, "gradient": of_gradient}).loc[list(STARTS)]


def angles(probes: Mapping[tuple[str, str], list]) -> pd.DataFrame:
    """Cosines of whole gradients, energies' and forces', by start: mean, smallest and largest over the batches.

    Parameters
    ----------
    probes : dict
        (start, kind of loss) to gradients of a few batches, from `term_gradients`; those of the Huber loss are taken.
    """
    rows = []
    for start in STARTS:
        for gradient in probes[start, "Huber"]:
            parts = {"whole": total_gradient(gradient), "energy": gradient["energy"], "forces": gradient["forces"]}
            flat = {name: flatten(part) for name, part in parts.items()}
            pairs = (("energy", "forces"), ("whole", "energy"), ("whole", "forces"))
            rows.append({"start": start} | {f"{a} and {b}": cosine(flat[a], flat[b]) for a, b in pairs})
    return pd.DataFrame(rows).groupby("start").agg(["mean", "min", "max"]).loc[list(STARTS)]


def flatten(gradient: Mapping):
    """One vector of all gradients of a network, in double precision."""
    import torch

    return torch.cat([g.flatten() for g in gradient.values()]).double()


def cosine(a, b) -> float:
    """Cosine of two vectors; NaN where one of them is zero."""
    length = float(a.norm() * b.norm())
    return float(a @ b) / length if length else float("nan")


def times_force(histories: pd.DataFrame, epoch: int) -> pd.DataFrame:
    """Validation force error after some epochs over that of the start, a row for each start, a column for each seed."""
    before, after = (histories[histories["epoch"] == e].pivot_table(FORCE, "start", "seed") for e in (0, epoch))
    times = after / before
    return times.loc[[start for start in STARTS if start in times.index]]


def outcome(histories: pd.DataFrame) -> pd.DataFrame:
    """Validation errors of energy and forces before and after training, by start, mean over seeds."""
    last = histories["epoch"].max()
    table = histories[histories["epoch"].isin([0, 1, last])].pivot_table([ENERGY, FORCE], "start", "epoch")
    table.columns = [f"{name.split('_')[1]}, epoch {epoch}" for name, epoch in table.columns]
    return table.loc[list(STARTS)].rename(index=STARTS)


# --- what is recorded ---

IN_KEYS = {
    "short": list(SHORT.values()),
    "SHORT[method]": ["gga", "refit"],
    "what": ["loss", "gradient"],
    "what.replace(' ', '_')": ["energy_and_forces", "whole_and_forces"],
}
"""What may stand in the keys that are recorded here, by the expression that puts it there."""


def record_pulls(results, pulls: pd.DataFrame) -> None:
    """Record how many frames lie on the plateau of the Huber loss, and what share of their pull does not cancel."""
    for start, short in SHORT.items():
        row = pulls.loc[STARTS[start]]
        results.record(f"saturated_{short}", 100 * row["saturated"])
        results.record(f"coherence_{short}", 100 * row["same direction"])


def record_ratios(results, ratio: pd.DataFrame) -> None:
    """Record the ratio of the whole network, and in how many layers it is above 1.

    The count's interval goes from the layers whose interval over seeds (Student's t of log ratios) lies above 1 to
    those whose interval does not lie below: a range over seeds would narrow as there are fewer of them.
    """
    of_network, repeats = ratio.loc[NETWORK], count_seeds(ratio.shape[1])
    results.record("gradient_ratio", of_network.mean(), seed_range(of_network), repeats=repeats)
    of_layers = [mean_by_students_t(np.log(ratio.loc[layer])) for layer in PAPER_LAYERS]
    n_up = sum(mean > 0 for mean, _ in of_layers)
    intervals = [ends for _, ends in of_layers if ends is not None]
    ends = (sum(low > 0 for low, _ in intervals), sum(high > 0 for _, high in intervals)) if intervals else None
    results.record("layers_with_larger_gradient", n_up, ends, repeats=repeats)


def record_shares(results, table: pd.DataFrame) -> None:
    """Record energy's share of loss and gradient."""
    for start, short in SHORT.items():
        for what in table:
            results.record(f"energy_share_of_{what}_{short}", table.loc[start, what])


def record_angles(results, table: pd.DataFrame, n_batches: int) -> None:
    """Record two angles of each start with their range over batches."""
    for start, short in SHORT.items():
        for what in ("energy and forces", "whole and forces"):
            mean, low, high = table.loc[start, what][["mean", "min", "max"]]
            ends = (low, high) if n_batches > 1 else None
            results.record(f"cosine_{what.replace(' ', '_')}_{short}", mean, ends, n=n_batches)


def record_forces(results, histories: pd.DataFrame) -> None:
    """Record what the first epoch and all epochs did to the forces, with the range over seeds."""
    first, last = times_force(histories, 1), times_force(histories, histories["epoch"].max())
    n_seeds, n_epochs = first.shape[1], int(histories["epoch"].max())
    repeats = count_seeds(n_seeds)
    for start, short in SHORT.items():
        change, after = 100 * (first.loc[start] - 1), last.loc[start]
        results.record(f"force_change_{short}", change.mean(), seed_range(change), repeats=repeats)
        results.record(
            f"force_after_epochs_{short}", after.mean(), seed_range(after), repeats=repeats, n_epochs=n_epochs
        )


def record_from_published(
    results,
    low: LabelledFrames | None,
    frames: LabelledFrames,
    split: Mapping[str, np.ndarray],
    parameters: Mapping,
    pretrained="0.3.0",
) -> str:
    """Train Methods 3 and 4 from the published model as it comes, record what becomes of its forces, and say it.

    Parameters
    ----------
    results : LessonResults
    low : LabelledFrames or None
        Labels that the lesson's own start was taught; None where that start is the published model already.
    frames : LabelledFrames
    split : dict of str to ndarray
    parameters : mapping
        `seed`, `n_seeds`, `n_epochs`, `batch_size` and `learning_rate`.
    pretrained : str or CHGNet
        The published model.

    Returns
    -------
    str
        A sentence; nothing is trained where `low` is None.
    """
    if low is None:
        return "These runs start from the published model as it comes already: there was nothing to teach it."
    first, n_seeds, n_epochs = (parameters[key] for key in ("seed", "n_seeds", "n_epochs"))
    options = {key: parameters[key] for key in ("n_epochs", "batch_size", "learning_rate")}
    options |= {"split": split, "pretrained": pretrained, "progress": False}
    runs = {(m, k): finetune(m, frames, seed=k, **options) for m in "34" for k in range(first, first + n_seeds)}
    histories = pd.concat([run.history.assign(start=m, seed=k) for (m, k), run in runs.items()])
    times, before = times_force(histories, n_epochs), histories.loc[histories["epoch"] == 0, FORCE].mean()
    for method in "34":
        of_seeds, notes = times.loc[method], {"repeats": count_seeds(n_seeds), "n_epochs": n_epochs}
        results.record(f"force_after_epochs_{SHORT[method]}_published", of_seeds.mean(), seed_range(of_seeds), **notes)
    said = [f"{times.loc[m].mean():.2f} with {_IN_WORDS[m]}{_in_brackets(times.loc[m])}" for m in "34"]
    no_verdict = f" {_CHANCE.format(_too_few(n_seeds))}" if n_seeds < FEWEST_SEEDS else ""
    return (
        f"From the published model, whose force error on these frames is {before:.0f} meV/Å before any training, force "
        f"error after {n_epochs} epochs over that before: {listed(said)} references.{no_verdict}"
    )


# --- in words ---


def pulls_in_words(pulls: pd.DataFrame) -> str:
    """Say how many frames each refit leaves on the plateau, and what of the pull cancels."""
    rows = {words: pulls.loc[STARTS[start]] for start, words in _IN_WORDS.items()}
    on_plateau = [f"{row['saturated']:.0%} with {words}" for words, row in rows.items()]
    cancels = [f"{1 - row['same direction']:.0%} with {words}" for words, row in rows.items()]
    return (
        f"On the plateau lie {listed(on_plateau)} references. Of the pull of all frames together, {listed(cancels)} "
        "references cancels."
    )


def layers_in_words(ratio: pd.DataFrame) -> str:
    """Say in how many layers the gradient is larger without a refit, and where most and least."""
    layers = ratio.loc[list(PAPER_LAYERS)]
    mean = np.exp(np.log(layers).mean(axis=1)).sort_values(ascending=False)  # half and double are as far from equal
    n_up, n_always = int((mean > 1).sum()), int((layers.min(axis=1) > 1).sum())
    most, least = (f"in `{mean.index[k]}` ({mean.iloc[k]:.2f} times)" for k in (0, -1))
    always = "" if layers.shape[1] == 1 else f", in {n_always} of them for every seed"
    return (
        f"Without a refit the gradient of the whole network is {ratio.loc[NETWORK].mean():.2f} times that with one. It "
        f"is larger in {n_up} of the {len(layers)} layers{always}: most {most}, least {least}."
    )


def cosine_text(value: float) -> str:
    """Return a cosine as "+0.32", with more digits where it would read as 1 and is not."""
    return correlation_text(value, 2, sign=True)


def angles_in_words(table: pd.DataFrame) -> str:
    """Say what the angles at the start are, and whether any batch has energy and forces opposed."""
    cosines = table["whole and forces", "mean"]
    said = [f"{cosine_text(cosines[s])} with {words}" for s, words in _IN_WORDS.items()]
    opposed = [words for s, words in _IN_WORDS.items() if table.loc[s, ("energy and forces", "max")] < 0]
    both = (
        f"Energy and forces oppose each other in every batch with {listed(opposed)} references"
        if opposed
        else "From no start do energy and forces oppose each other in every batch"
    )
    return f"{both}. The cosine of the whole gradient with that of the forces is {listed(said)} references."


def course_in_words(histories: pd.DataFrame) -> str:
    """Say what the first epoch and what all epochs did to the forces, with a verdict where there are seeds enough."""
    last = int(histories["epoch"].max())
    lines = []
    for epoch, when in ((1, "After the first epoch"), *([(last, f"After {last} epochs")] if last > 1 else [])):
        times = times_force(histories, epoch)
        said = [f"{times.loc[s].mean():.2f} with {w}{_in_brackets(times.loc[s])}" for s, w in _IN_WORDS.items()]
        lines.append(f"- {when}, force error over that before training: {listed(said)} references.")
    if (n_seeds := times.shape[1]) < FEWEST_SEEDS:
        lines.append(f"- {_CHANCE.format(_too_few(n_seeds))}")
    return "\n".join(lines)


def window_in_words(histories: pd.DataFrame) -> str:
    """Say whether later epochs turned what the first one did to forces without new references, and in how many steps.

    Where forces still gain at the end of the window, nothing is known of what comes behind it, and that is said. With
    fewer than `FEWEST_SEEDS` seeds, how many times as large the force error became stands in place of a verdict.
    """
    last, steps = int(histories["epoch"].max()), histories.groupby("epoch")["step"].max()
    if last == 1:
        return f"One epoch ({steps[1]} steps) was watched; what comes after it is not shown here."
    of_both = [times_force(histories, epoch).loc["3"] for epoch in (1, last)]
    if len(of_both[0]) < FEWEST_SEEDS:
        early, late = (f"{times.mean():.2f} times the error" for times in of_both)
        what = f"{_too_few(len(of_both[0]))} cannot tell what an offset does to the forces."
    else:
        early, late = map(_against_one, of_both)
        what = _TURNS.get(f"{early.split()[0]}, {late.split()[0]}", _NO_VERDICT)
    after_first, after_all = f"the first epoch ({steps[1]} steps)", f"{last} epochs ({steps[last]} steps)"
    return (
        f"Forces of the run without new references, beside those before training: {early} after {after_first}, {late} "
        f"after {after_all}. {what}"
    )


_ENDS_EARLY = "This window ends before any harm to the forces; whether more steps bring it, it does not say."
_NO_VERDICT = "With seeds that disagree, this window does not say what an offset does to the forces."
_TURNS = {
    "better, worse": "Who stops watching after the first epoch will say that an offset does no harm: it comes later.",
    "worse, worse": "The harm is there after one epoch, and the later ones do not make it good.",
    "seeds, worse": "The harm is not clear after one epoch, it is after all.",
    "better, better": _ENDS_EARLY,
    "worse, better": "What the first epoch did to the forces, the later ones made good.",
    "seeds, better": "What the first epoch did to the forces of some seeds, the later ones made good.",
}
"""What follows from the first words of the verdicts after one epoch and after all of them."""


def answer_in_words(histories: pd.DataFrame) -> str:
    """Answer the title: whether forces end better with new references or without, from the runs that were watched.

    No answer with fewer than `FEWEST_SEEDS` seeds.
    """
    last = int(histories["epoch"].max())
    times = times_force(histories, last)
    if (n_seeds := times.shape[1]) < FEWEST_SEEDS:
        return (
            f"So {_too_few(n_seeds).lower()} cannot tell whether forces of the run without new references are better "
            f"or worse after {last} epochs than with {_IN_WORDS['4']} or {_IN_WORDS['model-aware']} ones."
        )
    said = []
    for start in ("4", "model-aware"):
        above, below = (times.loc["3"] > times.loc[start]).all(), (times.loc["3"] < times.loc[start]).all()
        what = "worse than" if above else "better than" if below else "no clear verdict beside"
        said.append(f"{what} with {_IN_WORDS[start]} references")
    return (
        f"So after {last} epochs, forces of the run without new references are {listed(said)}, where a verdict is one "
        "that all seeds share."
    )


FEWEST_SEEDS = 3
"""With fewer seeds no verdict is given: one of them always agrees with itself, and two agree by chance half the time.
"""

_CHANCE = "{} cannot tell which of these changes are more than chance."


def _too_few(n_seeds: int) -> str:
    """Say how many seeds there are, as a sentence about too few of them begins."""
    return {1: "One seed", 2: "Two seeds"}[n_seeds]


def _in_brackets(values: pd.Series) -> str:
    """The verdict of all seeds, to stand behind a number; nothing where there are too few seeds for one."""
    return "" if len(values) < FEWEST_SEEDS else f" ({_against_one(values)})"


def _against_one(values: pd.Series) -> str:
    if (values > 1).all():
        return "worse for every seed"
    if (values < 1).all():
        return "better for every seed"
    return "seeds disagree"
