"""Lessons 1 to 3 in a page: the interactive, the numbers of its answers, and the same page as one file.

``{laboratory}``            the interactive, with the data it computes from
``{laboratory}`NAME` ``     a number of an answer, computed by the library
``{laboratory-file}``       a link to the page without answers as one file
"""

from pathlib import Path

from book_files import FILES
from docutils import nodes
from sphinx.addnodes import download_reference
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective, SphinxRole
from sphinx.util.nodes import split_explicit_title


class Laboratory(SphinxDirective):
    """The interactive."""

    def run(self):
        """Write it into the page."""
        from crossfunc.lessons.laboratory import interactive

        return [nodes.raw("", interactive().html, format="html")]


class Answer(SphinxRole):
    """One number inline; a name that does not exist fails the build."""

    def run(self):
        """Look the number up."""
        from crossfunc.lessons.laboratory import answers

        if self.text not in answers():
            raise ExtensionError(f"the laboratory has no answer {self.text!r}; it has: {', '.join(answers())}.")
        return [nodes.inline(self.rawtext, answers()[self.text], classes=["xf-result"])], []


class OneFile(SphinxRole):
    """A link to this page as one file, written where the book keeps what it offers for download."""

    def run(self):
        """Write the file and offer it."""
        from crossfunc.lessons.laboratory import one_file
        from crossfunc.lessons.wording import page_titles

        _, words, name = split_explicit_title(self.text)
        source = Path(self.env.srcdir)
        text = Path(self.env.doc2path(self.env.docname)).read_text(encoding="utf-8")
        (source / FILES).mkdir(exist_ok=True)
        (source / FILES / name).write_text(one_file(text, page_titles(source)), encoding="utf-8")
        link = download_reference(self.rawtext, "", nodes.inline("", words), reftarget=f"/{FILES}/{name}")
        self.set_source_info(link)
        return [link], []


def setup(app):
    """Register the directive and the roles."""
    app.add_directive("laboratory", Laboratory)
    app.add_role("laboratory", Answer())
    app.add_role("laboratory-file", OneFile())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
