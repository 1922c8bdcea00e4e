"""Folders that a command writes anew each time: it replaces and removes what it wrote itself, and nothing else."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from crossfunc.files import write_atomically
from crossfunc.lessons.sources import LessonError, shown

__all__ = ["MANIFEST", "check_own", "draft_folder", "move_in"]

MANIFEST = ".written.json"
"""What the command wrote: for each file the sha256 of its content, or of both where a call was stopped in between."""


def check_own(folder: Path) -> None:
    """Refuse a folder of others, and one in which somebody has changed what was written.

    Raises
    ------
    LessonError
        Names the folder, or the files that were changed.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / MANIFEST).is_file():
        raise LessonError(f"{shown(folder)}: holds other files; name an empty folder, or one that this command made.")
    changed = [name for name, known in _read(folder).items() if _sha256(folder / name) not in {"", *known}]
    if changed:
        raise LessonError(
            f"{shown(folder)}: changed since this command wrote {'it' if len(changed) == 1 else 'them'}: "
            f"{', '.join(sorted(changed))}. Move what you want to keep, or name another folder."
        )


def draft_folder(folder: Path) -> Path:
    """Return an empty folder beside one that is to be written, where everything is made first."""
    draft = folder.with_name(f".{folder.name}.new")
    if draft.exists():
        shutil.rmtree(draft)
    draft.mkdir(parents=True)
    return draft


def move_in(draft: Path, folder: Path) -> None:
    """Put the files of a draft into the folder, and remove those of an earlier call that the draft does not have.

    A call that is stopped in between is made good by the next one: the list of what is the command's own is written
    before any file is.
    """
    new = {path.relative_to(draft).as_posix(): [_sha256(path)] for path in draft.rglob("*") if path.is_file()}
    old = _read(folder) if (folder / MANIFEST).is_file() else {}
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, {name: [*old.get(name, []), *new.get(name, [])] for name in old | new})
    for name in new:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (draft / name).replace(folder / name)
    for name in old.keys() - new.keys():
        (folder / name).unlink(missing_ok=True)
        _remove_empty((folder / name).parent, folder)
    _write(folder, new)
    shutil.rmtree(draft)


def _remove_empty(place: Path, folder: Path) -> None:
    while place != folder and place.is_dir() and not any(place.iterdir()):
        place.rmdir()
        place = place.parent


def _read(folder: Path) -> dict[str, list[str]]:
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except ValueError:
        raise LessonError(f"{shown(folder / MANIFEST)}: not readable; name another folder.") from None
    inside = {
        name: known for name, known in found.items() if (folder / name).resolve().is_relative_to(folder.resolve())
    }
    return {name: list(known) for name, known in inside.items()}


def _write(folder: Path, files: Mapping[str, list[str]]) -> None:
    write_atomically(folder / MANIFEST, json.dumps(dict(sorted(files.items())), indent=1) + "\n")


def _sha256(path: Path) -> str:
    """Return the sha256 of a file; empty where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
