"""Are the forecasts of `advise` right? Errors predicted from an eighth of the materials, against what came out.

Every case is somebody with few materials: learning curves of these alone, a forecast for eight times as many, and then
the stand-in fitted to eight times as many, judged on materials that neither had. What a forecast needs from elsewhere,
exponents and the conformal factor, is learnt on the other datasets. With pilots the same is asked of training itself:
the forecast is corrected by short fine-tunings of the few, and what comes out is a fine-tuning on eight times as many.
"""

from dataclasses import asdict, dataclass

import numpy as np

from crossfunc.advice.curves import HELD_OUT, MIN_MATERIALS, energy_task, force_task, halvings, learning_curve
from crossfunc.advice.forecast import LEVEL, Calibration, SeenCurve, calibrate, fit_forecast
from crossfunc.advice.pilots import run_pilot, trained_error
from crossfunc.bench.progress import tell
from crossfunc.datasets import Dataset, dataset_fingerprint, open_dataset
from crossfunc.energies import published_atomref
from crossfunc.energies.priors import published_shift
from crossfunc.energies.published import published_tables_apply
from crossfunc.symbols import ATOMIC_NUMBERS
from crossfunc.training.labels import LabelledFrames

DATASETS = ("pbe-r2scan", "surrogate", "surrogate-sevennet")
AHEAD = 8
MOST = (64, 512)
"""Materials ahead, where there are so many: from pilots of ten and of eighty materials."""
FEWEST_JUDGED, MOST_JUDGED = 12, 500
N_PILOTS = 3
N_DRAWS, N_TRUTHS = 6, 2
TRAINED_FROM, N_TRAINED_PILOTS, MOST_JUDGED_TRAINED = (8,), 6, 60
"""Training materials of the pilots whose forecast is held against training, pilots of each size, materials judged."""
CHEMISTRIES = {"oxides": ("O",), "halides": ("F", "Cl", "Br", "I"), "chalcogenides": ("S", "Se", "Te")}
TARGETS = {
    "model": "what CHGNet 0.3.0 leaves of the high functional's energies, after references",
    "difference": "energy of the high functional minus that of the low one, after references",
    "labels": "energies of the high functional after references, without the model's own",
    "forces": "forces of the high functional",
}


@dataclass(frozen=True)
class Case:
    """One forecast and what came out."""

    dataset: str
    target: str
    materials: str
    pilot: int
    seen: SeenCurve
    n: int
    found: float
    n_judged: int
    unit: str


def run(datasets=DATASETS, checkpoint: str = "0.3.0", seed: int = 0, pilot_epochs: int = 0) -> dict:
    """Make every case, and judge the forecasts of each dataset with what the others teach.

    Parameters
    ----------
    datasets : sequence of str
        Those that open here; two at least.
    checkpoint : str
        CHGNet whose features and predictions are used.
    seed : int
        Seed of pilots and draws.
    pilot_epochs : int
        Hold forecasts against training, too, with fine-tunings of so many epochs; 0: do not.

    Returns
    -------
    dict
        `cases` (seen, forecast, found, whether it lies in the interval), `coverage` by dataset, target and altogether,
        `calibration` (learnt on all datasets) and `calibration_without` (on all others), `level`, `ahead`; with pilots
        `trained`, from `judge_trained`.
    """
    cases, trained = [], []
    for name in datasets:
        dataset = open_dataset(name)
        tasks = tasks_of(dataset, checkpoint)
        for target, task in tasks.items():
            made = list(cases_of(name, target, task, groups_of(dataset), seed=seed))
            tell(f"{name}, {target}: {len(made)} cases")
            cases += made
        if pilot_epochs:
            trained += trained_cases(dataset, tasks["model"], checkpoint, n_epochs=pilot_epochs, seed=seed)
    report = judge(cases)
    if pilot_epochs:
        learnt = {name: Calibration(**values) for name, values in report["calibration_without"].items()}
        report["trained"] = judge_trained(trained, learnt)
    return report | {"datasets": {name: dataset_fingerprint(name) for name in datasets}, "targets": TARGETS}


def trained_cases(dataset: Dataset, task, checkpoint: str = "0.3.0", *, n_epochs: int, seed: int = 0) -> list[dict]:
    """Pilots of a few materials, and what the same training comes to with eight times as many.

    Returns
    -------
    list of dict
        `dataset`, `draw`, `seen` (a `SeenCurve`), `pilot` (a `Pilot`), `n` and `found`, meV/atom.
    """
    from crossfunc.potential import load_model

    model, frames = load_model(checkpoint), LabelledFrames.from_dataset(dataset, "high")
    names, cases = np.unique(task.material_ids), []
    for n_seen in (n for n in TRAINED_FROM if AHEAD * n <= len(names) - FEWEST_JUDGED):
        n_pilot, n = round(n_seen / (1 - HELD_OUT)), AHEAD * n_seen
        for draw in range(N_TRAINED_PILOTS):
            order = np.random.default_rng([seed, draw, n_seen]).permutation(names)
            seen = learning_curve(task, order[:n_pilot], halvings(n_pilot), n_draws=N_DRAWS, seed=seed).seen
            pilot = run_pilot(model, frames, task, order[:n_pilot], n_epochs=n_epochs, seed=seed)
            held = order[n:][:MOST_JUDGED_TRAINED]
            found, *_ = trained_error(model, frames, task, order[:n], held, n_epochs=n_epochs, seed=seed)
            cases.append({"dataset": dataset.name, "draw": draw, "seen": seen, "pilot": pilot, "n": n, "found": found})
        tell(f"{dataset.name}: training on {n} materials, forecast from {n_pilot}")
    return cases


def judge_trained(cases: list[dict], calibrations: dict[str, Calibration]) -> dict:
    """Hold forecasts against training, with the pilots' ratio and without it.

    Parameters
    ----------
    cases : list of dict
        From `trained_cases`.
    calibrations : dict of str to Calibration
        By dataset, learnt on others.

    Returns
    -------
    dict
        `cases`, and `coverage` of the forecasts as they are (`stand-in`) and as pilots correct them (`corrected`), by
        dataset and altogether, with how far the middles are off: the median of found over forecast.
    """
    rows = []
    for case in cases:
        seen, pilot = case["seen"], case["pilot"]
        ends = fit_forecast(seen, calibrations[case["dataset"]]).at(case["n"])
        row = {"dataset": case["dataset"], "draw": case["draw"], "n_pilot": seen.n_materials, "n": case["n"]}
        row |= {"ratio": pilot.ratio, "found": case["found"], "unit": "meV/atom", "pilot": pilot.to_dict()}
        for kind, ratio in (("stand-in", 1.0), ("corrected", pilot.ratio)):
            middle, low, high = (ratio * value for value in ends)
            inside = bool(low <= case["found"] <= high)
            row[kind] = {"forecast": middle, "low": low, "high": high, "inside": inside}
        rows.append(row)
    return {"cases": rows, "n_epochs": cases[0]["pilot"].n_epochs, "coverage": _trained_coverage(rows)}


def _trained_coverage(rows: list[dict]) -> dict:
    groups = {"altogether": rows}
    groups |= {name: [r for r in rows if r["dataset"] == name] for name in dict.fromkeys(r["dataset"] for r in rows)}
    return {
        name: {
            kind: {
                "n_cases": len(some),
                "n_inside": sum(row[kind]["inside"] for row in some),
                "share_inside": sum(row[kind]["inside"] for row in some) / len(some),
                "found_over_forecast": float(np.median([row["found"] / row[kind]["forecast"] for row in some])),
            }
            for kind in ("stand-in", "corrected")
        }
        for name, some in groups.items()
    }


def tasks_of(dataset: Dataset, checkpoint: str = "0.3.0") -> dict:
    """What is forecast for a dataset, by the names of `TARGETS`."""
    from crossfunc.potential import crystal_features, load_model, predict

    model = load_model(checkpoint)
    high, low = (LabelledFrames.from_dataset(dataset, side) for side in ("high", "low"))
    features = crystal_features(model, high.crystals)
    predicted = predict(model, high.crystals, derivatives=False)["energy_per_atom_ev"]
    labels = high.energy_per_atom_ev
    shift = reference = None
    if published_tables_apply(dataset):
        shift = published_shift().shift_ev
        reference = np.nan_to_num(published_atomref("MP-r2SCAN").energies_ev)
    given = {
        "model": (labels - predicted, shift),
        "difference": (labels - _low_energies(dataset, high, low), shift),
        "labels": (labels, reference),
    }
    tasks = {
        name: energy_task(features, high.composition, residual, high.material_ids, prior)
        for name, (residual, prior) in given.items()
    }
    return tasks | {"forces": force_task(model, high)}


def _low_energies(dataset: Dataset, high: LabelledFrames, low: LabelledFrames) -> np.ndarray:
    """Energy of the low functional of each high frame: of the same crystal, else of the material relaxed with it."""
    same = {str(name).rpartition("/")[0]: e for name, e in zip(low.frame_ids, low.energy_per_atom_ev, strict=True)}
    found = np.array([same.get(str(name).rpartition("/")[0], np.nan) for name in high.frame_ids])
    own = dataset.need_pairs().set_index("material_id")[dataset.functional("low").column()]
    return np.where(np.isfinite(found), found, own.reindex(high.material_ids).to_numpy())


def groups_of(dataset: Dataset) -> dict[str, set[str]]:
    """Materials of a dataset by chemistry, and all of them."""
    frames = dataset.need_frames().select(["material_id", "atomic_numbers"]).to_pandas()
    first = frames.drop_duplicates("material_id")
    holds = {name: set(numbers) for name, numbers in zip(first["material_id"], first["atomic_numbers"], strict=True)}
    groups = {"all": set(holds)}
    for name, symbols in CHEMISTRIES.items():
        wanted = {ATOMIC_NUMBERS[symbol] for symbol in symbols}
        groups[name] = {material for material, numbers in holds.items() if numbers & wanted}
    return groups


def cases_of(dataset: str, target: str, task, groups: dict[str, set[str]], *, seed: int = 0):
    """Cases of one target: pilots of each group that is large enough, three of all materials and one of a chemistry."""
    for group, members in groups.items():
        names = np.array(sorted(set(np.unique(task.material_ids)) & members))
        most = len(names) - max(FEWEST_JUDGED, round(0.2 * len(names)))
        sizes = sorted({min(n, most) // AHEAD for n in MOST})
        # Two pilots of nearly one size would be one case counted twice.
        for n_seen in [n for n in sizes if n == sizes[-1] or 2 * n <= sizes[-1]]:
            n_pilot = round(n_seen / (1 - HELD_OUT))
            if n_pilot < MIN_MATERIALS + 1:
                continue
            for pilot in range(N_PILOTS if group == "all" else 1):
                order = np.random.default_rng([seed, pilot, n_seen]).permutation(names)
                yield _case((dataset, target, group, pilot), task, order[:n_pilot], order[n_pilot:], seed)


def _case(named: tuple[str, str, str, int], task, mine: np.ndarray, others: np.ndarray, seed: int) -> Case:
    """Forecast from a pilot, and what came out with eight times as many materials, the pilot's among them."""
    seen = learning_curve(task, mine, halvings(len(mine)), n_draws=N_DRAWS, seed=seed).seen
    n = AHEAD * seen.n
    n_more = n - len(mine)
    errors = []
    for draw in range(N_TRUTHS):
        rest = np.random.default_rng([seed, named[-1], draw]).permutation(others)
        errors.append(task.errors(np.r_[mine, rest[:n_more]], rest[n_more:][:MOST_JUDGED], seed).mean())
    return Case(*named, seen, n, float(np.mean(errors)), min(MOST_JUDGED, len(others) - n_more), task.unit)


def judge(cases: list[Case]) -> dict:
    """Forecast every case with what the other datasets teach, and count how many lie in their interval."""
    names = list(dict.fromkeys(case.dataset for case in cases))
    without = {name: _learn([case for case in cases if case.dataset != name]) for name in names}
    rows = []
    for case in cases:
        middle, low, high = fit_forecast(case.seen, without[case.dataset]).at(case.n)
        rows.append(
            {
                "dataset": case.dataset, "target": case.target, "materials": case.materials, "pilot": case.pilot,
                "n_seen": case.seen.n, "error_seen": case.seen.error, "exponent_seen": case.seen.exponent,
                "n_pilot": case.seen.n_materials, "n": case.n, "forecast": middle,
                "low": low, "high": high, "found": case.found, "inside": bool(low <= case.found <= high),
                "n_judged": case.n_judged, "unit": case.unit,
            }
        )  # fmt: skip
    coverage = {"altogether": _coverage(rows)}
    for key in ("dataset", "target"):
        for one in dict.fromkeys(str(row[key]) for row in rows):
            coverage[one] = _coverage([row for row in rows if row[key] == one])
    return {
        "level": LEVEL,
        "ahead": AHEAD,
        "coverage": coverage,
        "calibration": asdict(_learn(cases)),
        "calibration_without": {name: asdict(one) for name, one in without.items()},
        "cases": rows,
    }


def _learn(cases: list[Case]) -> Calibration:
    return calibrate([case.seen for case in cases], [case.n for case in cases], [case.found for case in cases])


def _coverage(rows: list[dict]) -> dict:
    widths = [row["high"] / row["low"] for row in rows]
    return {
        "n_cases": len(rows),
        "n_inside": sum(row["inside"] for row in rows),
        "share_inside": sum(row["inside"] for row in rows) / len(rows),
        "median_width": float(np.median(widths)),
    }


def format_report(report: dict) -> str:
    """The coverage as a table for the terminal."""
    lines = [f"errors at {report['ahead']} x the materials, intervals of {report['level']:.0%}"]
    for name, row in report["coverage"].items():
        lines.append(
            f"{name:<24}{row['n_inside']:>4} of {row['n_cases']:<4} inside ({row['share_inside']:.0%}), "
            f"upper end over lower {row['median_width']:.2f}"
        )
    for kind, row in report.get("trained", {}).get("coverage", {}).get("altogether", {}).items():
        lines.append(
            f"training, {kind:<14}{row['n_inside']:>4} of {row['n_cases']:<4} inside ({row['share_inside']:.0%}), "
            f"found over forecast {row['found_over_forecast']:.2f}"
        )
    return "\n".join(lines)
