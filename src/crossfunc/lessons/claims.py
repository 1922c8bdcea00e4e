"""Verdicts on the claims of `book/claims.yml`, by rule, from what lessons recorded and from runs that were kept."""

import functools
import json
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from crossfunc.lessons import declared
from crossfunc.lessons.results import ResultsError, format_value, load_results
from crossfunc.lessons.run_histories import STILL_FALLING
from crossfunc.plain_text import in_code

__all__ = [
    *("CLAIMED_BY", "CONVERGED", "FILE", "KEPT", "KINDS", "OTHER_LABELS", "VERDICTS"),
    *("about_run", "data_of", "find_result", "how_far", "judge", "judged", "kept_folder", "kept_results", "keys_of"),
    *("kind_of", "limits_of", "needs_met", "number_of", "other_version", "paper_cell", "paper_text", "read_claims"),
    *("read_kept", "recipe", "results_by_labels", "results_for", "rule_text", "unmet_need", "value_text"),
    *("verdict_and_reason", "with_papers_numbers"),
]

FILE = "book/claims.yml"
KEPT = "book/kept"
CONVERGED = ("converged", "converged-surrogate")
"""Profiles whose runs go on until methods have arrived, as far as they do: their verdicts come before short ones'."""
OTHER_LABELS = ("surrogate", "sevennet", "dft")
"""Profiles that are kept for their verdicts on other labels than this build's."""
VERDICTS = ("holds", "unclear", "does not hold here")
KINDS = {
    "DFT": "on DFT",
    "surrogate": "on surrogate labels",
    "teacher": "on labels of another network",
    "other": "on labels of unknown origin",
}
"""What results rest on: DFT, CHGNet (whose r2SCAN labeller descends from the GGA one), a network of no such descent."""
CLAIMED_BY = {"the paper": "Claims of the paper", "others": "Claims of others, on methods after the paper"}
"""Whose a claim is, as its `by` in the file says (the paper's, if it says nothing), and what its table is called."""
_RULE = re.compile(r"([<>=±])\s*(\S+)")
_NOT_YET = re.compile(r"(?P<who>.+) has not (?P<what>.+)")
_NEED = re.compile(r"(\w+)\s*([<>]\s*\S+)")
_COMPARE = {"<": operator.lt, ">": operator.gt, "=": operator.eq, "±": lambda a, b: abs(a) < b}


# --- claims and results as they are read ---


def read_claims(root: Path) -> list[dict[str, Any]]:
    """Return the claims of a checkout.

    Raises
    ------
    ResultsError
        A claim without its rule; says which and what is missing.
    """
    path = root / FILE
    claims = yaml.safe_load(path.read_text(encoding="utf-8"))
    for claim in claims:
        missing = {"claim", "where", "result", "holds", "limits"} - set(claim)
        if claim.get("by", "the paper") not in CLAIMED_BY:
            missing.add("by")
        if not all(_NEED.fullmatch(rule) for rule in claim.get("needs", {})):
            missing.add("needs")
        if missing or not _RULE.fullmatch(str(claim.get("holds", ""))):
            raise ResultsError(f"{path}: {claim.get('claim', claim)!r}: mend {', '.join(missing) or 'holds'}.")
    return claims


def kept_folder(root: Path, profile: str) -> Path:
    """Return the folder of a profile's kept runs."""
    return Path(root) / KEPT / profile


def read_kept(root: Path, profile: str, lesson: str) -> dict[str, Any]:
    """Return what is known about a kept run.

    Raises
    ------
    ResultsError
        No such run; says what makes it.
    """
    path = kept_folder(root, profile) / f"{lesson}.run.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResultsError(f"{path}: missing; {recipe(profile, lesson)}") from None


def recipe(profile: str, lesson: str) -> str:
    """Say what makes a kept run."""
    number = lesson.partition("_")[0]
    return f"make it with: crossfunc run {number} --profile {profile} && make keep PROFILE={profile} LESSON={number}"


def kept_results(root: Path, profile: str, lesson: str) -> dict[str, Any]:
    """Return the results of a kept run, with the paper's numbers as they are declared now."""
    return with_papers_numbers(root, load_results(kept_folder(root, profile), [lesson])[lesson], lesson)


def with_papers_numbers(root: Path, content: Mapping[str, Any], lesson: str) -> dict[str, Any]:
    """Return the results of a kept run with the paper's numbers as they are declared now; ours stay as they were."""
    known = declared.read_declarations(root / "notebooks" / declared.FILE).get(lesson, {})
    rows = [row | ({"paper": known[row["key"]].paper} if row["key"] in known else {}) for row in content["results"]]
    return {**content, "results": rows}


def data_of(dataset: str) -> dict[str, str] | None:
    """Name and version of a packaged dataset, by which a kept run is of this book's labels or not; None of others."""
    from crossfunc.datasets import list_datasets, open_dataset

    return {"name": dataset, "version": open_dataset(dataset).meta["version"]} if dataset in list_datasets() else None


def other_version(about: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the version of the labels that a kept run is of and this book's; None where both are one."""
    data = about.get("data")
    now = data_of(data["name"]) if data else None
    return (data["version"], now["version"]) if data and now and now != data else None


def find_result(content: Mapping[str, Any], key: str, lesson: str) -> dict[str, Any]:
    """Return one result by its key.

    Raises
    ------
    ResultsError
        No such key; lists those that there are.
    """
    for result in content["results"]:
        if result["key"] == key:
            return result
    known = ", ".join(result["key"] for result in content["results"])
    raise ResultsError(f"lesson {lesson!r} has no result {key!r}; it has: {known}.")


def value_text(row: Mapping[str, Any]) -> str:
    """Our value with its unit and interval, to the digits that the interval leaves meaningful."""
    return format_value(row["value"], row["interval"], row["unit"]).replace("-", "−")


def paper_text(row: Mapping[str, Any]) -> str:
    """Return the paper's value, or its words."""
    if row["paper"] is None:
        return "—"
    return row["paper"] if isinstance(row["paper"], str) else format_value(row["paper"], unit=row["unit"])


# --- which results judge a claim ---


def kind_of(content: Mapping[str, Any]) -> str:
    """Return which labels a lesson ran on, a key of `KINDS`: "other" where the dataset does not say."""
    by = content.get("labelled_by", "")
    if by.startswith("model"):
        return "surrogate" if "CHGNet" in by else "teacher"
    return "DFT" if by.startswith("DFT") else "other"


def results_by_labels(
    root: Path,
    lesson: str,
    own: Mapping[str, Any] | None,
    keys: Iterable[str] = (),
    read: Callable[[Path, str, str], Mapping[str, Any]] = kept_results,
) -> dict[str, dict[str, Any]]:
    """Return the results of a lesson on each kind of labels, as kind -> content; kinds: the keys of `KINDS`.

    A kept run in which every method arrived comes first, then the executed lesson, then other kept runs of the same
    lesson; each says which it is, as `kept` of the content ("" for the executed one). A kept run that is older than one
    of `keys` is passed over.

    Parameters
    ----------
    root : path
        The checkout.
    lesson : str
    own : mapping or None
        Results of the executed lesson; None where there is none.
    keys : iterable of str
        Results that are asked for.
    read : function
        What reads the results of a kept run, of root, profile and lesson.
    """
    found: dict[str, dict[str, Any]] = {}
    first, last = (_kept_beside(root, lesson, names, read) for names in (CONVERGED, OTHER_LABELS))
    for name, content in [*first, *([("", own)] if own else []), *last]:
        if not name or set(keys) <= {row["key"] for row in content["results"]}:
            found.setdefault(kind_of(content), {**content, "kept": name})
    return found


def _kept_beside(root: Path, lesson: str, names: Sequence[str], read: Callable) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in names:
        if (kept_folder(root, name) / f"{lesson}.json").is_file():
            about = kept_folder(root, name) / f"{lesson}.run.json"
            versions = other_version(read_kept(root, name, lesson)) if about.is_file() else None
            yield name, {**read(root, name, lesson), **({"version": versions[0]} if versions else {})}


def results_for(
    root: Path,
    claim: Mapping[str, Any],
    own: Mapping[str, Any] | None,
    read: Callable[[Path, str, str], Mapping[str, Any]] = kept_results,
) -> dict[str, dict[str, Any]]:
    """Return what `results_by_labels` has for a claim, of one kind of labels where only that can judge it."""
    on = results_by_labels(root, claim["result"].partition(":")[0], own, keys_of(claim), read)
    return {kind: content for kind, content in on.items() if claim.get("only", kind) == kind}


def keys_of(claim: Mapping[str, Any]) -> list[str]:
    """Return the results that a claim is judged by."""
    return _results_in(claim["result"].partition(":")[2], str(claim["holds"]))


def _operand(rule: str) -> tuple[str, str, bool]:
    """Return the sign of a rule, what it compares with, and whether that is another result."""
    found = _RULE.fullmatch(rule)
    if not found:
        raise ResultsError(f"{rule!r} is no rule.")
    return found[1], found[2], bool(re.match("[a-z]", found[2]))


def _results_in(key: str, rule: str) -> list[str]:
    """Return the key that a rule is about, and the one that it is compared with where that is no number."""
    _, operand, is_result = _operand(rule)
    return [key, operand] if is_result else [key]


# --- verdicts ---


def judge(row: Mapping[str, Any], rule: str, other: Callable[[str], Any]) -> str:
    """Return the verdict on a result: one of `VERDICTS`.

    "holds": every value within our interval (and within that of the result it is compared with) satisfies the rule;
    "does not hold here": none does. "unclear": some do, or a number has no interval, so that nothing says how far it
    may be from what another draw of materials or seeds would give.

    Parameters
    ----------
    row : mapping
        A result: value and interval.
    rule : str
        A sign and a number, or another result's key.
    other : function
        Returns a result by its key.
    """
    sign, operand, is_result = _operand(rule)
    compare = _COMPARE[sign]
    target: Any = other(operand) if is_result else {"value": float(operand), "interval": [float(operand)] * 2}
    if not row["interval"] or not target["interval"]:
        return VERDICTS[1]
    found = {compare(a, b) for a in row["interval"] for b in target["interval"]}
    if sign == "±" and row["interval"][0] <= -target["value"] and row["interval"][1] >= target["value"]:
        return VERDICTS[1]  # both ends are outside, on two sides
    if sign == "=" and row["interval"][0] < target["value"] < row["interval"][1]:
        return VERDICTS[1]
    return VERDICTS[1] if len(found) > 1 else VERDICTS[0 if found.pop() else 2]


def unmet_need(claim: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """Return why a run cannot judge the claim at all, by those of its `needs` that do not hold; "" if it can.

    A need that the run did not record is not met: an old run does not say that it was long enough, and is said to be
    old instead.
    """
    found = needs_met(claim, content)
    if reasons := [reason for reason, met, lacking in found if not met and not lacking]:
        return _of_all(reasons)
    return next((f"because an older run did not record {lacking}" for *_, lacking in found if lacking), "")


def _of_all(reasons: Sequence[str]) -> str:
    """Reasons in one: "neither Method 3 nor Method 1 has come down" where the same is said of each."""
    found = [match for reason in reasons if (match := _NOT_YET.fullmatch(reason))]
    if len(found) == len(reasons) == 2 and found[0]["what"] == found[1]["what"]:
        return f"neither {found[0]['who']} nor {found[1]['who']} has {found[0]['what']}"
    return "; ".join(reasons)


def needs_met(claim: Mapping[str, Any], content: Mapping[str, Any]) -> list[tuple[str, bool, str]]:
    """Return the reason behind each need of a claim, whether a run meets it, and the result it did not record for it.

    The result is "" where the run recorded all that the need asks about.
    """
    rows = {row["key"]: row | {"interval": row["interval"] or [row["value"]] * 2} for row in content["results"]}
    found = []
    for need, reason in claim.get("needs", {}).items():
        key, condition = _NEED.fullmatch(need).groups()  # type: ignore[union-attr]  # read_claims has seen to that
        lacking = [name for name in _results_in(key, condition) if name not in rows]
        met = not lacking and judge(rows[key], condition, rows.get) == VERDICTS[0]
        found.append((reason, met, lacking[0] if lacking else ""))
    return found


def judged(claim: Mapping[str, Any], content: Mapping[str, Any]) -> tuple[str, str]:
    """Return the verdict on one claim by the results of one run, and the cell that shows it with its number."""
    verdict, reason = verdict_and_reason(claim, content)
    because = f", {reason}" if reason else ""
    where = ", ".join([f"`{in_code(content['dataset'] or 'none')}`", *about_run(content)])
    return verdict, f"**{verdict}**{because}: {number_of(claim, content)} ({where})"


def verdict_and_reason(claim: Mapping[str, Any], content: Mapping[str, Any]) -> tuple[str, str]:
    """Return the verdict on one claim by the results of one run, and why that run cannot judge it; "" if it can."""
    lesson, _, key = claim["result"].partition(":")
    other = functools.partial(find_result, content, lesson=lesson)
    if reason := unmet_need(claim, content):
        return VERDICTS[1], reason
    return judge(find_result(content, key, lesson), str(claim["holds"]), other), ""


def number_of(claim: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """Return the number that a claim is judged by in one run, and the one that it is compared with if there is one."""
    lesson, _, key = claim["result"].partition(":")
    _, operand, is_result = _operand(str(claim["holds"]))
    against = f" against {value_text(find_result(content, operand, lesson))}" if is_result else ""
    return value_text(find_result(content, key, lesson)) + against


def about_run(content: Mapping[str, Any]) -> list[str]:
    """Say what has to be known about a kept run: how far it went, and the version of its labels where it is another."""
    version = f"version {content['version']} of the labels" if content.get("version") else ""
    return [said for said in (how_far(content), version) if said]


def how_far(content: Mapping[str, Any]) -> str:
    """Say that a kept run is a converged one, or a longer one where a method was still falling; nothing of others."""
    if content.get("kept") not in CONVERGED:
        return ""
    falls = [row["value"] for row in content["results"] if "last_fifth" in row["key"]]
    return "longer run" if max(falls, default=0.0) > 100 * STILL_FALLING else "converged"


def rule_text(rule: str, other: Callable[[str], Any]) -> str:
    """Return the rule as people read it, another result by its name."""
    sign, operand, is_result = _operand(rule)
    words = {"<": "below", ">": "above", "=": "exactly", "±": "between plus and minus"}[sign]
    return f"{words} {other(operand)['title'] if is_result else operand}"


def paper_cell(row: Mapping[str, Any], rule: str, other: Callable[[str], Any]) -> str:
    """Return the paper's number, beside the one it is compared with where the paper has both."""
    _, operand, is_result = _operand(rule)
    text = paper_text(row)
    if not is_result or other(operand)["paper"] is None or row["paper"] is None:
        return text
    return f"{text}, against {paper_text(other(operand))}"


def limits_of(claim: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """Return what the surrogate's labels can say, behind what its run was too short for where no method had arrived."""
    short = "" if content.get("kept") in CONVERGED else claim.get("short", "")
    return f"{short} {claim['limits']}".strip()
