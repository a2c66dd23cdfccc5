"""What the pages for users show is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.checkout import ROOT
from tests.support.pages import consoles, fenced
from tests.support.pages.fenced import Block
from tests.support.pages.sessions import Session, TooLateError

PAGES = fenced.pages()
BLOCKS = [block for page in PAGES for block in fenced.blocks(page)]
DESIGN = ROOT / "docs" / "design"


def with_kind(kind: str) -> list[Path]:
    return sorted({block.page for block in BLOCKS if block.kind == kind})


def by_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_a_block_says_how_it_is_tested(block: Block) -> None:
    if block.language in fenced.UNMARKED:
        return
    assert block.language in fenced.MARKED, "say text where it is nothing to run"
    assert block.kind in fenced.KINDS, f"no mark or an unknown one: {block.kind!r}"
    assert bool(block.name) == (block.kind == "file"), "a file needs its name, nothing else has one"
    if block.kind in ("fast", "processes", "cluster"):
        assert block.language in ("console", "python"), "what is run shows what it says"


@pytest.mark.slow
@pytest.mark.parametrize("page", with_kind("fast"), ids=by_name)
def test_page(page: Path, tmp_path: Path) -> None:
    Session(tmp_path).do(fenced.blocks(page), {"fast"})


@pytest.mark.pages
@pytest.mark.processes
@pytest.mark.timeout(1800)
@pytest.mark.xdist_group("dtjob run")
@pytest.mark.parametrize("page", with_kind("processes"), ids=by_name)
def test_page_with_workers(page: Path, tmp_path: Path) -> None:
    def do(name: str) -> None:
        folder = tmp_path / name
        folder.mkdir()
        Session(folder).do(fenced.blocks(page), {"fast", "processes"})

    try:
        do("first")
    except TooLateError:
        do("second")  # the job trains for 3 s: whoever stands still for as long can't press Ctrl-C


def test_targets_of_make_exist() -> None:
    there = set(re.findall(r"^([a-z-]+(?: [a-z-]+)*):", (ROOT / "Makefile").read_text(), re.M))
    targets = {name for line in there for name in line.split()}
    shown = {
        target
        for block in BLOCKS
        if block.kind == "make"
        for target in re.findall(r"^make ([a-z-]+)", block.text, re.M)
    }
    assert {"demo", "test", "check"} <= shown <= targets


def test_cleaning_up_leaves_ledgers_alone() -> None:
    """docs/quickstart.md says of a run's ledger: never delete it."""
    (clean,) = re.findall(r"^clean:.*\n((?:\t.*\n?)+)", (ROOT / "Makefile").read_text(), re.M)
    assert ".venv" in clean
    assert "dtjob-runs" not in clean


@pytest.mark.parametrize("page", [*PAGES, *sorted(DESIGN.glob("*.md"))], ids=by_name)
def test_links_lead_somewhere(page: Path) -> None:
    for text, target in re.findall(r"\[([^\]]+)\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path) if path else page
        assert there.exists(), f"{text}: {target}"
        if anchor:
            assert anchor in _anchors(there), f"{text}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_files_that_commands_name_exist(page: Path, tmp_path: Path) -> None:
    Session(tmp_path).do(fenced.blocks(page), set())
    for block in fenced.blocks(page):
        if block.kind in ("shown", "demo", "cluster") and block.language in ("sh", "console"):
            for name in re.findall(r"(?:^|\s)(?:-f|-k) (\S+)", block.text):
                assert (tmp_path / name).exists(), f"{block.place}: {name}"


def test_the_index_of_design_has_every_page() -> None:
    linked = re.findall(r"^\| \[[^]]+\]\((\w+\.md)\)", (DESIGN / "README.md").read_text(), re.M)
    assert sorted([*linked, "README.md"]) == sorted(page.name for page in DESIGN.glob("*.md"))


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


SAID = ["[   0.2 s] job-1a2b3c4d: 2 workers", "", "a  1.5", "rest", "b 3"]


@pytest.mark.parametrize(
    ("shown", "loose", "same"),
    [
        (["[   7.0 s] job-00000000: 9 workers", "a 2", "[...]", "b 1e-5"], True, True),
        (["[   7.0 s] job-00000000: 9 workers", "a 2", "[...]", "b 1e-5"], False, False),
        (["[...]", "a   1.5", "rest", "b 3"], False, True),
        (["[...]", "a 1.5", "b 3"], False, False),
        (["[...]", "a 1.5"], False, False),
        (["[...]2 workers", "[...]"], False, True),
        ([], False, False),
    ],
)
def test_output_that_differs_is_noticed(shown: list[str], loose: bool, same: bool) -> None:
    assert consoles.agrees(shown, SAID, loose=loose) is same


def test_a_page_that_lies_fails(tmp_path: Path) -> None:
    block = Block(ROOT / "README.md", 1, "console", "fast", "", "$ echo one\ntwo\n")
    with pytest.raises(AssertionError, match=r"README.md:1: \$ echo one\none"):
        Session(tmp_path).do([block], {"fast"})
