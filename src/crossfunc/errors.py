"""The error for what a caller gave and no part of the library has a kind of its own for."""

__all__ = ["InputError"]


class InputError(ValueError):
    """An argument that cannot be used; the message names it and what it can be.

    The library raises no plain ValueError: those of its own kinds are sentences for people, all others are bugs.
    """
