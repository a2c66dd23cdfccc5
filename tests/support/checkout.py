"""Where things lie in this checkout."""

from __future__ import annotations

from pathlib import Path

SUPPORT = Path(__file__).resolve().parent
ROOT = SUPPORT.parents[1]
TOOLS = ROOT / "tools"
DIGITS = ROOT / "examples" / "digits.yaml"
"""The example that most tests take."""
TASKS = SUPPORT / "tasks"
"""Users' modules, for a PYTHONPATH."""
