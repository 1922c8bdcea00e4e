"""What training has cost: errors in the functional that a model comes from, before and after.

References are taken out of the comparison. Moving a model from one functional to another changes its references by
eV/atom on purpose, and anyone who wants the old functional back can put the old ones back. What counts as forgotten is
what is wrong after an optimal refit of references.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from crossfunc.datasets import Dataset, open_dataset, split_by_material
from crossfunc.energies import fit_atomref
from crossfunc.errors import InputError
from crossfunc.potential.checkpoints import element_references
from crossfunc.symbols import N_ELEMENTS
from crossfunc.training.baselines import frame_errors, slope_and_cosine, zero_errors
from crossfunc.training.dimers import find_dimers, read_dimers
from crossfunc.training.evaluate import FramePredictions, predict_frames
from crossfunc.training.labels import LabelledFrames
from crossfunc.training.source import FORMS, KINDS, has_labels, label_with_model, split_source

if TYPE_CHECKING:
    import pandas as pd

DIMERS = "dimers"
_N_FOLDS = 5
_RIDGE = 1e-3  # in materials: enough for elements that come in one ratio only, and no bias where eV are refitted
_OWN_LABELS_MEV = 1e-2  # an error below this is rounding: the labels are the starting model's
_MAX_FRAMES = 256  # of each kind, drawn by the seed; enough for a mean absolute error to a few per cent
_DIGITS_OF_FRAMES = 4  # of meV, where the error of every frame is kept
COLUMNS = ("energy_mae_mev_per_atom", "force_mae_mev_per_a", "stress_mae_gpa", "magmom_mae_mub")
"""Errors that the table has before (`..._before`) and after training (`..._after`)."""

COUNTS = {COLUMNS[0]: "n_energies", COLUMNS[1]: "n_force_components"}
"""How many labels an error is the mean of, in the table and in the errors of frames: its weight in any further mean."""


@dataclass(frozen=True, eq=False)
class Forgetting:
    """Errors in the source functional before and after training.

    Attributes
    ----------
    table : pandas.DataFrame
        One row per kind of frames (see `crossfunc.training.source.KINDS`, and "dimers"): `n_frames`, `n_materials`,
        `n_energies` and `n_force_components` (labels), `labels` ("data" or "starting model"), each of `COLUMNS` with
        `_before` and `_after`, the force error of predicting none (`_zero`), and `force_slope_after`,
        `force_cosine_after`: of predicted against labelled forces, 1 where nothing is forgotten.
    notes : tuple of str
        Which kinds are not there, and which cannot show more than a distance from the starting model.
    frame_errors : pandas.DataFrame or None
        Errors after training of every frame, to be drawn again by material: `kind`, `material_id`, of `COLUMNS` the
        energy (refitted, as in the table) and the force, and how many labels each is the mean of (`COUNTS`). None where
        a file keeps means alone.
    """

    table: "pd.DataFrame"
    notes: tuple[str, ...]
    frame_errors: "pd.DataFrame | None" = None

    def to_dict(self, *, with_frames: bool = False) -> dict:
        """Return plain values; None for what has no labels. With `with_frames` also the errors of every frame."""
        table = self.table.astype(object).where(self.table.notna(), None)
        rows = {str(kind): {k: _plain(v) for k, v in row.items()} for kind, row in table.iterrows()}
        plain = {"kinds": rows, "notes": list(self.notes)}
        if not with_frames or self.frame_errors is None:
            return plain
        each = self.frame_errors.round(_DIGITS_OF_FRAMES).astype(object).where(self.frame_errors.notna(), None)
        return plain | {"frames": each.to_dict("list")}

    @classmethod
    def from_dict(cls, given: Mapping) -> "Forgetting":
        """Build it back from plain values.

        Raises
        ------
        InputError
            Values of a version that did not count labels: their means over kinds or frames could not be told.
        """
        import pandas as pd

        if not cls.is_counted(given):
            raise InputError(
                "what was forgotten: these values are of an earlier version, which kept no counts of labels; delete "
                "the file that holds them to measure again."
            )
        table = pd.DataFrame.from_dict(given["kinds"], orient="index")
        numeric = [column for column in table.columns if column != "labels"]
        table[numeric] = table[numeric].apply(pd.to_numeric)
        each = given.get("frames") and pd.DataFrame(given["frames"]).astype(dict.fromkeys(COLUMNS[:2], float))
        return cls(table, tuple(given["notes"]), each)

    @staticmethod
    def is_counted(given: Mapping) -> bool:
        """Whether plain values hold how many labels each error is the mean of."""
        counted = [given.get("frames"), *given["kinds"].values()]
        return all(values is None or set(COUNTS.values()) <= set(values) for values in counted)

    def report(self) -> str:
        """Return it as text."""
        shown = {
            "n_frames": "frames",
            "energy_mae_mev_per_atom": "E meV/atom",
            "force_mae_mev_per_a": "F meV/Å",
            "stress_mae_gpa": "S GPa",
        }
        columns = {"n_frames": "frames", "labels": "labels"}
        columns |= {f"{c}_{w}": f"{n} {w}" for c, n in list(shown.items())[1:] for w in ("before", "after")}
        columns["force_slope_after"] = "F slope"
        table = self.table[list(columns)].rename(columns=columns)
        text = table.to_string(float_format="{:.4g}".format, na_rep="-") if len(table) else "no source frames"
        return "\n".join(["source functional, after a refit of references:", text, *self.notes])


def forgetting(
    model,
    dataset,
    *,
    start="0.3.0",
    functional: str | None = None,
    source="auto",
    split_seed: int = 0,
    max_frames: int = _MAX_FRAMES,
    progress: bool = False,
) -> Forgetting:
    """What a model has forgotten of the functional that it comes from, on frames that it was not trained on.

    Parameters
    ----------
    model : CHGNet
        Trained on `dataset` with the 8:1:1 split by material of `split_seed`, as `finetune` does by default.
    dataset : Dataset, str, path or LabelledFrames
    start : str, path or CHGNet
        The model before training.
    functional : str, optional
        What it was trained on; by default what `finetune` trains on.
    source : LabelledFrames, Dataset, str or path
        See `finetune`.
    split_seed : int
    max_frames : int
        Frames of each kind at most.
    progress : bool

    Returns
    -------
    Forgetting
        See `measure_forgetting`.
    """
    from crossfunc.training.methods import as_model

    frames = dataset
    if not isinstance(dataset, LabelledFrames):
        dataset = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
        frames = LabelledFrames.from_dataset(dataset, functional or "high")
    parts = split_by_material(frames.material_ids, seed=split_seed)
    given = None if isinstance(source, str) and source == "auto" else source
    found = split_source(given, dataset, functional, frames, parts, seed=split_seed)
    held_out = with_dimers(found.held_out)
    return measure_forgetting(
        model, as_model(start), held_out, max_frames=max_frames, seed=split_seed, progress=progress
    )


def with_dimers(held_out: Mapping[str, LabelledFrames]) -> dict[str, LabelledFrames]:
    """Add the curves of dimers where `CROSSFUNC_DATA` has them."""
    path = find_dimers()
    return dict(held_out) | ({DIMERS: read_dimers(path)} if path else {})


def measure_forgetting(
    model,
    start,
    held_out: Mapping[str, LabelledFrames],
    *,
    max_frames: int = _MAX_FRAMES,
    seed: int = 0,
    progress: bool = False,
) -> Forgetting:
    r"""Errors of a model in the functional that its starting model was trained on, beside those of the latter.

    Parameters
    ----------
    model : CHGNet
        After training.
    start : CHGNet
        Before it, with the references of the source functional.
    held_out : mapping of str to LabelledFrames
        Kind to frames of the source functional, as `split_source` finds them; "dimers" from `read_dimers`. Frames
        without forces among their labels are labelled by `start`.
    max_frames : int
        Frames of each kind at most, drawn at random.
    seed : int
    progress : bool
        Show bars.

    Returns
    -------
    Forgetting

    Notes
    -----
    The energy error of a model with references c, on labels y, is that of :math:`y - E + X (c - c_0) - X r`: the
    starting model's references :math:`c_0` in place of its own, then a refit r. r is fitted to the residuals of the
    other four fifths of the materials, so an error cannot be fitted away where it is measured (elements that these do
    not have move by the mean). It is one refit for all kinds, as a model has one table of references: a kind of few
    materials could not fix its own. Frames far from equilibrium take it without a part in it. For dimers, one element
    each, r is fitted to the curve itself, which leaves its shape. Forces, stresses and moments know nothing of
    references.
    """
    import pandas as pd

    rows, notes, each = {}, [], []
    seen: dict[str, dict[str, FramePredictions]] = {}
    is_own: dict[str, bool] = {}
    for kind, all_frames in held_out.items():
        frames = all_frames.take(_draw(all_frames, max_frames, seed))
        is_own[kind] = not has_labels(frames)
        frames = label_with_model(start, _with_graph(frames)) if is_own[kind] else frames
        models = {"before": start, "after": model}
        seen[kind] = {when: predict_frames(m, frames, progress=progress) for when, m in models.items()}
    energies = {when: _energy_errors(seen, when, is_own, start, m, seed) for when, m in models.items()} if seen else {}
    for kind, predictions in seen.items():
        before, after = predictions["before"], predictions["after"]
        errors, of_frames = {}, {}
        for when, predicted in predictions.items():
            of_frames[when] = energies[when][kind]
            errors[when] = predicted.metrics()
            if not np.isnan(of_frames[when]).all():
                errors[when] |= {COLUMNS[0]: float(np.nanmean(of_frames[when]))}
        columns = {COLUMNS[0]: of_frames["after"], COLUMNS[1]: frame_errors(after, "forces")}
        labels = after.frames.label_counts
        counts = dict(zip(COUNTS.values(), (labels["energy"], labels["forces"]), strict=True))
        columns |= counts
        each.append(pd.DataFrame({"kind": kind, "material_id": after.frames.material_ids, **columns}))
        same = is_own[kind] or (errors["before"][COLUMNS[0]] or 0) < _OWN_LABELS_MEV
        row: dict[str, object] = {
            "n_frames": len(before.frames),
            "n_materials": len(np.unique(before.frames.material_ids)),
            **{name: int(count.sum()) for name, count in counts.items()},
            "labels": "starting model" if same else "data",
        }
        row |= {f"{name}_{when}": errors[when][name] for name in COLUMNS for when in ("before", "after")}
        row[f"{COLUMNS[1]}_zero"] = zero_errors(after.frames)[COLUMNS[1]]
        rows[kind] = row | dict(zip(("force_slope_after", "force_cosine_after"), slope_and_cosine(after), strict=True))
    notes += _note_own_labels(rows)
    told = FORMS if rows.keys() & set(FORMS) else ()  # by one of them: the other is not asked
    absent = [kind for kind in (*KINDS, DIMERS) if kind not in rows and kind not in told]
    if absent:
        notes.append(f"No source frames of these kinds: {', '.join(absent)}.")
    of_all = pd.concat(each, ignore_index=True) if each else None
    return Forgetting(pd.DataFrame.from_dict(rows, orient="index"), tuple(notes), of_all)


def _note_own_labels(rows: dict) -> list[str]:
    own = [kind for kind, row in rows.items() if row["labels"] == "starting model"]
    if not own:
        return []
    return [
        f"Degenerate: {', '.join(own)} carry the starting model's own labels, so its errors there are zero before "
        "training by construction; those after it are a distance from that model, not an error against a functional."
    ]


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value


def _draw(frames: LabelledFrames, max_frames: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng([seed, len(frames)]).permutation(len(frames))[:max_frames])


def _with_graph(frames: LabelledFrames) -> LabelledFrames:
    """Leave out frames that CHGNet has no graph for; `predict_frames` lists them where there are labels."""
    from crossfunc.potential.graphs import build_graphs

    refused: dict[int, str] = {}
    for _ in build_graphs(frames.crystals, refused=refused):
        pass
    return frames.take(np.setdiff1d(np.arange(len(frames)), list(refused)))


def _energy_errors(seen: Mapping, when: str, is_own: Mapping[str, bool], start, model, seed: int) -> dict:
    """Absolute energy errors of the frames of each kind after the refit, meV/atom; NaN without a label."""
    from scipy.sparse import vstack

    start_ev, own_ev = (np.nan_to_num(element_references(m)) for m in (start, model))
    found = {}
    for together in _refitted_together(seen, is_own):
        parts = [seen[kind][when] for kind in together]
        rows = [np.flatnonzero(part.frames.labelled("energy")) for part in parts]
        X = vstack([part.frames.composition[k] for part, k in zip(parts, rows, strict=True)]).tocsr()
        left = np.concatenate(
            [(p.frames.energy_per_atom_ev - p.energy_per_atom_ev)[k] for p, k in zip(parts, rows, strict=True)]
        )
        ids = np.concatenate([part.frames.material_ids[k] for part, k in zip(parts, rows, strict=True)])
        is_far = np.repeat([kind == KINDS[-1] for kind in together], [len(k) for k in rows])
        left = left + X @ (own_ev - start_ev)
        if len(left):
            left = left - _refitted(X, left, ids, ~is_far, within=together == [DIMERS], seed=seed)
        ends = np.cumsum([len(k) for k in rows])[:-1]
        for kind, part, k, errors in zip(together, parts, rows, np.split(left, ends), strict=True):
            found[kind] = np.full(len(part.frames), np.nan)
            found[kind][k] = 1000 * np.abs(errors)
    return found


def _refitted_together(seen: Mapping, is_own: Mapping[str, bool]) -> list[list[str]]:
    """Kinds that one refit is for: dimers alone, and no labels of the starting model among those of a dataset."""
    others = [kind for kind in seen if kind != DIMERS]
    groups = [[DIMERS] if DIMERS in seen else [], *([k for k in others if is_own[k] is own] for own in (False, True))]
    return [group for group in groups if group]


def _refitted(X, left: np.ndarray, material_ids, is_fitted_to=None, *, within: bool, seed: int) -> np.ndarray:
    """What a refit of references takes out of residuals: fitted to other materials, or `within` to these.

    Of other materials, those rows alone that are to be fitted to, or all where there are none.
    """
    if within:
        return X @ _fit(X, left, material_ids, ridge=0.0)
    materials, group = np.unique(material_ids, return_inverse=True)
    fold = np.random.default_rng([seed, len(materials)]).permutation(len(materials)) % _N_FOLDS
    taken = np.zeros(len(left))
    for k in range(fold.max() + 1):
        here = fold[group] == k
        rest = ~here if is_fitted_to is None or not (~here & is_fitted_to).any() else ~here & is_fitted_to
        if rest.any():
            taken[here] = X[here] @ _fit(X[rest], left[rest], material_ids[rest], ridge=_RIDGE)
    return taken


def _fit(X, left: np.ndarray, material_ids: np.ndarray, *, ridge: float) -> np.ndarray:
    prior = np.full(N_ELEMENTS, left.mean())  # a shift common to all elements goes for those not seen too
    fitted = fit_atomref(X, left, material_ids=material_ids, ridge=ridge, prior=prior).energies_ev
    return np.where(np.isnan(fitted), prior, fitted)
