"""Answers of a server on disk, one file each, so that an import that was stopped goes on where it was."""

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from crossfunc.files import write_atomically


class PageCache:
    """What was read already: one file per answer, complete or absent, all of one query and one database version."""

    def __init__(self, folder: Path, identity: dict):
        self._folder, self.note = folder, ""
        stamp = folder / "pages.json"
        text = json.dumps(identity, sort_keys=True)
        if folder.exists() and (not stamp.exists() or stamp.read_text(encoding="utf-8") != text):
            self.note = f"{folder}: pages of another query or database version; starting anew"
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not stamp.exists():
            write_atomically(stamp, text)
        elif any(folder.glob("*.json.gz")):
            self.note = f"going on with {len(list(folder.glob('*.json.gz')))} pages in {folder}"

    def get(self, name: str, ask: Callable[[], list]) -> list:
        """Return a page from disk, or ask for it and keep it; a damaged page is asked for again."""
        file = self._folder / f"{name}.json.gz"
        try:
            document = json.loads(gzip.decompress(file.read_bytes()))
            if document["sha256"] == _digest(document["content"]):
                return document["content"]
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            pass  # absent, or cut by a full disk: asked for below
        content = ask()
        text = json.dumps({"sha256": _digest(content), "content": content}).encode()
        write_atomically(file, gzip.compress(text, compresslevel=6, mtime=0))
        return content

    def remove(self) -> None:
        """Delete the pages; the dataset holds them now."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _digest(content: list) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
