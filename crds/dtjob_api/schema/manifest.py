"""Reading a manifest as kubectl does, though that reads YAML 1.1.

Numbers are those of YAML 1.2, so `1e-5` is one. What the two versions read differently, such as
`no` and `017`, is refused: a run on this machine would get other values than one in a cluster.
"""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Any, cast

from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import ScalarNode

from dtjob_api.model import Json

# Far beyond any object's; an alias that is within what it stands for has no end.
_MAX_DEPTH = 60
_TOO_DEEP = f"nested too deeply: give an object of at most {_MAX_DEPTH} levels"


#: Beyond it an integer is another one where JSON's numbers are read as floating point.
_LARGEST_INTEGER = 1 << 53
#: What the API server holds against no schema.
_ARGS = "spec.training.args."
# YAML 1.1, as kubectl reads it (sigs.k8s.io/yaml): https://yaml.org/type/bool.html, and octal.
_TRUTH = re.compile(r"(?:y|n|on|off|yes|no)", re.IGNORECASE)
_LEGACY_OCTAL = re.compile(r"[-+]?0[0-7_]+")


class ManifestError(ValueError):
    """A manifest can't be read; the message names file, line, column and remedy."""


class _Constructor(SafeConstructor):
    """Leaves dates as the text that they are in JSON, also those of no calendar."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """Locate a value that Python can't make of its text, such as `!!int x`."""
        if isinstance(node, ScalarNode) and not node.style:
            _refuse_ambiguous(node)
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, TypeError) as error:
            kind = str(node.tag).rpartition(":")[2]
            raise ConstructorError(
                None, None, f"can't be read as {kind}: {error}", node.start_mark
            ) from None


def _refuse_ambiguous(node: ScalarNode) -> None:
    """Refuse a scalar without quotes that YAML 1.1 and 1.2 read differently."""
    text, problem = str(node.value), None
    if _TRUTH.fullmatch(text):
        problem = f"{text} is true or false to kubectl, and a word to others: write true or false"
    elif _LEGACY_OCTAL.fullmatch(text) and int(text, 8) != int(text):
        problem = f"{text} is {int(text, 8)} to kubectl, and {int(text)} to others: write that"
    if problem:
        raise ConstructorError(None, None, f"{problem}, or put it in quotes", node.start_mark)


_Constructor.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)


def load(path: str | Path) -> Json:
    """The one object in a YAML or JSON file.

    Raises
    ------
    ManifestError
        The file can't be read, isn't YAML, has a key twice, or holds none or several objects.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ManifestError(
            f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8"
        ) from None
    return loads(text, source=str(path))


def loads(text: str, *, source: str = "<manifest>") -> Json:
    """The one object in a YAML or JSON text; `source` names it in errors."""
    reader = YAML(typ="safe", pure=True)
    reader.Constructor = _Constructor
    try:
        documents = [document for document in reader.load_all(text) if document is not None]
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        problem = (error.problem or error.context or "not YAML").split("\n")[0]
        raise ManifestError(f"{where}: {problem}") from None
    # The last two: of a character that there is not, and of a key that can't be one.
    except (YAMLError, ValueError, TypeError) as error:
        raise ManifestError(f"{source}: {error}") from None
    except RecursionError:
        raise ManifestError(f"{source}: {_TOO_DEEP}") from None
    if len(documents) != 1:
        count = "no object" if not documents else f"{len(documents)} objects"
        raise ManifestError(f"{source}: holds {count}; give exactly one")
    document = documents[0]
    if not isinstance(document, dict):
        raise ManifestError(f"{source}: holds a {type(document).__name__}; give a mapping")
    return cast(Json, _plain(document, source))


def _plain(value: Any, source: str, path: str = "", depth: int = 0) -> Any:
    """JSON values only: other keys than text are refused, and what JSON can't express."""
    if depth > _MAX_DEPTH:
        raise ManifestError(f"{source}: {_TOO_DEEP}")
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                where = path or "the top level"
                raise ManifestError(
                    f"{source}: {where}: the key {key!r} is not text; put it in quotes"
                )
            if not _is_text(key):
                where = path or "the top level"
                raise ManifestError(f"{source}: {where}: the key {key!r} holds half a character")
        return {
            key: _plain(child, source, f"{path}.{key}" if path else key, depth + 1)
            for key, child in value.items()
        }
    if isinstance(value, list):
        return [_plain(child, source, f"{path}[{i}]", depth + 1) for i, child in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ManifestError(f"{source}: {path}: {value} is not a JSON number; give a finite one")
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        raise ManifestError(f"{source}: {path}: the number is too large; give a smaller one")
    if isinstance(value, str) and not _is_text(value):
        half = next(c for c in value if not _is_text(c))
        raise ManifestError(f"{source}: {path}: holds half a character, {half!a}")
    return _as_it_comes_back(value, source, path) if path.startswith(_ARGS) else value


def _as_it_comes_back(value: Any, source: str, path: str) -> Any:
    """What an API server gives back of a number that no schema has a type for."""
    if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
        raise ManifestError(
            f"{source}: {path}: an integer beyond 2^53 may change on its way; give a smaller one, "
            "or put it in quotes"
        )
    if isinstance(value, float) and value.is_integer() and abs(value) <= _LARGEST_INTEGER:
        return int(value)
    return value


def _is_text(text: str) -> bool:
    """Whether it has no half of a pair of UTF-16, which no other encoding can express."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
