"""Words that come with a course: how students begin, a mail to them, what is what, what to print, the room."""

from collections.abc import Collection
from string import ascii_uppercase

from crossfunc.lessons.course_file import Course

__all__ = ["MAIL", "START", "contents_text"]

START = """# Start

1. In the clone on your laptop, `.venv/bin/jupyter lab --notebook-dir=FOLDER` opens this folder, with its path in the
   place of FOLDER. On a server, open the folder with the kernel that your instructor names (the environment of the
   course).
2. Begin with the lesson that is on the screen: *Run*, *Run All Cells*. At these sizes a lesson takes a minute or two;
   times in its text are those of the book's own sizes.
3. Under each exercise is an empty cell for you, and a check. `check("03.2")` lists the choices, and
   `check("03.2", "a little")` says whether an answer is right. It reads `answers.json` in this folder.
   Where a number is asked for as well, `check("03.2", value=0.5)` compares yours with that of this notebook's own run.
4. At these sizes the order of the methods in lessons 4, 4b and 7 is luck: what it comes to is on the slides.
   Nothing is lost by running a cell again, in whatever order.
5. Without Python, `laboratory.html` opens in any browser: the heart of lessons 1 to 3, computed in the page.
"""

MAIL = """# A mail to students, a week before

Put day, room, address and name where words are in capitals, and attach `students/functionals.md`.

```text
Subject: Before our course on potentials and functionals

Dear all,

on DAY we meet in ROOM at TIME. Until then, please do three things; your machine does most of the work.

1. Install the course at home, because it loads more than 3 GB. You need Python 3.11 or 3.12, git and make.

       git clone ADDRESS crossfunc
       cd crossfunc
       make book

   Behind the download that takes about a quarter of an hour. If build/html/index.html opens in your browser, all is
   there. If not, or if you cannot install it, send me the last lines that you see and come all the same: you can work
   with a neighbour, and one file for any browser has the heart of the first lessons.
2. Read functionals.md, which comes with this mail: ten minutes, and three questions on paper.
3. Bring the laptop with its power supply, and paper, pencil and ruler.

NAME
```
"""


def contents_text(course: Course, files: Collection[str]) -> str:
    """Return the page that a course begins with.

    Parameters
    ----------
    course : Course
    files : collection of str
        What was written, from the course's folder: without sheets of groups nothing is said about groups.
    """
    rows = [f"| `{name}` | {copies} |" for name, copies in _COPIES.items() if name in files]
    last = ascii_uppercase[max(len(course.groups) - 1, 0)]
    groups = _GROUPS.format(groups=len(course.groups), last=last) if _SHEETS in files else ""
    if groups and _SLIPS in files:
        groups += _DEBATE.format(claims=len(course.debate))
    by_hand = ", do task 1 of group A, whose table is at lesson 6 there (10 minutes)" if groups else ""
    return _CONTENTS.format(by_hand=by_hand, rows="\n".join(rows), groups=f"{groups}\n" if groups else "")


_SHEETS, _SLIPS = "print/group-sheets.html", "print/debate-slips.html"
_COPIES = {
    _SHEETS: "two of each group's sheet: one to draw on, one to read the tasks from",
    _SLIPS: "one, cut in the middle: the upper half argues for the claim, the lower against it",
    "print/quiz.html": "one each",
    "print/handout.pdf": "one for the wall",
    "instructors/running-sheet.html": "one, for you",
}
_GROUPS = """## Groups

There are systems for {groups} groups, A to {last}. Three to five people make a group: two draw while the others run the
notebook. With fewer groups leave out systems from the end: each stands for itself, and nothing later asks for one that
is missing. Group A has the system of the slides, so let another group report first.
"""
_DEBATE = """In the debate each group takes one of {claims} claims, in the order of the slips; with one or two groups,
half of the class takes a side of the first claim.
"""
_CONTENTS = """# A course

To prepare, in an hour and a quarter to an hour and a half: read `instructors/running-sheet.html` (an hour){by_hand},
and rehearse the boards of lessons 3 and 4b where the day has them (15 minutes). The rest is optional: the sheet has
what there is to show, to ask and to answer, with the figure of each slide, the key of the groups, the quiz with its
key, and the claims of the debate with verdicts and closing sentences (`running-sheet.md` is the same as text).
The minutes of the room come on top: about 15 with one server, or where each has a clone at hand.

- `students-mail.md`: a mail to the students, for a week before: what to install, to read and to bring.
- `students/` and `groups/`: hand these out, as folders.
- `slides/`: a deck per lesson, all of them in one, and one on functionals.
- `print/`: all that is printed.
- `instructors/`: yours alone, with solutions, answers, and the debate with its verdicts.

## To print

Print pages from a browser, with background graphics on, so that the grid is there.

| file | copies |
|---|---|
{rows}

## To bring

- A ruler and a pencil for each group, and paper.
- The folders `students/` and `groups/` on a stick or a share, and `slides/all.pptx` and `slides/functionals.pptx`.
- Pens for the board, and power for as many laptops as there are.

{groups}## The room

A laptop for each or for two, with one of these.

1. **A clone on each laptop.** At home, not over the network of the room, each clones the repository and says
   `make book`, as `students-mail.md` asks for a week before. In the room one line starts it:
   `.venv/bin/jupyter lab --notebook-dir=FOLDER`, with the path of `students/` or of the group's folder.
2. **One server.** It needs a core and 2 GB for each who runs at the same time. The Littlest JupyterHub gives accounts
   on one machine, and is described in the documentation of that name; it is one option, and no part of this book.
3. **No Python.** `students/laboratory.html` in any browser has the heart of lessons 1 to 3, lesson 4 comes from the
   slides, and the first task of the groups needs only paper.
"""
