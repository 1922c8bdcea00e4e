"""A verdict in words: a report for the terminal, and the paragraph that says what to do. Reads plain values only."""

__all__ = ["advise_report", "report", "what_to_do"]

_SMALL_EV = 0.03  # errors below this are those of a good model; nothing to mend
_WORTH_IT_EV = 0.01
_SLOPE_OFF = 0.1
_QUANTITIES = (("energy", "energies", "eV"), ("forces", "forces", "eV/Å"), ("stress", "stresses", "eV/Å³"))
_NEARLY_RELAXED_EV_PER_A = 0.05  # mean |force component| below which models' own minima decide


def what_to_do(verdict: dict) -> str:
    """One paragraph: functional, references, softness, what to look at; from `Verdict.to_dict()`."""
    wrong = _wrong_units(verdict)
    parts = [
        *wrong,
        *_on_functional(verdict),
        *([] if any("energy" in text for text in wrong) else _on_references(verdict)),
        *_on_softness(verdict, "forces"),
        *_on_outliers(verdict),
    ]
    return " ".join(parts)


def _wrong_units(verdict: dict) -> list[str]:
    """What has to be mended before any other number counts."""
    parts = []
    for key, noun, wanted in _QUANTITIES:
        found = verdict[key]
        if found and found["is_right"] is False:
            parts.append(f"Mend the units first: its {noun} come as {found['unit']}, where ASE has {wanted}.")
    return parts


def _on_functional(verdict: dict) -> list[str]:
    spoken, candidates = verdict["functional"]["spoken"], verdict["functional"]["candidates"]
    if len(candidates) < 2:
        return _from_published(verdict)
    if verdict["functional"].get("knows_bonding") is False:
        return [
            "It speaks none of them: after offsets it leaves no less than references alone, so what it knows is the "
            "composition at most."
        ]
    if tied := verdict["functional"].get("tied"):
        return [
            f"Whether it speaks {' or '.join(tied)} cannot be told: after offsets their labels leave the same of these "
            f"{candidates[0]['n_materials']} materials."
        ]
    if spoken is None:
        return [f"Which functional it speaks cannot be told from {candidates[0]['n_materials']} materials."]
    left = {one["name"]: one["mae_after_offsets_ev_per_atom"] for one in candidates}
    others = ", ".join(f"{_mev(value)} of {name}" for name, value in left.items() if name != spoken)
    text = f"It speaks {spoken}: after offsets {_mev(left[spoken])} meV/atom are left, against {others}."
    if spoken != verdict["labels"]:
        text += f" The labels here are {verdict['labels']}: what offsets leave is partly bonding, left to training."
    return [text]


def _from_published(verdict: dict) -> list[str]:
    """With labels of one functional only: whose published zero of energy the model has."""
    found = verdict["functional"]
    if not found["zeros"]:
        return ["Labels of one functional only, without a published zero of energy: which one it speaks is left open."]
    if found["zero"] is None:
        return ["Its zero of energy is none of the published ones, and one functional's labels say no more."]
    left = f"{_mev(found['zeros'][found['zero']])} meV/atom off; the next {_mev(sorted(found['zeros'].values())[1])}"
    return [f"It has the zero of energy of {found['zero']} ({left})."]


def _on_references(verdict: dict) -> list[str]:
    rows = {row["references"]: row for row in verdict["errors"]}
    before, after = (rows[name]["mae_ev_per_atom"] for name in ("as it is", "model-aware references"))
    if before is None:
        after_all = rows.get("with a prior", {}).get("mae_of_all_ev_per_atom")
        if after_all is None or not verdict["functional"]["zeros"]:
            return ["Too few materials per element to say what references would do: label more."]
        text = "No material's elements are fixed by the others, so offsets rest on the published tables"
        return [f"{text}: {_mev(rows['as it is']['mae_of_all_ev_per_atom'])} become {_mev(after_all)} meV/atom."]
    best = min((row for row in verdict["errors"] if row["references"] not in ("as it is", "composition alone")),
               key=lambda row: row["mae_ev_per_atom"])  # fmt: skip
    if after < 0.8 * before and before - after > _WORTH_IT_EV:
        share = verdict["linear"]["explained_offset"]
        text = f"Add the offsets below before any training: {_mev(before)} become {_mev(after)} meV/atom on held-out"
        text += f" materials; {100 * share:.0f} % of the mean square is linear in the composition."
        if best["references"] == "with a prior" and best["mae_ev_per_atom"] < 0.9 * after:
            about = "Fit them about the published ones" if verdict["functional"]["zeros"] else "Pull them towards none"
            text += f" {about}: {_mev(best['mae_ev_per_atom'])} meV/atom."
        plain = rows.get("plain references")
        if plain and plain["mae_ev_per_atom"] > 1.5 * after:
            text += f" Do not refit to the labels' energies alone, which leaves {_mev(plain['mae_ev_per_atom'])}."
        return [text]
    if before < _SMALL_EV:
        return [f"Take it as it is: {_mev(before)} meV/atom, and new references would hardly help ({_mev(after)})."]
    return [
        f"Leave its references alone ({_mev(before)} meV/atom as it is, {_mev(after)} with new ones): what is wrong is "
        "not linear in the composition, so it takes training, or better labels."
    ]


def _on_softness(verdict: dict, key: str) -> list[str]:
    found = verdict[key]
    if not found or found["is_right"] is False:
        return []
    if found["mae_of_zero"] < _NEARLY_RELAXED_EV_PER_A:
        return [f"Its {key} cannot be judged: these frames are nearly relaxed (mean {found['mae_of_zero']:.3f} eV/Å)."]
    if found["mae"] >= found["mae_of_zero"]:
        errors = f"MAE {found['mae']:.3f}, of zero {found['mae_of_zero']:.3f}"
        return [f"Its {key} are no better than none ({errors}): look at units and structures, then train on them."]
    if found["slope_low"] is None:
        if abs(found["slope"] - 1) <= _SLOPE_OFF:
            return []
        few = f"{found['n_materials']} material{'s' * (found['n_materials'] > 1)}"
        text = f"{key} are {found['slope']:.2f} of the labels', of {few}"
        return [f"Whether it is too soft or too stiff cannot be told: {text}."]
    if found["slope_low"] <= 1 + _SLOPE_OFF and found["slope_high"] >= 1 - _SLOPE_OFF:
        return []
    word = "soft" if found["slope"] < 1 else "stiff"
    return [f"It is too {word}: {key} are {found['slope']:.2f} of the labels' ({_interval(found)}); train on forces."]


def _on_outliers(verdict: dict) -> list[str]:
    found = verdict["outliers"]
    if not found:
        return []
    named = ", ".join(f"{one['formula']} ({_frame_of(one)})" for one in found[:3])
    return [f"Look at {named} first, which lie{'s' if len(found) == 1 else ''} far from what the others say."]


def _frame_of(outlier: dict) -> str:
    """Name a frame so that it is found in its file, and its material is found elsewhere."""
    frame, material = outlier["frame_id"], outlier["material_id"]
    return frame if material in frame else f"{material}, frame {frame}"


def report(verdict: dict) -> str:
    """The verdict as text; `verdict` as of `Verdict.to_dict()`, with `advice`."""
    lines = [
        f"{verdict['model']} on {verdict['dataset']}, labels {verdict['labels']}: {verdict['n_frames']} frames of "
        f"{verdict['n_materials']} materials",
        "",
        verdict["advice"],
        "",
        "errors by material, references fitted to others (meV/atom)",
    ]
    lines += [
        f"  {row['references']:24} {_mev(row['mae_ev_per_atom']):>7} ± {_mev(row['std_error_ev_per_atom']):>4}, "
        f"median {_mev(row['median_ev_per_atom']):>5} on {row['n_materials']} materials"
        for row in verdict["errors"]
    ]
    lines += ["", "functional: left after offsets, as it is (meV/atom), share of resampled materials where nearest"]
    for one in verdict["functional"]["candidates"]:
        support = "-" if one["support"] is None else f"{one['support']:.3f}"
        after, raw = _mev(one["mae_after_offsets_ev_per_atom"]), _mev(one["mae_as_it_is_ev_per_atom"])
        lines.append(f"  {one['name']:32} {after:>7} {raw:>8}   {support}")
    for key, unit in (("forces", "eV/Å"), ("stress", "GPa")):
        found = verdict[key]
        if found is None:
            lines.append(f"{key:10} no labels, or none predicted")
        else:
            lines.append(
                f"{key:10} slope {found['slope']:.3f} ({_interval(found)}), cosine {found['cosine']:.3f}, MAE "
                f"{found['mae']:.4f} {unit} (of zero {found['mae_of_zero']:.4f}), unit {found['unit'] or 'not told'}"
            )
    lines.append(f"{'energy':10} unit {verdict['energy']['unit'] or 'not told: too few materials for the elements'}")
    for name, left in verdict["functional"]["zeros"].items():
        lines.append(f"  with the zero of {name:54} {_mev(left):>7}")
    lines += ["", "offsets to add for each atom, eV (standard error, materials)"]
    elements = sorted(verdict["elements"].items(), key=lambda item: -abs(item[1]["offset_ev"] or 0))
    for symbol, row in elements:
        error = (
            "not fixed alone"
            if not row["determined"] or row["std_error_ev"] is None
            else f"± {row['std_error_ev']:.3f}"
        )
        lines.append(f"  {symbol:3} {row['offset_ev']:+9.3f}  {error:16} {row['n_materials']}")
    for one in verdict["outliers"]:
        lines.append(
            f"outlier {_frame_of(one)} {one['formula']}: {1000 * one['label_minus_model_ev_per_atom']:+.0f} meV/atom"
        )
    for frame_id, reason in verdict["refused"].items():
        lines.append(f"refused {frame_id}: {reason}")
    return "\n".join([*lines, "", verdict["label_notice"]])


def _mev(value: float | None) -> str:
    """Energy in meV/atom to three digits, as text."""
    return "-" if value is None else f"{1000 * value:.3g}" if abs(value) < 1 else f"{1000 * value:.0f}"


def _interval(found: dict) -> str:
    if found["slope_low"] is None:
        return "too few materials for an interval"
    return f"95 %: {found['slope_low']:.2f} to {found['slope_high']:.2f}"


def advise_report(advice: dict) -> str:
    """`Advice.to_dict()` as text for the terminal."""
    energy, wanted = advice["forecasts"]["energy"], 1000 * advice["error_ev_per_atom"]
    refit, method = advice["refit"], advice["method"]
    lines = [
        f"{advice['model']} towards {advice['dataset']}: {advice['n_frames']} labelled frames of "
        f"{advice['n_materials']} materials, wanted {wanted:.3g} meV/atom",
        "",
        f"references  {'refit' if refit['refit'] else 'leave them'}: {refit['reason']}",
        f"            held out, meV/atom: {_mev(refit['before_ev_per_atom'])} as it is, "
        f"{_mev(refit['after_ev_per_atom'])} with new ones",
        f"method      {method['key'] or 'none'}: {method['reason']}",
        f"forecast    intervals of {advice['level']:.0%}, of a stand-in for training"
        + (", corrected by short fine-tunings" if energy["pilot"] else ""),
    ]
    for name, unit in (("energy", "meV/atom"), ("forces", "meV/Å")):
        if name in advice["forecasts"]:
            lines += [f"            {name}: {line}" for line in _forecast_lines(advice["forecasts"][name], unit)]
    lines += [f"            {name}: no forecast: {why}" for name, why in advice["left_out"].items()]
    lines += _needed_lines(energy["needed"], wanted)
    for one in advice["next_frames"]:
        lines.append(f"label next  {one['frame_id']} ({one['formula']}): {one['reason']}")
    if not advice["next_frames"]:
        lines.append("label next  no crystal without a label is known here: name a dataset with --candidates")
    lines += _cost_lines(advice["cost"], energy["needed"])
    return "\n".join([*lines, "", advice["label_notice"]])


def _forecast_lines(forecast: dict, unit: str) -> list[str]:
    seen = forecast["seen"]
    first = f"{seen['error']:.3g} {unit} with {seen['n_materials']} materials ({seen['n_frames']} frames)"
    return [first] + [
        f"{row['error']:.3g} ({row['low']:.3g} to {row['high']:.3g}) with {row['n_materials']} ({row['n_frames']})"
        for row in forecast["ahead"]
    ]


def _needed_lines(needed: dict, wanted: float) -> list[str]:
    if needed["is_there_already"]:
        return [f"needed      nothing more: the stand-in is within {wanted:.3g} meV/atom with what is labelled"]
    materials, frames = (
        {key: "more than ten million" if value is None else f"{value:,.0f}" for key, value in needed[name].items()}
        for name in ("n_materials", "n_frames")
    )
    return [
        f"needed      {materials['middle']} materials ({materials['low']} to {materials['high']}), or "
        f"{frames['middle']} frames ({frames['low']} to {frames['high']}), {needed['frames_per_material']:.3g} of each"
    ]


def _cost_lines(cost: dict, needed: dict) -> list[str]:
    lines = []
    if "why_not" in cost:
        lines.append(f"cost        not known: {cost['why_not']}")
    else:
        hours = {k: "unbounded" if v is None else f"{v:.2g} h" for k, v in cost["training_hours"].items()}
        lines.append(
            f"cost        training: {hours['middle']} ({hours['low']} to {hours['high']}) on this machine, "
            f"{cost['n_epochs']} epochs at {cost['seconds_a_frame_and_epoch']:.2g} s for a frame"
        )
    if cost["label_hours_a_frame"] is not None:
        a_frame, frames = cost["label_hours_a_frame"], needed["n_frames"]["middle"]
        total = "" if frames is None else f", {a_frame * frames:,.0f} h for all of them"
        lines.append(f"            labels: {a_frame:.2g} CPU hours a frame in both functionals{total}")
    return lines
