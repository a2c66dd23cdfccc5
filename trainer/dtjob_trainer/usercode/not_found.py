"""The remedy where a task's module is not found, worded for the places that were searched."""

from __future__ import annotations

import os


def remedy(module_name: str, missing: str, *, in_pod: bool) -> str:
    """How to make `missing` importable, which the task's `module_name` imports."""
    installed = "in the image (spec.image)" if in_pod else "in this environment"
    if not (module_name == missing or module_name.startswith(f"{missing}.")):
        return f"{module_name} imports it; install {missing} {installed}"
    path = os.environ.get("PYTHONPATH") or "not set"
    folder = f"{'its' if in_pod else 'the'} working folder, {os.getcwd()}"
    searched = f"{folder}, or in one of PYTHONPATH, which is {path}"
    advice = f"check the spelling, and that it is installed {installed} or lies in {searched}"
    if in_pod:
        return advice
    return (
        f"{advice}. With dtjob run the working folder is where you call it: call it in the folder "
        "of the module"
    )
