from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field, ValidationError

from harness.documents import MAX_BYTES, Section, expand_path, load_yaml, parse, parse_yaml
from harness.errors import HarnessError, suggestion


class Inner(Section):
    rate: float = 0.1
    name: str


class Outer(Section):
    inner: Inner
    many: tuple[Inner, ...] = ()
    count: int = Field(default=1, gt=0)


def test_plain_yaml_is_read_with_anchors_and_merges() -> None:
    text = "base: &b {x: 1, y: [2, three]}\nother: {<<: *b, x: 5}\n"
    assert parse_yaml(text, "a.yaml") == {"base": {"x": 1, "y": [2, "three"]}, "other": {"x": 5, "y": [2, "three"]}}


@pytest.mark.parametrize(("text", "value"), [("1e-3", 1e-3), ("-2E5", -2e5), ("4.e-3", 4e-3), ("1e", "1e"), ("3", 3)])
def test_learning_rates_without_a_dot_are_numbers(text: str, value: object) -> None:
    assert parse_yaml(f"rate: {text}", "a.yaml") == {"rate": value}
    assert type(parse_yaml(f"rate: {text}", "a.yaml")["rate"]) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", r"line 3, column 1: key 'a' appears twice"),
        ("x:\n  a: 1\n  a: 1", r"line 3, column 3: key 'a' appears twice"),
        ("a: !!python/object/apply:os.system ['true']", r"line 1, column 4: tags \(!\) are not accepted"),
        ("a: !mine 3", r"line 1, column 4: tags \(!\) are not accepted"),
        ("a: !!int x", r"line 1, column 4: tags \(!\) are not accepted"),
        ("a: !!set {b, c}", r"line 1, column 4: tags \(!\) are not accepted"),
        ("a: 2001-99-99", r"line 1, column 4: 2001-99-99 is no number or date that can be read"),
        ("? 2001-01-01 25:00:00\n: 2", r"line 1, column 3: 2001-01-01 25:00:00 is no number or date"),
        ("a: 0x_", r"line 1, column 4: 0x_ is no number or date"),
        ("a: " + "9" * 5000, r"line 1, column 4: 9{60}\.\.\. is no number or date"),
        ("a: 100000000000000000000", r"line 1, column 4: a whole number beyond 64 bits is not accepted"),
        ("a: 0x" + "f" * 5000, r"line 1, column 4: a whole number beyond 64 bits is not accepted"),
        ("? [1, 2]\n: 3", r"key \[1, 2\] is not a word or a whole number"),
        ("{1: 2, true: 3}", r"key True is not a word or a whole number"),
        ("- a\n- b", r"expected a mapping \(key: value lines\), found a list"),
        ("just words", r"expected a mapping .*, found text"),
        ("", r"expected a mapping .*, found nothing"),
        ("a: [1, 2", r"line 1, column \d+: "),
        ("a: \t- b: c: d", r"line 1"),
        ("a: *nobody", r"line 1, column 4: found undefined alias"),
        ("[" * 3000, r"nested too deeply|line 1"),
        (b"\xff\xfea: 1", r"not UTF-8 text"),
        ("a: 1\x00", r"a\.yaml: "),
        ("a: 1\n---\nb: 2", r"a\.yaml: "),
    ],
)
def test_unsafe_or_broken_yaml_is_refused_in_one_sentence(text: str | bytes, message: str) -> None:
    with pytest.raises(HarnessError, match=message) as caught:
        parse_yaml(text, "a.yaml")
    assert str(caught.value).startswith("a.yaml: ")
    assert "\n" not in str(caught.value)


def test_aliases_that_expand_without_bound_are_refused_quickly() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
    )
    with pytest.raises(HarnessError, match=r"bomb\.yaml: aliases expand to more than 100,000 values"):
        parse_yaml(bomb, "bomb.yaml")


def test_an_alias_to_itself_is_refused() -> None:
    for text in ("a: &a [*a]", "a: &a {b: *a}"):
        with pytest.raises(HarnessError, match=r"self\.yaml: "):
            parse_yaml(text, "self.yaml")


def test_merge_keys_that_expand_without_bound_are_refused_quickly() -> None:
    text = "a0: &a0 {k: v}\n" + "".join(
        f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 30)
    )
    assert parse_yaml("".join(text.splitlines(keepends=True)[:4]), "merge.yaml")["a3"] == {"k": "v"}
    with pytest.raises(HarnessError, match=r"merge\.yaml: line \d+, column \d+: merge keys expand to more than 10,000"):
        parse_yaml(text, "merge.yaml")


def test_a_file_that_is_missing_a_folder_or_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"gone\.yaml: no such file"):
        load_yaml(tmp_path / "gone.yaml")
    with pytest.raises(HarnessError, match="cannot be read"):
        load_yaml(tmp_path)
    (tmp_path / "big.yaml").write_text("#" * (MAX_BYTES + 1))
    with pytest.raises(HarnessError, match=r"big\.yaml: 1,000,001 bytes is too large"):
        load_yaml(tmp_path / "big.yaml")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"inner": {"name": "a", "rat": 1}}, r"inner\.rat: unknown key 'rat'; did you mean 'rate'\?"),
        ({"innr": {"name": "a"}}, r"innr: unknown key 'innr'; did you mean 'inner'\?"),
        ({"inner": {"name": "a", "zzz": 1}}, r"inner\.zzz: unknown key 'zzz'; valid are name, rate"),
        ({"inner": {"name": "a"}, "many": [{"name": "b"}, {"nam": "c"}]}, r"many\.1\.nam: .*did you mean 'name'"),
        ({"inner": {}}, r"inner\.name: this key is required and missing"),
        ({"inner": {"name": "a"}, "count": 0}, r"count: input should be greater than 0, got 0"),
        ({"inner": {"name": "a"}, "count": "many"}, r"count: .*integer.*, got 'many'"),
        ({"inner": {"name": "a", "rate": float("nan")}}, r"inner\.rate: .*finite number, got nan"),
        ({"inner": {"name": ["a"] * 99}}, r"inner\.name: .*string, got a list"),
    ],
)
def test_a_document_that_breaks_its_schema_is_refused_by_field_and_value(data: dict, message: str) -> None:
    with pytest.raises(HarnessError, match=r"doc\.yaml: " + message) as caught:
        parse(Outer, data, "doc.yaml")
    assert "\n" not in str(caught.value)


def test_a_valid_document_becomes_a_frozen_model() -> None:
    model = parse(Outer, {"inner": {"name": "a"}, "many": [{"name": "b", "rate": 2}]}, "doc.yaml")
    assert model.many[0].rate == 2.0
    with pytest.raises(ValueError, match="frozen"):
        model.count = 3  # type: ignore[misc]


def test_variables_in_paths_are_replaced_from_the_environment_then_from_the_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PLACE", "/data")
    monkeypatch.delenv("NOWHERE", raising=False)
    assert expand_path("${PLACE}/x", "a.yaml") == Path("/data/x")
    assert expand_path("${PLACE}/x", "a.yaml", {"PLACE": "/other"}) == Path("/data/x")
    assert expand_path("${NOWHERE}/x", "a.yaml", {"NOWHERE": "/default"}) == Path("/default/x")
    with pytest.raises(
        HarnessError, match=r"a\.yaml: '\$\{NOWHERE\}/x' needs the environment variable NOWHERE; set it"
    ):
        expand_path("${NOWHERE}/x", "a.yaml")


def test_a_suggestion_is_the_nearest_name_or_the_whole_short_list() -> None:
    assert suggestion("resent50", ["resnet50", "vit"], "harness ls backbones") == (
        "; did you mean 'resnet50'? (harness ls backbones)"
    )
    assert suggestion("zzz", ["b", "a"]) == "; valid are a, b"
    assert suggestion("zzz", []) == ""
    assert suggestion("zzz", [f"name{n}" for n in range(30)], "harness ls x") == " (harness ls x)"


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_name_that_no_file_can_have_is_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(HarnessError, match="is no name that a file can have"):
        load_yaml(Path(name))


class _Numbers(Section):
    steps: int = 1
    rate: float | None = None
    seeds: tuple[int, ...] = ()
    every: int | bool = 2
    kind: Literal[False, "loud"] = "loud"


@pytest.mark.parametrize("given", [{"steps": True}, {"rate": False}, {"seeds": [1, True]}])
def test_yes_and_no_are_no_numbers(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="is no number"):
        _Numbers.model_validate(given)


def test_yes_and_no_are_taken_where_they_are_meant_and_text_that_holds_a_number_is_one() -> None:
    found = _Numbers.model_validate({"every": True, "kind": False, "steps": "5", "rate": "1e-3"})
    assert (found.every, found.kind, found.steps, found.rate) == (True, False, 5, 0.001)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"inner": 3}, "a.yaml: inner: input should be a valid mapping, got 3"),
        ({"inner": {"name": "x"}, "many": 3}, "a.yaml: many: input should be a valid list, got 3"),
        ([], "a.yaml: input should be a valid mapping, got []"),
    ],
)
def test_errors_speak_of_lists_and_mappings_as_those_who_write_yaml_do(data: Any, message: str) -> None:
    with pytest.raises(HarnessError) as error:
        parse(Outer, data, "a.yaml")
    assert str(error.value) == message
