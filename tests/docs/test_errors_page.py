"""docs/reference/errors.md has each reason of the command, with its exit codes, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtjob_api.reasons import Reason
from dtjob_api.wire.exit_codes import WorkerExit
from dtjob_cli.errors import ExitCode
from dtjob_trainer.worker import processes
from tests.support.checkout import ROOT

PAGE = ROOT / "docs" / "reference" / "errors.md"
SUPERVISOR = ROOT / "trainer" / "dtjob_trainer" / "supervisor.py"
ROWS = {
    (reason, int(code))
    for reason, codes in re.findall(r"^\| `(\w+)` \| ([\d, ]+) \|", PAGE.read_text(), re.M)
    for code in codes.split(",")
}


def given(path: Path) -> Iterator[tuple[str, int]]:
    """The reasons of `CommandError` in a module of the CLI, but those that a worker gave."""
    tree = ast.parse(path.read_text())
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            continue
        match call.func.id, call.args:
            case "CommandError", [ast.Attribute(attr=code), reason, *_]:
                pass
            case "BadInput", [reason, *_]:
                code = "BAD_INPUT"
            case _:
                continue
        if isinstance(reason, ast.BoolOp):
            reason = reason.values[-1]  # where the worker gave none
        if isinstance(reason, ast.Name):
            reason = constants[reason.id]
        match reason:
            case ast.Constant(value=str(word)):
                yield word, ExitCode[code]
            case ast.Attribute(value=ast.Name(id="Reason"), attr=name):
                yield Reason[name].value, ExitCode[code]
            case ast.Subscript() | ast.Attribute():
                continue
            case _:
                raise AssertionError(f"{path}:{call.lineno}: what is this reason?")


def of_a_supervisor() -> Iterator[tuple[str, int]]:
    """What one says that ends before it has a word of its job's."""
    for handler in ast.walk(ast.parse(SUPERVISOR.read_text())):
        if not isinstance(handler, ast.ExceptHandler):
            continue
        match handler.body:
            case [ast.Expr(ast.Call(keywords=[*keywords])), ast.Return(ast.Attribute(attr=code))]:
                (reason,) = (word.value for word in keywords if word.arg == "reason")
                word = (
                    reason.value
                    if isinstance(reason, ast.Constant)
                    else getattr(processes, ast.unparse(reason))
                )
                yield str(word), WorkerExit[code]


def test_the_page_has_each_reason_with_its_exit_codes_and_no_other() -> None:
    modules = sorted((ROOT / "cli" / "dtjob_cli").rglob("*.py"))
    found = {pair for path in modules for pair in given(path)} | set(of_a_supervisor())
    assert {("RanksCannotStart", 3), ("RunInUse", 3), ("ImpossiblePlan", 2)} <= found
    assert found == ROWS


def test_a_reason_in_whatever_form_is_found(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        "OWN = 'Own'\n"
        "BadInput('Plain', m)\n"
        "BadInput(OWN, m)\n"
        "CommandError(ExitCode.FAILED, end.reason or 'Failed', m)\n"
        "CommandError(ExitCode.REFUSED, Reason.STORAGE_FULL, m)\n"
        "CommandError(ExitCode.REFUSED, refusal.reason, m)\n"
    )
    assert list(given(file)) == [("Plain", 2), ("Own", 2), ("Failed", 1), ("StorageFull", 3)]
    file.write_text("BadInput(f'{made}', m)")
    with pytest.raises(AssertionError, match="what is this reason"):
        list(given(file))
