"""Reading YAML from strangers: safe, strict, and with errors that say where and what to do."""

from __future__ import annotations

import os
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from harness.errors import HarnessError, suggestion

MAX_BYTES = 1_000_000
MAX_NODES = 100_000

Model = TypeVar("Model", bound=BaseModel)


class Section(BaseModel):
    """Base of every schema: unknown keys are errors, instances do not change, and yes or no is no number.

    Text that holds a number is one: YAML 1.1 takes 1e-3 for text.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic would take true for 1: a step, a seed, a batch of one image
        truths = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, bool)]
        kinds = set(_kinds(cls.model_fields[info.field_name].annotation)) if truths and info.field_name else set()
        if kinds & {int, float} and bool not in kinds:
            raise ValueError(f"{str(truths[0]).lower()} (which YAML also reads in yes, no, on and off) is no number")
        return value


def _kinds(annotation: Any) -> Iterator[Any]:
    """What a value may be: the types, and those of literals, that an annotation is made of."""
    if get_origin(annotation) is Literal:
        yield from map(type, get_args(annotation))
    elif get_args(annotation):
        for part in get_args(annotation):
            yield from _kinds(part)
    else:
        yield annotation


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which also refuses tags, and duplicate keys instead of keeping the last one."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if not isinstance(event, yaml.AliasEvent) and event.tag is not None:
            raise yaml.composer.ComposerError(None, None, "tags (!) are not accepted; leave it out", event.start_mark)
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep=deep)
        except (ValueError, OverflowError):  # YAML takes it for a number or a date: 2001-99-99, 0x_
            shown = node.value if len(node.value) <= 60 else f"{node.value[:60]}..."
            raise yaml.constructor.ConstructorError(
                None, None, f"{shown} is no number or date that can be read; put text in quotes", node.start_mark
            ) from None
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise yaml.constructor.ConstructorError(
                None, None, "a whole number beyond 64 bits is not accepted", node.start_mark
            )
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, int)) or isinstance(key, bool):
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is not a word or a whole number", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} appears twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        # Merges of merges multiply: without this, a few hundred bytes keep the loader busy for hours.
        super().flatten_mapping(node)
        if len(node.value) > MAX_NODES // 10:
            raise yaml.constructor.ConstructorError(
                None, None, f"merge keys expand to more than {MAX_NODES // 10:,} entries", node.start_mark
            )


# YAML 1.1 reads 1e-3 (no dot) as a string; people write learning rates that way.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def load_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML mapping.

    Args:
        path: The file.

    Returns:
        The mapping at the top of the file.

    Raises:
        HarnessError: The file is missing, too large, not UTF-8, not valid YAML, has a tag, a duplicate key, a
            number or date that there is not, or aliases that expand without bound, or its top is not a mapping.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise HarnessError(f"{path}: no such file") from None
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:  # a name with a null byte or half a character
        raise HarnessError(f"{str(path)!r}: is no name that a file can have") from None
    return parse_yaml(raw, str(path))


def parse_yaml(raw: bytes | str, source: str) -> dict[str, Any]:
    """Read one YAML mapping from text; `source` names it in errors. See `load_yaml`."""
    if len(raw) > MAX_BYTES:
        raise HarnessError(f"{source}: {len(raw):,} bytes is too large for a YAML file (at most {MAX_BYTES:,})")
    try:
        text = raw.decode("utf-8") if isinstance(raw, bytes) else raw
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except UnicodeDecodeError as error:
        raise HarnessError(f"{source}: not UTF-8 text (byte {error.start})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or "not valid YAML"
        raise HarnessError(f"{source}: {place}{problem}") from None
    except RecursionError:
        raise HarnessError(f"{source}: nested too deeply") from None
    if not isinstance(document, dict):
        raise HarnessError(f"{source}: expected a mapping (key: value lines), found {_kind(document)}")
    if _count_nodes(document, MAX_NODES) < 0:
        raise HarnessError(f"{source}: aliases expand to more than {MAX_NODES:,} values")
    return document


def _count_nodes(value: Any, budget: int, depth: int = 0) -> int:
    """What is left of `budget` after counting `value`'s nodes with aliases expanded; negative if it ran out."""
    budget -= 1
    if depth > 50:
        return -1
    children: Iterable[Any] = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        if budget < 0:
            break
        budget = _count_nodes(child, budget, depth + 1)
    return budget


def parse(model: type[Model], data: Mapping[str, Any], source: str) -> Model:
    """Validate `data` against a schema, with one-sentence errors.

    Args:
        model: The pydantic schema.
        data: What was read from a file.
        source: The file's name, for errors.

    Returns:
        The validated model.

    Raises:
        HarnessError: The first problem found, naming field, value and, for unknown keys, the nearest valid key.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise HarnessError(describe(error, model, source)) from None


# What pydantic calls by Python's names, as those who write YAML call it.
_YAML_WORDS = (
    (re.compile(r" or instance of \w+"), ""),
    (re.compile(r"\btuple\b"), "list"),
    (re.compile(r"\bdictionary\b"), "mapping"),
)


def describe(error: ValidationError, model: type[BaseModel], source: str) -> str:
    """The first problem of a pydantic error as one sentence."""
    problems = error.errors(include_url=False)
    # An unknown key is nearly always the cause of the others (a misspelt required key is missing, too).
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    location = [str(part) for part in problem["loc"]]
    field = ".".join(location)
    place = f"{source}: {field}" if field else source
    value = problem.get("input")
    shown = repr(value) if len(repr(value)) <= 80 else f"{_kind(value)}"
    if problem["type"] == "extra_forbidden":
        keys = _keys_at(model, problem["loc"][:-1])
        return f"{place}: unknown key {location[-1]!r}{suggestion(location[-1], keys)}"
    if problem["type"] == "missing":
        return f"{place}: this key is required and missing"
    if problem["type"] == "value_error":
        return f"{place}: {problem['ctx']['error']}"
    message = problem["msg"][0].lower() + problem["msg"][1:]
    for words, yaml_words in _YAML_WORDS:
        message = words.sub(yaml_words, message)
    return f"{place}: {message}, got {shown}"


def _keys_at(model: Any, location: tuple[int | str, ...]) -> list[str]:
    """The valid keys at a place in a schema, as far as annotations tell."""
    candidates = [model]
    for part in location:
        following: list[Any] = []
        for candidate in candidates:
            for option in _models_in(candidate):
                field = option.model_fields.get(str(part))
                if field is not None:
                    following.append(field.annotation)
        candidates = following or candidates  # an index into a list, or a union's tag
    return sorted({key for c in candidates for option in _models_in(c) for key in option.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    if get_origin(annotation) in (Union, types.UnionType, list, tuple, dict) or get_args(annotation):
        return [m for argument in get_args(annotation) for m in _models_in(argument)]
    return []


def _kind(value: Any) -> str:
    return {dict: "a mapping", list: "a list", str: "text", type(None): "nothing"}.get(
        type(value), type(value).__name__
    )


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def expand_path(text: str, source: str, defaults: Mapping[str, str] | None = None) -> Path:
    """Replace ``${NAME}`` in a path by the environment's value.

    Args:
        text: The path as written.
        source: Where it stands, for errors.
        defaults: Values for variables that the environment does not set.

    Returns:
        The path, with ``~`` expanded.

    Raises:
        HarnessError: A variable is not set.
    """

    def value_of(match: re.Match[str]) -> str:
        name = match.group(1)
        value = os.environ.get(name) or (defaults or {}).get(name)
        if not value:
            raise HarnessError(f"{source}: {text!r} needs the environment variable {name}; set it, e.g. {name}=/data")
        return value

    return Path(_VARIABLE.sub(value_of, text)).expanduser()
