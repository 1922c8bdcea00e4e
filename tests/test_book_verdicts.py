"""The page on other potentials: tables from committed verdicts, and words that are still the library's."""

import json
import sys
from pathlib import Path

import pytest
from sphinx.errors import ExtensionError

from crossfunc.advice.words import what_to_do

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import book_verdicts  # noqa: E402

FOLDERS = sorted(path for path in (ROOT / "book" / "verdicts").glob("*") if path.is_dir())
FILES = sorted((ROOT / "book" / "verdicts").glob("*/*.json"))


def test_there_are_verdicts_on_four_models_at_least():
    assert FOLDERS
    for folder in FOLDERS:
        assert len(book_verdicts.read_verdicts(folder)) >= 4


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_the_words_of_a_committed_verdict_are_those_of_its_numbers(file):
    plain = json.loads(file.read_text(encoding="utf-8"))
    assert plain["advice"] == what_to_do(plain)


def test_on_our_own_dft_neither_checkpoint_is_clearly_too_soft():
    """What the page on the surrogate says of the labeller's forces, from the table that it names."""
    page = (ROOT / "book" / "surrogate.md").read_text(encoding="utf-8")
    assert "has an interval that holds 1, and so has that of the GGA checkpoint" in page
    for name in ("chgnet-r2scan", "chgnet-0-3-0"):
        plain = json.loads((ROOT / "book" / "verdicts" / "pbe-r2scan" / f"{name}.json").read_text(encoding="utf-8"))
        assert plain["forces"]["slope_low"] < 1 < plain["forces"]["slope_high"]
        assert plain["forces"]["mae_of_zero"] >= book_verdicts.NEARLY_RELAXED_EV_PER_A  # else the table has no slope


def test_the_table_has_a_row_a_model_and_the_notice_of_the_labels():
    folder = FOLDERS[0]
    read = book_verdicts.read_verdicts(folder)
    text = "\n".join(book_verdicts.verdict_lines(read))
    assert read[0]["label_notice"] in text
    assert text.count("\n* - ") == 1 + len(read)
    for one in read:
        assert f"**{one['model']}.** {one['advice']}\nLargest offsets: {book_verdicts.largest_offsets(one)}." in text


def test_errors_are_in_mev_and_what_is_unknown_is_said():
    row = {"mae_ev_per_atom": 2.4591, "std_error_ev_per_atom": 0.0693}
    assert book_verdicts._error(row) == "2,459 ± 69"
    assert book_verdicts._error({"mae_ev_per_atom": 0.0223, "std_error_ev_per_atom": 0.0048}) == "22.3 ± 4.8"
    assert book_verdicts._error(None) == "not known"
    assert book_verdicts._spoken({"spoken": None, "zero": None}) == "cannot be told"
    assert book_verdicts._spoken({"spoken": None, "zero": "r²SCAN"}) == "zero of r²SCAN"


def test_largest_offsets_come_with_their_errors_and_only_where_the_data_fix_them():
    rows = {
        "H": {"offset_ev": 0.5, "std_error_ev": 0.01, "determined": True},
        "Sm": {"offset_ev": -6.618, "std_error_ev": 0.104, "determined": True},
        "Cu": {"offset_ev": 9.0, "std_error_ev": None, "determined": False},
    }
    assert book_verdicts.largest_offsets({"elements": rows}) == "Sm −6.62 ± 0.10, H +0.50 ± 0.01 eV"
    assert book_verdicts.largest_offsets({"elements": {"Cu": rows["Cu"]}}) == "none that the data fix"


def test_a_folder_without_verdicts_stops_the_build(tmp_path):
    with pytest.raises(ExtensionError, match="no verdicts; make them with: crossfunc bench verdicts"):
        book_verdicts.read_verdicts(tmp_path)


def test_both_modalities_of_one_network_are_told_apart_by_our_own_dft():
    found = {one["model"]: one for one in book_verdicts.read_verdicts(ROOT / "book" / "verdicts" / "pbe-r2scan")}
    assert len(found) >= 4
    for model, functional in (("SevenNet-MF-0, PBE", "PBE"), ("SevenNet-MF-0, R2SCAN", "r²SCAN")):
        assert found[model]["functional"]["spoken"] == functional
        assert "DFT" in found[model]["label_notice"] or "density-functional" in found[model]["label_notice"]
