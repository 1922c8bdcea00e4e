"""Forecasts of errors and what came out, from book/benchmarks/forecasts.json (``crossfunc bench forecasts --json``).

``{forecasts}``         coverage by dataset and target, and every case outside its interval
``{trained-forecasts}`` forecasts held against fine-tuning, as they are and as pilots correct them
``{forecasts-figure}``  found against forecast, one panel for each target; the content is its caption
"""

from pathlib import Path

from book_benchmarks import read_benchmark
from book_tables import list_table, parse_lines
from sphinx.util.docutils import SphinxDirective

_MARKS = {"pbe-r2scan": "o", "surrogate": "s", "surrogate-sevennet": "^"}


def coverage_lines(measured):
    """Return the MyST lines: how many cases lie in their interval, and those that do not."""
    rows = [
        (name, f"{one['n_inside']} of {one['n_cases']}", f"{one['share_inside']:.0%}", f"{one['median_width']:.1f}")
        for name, one in measured["coverage"].items()
    ]
    header = ("cases", "inside", "share", "upper end over lower, median")
    lines = list_table(header, rows, caption=f"Intervals of {measured['level']:.0%}, {measured['ahead']} times ahead")
    missed = [case for case in measured["cases"] if not case["inside"]]
    if not missed:
        return [*lines, "No case lies outside its interval.", ""]
    rows = [
        (
            f"{case['dataset']}, {case['target']}, {case['materials']}",
            f"{case['error_seen']:.3g} with {case['n_seen']}",
            f"{case['forecast']:.3g} ({case['low']:.3g} to {case['high']:.3g}) with {case['n']}",
            f"{case['found']:.3g} {case['unit']}",
        )
        for case in missed
    ]
    return lines + list_table(("missed", "seen", "forecast", "found"), rows, caption="Every case outside its interval")


def trained_lines(measured):
    """Return the MyST lines: coverage of forecasts of training, with and without the pilots' ratio."""
    trained = measured["trained"]
    rows = [
        (
            name,
            *(
                f"{of[kind]['n_inside']} of {of[kind]['n_cases']}, {of[kind]['found_over_forecast']:.2f}"
                for kind in ("stand-in", "corrected")
            ),
        )
        for name, of in trained["coverage"].items()
    ]
    header = ("training on", "stand-in's forecast: inside, found over forecast", "corrected by pilots: the same")
    caption = f"Forecasts of the stand-in held against fine-tunings of {trained['n_epochs']} epochs"
    return list_table(header, rows, caption=caption)


def calibration_figure(measured):
    """Draw found against forecast with the intervals, a panel for each target; return figure and alternative text."""
    import matplotlib.pyplot as plt

    from crossfunc.lessons import figures

    figures.use_style()
    targets = list(dict.fromkeys(case["target"] for case in measured["cases"]))
    fig, axes = plt.subplots(1, len(targets), figsize=figures.wide(), squeeze=False)
    for ax, target in zip(axes[0], targets, strict=True):
        cases = [case for case in measured["cases"] if case["target"] == target]
        ends = [value for case in cases for value in (case["low"], case["high"], case["found"])]
        ax.plot([min(ends), max(ends)], [min(ends), max(ends)], color="#7a7a7a", lw=0.8)
        for case in cases:
            color = "black" if case["inside"] else "#c1272d"
            ax.plot([case["found"]] * 2, [case["low"], case["high"]], color=color, lw=0.7, alpha=0.5)
            ax.plot(case["found"], case["forecast"], _MARKS.get(case["dataset"], "D"), color=color, ms=3.5)
        ax.set(xscale="log", yscale="log", title=target, xlabel=f"found ({cases[0]['unit']})")
    axes[0, 0].set_ylabel("forecast")
    fig.tight_layout()
    share = "; ".join(
        f"{target}: {measured['coverage'][target]['n_inside']} of {measured['coverage'][target]['n_cases']}"
        for target in targets
    )
    return fig, f"Forecast against found error on logarithmic axes, with intervals. Inside: {share}."


def _read(directive):
    return read_benchmark(Path(directive.config.crossfunc_root) / "book" / "benchmarks" / "forecasts.json")


class Forecasts(SphinxDirective):
    """Table of the coverage and of the failures."""

    def run(self):
        """Count what the file holds."""
        return parse_lines(self, coverage_lines(_read(self)), "xf-datasheet")


class TrainedForecasts(SphinxDirective):
    """Table of forecasts that training has tested."""

    def run(self):
        """Count what the file holds."""
        return parse_lines(self, trained_lines(_read(self)), "xf-datasheet")


class ForecastsFigure(SphinxDirective):
    """Figure of all cases; the content is its caption."""

    has_content = True

    def run(self):
        """Draw the figure beside the pages, and show it under the name fig-forecasts."""
        import matplotlib.pyplot as plt

        figure, alt = calibration_figure(_read(self))
        folder = Path(self.env.srcdir) / "benchmarks"
        folder.mkdir(exist_ok=True)
        figure.savefig(folder / "forecasts.svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
        plt.close(figure)
        lines = ["```{figure} /benchmarks/forecasts.svg", f":alt: {alt}", ":name: fig-forecasts", "", *self.content]
        return parse_lines(self, [*lines, "```"])


def setup(app):
    """Register the directives."""
    app.add_directive("forecasts", Forecasts)
    app.add_directive("trained-forecasts", TrainedForecasts)
    app.add_directive("forecasts-figure", ForecastsFigure)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
