"""Configurations: frozen dataclasses that are read from and written to JSON, strictly."""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from medmae.errors import BadInput

Config = TypeVar("Config")


def to_json(config: Any) -> dict[str, Any]:
    """A dataclass instance as JSON-ready data (tuples become lists)."""
    return json.loads(json.dumps(dataclasses.asdict(config), allow_nan=False))


def from_json(cls: type[Config], data: Mapping[str, Any], where: str = "configuration") -> Config:
    """Build the dataclass `cls` from JSON data, converting nested dataclasses and tuples.

    Raises:
        BadInput: it is no object, a key is unknown (the valid ones are listed) or missing, or a value is of a wrong
            type.
    """
    if not isinstance(data, Mapping):
        raise BadInput(f"The {where} is not an object with keys, but {type(data).__name__}.")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise BadInput(f"Unknown key{'s' if len(unknown) > 1 else ''} {', '.join(unknown)} in the {where}. "
                       f"Valid keys: {', '.join(sorted(fields))}.")
    required = [name for name, field in fields.items()
                if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING]
    missing = [name for name in required if name not in data]
    if missing:
        raise BadInput(f"The {where} lacks {', '.join(missing)}.")
    hints = _type_hints(cls)  # type: ignore[arg-type]
    values = {name: _convert(value, hints[name], f"{where}, key {name}") for name, value in data.items()}
    try:
        return cls(**values)
    except ValueError as error:
        raise BadInput(f"The {where} is not usable: {error}") from None


def require_at_least(config: object, **least: float) -> None:
    """Check that the named numbers of `config`, where they are not None, are no less than the value given here.

    Raises:
        ValueError: one is.
    """
    for name, bound in least.items():
        value = getattr(config, name)
        if value is not None and not value >= bound:
            raise ValueError(f"{name} must be at least {bound}, not {value}")


def require_positive(config: object, *names: str) -> None:
    """Check that the named numbers of `config`, where they are not None, are above zero.

    Raises:
        ValueError: one is not.
    """
    for name in names:
        value = getattr(config, name)
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be above 0, not {value}")


def with_overrides(config: Config, assignments: Iterable[str], where: str = "configuration") -> Config:
    """Apply ``key=value`` texts (dots reach into nested dataclasses; values are JSON, or plain text).

    Raises:
        BadInput: an assignment has no ``=``, its key is unknown or its value has the wrong type.
    """
    data = to_json(config)
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator:
            raise BadInput(f"'{assignment}' is not of the form key=value.")
        target, parts = data, key.strip().split(".")
        for part in parts[:-1]:
            if not isinstance(target.get(part), dict):
                raise BadInput(f"Unknown key {key} in the {where}. Valid keys: {', '.join(_leaves(data))}.")
            target = target[part]
        if parts[-1] not in target:
            raise BadInput(f"Unknown key {key} in the {where}. Valid keys: {', '.join(_leaves(data))}.")
        try:
            target[parts[-1]] = json.loads(text)
        except json.JSONDecodeError:
            target[parts[-1]] = text
    return from_json(type(config), data, where)


@functools.cache
def _type_hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)  # compiles every annotation, which takes as long as all the rest


def _leaves(data: Mapping[str, Any], prefix: str = "") -> list[str]:
    names: list[str] = []
    for key, value in data.items():
        names += _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [prefix + key]
    return sorted(names)


def _convert(value: Any, hint: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        errors = []
        for argument in arguments:
            if argument is type(None):
                continue
            try:
                return _convert(value, argument, where)
            except BadInput as error:
                errors.append(str(error))
        raise BadInput(errors[0])
    if origin is typing.Literal:
        if value not in arguments:
            raise BadInput(f"{where}: {value!r} is not one of {', '.join(map(repr, arguments))}.")
        return value
    if dataclasses.is_dataclass(hint):
        if isinstance(value, hint):  # type: ignore[arg-type]
            return value
        if not isinstance(value, Mapping):
            raise BadInput(f"{where}: expected an object, found {value!r}.")
        return from_json(hint, value, where)  # type: ignore[arg-type]
    if origin in (tuple, list):
        if not isinstance(value, (list, tuple)):
            raise BadInput(f"{where}: expected a list, found {value!r}.")
        if origin is tuple and arguments[-1:] != (Ellipsis,):
            if len(value) != len(arguments):
                raise BadInput(f"{where}: expected {len(arguments)} values, found {len(value)}.")
            return tuple(_convert(item, kind, where) for item, kind in zip(value, arguments, strict=True))
        return origin(_convert(item, arguments[0], where) for item in value)
    if origin is dict or hint is dict:
        if not isinstance(value, Mapping):
            raise BadInput(f"{where}: expected an object, found {value!r}.")
        return {key: _convert(item, arguments[1], where) for key, item in value.items()} if arguments else dict(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint in (int, float) and isinstance(value, bool)):
        raise BadInput(f"{where}: expected {hint.__name__}, found {value!r}.")
    return value
