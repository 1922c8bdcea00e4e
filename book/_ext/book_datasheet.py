"""``{datasheet} NAME``: the facts of a dataset, counted from its tables when the book is built."""

from collections import Counter

from book_tables import parse_lines
from sphinx.util.docutils import SphinxDirective

# Folders and checksums of one build are no facts about the data.
HIDDEN = {"files", "sha256", "path", "folder", "format", "functionals"}


def datasheet_rows(dataset):
    """Return (fact, value) pairs: what the tables hold, then what the dataset says of itself."""
    from crossfunc.datasets import coverage

    pairs, elements = dataset.pairs, dataset.elements
    low, high = dataset.functionals
    rows = [("Functionals", f"{low.full_name} (low) and {high.full_name} (high)")]
    rows += [("Labels", dataset.label_notice or "density-functional theory")]
    if pairs is not None and len(pairs):
        rows.append(("Materials with both functionals", f"{len(pairs):,}"))
        rows.append(("Elements in them", f"{len(_elements_of(pairs['composition'])):,}"))
        rows.append(("Atoms per cell", f"{pairs['n_atoms'].min()} to {pairs['n_atoms'].max()}"))
        rows += [(name.capitalize(), _counts(pairs[name])) for name in ("tier", "chemistry") if name in pairs]
        if "prototype" in pairs:
            rows.append(("Prototypes", f"{pairs['prototype'].nunique():,}"))
    if dataset.frames is not None:
        counts = Counter(dataset.frames["functional"].to_pylist())
        names = {one.key: one.name for one in dataset.functionals}
        words = ", ".join(f"{names[key]}: {n:,}" for key, n in sorted(counts.items()))
        rows.append(("Labelled frames", words))
        rows += _coverage_rows(dataset.frames)
    if elements is not None and len(elements):
        rows.append(("Elemental references", f"{elements['element'].nunique():,} elements"))
        if pairs is not None and len(pairs):
            known = coverage.known_elements(elements, dataset.functionals)
            systems = coverage.describe_systems(coverage.ternary_systems(pairs["composition"], known))
            rows += [("Hulls of three elements", systems)] if systems else []
    rows += reference_rows(dataset)
    rejected = 0 if dataset.rejected is None else len(dataset.rejected)
    rows.append(("Rows left out, with a reason each", f"{rejected:,}"))
    for key, value in dataset.meta.items():
        if key not in HIDDEN:
            rows += _facts(_words(key), value)
    return rows


def _coverage_rows(frames):
    """Structures and materials of the frames, and how many elements are heavy or in enough materials."""
    from crossfunc.datasets import coverage

    found = coverage.count_frames(frames)
    heavy = f"{len(found.heavy)}: {' '.join(found.heavy)}" if found.heavy else "none"
    label = f"Elements in {coverage.ENOUGH_MATERIALS} materials or more"
    return [
        ("Structures of the frames", f"{found.n_structures:,} of {found.n_materials:,} materials"),
        (f"Heavy elements (Z ≥ {coverage.HEAVY_Z})", heavy),
        (label, f"{len(found.enough)}, of them {found.n_heavy_in_enough} heavy"),
    ]


def reference_rows(dataset):
    """Return how well references fitted on 80 % of the materials are known: of all pairs, of frames with forces."""
    import pyarrow.compute as pc

    tables, high = {}, dataset.functional("high")
    if dataset.pairs is not None:
        tables["pairs"] = (dataset.pairs, dataset.pairs[high.column()].to_numpy())
    if dataset.frames is not None:
        labelled = pc.and_(
            pc.equal(dataset.frames["functional"], high.key), dataset.frames["forces_ev_per_a"].is_valid()
        )
        frames = dataset.frames.filter(labelled)
        if frames.num_rows:
            tables["frames with forces"] = (frames, frames["energy_per_atom_ev"].to_numpy())
    return [
        (f"{high.name} references fitted on 80 % of the materials, {name}", _known(*given))
        for name, given in tables.items()
    ]


def _known(table, energy_per_atom_ev):
    from crossfunc.energies import composition_matrix, held_out_error

    found = held_out_error(composition_matrix(table), energy_per_atom_ev, list(table["material_id"].__array__()))
    fit, error = found["fit"], found["mae_ev_per_atom"]
    return (
        f"rank {fit.rank} for {fit.n_elements} elements; mean error {error:.3f} eV/atom on "
        f"{found['n_materials_judged']:,} held-out materials"
    )


def _counts(column, most=8):
    counts = column.value_counts()
    text = ", ".join(f"{name}: {n:,}" for name, n in counts.head(most).items())
    rest = counts.iloc[most:]
    return text + (f", and {len(rest)} more with {rest.sum():,} together" if len(rest) else "")


def _elements_of(compositions):
    from pymatgen.core import Composition

    return {element.symbol for formula in set(compositions) for element in Composition(formula)}


def _facts(label, value):
    """One row for a plain value, one for each entry of a group of settings (their names carry units: kept as code)."""
    from crossfunc.plain_text import in_code, in_markdown

    if isinstance(value, dict) and len(value) > 2:
        return [(f"{in_markdown(label)}: `{in_code(key)}`", _text(entry)) for key, entry in value.items()]
    return [(in_markdown(label), _text(value))]


def _words(key):
    return key.replace("_", " ").capitalize()


def _text(value):
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_text(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(v) for v in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


class Datasheet(SphinxDirective):
    """Table of facts of a dataset by name or folder."""

    required_arguments = 1

    def run(self):
        """Open the dataset and list what it holds."""
        import crossfunc as xf
        from crossfunc.plain_text import in_markdown

        lines = ["```{list-table}", ":widths: 32 68", ""]
        for fact, value in datasheet_rows(xf.open_dataset(self.arguments[0])):
            lines += [f"* - {fact}", f"  - {in_markdown(value) or '—'}"]
        return parse_lines(self, [*lines, "```"], "xf-datasheet")


def setup(app):
    """Register the directive."""
    app.add_directive("datasheet", Datasheet)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
