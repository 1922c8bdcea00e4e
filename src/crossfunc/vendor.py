"""What it takes to use chgnet from here: an import that leaves the process as it was.

Importing chgnet silences every warning of the process. Readers of the book need theirs.
"""

import importlib
import importlib.util
import warnings
from pathlib import Path


def import_chgnet(module="chgnet"):
    """Import a chgnet module and put the warning filters back as they were.

    Parameters
    ----------
    module : str
        Dotted name, for instance ``"chgnet.model"``.

    Returns
    -------
    module
    """
    with warnings.catch_warnings():
        return importlib.import_module(module)


def chgnet_checkpoint_path(name):
    """File of a checkpoint that ships inside chgnet, found without importing it.

    Parameters
    ----------
    name : str
        Folder below chgnet's ``pretrained``: "0.2.0", "0.3.0" or "r2scan".

    Raises
    ------
    FileNotFoundError
        If chgnet is missing or has no such checkpoint; names those it has.
    """
    spec = importlib.util.find_spec("chgnet")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("chgnet is not installed: pip install chgnet")
    folder = Path(spec.submodule_search_locations[0]) / "pretrained"
    files = sorted((folder / name).glob("*.pth.tar")) if name else []
    if len(files) != 1:
        shipped = sorted(path.parent.name for path in folder.glob("*/*.pth.tar"))
        raise FileNotFoundError(f"chgnet ships no single checkpoint {name!r}: it has {', '.join(shipped)}")
    return files[0]
