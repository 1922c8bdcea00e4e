"""What a benchmark says while it measures: on stderr, so that stdout holds the report alone."""

import sys


def tell(text: str) -> None:
    """Write one line to stderr at once; a terminal that has gone away ends no measurement."""
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except OSError:
        pass
