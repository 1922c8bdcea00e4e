"""What files of others say is text wherever it is shown."""

import html
import re

import pytest
from typer.testing import CliRunner

from crossfunc.cli import app
from crossfunc.lessons import LessonResults, figures
from crossfunc.plain_text import fenced, in_code, in_html, in_markdown, visible

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\x1b[2J\x1b]0;owned\x07 red \x1b[31m",
    "{raw}`html <b>`",
    "```{raw} html",
    ":::{raw} html",
    "$\\href{javascript:x}{y}$ and *emphasis* [link](javascript:x)",
    "\u202egnp.exe",
    "line\r\nbreak | cell",
    "![](http://example.org/x.png)",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_terminal_gets_letters_only(text):
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", visible(text))
    assert visible("Å, r²SCAN\n\t日本") == "Å, r²SCAN\n\t日本"


@pytest.mark.parametrize("text", HOSTILE)
def test_html_shows_the_text_itself(text):
    assert "<" not in in_html(text)
    assert '"' not in in_html(text)
    assert html.unescape(in_html(text)) == visible(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_myst_renders_the_text_itself(text):
    """Read by the parser of the book, on a page and in the cell of a table."""
    from markdown_it import MarkdownIt
    from mdit_py_plugins.colon_fence import colon_fence_plugin
    from mdit_py_plugins.dollarmath import dollarmath_plugin
    from mdit_py_plugins.myst_role import myst_role_plugin

    parser = MarkdownIt("commonmark").enable("table").use(myst_role_plugin).use(dollarmath_plugin)
    parser.use(colon_fence_plugin)
    tokens = [t for block in parser.parse(in_markdown(text)) for t in [block, *(block.children or [])]]
    assert {t.type for t in tokens} <= {
        "paragraph_open",
        "inline",
        "paragraph_close",
        "text",
        "text_special",
        "code_inline",
    }
    shown = "".join(t.content for t in tokens if t.type in ("text", "text_special", "code_inline"))
    assert shown == " ".join(visible(text).split()).replace("`html <b>`", "html <b>")


def test_every_piece_of_code_stays_code_and_what_is_between_is_text():
    assert in_markdown("a_0 `x_1` b_2 `y_3` c_4 `z_5` d_6") == r"a\_0 `x_1` b\_2 `y_3` c\_4 `z_5` d\_6"


def test_code_cannot_end_early():
    assert "`" not in in_code("a`{raw}`b")
    assert in_markdown("made by `crossfunc data` (x)") == "made by `crossfunc data` (x)"
    assert in_markdown("surrogate labels: predicted, not DFT") == "surrogate labels: predicted, not DFT"


class Data:
    name, label_notice = "mine", HOSTILE[0]


def test_captions_and_tables_carry_the_notice_as_text():
    assert "<script>" not in figures.caption("It rises", Data)
    table = LessonResults("01_x", dataset=Data)
    table.record("n", 1, title=HOSTILE[0], why=HOSTILE[1])
    page = table.table().to_html()
    assert "<script>" not in page
    assert "<img" not in page
    assert html.escape(HOSTILE[0]) in page


def test_names_and_notices_of_a_dataset_reach_the_terminal_as_text(tmp_path, monkeypatch):
    from test_store import META, frames_table

    from crossfunc.datasets import open_dataset, write_dataset

    meta = META | {"name": f"mine{HOSTILE[2]}", "label_notice": HOSTILE[2], "licence": HOSTILE[2]}
    write_dataset(tmp_path / "mine", meta=meta, frames=frames_table())
    assert "\x1b" not in open_dataset(tmp_path / "mine").name
    assert "\x1b" not in open_dataset(tmp_path / "mine").label_notice
    monkeypatch.setenv("CROSSFUNC_DATA", str(tmp_path))
    printed = CliRunner().invoke(app, ["data", "list"]).output
    assert "\\x1b[31m" in printed
    assert "\x1b" not in printed


def test_text_in_a_block_cannot_end_it():
    assert fenced("one\ntwo") == ["```text", "one\ntwo", "```"]
    opening, shown, closing = fenced("a ````\x1b[31m")
    assert (opening, shown, closing) == ("`````text", "a ````\\x1b[31m", "`````")
