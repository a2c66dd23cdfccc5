"""How text that others wrote is shown to a person: a worker's message, a ledger's field.

A terminal obeys what is in it: an escape sequence rewrites the lines above, the true epsilon too,
and a line that a worker breaks reads as one of ours. So prose is shown on one line of printable
characters, and what has a form of its own only in that form.
"""

from __future__ import annotations

import re

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,1023}")
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9._+!-]*")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,63}")
_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


def line(text: str) -> str:
    """Return `text` on one line, with escapes for what is no printable character.

    Such as ESC, and the marks that turn the direction of what follows or can't be seen.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _printable(c) for c in text)


def digest(value: object) -> str | None:
    """Return a SHA-256 as ledgers write it; None of anything else."""
    return _of_form(_DIGEST, value)


def image(value: object) -> str | None:
    """Return the reference of a container image; None of anything else."""
    return _of_form(_IMAGE, value)


def version(value: object) -> str | None:
    """Return a version of Python or of a package; None of anything else."""
    return _of_form(_VERSION, value)


def package(value: object) -> str | None:
    """Return name and version of a package, as pip writes them; None of anything else."""
    return _of_form(_PACKAGE, value)


def path(value: object) -> str | None:
    """Return the place of a checkpoint on its volume; None of anything else."""
    return _of_form(_PATH, value)


def _printable(character: str) -> str:
    return " " if character.isspace() else character.encode("unicode_escape").decode("ascii")


def _of_form(form: re.Pattern[str], value: object) -> str | None:
    return value if isinstance(value, str) and form.fullmatch(value) else None
