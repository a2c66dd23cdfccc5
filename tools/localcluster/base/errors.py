"""The one error of this package that is meant for people."""

from __future__ import annotations


class ClusterError(Exception):
    """Something a person has to know or do before a cluster can run.

    Parameters
    ----------
    message
        What is wrong, naming the thing and its value.
    remedy
        What to do about it, as an instruction.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(f"{message}. {remedy}." if remedy else message)
        self.message = message
        self.remedy = remedy


class CannotRunHere(ClusterError):
    """This machine lacks what a provider needs (root, Go, an engine): not a failure of the code."""
