"""What linking an image leaves in containerd when it is ended on the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from localcluster.base.errors import ClusterError
from localcluster.images.builder_store import Layer, StoredImage
from localcluster.node import linking


class Containerd:
    """As much of a containerd as `ctr` shows: its snapshots, images, and what is never removed.

    Parameters
    ----------
    ended_at
        The first words of the call that is ended, and whether containerd carries it out.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._made = folder, 0
        self.kinds: dict[str, str] = {}
        self.kept: set[str] = set()
        self.names: list[str] = []
        self.ended_at: tuple[str, bool] | None = None
        self.error: BaseException = KeyboardInterrupt()

    def __call__(self, *arguments: str, stdin: bytes = b"") -> str:  # noqa: ARG002
        if self.ended_at is not None and " ".join(arguments).startswith(self.ended_at[0]):
            done, self.ended_at = self.ended_at[1], None
            if done:
                self._carry_out(*arguments)
            raise self.error
        return self._carry_out(*arguments)

    def _carry_out(self, *arguments: str) -> str:
        match arguments:
            case "snapshots", "ls":
                rows = [f"{name} parent {kind}" for name, kind in self.kinds.items()]
                return "\n".join(["KEY PARENT KIND", *rows]) + "\n"
            case "snapshots", "prepare", "--mounts", name, *_:
                assert name not in self.kinds
                self.kinds[name] = "Active"
                self.kept.add(name)
                self._made += 1
                folder = self._folder / str(self._made)
                folder.mkdir(parents=True)
                return json.dumps([{"Type": "bind", "Source": str(folder), "Options": []}])
            case "snapshots", "commit", name, unfinished:
                del self.kinds[unfinished]
                self.kept.discard(unfinished)
                self.kinds[name] = "Committed"
                self.kept.add(name)
            case "snapshots", "rm", name:
                del self.kinds[name]
                self.kept.discard(name)
            case "snapshots", "label", name, "containerd.io/gc.root=":
                assert name in self.kinds
                self.kept.discard(name)
            case "images", "import", "-":
                self.names.append("the image")
            case _:
                raise AssertionError(arguments)
        return ""

    def images(self, *_: str) -> list[str]:
        return self.names


@pytest.fixture
def containerd(tmp_path: Path) -> Containerd:
    return Containerd(tmp_path / "containerd")


@pytest.fixture
def image(tmp_path: Path) -> StoredImage:
    folders = [tmp_path / name for name in ("low", "high")]
    for folder in folders:
        folder.mkdir()
    layers = tuple(Layer(f"sha256:{folder.name}", folder) for folder in folders)
    return StoredImage(b"{}", b"{}", layers)


@pytest.mark.parametrize(
    "ended_at",
    [
        ("snapshots prepare", True),
        ("snapshots prepare", False),
        ("snapshots commit", True),
        ("snapshots commit", False),
        ("images import", True),
        ("images import", False),
        ("snapshots label", True),
        ("snapshots label", False),
    ],
)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), ClusterError("refused")], ids=repr)
def test_an_image_that_is_not_linked_leaves_nothing_for_ever(
    containerd: Containerd,
    image: StoredImage,
    ended_at: tuple[str, bool],
    error: BaseException,
) -> None:
    containerd.ended_at, containerd.error = ended_at, error
    with pytest.raises(type(error)):
        linking.load(containerd, image, "trainer")  # type: ignore[arg-type]
    assert containerd.kept == set()
    assert "Active" not in containerd.kinds.values()
    linking.load(containerd, image, "trainer")  # type: ignore[arg-type]
    assert containerd.kept == set()


def test_what_a_call_that_was_killed_has_left_goes_with_the_next(
    containerd: Containerd, image: StoredImage
) -> None:
    left = {"sha256:low": "Committed", "sha256:other-unfinished": "Active"}
    containerd.kinds, containerd.kept = dict(left), set(left)
    linking.load(containerd, image, "trainer")  # type: ignore[arg-type]
    assert containerd.kept == set()
    assert "Active" not in containerd.kinds.values()
    assert containerd.kinds["sha256:low"] == "Committed", "it is not linked again"


def test_the_folder_of_a_snapshot_is_found_in_how_it_is_mounted() -> None:
    lowest = {"Type": "bind", "Source": "/c/1/fs", "Options": ["rw", "rbind"]}
    assert linking.written_folder([lowest]) == Path("/c/1/fs")
    options = ["index=off", "workdir=/c/2/work", "upperdir=/c/2/fs", "lowerdir=/c/1/fs"]
    other = {"Type": "overlay", "Source": "overlay", "Options": options}
    assert linking.written_folder([other]) == Path("/c/2/fs")
