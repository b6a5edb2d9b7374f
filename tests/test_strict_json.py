"""JSON files that cannot be read, and dataclasses that are made of what can."""

import dataclasses

import pytest

from shotstream_jax.strict_json import load_object, read_dataclass


@dataclasses.dataclass(frozen=True)
class Inner:
    flags: tuple[bool, ...]


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner
    name: str
    scale: float = 1.0
    limit: int | None = None


def test_nested_dataclasses_tuples_and_absent_values():
    document = {"inner": {"flags": [True, False]}, "name": "a", "scale": 2, "limit": None}
    made = Outer(inner=Inner(flags=(True, False)), name="a", scale=2)
    assert read_dataclass(Outer, document, "here") == made
    assert read_dataclass(Outer, {**document, "limit": 3}, "here").limit == 3


def test_absent_fields_are_refused_unless_they_are_optional():
    document = {"inner": {"flags": []}, "name": "a", "limit": None}
    with pytest.raises(ValueError, match="here has no scale"):
        read_dataclass(Outer, document, "here")
    assert read_dataclass(Outer, document, "here", optional={"scale"}).scale == 1.0


def test_long_values_are_cut_in_errors():
    with pytest.raises(ValueError, match="must be a text") as refused:
        read_dataclass(
            Outer, {"inner": {"flags": []}, "name": [0] * 1000}, "x", optional={"scale", "limit"}
        )
    assert len(str(refused.value)) < 150


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged"),
        ("[" * 100_000, "damaged"),
        ('{"a": NaN}', "damaged .NaN"),
        ('{"a": ' + "9" * 5000 + "}", "damaged"),
        ("[1]", "no JSON object"),
    ],
    ids=["cut off", "too deep", "not a number", "too many digits", "a list"],
)
def test_files_that_are_no_object_are_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"config\\.json .*{message}") as refused:
        load_object(path)
    assert "\n" not in str(refused.value)
