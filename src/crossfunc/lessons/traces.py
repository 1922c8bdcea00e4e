"""What an executed notebook must not keep: paths, times, addresses, random names, and who ran it where."""

import getpass
import os
import re
import socket
import sys
import tempfile
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from crossfunc.lessons.plans import Plan, public_parameters, sha256_of, total_of
from crossfunc.lessons.sources import package_folder

_UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
_STYLER_ID = re.compile(r'<table id="T_([0-9a-f]{5})"')
_FIXED = (
    (re.compile(r"\bat 0x[0-9a-fA-F]+"), "at 0x..."),
    # From the start of a word only: tried at each letter of a figure's megabyte, a pattern takes as long as the lesson.
    (re.compile(r"(?<![^\s'\"<>&])[^\s'\"<>&]*/?ipykernel_\d+/\d+\.py"), "<cell>"),
    (re.compile(r"(?<![^\s'\"<>&()=,])[^\s'\"<>&()=,]*/site-packages/"), "site-packages/"),
    (re.compile(r"/(?:home|Users)/[^/\s'\"<>]+"), "~"),
)
_BINARY = ("image/png", "image/jpeg", "image/gif", "application/pdf", "application/vnd.jupyter.widget-view+json")


def remove_traces(notebook, plan: Plan, scratch: Path) -> None:
    """Make an executed notebook say what was run and nothing about where, when and by whom."""
    hide = _Hider(plan, scratch)
    stem = plan.lesson.stem
    notebook.cells = [cell for cell in notebook.cells if _keep_injected(cell, plan)]
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"{stem[:50]}-{number:03d}"
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        if cell.cell_type == "code":
            cell.outputs = [_clean_output(output, hide, f"{stem}/{number}") for output in cell.outputs]
    notebook.metadata = type(notebook.metadata)(
        kernelspec=notebook.metadata["kernelspec"],
        language_info={
            "file_extension": ".py",
            "mimetype": "text/x-python",
            "name": "python",
            "pygments_lexer": "ipython3",
        },
        crossfunc={
            "inputs": dict(plan.inputs),
            "inputs_sha256": total_of(plan.inputs),
            "lesson": stem,
            "needed": plan.needed_now(),
            "parameters": public_parameters(plan.parameters),
            "profile": plan.profile,
            "results": plan.hash_results(),
        },
    )


def _keep_injected(cell, plan: Plan) -> bool:
    """Rewrite the injected cell without the results folder; without anything else to say, drop it."""
    if "injected-parameters" not in cell.metadata.get("tags", []):
        return True
    lines = [f"{name} = {value!r}" for name, value in plan.shown.items()]
    cell.source = "\n".join([f"# Values of this run (profile: {plan.profile})", *lines])
    return bool(lines)


def _clean_output(output, hide: "_Hider", seed: str):
    if "text" in output:
        output["text"] = hide(output["text"])
    if "traceback" in output:
        output["traceback"] = [hide(line) for line in output["traceback"]]
        output["evalue"] = hide(output["evalue"])
    for mime, content in output.get("data", {}).items():
        if mime in _BINARY:
            continue
        content = _map_strings(content, hide)
        output["data"][mime] = _fix_ids(content, seed) if mime == "text/html" else content
    return output


def _map_strings(content: Any, change: Callable[[str], str]) -> Any:
    if isinstance(content, str):
        return change(content)
    if isinstance(content, dict):
        return {key: _map_strings(value, change) for key, value in content.items()}
    return [_map_strings(value, change) for value in content] if isinstance(content, list) else content


def _fix_ids(html: str, seed: str) -> str:
    """Give random element names (plotly's, the pandas Styler's) names that are the same in every run."""
    for number, name in enumerate(dict.fromkeys(_UUID.findall(html))):
        html = html.replace(name, str(uuid.uuid5(uuid.NAMESPACE_URL, f"{seed}/{number}")))
    for number, name in enumerate(dict.fromkeys(_STYLER_ID.findall(html))):
        html = re.sub(rf"\bT_{name}(?![0-9a-f])", f"T_{sha256_of(f'{seed}/{number}')[:5]}", html)
    return html


class _Hider:
    """Replace the places, the machine and the person in a text by names that mean the same everywhere."""

    def __init__(self, plan: Plan, scratch: Path):
        root = plan.lesson.path.parent.parent
        places = {
            plan.folder: plan.folder.name,
            root: "",
            scratch: "TEMPORARY",
            Path(tempfile.gettempdir()): "TEMPORARY",
        }
        if plan.folder.is_relative_to(root.resolve()):
            places[plan.folder] = plan.folder.relative_to(root.resolve()).as_posix()
        places |= {Path(f): "CROSSFUNC_DATA" for f in os.environ.get("CROSSFUNC_DATA", "").split(os.pathsep) if f}
        shown = public_parameters(plan.parameters)
        places |= {Path(value): shown[name] for name, value in plan.parameters.items() if shown[name] != value}
        places |= {package_folder(): "crossfunc", Path(sys.prefix): "PYTHON", Path(sys.base_prefix): "PYTHON"}
        places |= {Path.home(): "~", package_folder().parents[1]: ""}
        names = {
            str(form): name for place, name in places.items() for form in (place, place.absolute(), place.resolve())
        }
        names = {place: name for place, name in names.items() if place.startswith(os.sep) and place != os.sep}
        # Longest first, so that a folder inside the checkout is not cut in half by the checkout's own rule.
        self._places = [
            (re.compile(rf"(?<![\w.]){re.escape(place)}(?:/|(?![\w-]|\.\w))"), name)
            for place, name in sorted(names.items(), key=lambda item: -len(item[0]))
        ]
        self._words = [
            (re.compile(rf"\b{re.escape(word)}\b"), name)
            for word, name in ((socket.gethostname(), "HOST"), (_user(), "USER"))
            if re.search(r"[\d.-]", word) and len(word) > 3  # a plain word may mean something else in a lesson
        ]

    def __call__(self, text: str) -> str:
        text = hide_secrets(text)
        for pattern, name in _FIXED[:3]:
            text = pattern.sub(name, text)
        for pattern, name in self._places:
            text = pattern.sub(partial(self._relative, name), text)
        for pattern, name in (*_FIXED[3:], *self._words):
            text = pattern.sub(name, text)
        return text

    @staticmethod
    def _relative(name: str, found: re.Match[str]) -> str:
        if found.group().endswith("/"):
            return f"{name}/" if name else ""
        return name or "."


_SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL)", re.IGNORECASE)
_SHORTEST_SECRET = 8
_USER_IN_URL = re.compile(r"(?<=://)[^/\s'\"<>@]+@")
_TOKEN_IN_URL = re.compile(r"([?&](?:[\w-]*(?:key|token|secret|signature|password))=)[^&\s'\"<>]+", re.IGNORECASE)


def hide_secrets(text: str) -> str:
    """Replace the values of keys and tokens in the environment, and users and tokens in addresses."""
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET and not value.startswith(os.sep):
            text = text.replace(value, f"<{name}>")
    return _TOKEN_IN_URL.sub(r"\1<hidden>", _USER_IN_URL.sub("", text))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
