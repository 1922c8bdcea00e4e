"""Text of others stays text: on a terminal, in HTML and in Markdown.

Names, ids, notices and licences come out of files that anybody may have written.
"""

import html
import re

__all__ = ["fenced", "in_code", "in_html", "in_markdown", "visible"]

# Control characters move the cursor and colour a terminal; marks of direction let text read otherwise than it is.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_CODE = re.compile(r"(?<!`)(`[^`\n]+`)(?!`)")
_MARKDOWN = re.compile(r"[\\`*_{}\[\]<>#|~$&^]")
_AT_THE_START = re.compile(r"^([-+=:.!%])|^(\d+)([.)])")


def visible(text: object) -> str:
    r"""Return text with what a terminal would obey written out, as `\x1b`; line breaks and tabs stay."""
    return _HIDDEN.sub(_write_out, str(text).replace("\r\n", "\n"))


def in_html(text: object) -> str:
    """Return text as it can stand in HTML, between tags or in an attribute."""
    return html.escape(visible(text), quote=True)


def in_markdown(text: object) -> str:
    """Return text, on one line, as it can stand in MyST Markdown: no tag, role or math; `code` stays code."""
    parts = _CODE.split(" ".join(visible(text).split()))
    escaped = [part if k % 2 else _MARKDOWN.sub(r"\\\g<0>", part) for k, part in enumerate(parts)]
    return _AT_THE_START.sub(lambda m: f"\\{m[1]}" if m[1] else f"{m[2]}\\{m[3]}", "".join(escaped))


def in_code(text: object) -> str:
    """Return text, on one line, as it can stand between backticks in Markdown."""
    return " ".join(visible(text).replace("`", "ˋ").split())


def fenced(text: object) -> list[str]:
    """Return text as lines of a block of Markdown, behind a fence that is longer than any run of backticks in it."""
    shown = visible(text)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    return [f"{fence}text", shown, fence]


def _write_out(match: re.Match) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
