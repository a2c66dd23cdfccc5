"""Reading a manifest as kubectl does: the numbers people write, and errors that say where."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtjob_api.schema.manifest import ManifestError, load, loads


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1.5", 1.5),
        ("1.0", 1.0),
        ("1e3", 1e3),
        ("8", 8),
        ('"no"', "no"),
        ("nope", "nope"),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", 1000),
        ("00", 0),
        ("07", 7),
        ("08", 8),
        ('"017"', "017"),
        ("12:30", "12:30"),
        ("True", True),
        ("~", None),
    ],
)
def test_scalars_are_those_of_kubectl(text: str, value: object) -> None:
    read = loads(f"x: {text}")["x"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "value"), [("1.0", 1), ("1e3", 1000), ("-0.0", 0), ("1e17", 1e17)]
)
def test_a_whole_number_of_the_arguments_is_one_of_the_api_server(text: str, value: float) -> None:
    read = loads(f"spec: {{training: {{args: {{x: [{text}]}}}}}}")
    (found,) = read["spec"]["training"]["args"]["x"]
    assert (found, type(found)) == (value, type(value))


def test_json_is_yaml() -> None:
    assert loads('{"a": {"b": [1, 2.5, null, true]}}') == {"a": {"b": [1, 2.5, None, True]}}


@pytest.mark.parametrize("text", ["2026-01-02", "2026-01-02 03:04:05 +1", "2026-13-45"])
def test_a_date_stays_text(text: str) -> None:
    assert loads(f"x: {text}") == {"x": text}


def test_one_object_among_empty_documents() -> None:
    assert loads("---\na: 1\n---\n") == {"a": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2\nb: 3\n", r"^job.yaml:2:\d+: "),
        ("a: 1\na: 2\n", r"^job.yaml:2:1: found duplicate key"),
        ("a: 1\n\tb: 2\n", r"^job.yaml:2:1: "),
        ("", "holds no object"),
        ("a: 1\n---\nb: 2\n", "holds 2 objects; give exactly one"),
        ("- a\n", "holds a list; give a mapping"),
        ("spec:\n  1: x\n", "spec: the key 1 is not text; put it in quotes"),
        ("spec: {epsilon: .inf}", "spec.epsilon: inf is not a JSON number"),
        ("spec: {epsilon: .nan}", "spec.epsilon: nan is not a JSON number"),
        ("spec: {x: !python/name:os.system y}", "job.yaml:1:"),
        ("a: 1\nb: !!bool maybe", "^job.yaml:2:4: can't be read as bool"),
        ("a: 1\nb: !!int x", "^job.yaml:2:4: can't be read as int"),
        ("a: 1\nb: !!int ''", "^job.yaml:2:4: can't be read as int"),
        ("a: 1\nb: !!float x", "^job.yaml:2:4: can't be read as float"),
        ("a: 1\nb: " + 5000 * "9", "^job.yaml:2:4: can't be read as int"),
        ("? - {}\n: x", "^job.yaml: unhashable"),
        ("spec: {epsilon: " + 400 * "9" + "}", "spec.epsilon: the number is too large"),
        ("spec: {epsilon: 0x" + 6000 * "f" + "}", "spec.epsilon: the number is too large"),
        ('a: "\\U00110000"', "^job.yaml: "),
        ('spec: {image: "\\ud800"}', "spec.image: holds half a character, '.ud800'"),
        ('spec: {"\\ud800": 1}', "spec: the key '.ud800' holds half a character"),
        ("a: " + 100 * "[" + 100 * "]", "job.yaml: nested too deeply"),
        (500 * "- ", "job.yaml: nested too deeply"),
        ("spec:\n  args: {country: no}", r"^job.yaml:2:19: no is true or false to kubectl"),
        ("spec:\n  on: 1", r"^job.yaml:2:3: on is true or false to kubectl"),
        ("a: [Yes]", r"^job.yaml:1:5: Yes is true or false to kubectl"),
        ("a: 017", r"^job.yaml:1:4: 017 is 15 to kubectl, and 17 to others: write that, or put"),
        ("a: -0_17", r"^job.yaml:1:4: -0_17 is -15 to kubectl, and -17 to others"),
        (
            "spec: {training: {args: {seeds: [9007199254740993]}}}",
            r"spec.training.args.seeds.0.: an integer beyond 2.53 may change",
        ),
        ("a: &a [*a]", "nested too deeply"),
        ("a: &a {b: *a}", "nested too deeply"),
    ],
    ids=lambda text: text[:40],
)
def test_mistakes_are_located(text: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        loads(text, source="job.yaml")


def test_a_file_that_is_missing_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="No such file"):
        load(tmp_path / "absent.yaml")
    with pytest.raises(ManifestError, match="Is a directory"):
        load(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match="not UTF-8"):
        load(tmp_path / "binary.yaml")
