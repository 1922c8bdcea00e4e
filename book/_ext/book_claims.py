"""``{claims-summary}``: claims of the paper and of others on one page, each judged by a rule; ``{table-1}``.

Claims and rules are in ``book/claims.yml``, the numbers in the lessons' results files. A number that is missing stops
the build; one that changes may change the verdict.
"""

import functools
import itertools
import math
import operator
import re
from collections import Counter
from pathlib import Path

from book_kept import stops_the_build
from book_results import find_result, paper_text, read_results, value_text
from book_tables import list_table, parse_lines
from sphinx.util.docutils import SphinxDirective

from crossfunc.lessons import claims as rules
from crossfunc.lessons.claims import CLAIMED_BY, KINDS, VERDICTS, limits_of, paper_cell, rule_text, unmet_need

_TRAINING = re.compile(r"train_energy_mae_method_(\d)\b")

read_claims = stops_the_build(rules.read_claims)
judged = stops_the_build(rules.judged)


def results_by_labels(root, profile, lesson, keys=()):
    """Return the results of a lesson on each kind of labels; kept runs beside what this build made."""
    return rules.results_by_labels(root, lesson, read_results(root, profile, lesson), keys, _read_kept_results)


def results_for(root, profile, claim):
    """Return what `results_by_labels` has for a claim, of one kind of labels where only that can judge it."""
    own = read_results(root, profile, claim["result"].partition(":")[0])
    return rules.results_for(root, claim, own, _read_kept_results)


def _read_kept_results(root, name, lesson):
    return read_results(root, None, lesson, kept=name)


def summary_rows(root, profile):
    """Return the verdicts in order, kind of labels -> list, and one row of cells per claim."""
    from crossfunc.lessons.sources import spoken_number

    verdicts = {kind: [] for kind in KINDS}
    rows = []
    for claim in read_claims(root):
        lesson, _, key = claim["result"].partition(":")
        on = results_for(root, profile, claim)
        cells = dict.fromkeys(KINDS, "—")
        for kind, content in on.items():
            verdict, cells[kind] = judged(claim, content)
            verdicts[kind].append(verdict)
        if not on:
            rows.append((_said(claim), "—", "—", *_columns(cells), "—"))
            continue
        content = next(iter(on.values()))
        other = functools.partial(find_result, content, lesson=lesson)
        row, rule = find_result(content, key, lesson), str(claim["holds"])
        what = (
            f"{row['title']}, {{doc}}`lesson {spoken_number(lesson)} </notebooks/{lesson}>`: {rule_text(rule, other)}"
        )
        limits = limits_of(claim, on["surrogate"]) if "surrogate" in on else "—"
        rows.append((_said(claim), what, paper_cell(row, rule, other), *_columns(cells), limits))
    return verdicts, rows


def verdicts_in_both(root, profile):
    """Return the claims that DFT and surrogate labels both judge, as (claim, verdict on DFT, verdict on surrogate)."""
    found = []
    for claim in read_claims(root):
        on = results_for(root, profile, claim)
        if {"DFT", "surrogate"} <= set(on):
            found.append((claim, *(judged(claim, on[kind])[0] for kind in ("DFT", "surrogate"))))
    return found


def differences_in_words(both):
    """Return lines that name the claims whose verdict on DFT is not that on surrogate labels.

    Contradictions are listed; what one kind of labels leaves open is folded.
    """
    other = [(claim, dft, surrogate) for claim, dft, surrogate in both if dft != surrogate]
    if not both:
        return []
    if not other:
        return [f"DFT gives all {len(both)} claims that both kinds of labels judge the verdict of surrogate labels."]
    against = [row for row in other if VERDICTS[1] not in row[1:]]
    has = "has" if len(other) == 1 else "have"
    lines = [
        f"Of {len(both)} claims that both kinds of labels judge, {len(other)} {has} another verdict on DFT than on "
        f"surrogate labels, and in {len(against) or 'none'} of these DFT contradicts them{':' if against else '.'}",
        "",
    ]
    lines += [_both_verdicts(*row) for row in against]
    if open_in_one := [row for row in other if row not in against]:
        lines += ["", f":::{{admonition}} What one kind of labels leaves open ({len(open_in_one)})", ":class: dropdown"]
        lines += [_both_verdicts(*row) for row in open_in_one] + [":::"]
    return lines


def _both_verdicts(claim, dft, surrogate):
    return f"- {_said(claim)}: **{dft}** on DFT, *{surrogate}* on surrogate labels."


def _said(claim):
    return f"{claim['claim']} ({claim['where']})"


def _columns(cells):
    """Labels of unknown origin stand with those of DFT, and say so."""
    dft = cells["DFT"] if cells["other"] == "—" else f"{cells['other']}, labels of unknown origin"
    networks = [cells[kind] for kind in ("surrogate", "teacher") if cells[kind] != "—"]
    return dft, "<br>".join(networks) or "—"


def count_verdicts(verdicts):
    """Return "8 hold, 1 is unclear" and the like."""
    words = {VERDICTS[0]: ("holds", "hold"), VERDICTS[1]: ("is unclear", "are unclear")}
    words[VERDICTS[2]] = ("does not hold here", "do not hold here")
    counts = Counter(verdicts)
    return ", ".join(f"{counts[v]} {words[v][counts[v] > 1]}" for v in VERDICTS if counts[v])


def summary_tables(claims, rows):
    """Return the lines of a table of the paper's claims and one of others', with the rows of `summary_rows`."""
    header = ["Claim", "It holds if", "Paper", "On DFT", "On surrogate labels", "What surrogate labels can say"]
    lines = []
    for by, caption in CLAIMED_BY.items():
        own = [row for claim, row in zip(claims, rows, strict=True) if claim.get("by", "the paper") == by]
        lines += [*list_table(header, own, "24 18 10 18 18 18", caption=caption), ""] if own else []
    return lines


def order_of_methods(content, column):
    """Return "4 < 1 = 2 < 3" from a run's results: "=" where the paired difference of neighbours is unclear.

    A dash where the run has no errors; "?" between neighbours whose difference it did not record.
    """
    found = {row["key"]: row for row in content["results"]}
    rows = {k: found.get(f"{column}_mae_method_{k}") for k in "1234"}
    mean = {k: row["value"] for k, row in rows.items() if row}
    if len(mean) < len("1234"):
        return "—"
    order = sorted(mean, key=mean.get)
    signs = []
    for one, other in itertools.pairwise(order):
        interval, is_known = pair_of_methods(found, column, one, other)
        low, high = interval or (-1, 1)
        signs.append("?" if not is_known else "=" if low <= 0 <= high else "<")
    return _with_signs(order, signs)


def order_in_paper(content, column):
    """Return the paper's order by its numbers, which have no intervals: "=" where they are equal."""
    found = {row["key"]: row for row in content["results"]}
    papers = {k: found.get(f"{column}_mae_method_{k}", {}).get("paper") for k in "1234"}
    if None in papers.values():
        return "—"
    order = sorted(papers, key=papers.get)
    signs = ["=" if papers[one] == papers[other] else "<" for one, other in itertools.pairwise(order)]
    return _with_signs(order, signs)


def _with_signs(order, signs):
    return order[0] + "".join(f" {sign} {name}" for sign, name in zip(signs, order[1:], strict=True))


def pair_of_methods(found, column, one, other):
    """Return the interval of one method's error minus another's, or None, and whether a run recorded the difference."""
    for first, second, sign in ((one, other, 1), (other, one, -1)):
        if row := found.get(f"{column}_{first}_minus_{second}"):
            return row["interval"] and sorted(sign * end for end in row["interval"]), True
    return None, False


ORDER_VERDICTS = ("agrees", "unclear", "contradicts")


def order_verdict(content, column, claims=()):
    """Return whether a run's paired differences have the signs of the paper's numbers, and how each pair comes out.

    Over the pairs of methods whose numbers differ in the paper: "contradicts" where one of them is clearly the other
    way round, "agrees" where all are clearly as in the paper, else "unclear". "" for both without the paper's numbers.
    A pair that one of `claims` is about is unclear where the run cannot judge that claim, see `unmet_need`, and so is
    every pair with a method that has not come down to its own training energies as claims on this column need it to.
    """
    found = {row["key"]: row for row in content["results"]}
    errors = {k: found.get(f"{column}_mae_method_{k}", {}).get("paper") for k in "1234"}
    if None in errors.values():
        return "", ""
    pairs = {verdict: [] for verdict in ORDER_VERDICTS}
    too_early = {claim["result"].partition(":")[2] for claim in claims if unmet_need(claim, content)}
    unfitted = {k for claim in claims for k in _unfitted_methods(claim, column, content)}
    for one, other in itertools.combinations(sorted(errors, key=errors.get), 2):
        if errors[one] == errors[other]:
            continue
        interval, _ = pair_of_methods(found, column, one, other)
        is_early = too_early & {f"{column}_{one}_minus_{other}", f"{column}_{other}_minus_{one}"}
        is_early = is_early or unfitted & {one, other}
        low, high = (-1, 1) if is_early or not interval else interval
        verdict = ORDER_VERDICTS[0 if high < 0 else 2 if low > 0 else 1]
        pairs[verdict].append(f"{other} < {one}" if verdict == ORDER_VERDICTS[2] else f"{one} < {other}")
    agreeing, open_ones, turned = (pairs[verdict] for verdict in ORDER_VERDICTS)
    verdict = ORDER_VERDICTS[2 if turned else 1 if open_ones else 0]
    said = [f"clear and as in the paper: {', '.join(agreeing) or 'none'}"]
    said += [f"the other way round: {', '.join(turned)}"] if turned else []
    said += [f"unclear: {', '.join(open_ones)}"] if open_ones else []
    return verdict, "; ".join(said)


def _unfitted_methods(claim, column, content):
    """Return the methods whose training energies a claim on this column needs to be fitted, and which are not."""
    if not claim["result"].partition(":")[2].startswith(f"{column}_"):
        return set()
    needs = {rule: found[1] for rule in claim.get("needs", {}) if (found := _TRAINING.match(rule))}
    return {k for rule, k in needs.items() if unmet_need({"needs": {rule: "it has not"}}, content)}


class MethodOrders(SphinxDirective):
    """The order of the four methods in each column of Table 1, by paired intervals, and a verdict on the paper's."""

    def run(self):
        """Write it as MyST."""
        rows, kinds = order_rows(Path(self.config.crossfunc_root), self.config.crossfunc_profile)
        header = [
            "Error in",
            "paper, Table 1",
            *(f"{KINDS[kind]}: order, and verdict on the paper's" for kind in kinds),
        ]
        return parse_lines(self, list_table(header, rows, caption="Methods from best to worst"), "xf-claims")


def order_rows(root, profile, find=None, claims=None):
    """Return a row of cells for each column of Table 1, and the kinds of labels that have any."""
    found, claims = {}, read_claims(root) if claims is None else claims
    for column, _, lesson, beginning in TABLE_1:
        found[column] = beginning.removesuffix("_mae_"), (find or results_by_labels)(root, profile, lesson)
    kinds = [
        kind
        for kind in KINDS
        if any(kind in on and order_of_methods(on[kind], key) != "—" for key, on in found.values())
    ]
    rows = []
    for column, (key, on) in found.items():
        papers = (order_in_paper(content, key) for content in on.values())
        row = [column, next((text for text in papers if text != "—"), "—")]
        for kind in kinds:
            order = order_of_methods(on[kind], key) if kind in on else "—"
            verdict, pairs = order_verdict(on[kind], key, claims) if order != "—" else ("", "")
            row.append(f"{order}<br>**{verdict}**; {pairs}" if verdict else order)
        rows.append(tuple(row))
    return rows, kinds


class ClaimsSummary(SphinxDirective):
    """A sentence that counts the verdicts on each kind of labels, where they differ, and the table."""

    def run(self):
        """Write them as MyST."""
        root, profile = Path(self.config.crossfunc_root), self.config.crossfunc_profile
        verdicts, rows = summary_rows(root, profile)
        table = summary_tables(read_claims(root), rows)
        counted = [f"{KINDS[kind]}, {count_verdicts(found)}" for kind, found in verdicts.items() if found]
        differences = differences_in_words(verdicts_in_both(root, profile))
        lines = [f"Of {len(rows)} claims: {'; '.join(counted)}.", "", *differences, "", *table]
        return parse_lines(self, lines, "xf-claims", "xf-summary")


TABLE_1 = (  # column, unit, lesson, beginning of the key
    ("energy", "meV/atom", "04_four_methods", "energy_mae_"),
    ("force", "meV/Å", "04_four_methods", "force_mae_"),
    ("stress", "GPa", "04_four_methods", "stress_mae_"),
    ("magmom", "μB", "04_four_methods", "magmom_mae_"),
    ("decomposition energy", "meV/atom", "06_hull_workflow", "decomposition_mae_"),
    ("formation energy", "meV/atom", "06_hull_workflow", "formation_mae_"),
)
_METHOD_NAMES = ("from scratch", "transfer, trainable references", "transfer, frozen references", "transfer, refitted")


def table_1_rows(root, profile, kind, find=None):
    """Return the paper's Table 1 on one kind of labels, a row per method: ours, and below it the paper's in brackets.

    In each column the lowest error is bold, ours and the paper's; so is one of ours whose interval overlaps with that
    of the lowest. A column whose lesson recorded nothing for a method (data without moments, for one) shows a dash, and
    so does one whose lesson did not run on these labels.
    """
    columns = []
    for _, _, lesson, beginning in TABLE_1:
        content = (find or results_by_labels)(root, profile, lesson).get(kind, {"results": []})
        found = {row["key"]: row for row in content["results"]}
        columns.append([found.get(f"{beginning}method_{k}") for k in range(1, len(_METHOD_NAMES) + 1)])
    cells = [_marked(column) for column in columns]
    return [(f"{k} {name}", *row) for k, (name, *row) in enumerate(zip(_METHOD_NAMES, *cells, strict=True), start=1)]


def _marked(column):
    """Return the cells of one column, a dash for each result that is missing."""
    ours = best_of(column)
    papers = {row["paper"] for row in column if row and not isinstance(row["paper"], (str, type(None)))}
    cells = []
    for row in column:
        if row is None:
            cells.append("—")
            continue
        bare = {**row, "unit": ""}
        value, _, spread = value_text(bare).replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}").partition(" (")
        value = f"**{value}**" if row in ours else value
        spread = "<br>(" + spread.replace(" ", "\N{NO-BREAK SPACE}") if spread else ""
        paper = paper_text(bare)
        paper = f"**{paper}**" if papers and row["paper"] == min(papers) else paper
        cells.append(f"{value}{spread}<br>[{paper}]")
    return cells


def best_of(column):
    """Return the results with the lowest value, and those that their intervals cannot tell from it."""
    there = [row for row in column if row]
    if not there:
        return []
    best = min(there, key=operator.itemgetter("value"))
    top = (best["interval"] or [best["value"]] * 2)[1]
    return [row for row in there if row["value"] == best["value"] or (row["interval"] or [math.inf])[0] <= top]


class TableOne(SphinxDirective):
    """The paper's Table 1 in one piece for each kind of labels, from the lessons that measure its columns."""

    def run(self):
        """Write them as MyST."""
        header = ["Method", *(f"{name}<br>{unit}" for name, unit, _, _ in TABLE_1)]
        lines = []
        for kind in KINDS:
            rows = table_1_rows(Path(self.config.crossfunc_root), self.config.crossfunc_profile, kind)
            if any(cell != "—" for row in rows for cell in row[1:]):
                caption = f"Mean absolute errors {KINDS[kind]}"
                lines += [*list_table(header, rows, "19 14 14 12 12 15 14", caption=caption), ""]
        return parse_lines(self, lines, "xf-claims", "xf-table-1")


def setup(app):
    """Register the directives."""
    app.add_directive("claims-summary", ClaimsSummary)
    app.add_directive("table-1", TableOne)
    app.add_directive("method-orders", MethodOrders)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
