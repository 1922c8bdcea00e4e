"""``{claims-summary}``: the paper's claims on one page, each judged by a rule of book/claims.yml; ``{table-1}``.

Claims and rules are in ``book/claims.yml``, the numbers in the lessons' results files. A number that is missing stops
the build; one that changes may change the verdict.
"""

import operator
import re
from collections import Counter
from pathlib import Path

import yaml
from book_results import find_result, paper_text, read_results, value_text
from book_tables import list_table
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

CLAIMS_FILE = "book/claims.yml"
VERDICTS = ("holds", "unclear", "does not hold here")
_RULE = re.compile(r"([<>=])\s*(\S+)")
_COMPARE = {"<": operator.lt, ">": operator.gt, "=": operator.eq}


def read_claims(root):
    """Return the claims; one without its rule stops the build."""
    path = root / CLAIMS_FILE
    claims = yaml.safe_load(path.read_text(encoding="utf-8"))
    for claim in claims:
        missing = {"claim", "where", "result", "holds", "limits"} - set(claim)
        if missing or not _RULE.fullmatch(str(claim.get("holds", ""))):
            raise ExtensionError(f"{path}: {claim.get('claim', claim)!r}: mend {', '.join(missing) or 'holds'}.")
    return claims


def judge(row, rule, other):
    """Return the verdict on a result: one of `VERDICTS`.

    "holds": every value within our interval (and within that of the result it is compared with) satisfies the rule;
    "does not hold here": none does. "unclear": some do, or a number has no interval, so that nothing says how far it
    may be from what another draw of materials or seeds would give.
    """
    sign, operand = _RULE.fullmatch(rule).groups()
    compare = _COMPARE[sign]
    is_number = not re.match("[a-z]", operand)
    target = {"value": float(operand), "interval": [float(operand)] * 2} if is_number else other(operand)
    if not row["interval"] or not target["interval"]:
        return VERDICTS[1]
    found = {compare(a, b) for a in row["interval"] for b in target["interval"]}
    if sign == "=" and row["interval"][0] < target["value"] < row["interval"][1]:
        return VERDICTS[1]
    return VERDICTS[1] if len(found) > 1 else VERDICTS[0 if found.pop() else 2]


def rule_text(rule, other):
    """Return the rule as people read it, another result by its value and its name."""
    sign, operand = _RULE.fullmatch(rule).groups()
    words = {"<": "below", ">": "above", "=": "exactly"}[sign]
    if not re.match("[a-z]", operand):
        return f"{words} {operand}"
    row = other(operand)
    return f"{words} {value_text(row)} ({row['title']})"


def paper_cell(row, rule, other):
    """Return the paper's number, beside the one it is compared with where the paper has both."""
    operand = _RULE.fullmatch(rule)[2]
    text = paper_text(row)
    if not re.match("[a-z]", operand) or other(operand)["paper"] is None or row["paper"] is None:
        return text
    return f"{text}, against {paper_text(other(operand))}"


def summary_rows(root, profile):
    """Return the verdicts in order, and one row of cells per claim."""
    from crossfunc.plain_text import in_code

    verdicts, rows = [], []
    for claim in read_claims(root):
        lesson, _, key = claim["result"].partition(":")
        content = read_results(root, profile, lesson)
        row, rule = find_result(content, key, lesson), str(claim["holds"])

        def other(name, content=content, lesson=lesson):
            return find_result(content, name, lesson)

        verdicts.append(judge(row, rule, other))
        source = f"{{doc}}`lesson {int(lesson[:2])} </notebooks/{lesson}>`, `{in_code(content['dataset'])}`"
        cells = (
            f"{claim['claim']} ({claim['where']})",
            f"{value_text(row)} ({row['title']}; {source})",
            rule_text(rule, other),
            paper_cell(row, rule, other),
            f"**{verdicts[-1]}**",
            claim["limits"] if content.get("label_notice") else "—",
        )
        rows.append(cells)
    return verdicts, rows


def count_verdicts(verdicts):
    """Return "8 hold, 1 is unclear" and the like."""
    words = {VERDICTS[0]: ("holds", "hold"), VERDICTS[1]: ("is unclear", "are unclear")}
    words[VERDICTS[2]] = ("does not hold here", "do not hold here")
    counts = Counter(verdicts)
    return ", ".join(f"{counts[v]} {words[v][counts[v] > 1]}" for v in VERDICTS if counts[v])


class ClaimsSummary(SphinxDirective):
    """A sentence that counts the verdicts, and the table."""

    def run(self):
        """Write both as MyST."""
        verdicts, rows = summary_rows(Path(self.config.crossfunc_root), self.config.crossfunc_profile)
        header = ["Claim of the paper", "Here", "It holds if ours is", "Paper", "Verdict", "What these data can say"]
        table = list_table(header, rows, "26 24 16 12 9 20")
        lines = [f"Of {len(rows)} claims, {count_verdicts(verdicts)}.", "", *table]
        container = nodes.container(classes=["xf-claims", "xf-summary"])
        self.state.nested_parse(StringList(lines, source=CLAIMS_FILE), self.content_offset, container)
        return [container]


TABLE_1 = (  # column: lesson, beginning of the key
    ("energy, meV/atom", "04_four_methods", "energy_mae_"),
    ("force, meV/Å", "04_four_methods", "force_mae_"),
    ("stress, GPa", "04_four_methods", "stress_mae_"),
    ("magmom, μB", "04_four_methods", "magmom_mae_"),
    ("decomposition energy, meV/atom", "06_hull_workflow", "decomposition_mae_"),
    ("formation energy, meV/atom", "06_hull_workflow", "formation_mae_"),
)
_METHOD_NAMES = ("from scratch", "transfer, trainable references", "transfer, frozen references", "transfer, refitted")


def table_1_rows(root, profile, find=None):
    """Return the paper's Table 1, a row a method: ours, and the paper's number in brackets, in all six columns.

    A column whose lesson recorded nothing for a method (data without forces, for one) shows a dash.
    """
    rows = []
    for k, name in enumerate(_METHOD_NAMES, start=1):
        cells = [f"{k} {name}"]
        for _, lesson, beginning in TABLE_1:
            content = (find or read_results)(root, profile, lesson)
            found = [row for row in content["results"] if row["key"] == f"{beginning}method_{k}"]
            cells.append(_both(found[0]) if found else "—")
        rows.append(tuple(cells))
    return rows


def _both(row):
    bare = {**row, "unit": ""}
    return f"{value_text(bare)} ({paper_text(bare)})"


class TableOne(SphinxDirective):
    """The paper's Table 1 in one piece, from the lessons that measure its columns."""

    def run(self):
        """Write it as MyST."""
        rows = table_1_rows(Path(self.config.crossfunc_root), self.config.crossfunc_profile)
        header = ["Method", *(name for name, _, _ in TABLE_1)]
        lines = list_table(header, rows, "22 16 16 14 14 16 16")
        container = nodes.container(classes=["xf-claims", "xf-table-1"])
        self.state.nested_parse(StringList(lines, source="table-1"), self.content_offset, container)
        return [container]


def setup(app):
    """Register the directives."""
    app.add_directive("claims-summary", ClaimsSummary)
    app.add_directive("table-1", TableOne)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
