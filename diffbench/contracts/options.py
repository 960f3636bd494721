"""Options: a frozen dataclass that checks its own fields, and the words for what each field accepts.

pydantic does the checking (strict: no text becomes a number) and annotated_types says the ranges:

    steps: Annotated[int, Ge(1)] = 50             # network calls
    scale: Annotated[float, Ge(0)] = sampling_option(3.0)
"""

from __future__ import annotations

import functools
import inspect
import itertools
import re
import typing
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, get_args, get_origin

import annotated_types
import pydantic

from diffbench.errors import OptionError
from diffbench.wording import brief, did_you_mean


def sampling_option(default: Any = MISSING) -> Any:
    """An option of a training component that only changes sampling: cells that differ in it share one training."""
    return field(default=default, metadata={"half": "sampling"})


def incidental_option(default: Any = MISSING) -> Any:
    """An option that cannot change a result, such as where data lie or how work is cut up:
    it is never part of an identity.
    """
    return field(default=default, metadata={"half": "incidental"})


@dataclass(frozen=True)
class Words:
    """In an annotation: what an option accepts, where its type does not tell."""

    text: str | Callable[[], str]     # a function where it is not known before it is asked for


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of everything configurable: fields are checked and normalised at birth, and never change."""

    def __post_init__(self) -> None:
        model = _model(type(self))
        try:
            checked = model.model_validate({f.name: getattr(self, f.name) for f in fields(self)})
        except pydantic.ValidationError as error:
            faulty = dict.fromkeys(str(fault["loc"][0]) for fault in error.errors(include_url=False))
            raise OptionError("; ".join(sentence(type(self), name, getattr(self, name)) for name in faulty)) from None
        for name in model.model_fields:
            object.__setattr__(self, name, getattr(checked, name))


def check_value(cls: type[Options], name: str, value: Any) -> str | None:
    """The sentence that refuses this value for this option, or None where it is accepted."""
    try:
        _adapter(cls, name).validate_python(value)
    except pydantic.ValidationError:
        return sentence(cls, name, value)
    return None


def sentence(cls: type[Options], name: str, value: Any) -> str:
    """'eta must be a number in [0, 1], got -0.5'."""
    hint = write_whole(value, lambda whole: check_value(cls, name, as_many(cls, name, whole)) is None)
    return f"{name} must be {accepts(cls, name)}, got {_shown(value)}{hint}"


def write_whole(value: Any, is_accepted: Callable[[Any], bool] = lambda whole: True) -> str:
    """'; write 1000' for 1e3, a number with nothing after its point that is meant as an integer,
    and for lists of such; else nothing.
    """
    whole = _whole(value)
    return (f"; write {brief(list(whole) if isinstance(whole, tuple) else whole)}"
            if whole is not None and is_accepted(whole) else "")


def unknown_option(owner: str, cls: type[Options], name: object) -> str:
    """One sentence for an option that does not exist, with the nearest one and all that do."""
    names = [f.name for f in fields(cls)]
    if not names:
        return f"unknown option {brief(str(name))}: {owner} has no options"
    known = ", ".join(f.name if f.default is MISSING else f"{f.name} ({f.default!r})" for f in fields(cls))
    return f"unknown option {brief(str(name))}.{did_you_mean(str(name), names)} Options of {owner}: {known}"


def with_preset(owner: str, cls: type[Options], options: dict[str, Any]) -> dict[str, Any]:
    """The options with `preset: NAME` replaced by those it stands for; options beside it win.
    Raises OptionError for an unknown name.
    """
    presets = getattr(cls, "presets", {})
    if "preset" not in options or "preset" in {f.name for f in fields(cls)}:
        return options
    name = options["preset"]
    if not isinstance(name, str) or name not in presets:
        known = f" Presets: {', '.join(presets)}" if presets else f" {owner} has no presets"
        raise OptionError(f"unknown preset {brief(name)}.{did_you_mean(str(name), presets)}{known}")
    return {**presets[name], **{option: value for option, value in options.items() if option != "preset"}}


def hint(cls: type[Options], name: str) -> Any:
    """The type of an option, without its range."""
    declared = _hints(cls)[name]
    return get_args(declared)[0] if get_origin(declared) is typing.Annotated else declared


def declared_type(cls: type[Options], name: str) -> Any:
    """The type of an option as declared, its range with it."""
    return _hints(cls)[name]


def accepts(cls: type[Options], name: str) -> str:
    """Values that an option accepts, in words: 'an integer >= 1', 'a number in [0, 1]', \"one of 'small', 'large'\"."""
    declared = _hints(cls)[name]
    limits = get_args(declared)[1:] if get_origin(declared) is typing.Annotated else ()
    words = next((limit.text for limit in limits if isinstance(limit, Words)), "")
    return (words if isinstance(words, str) else words()) or _in_words(hint(cls, name), limits)


def half_of(declared: Field[Any], otherwise: str) -> str:
    """The half of a cell an option belongs to: its own mark, else that of its kind."""
    return declared.metadata.get("half", otherwise)


def check_options(owner: str, cls: type[Options], options: dict[str, Any]) -> list[str]:
    """Every mistake in a set of options, as sentences."""
    known = {f.name: f for f in fields(cls)}
    mistakes = [unknown_option(owner, cls, name) for name in options if name not in known]
    mistakes += [f"{owner} needs the option {name!r}" for name, f in known.items() if f.default is MISSING
                 and name not in options]
    mistakes += [mistake for name, value in options.items() if name in known
                 and (mistake := check_value(cls, name, value))]
    return mistakes


def comments(cls: type) -> dict[str, str]:
    """The comment beside each option in the source, which may go on in lines of its own below, or its metadata's
    "meaning" where there is no source: for `diffbench show`.
    """
    meanings: dict[str, str] = {}
    for owner in reversed(cls.__mro__[:-1]):
        try:
            lines = inspect.getsource(owner).splitlines()
        except (OSError, TypeError):
            continue
        option = ""
        for line in lines:
            if match := re.match(r"    (\w+):.*?\s#\s(.*)$", line):
                option, meanings[match[1]] = match[1], match[2].strip()
            elif option and (match := re.match(r"\s{12,}# (.*)$", line)):
                meanings[option] += f" {match[1].strip()}"
            else:
                option = ""
    return {f.name: meanings.get(f.name) or f.metadata.get("meaning", "") for f in fields(cls)}


def plain(value: Any) -> Any:
    """Lists become tuples, as the options that hold several values are written in Python."""
    return tuple(plain(v) for v in value) if isinstance(value, list | tuple) else value


def is_of(declared: Any, base: type) -> bool:
    """Whether a type is a class derived from another;
    Python 3.10 takes tuple[int, ...] for a class, and issubclass then raises.
    """
    return isinstance(declared, type) and get_origin(declared) is None and issubclass(declared, base)


def as_many(cls: type[Options], name: str, value: Any) -> Any:
    """One value of an option that holds a list of any length as that list: it needs no brackets. Nothing is no value.
    """
    return ((value,) if value is not None and not isinstance(value, list | tuple | dict)
            and needs_no_brackets(cls, name) else value)


def needs_no_brackets(cls: type[Options], name: str) -> bool:
    """Whether an option holds a list of any length, of things that are no lists: one of them may stand alone."""
    declared = hint(cls, name)
    return (get_origin(declared) is tuple and get_args(declared)[-1] is Ellipsis
            and get_origin(get_args(declared)[0]) is not tuple)


def is_many(cls: type[Options], name: str) -> bool:
    """Whether one value of this option is itself a list (so that a grid over it is a list of lists)."""
    return get_origin(hint(cls, name)) is tuple


def grid(choices: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """Every combination of the choices, the last varying fastest."""
    return (dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values()))


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


_STRICT = pydantic.ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False,
                              protected_namespaces=())


@functools.cache
def _model(cls: type) -> type[pydantic.BaseModel]:
    """A strict model of a class's options."""
    declared: Any = {f.name: (_checkable(_hints(cls)[f.name]), ...) for f in fields(cls)}
    return pydantic.create_model(cls.__name__, __config__=_STRICT, **declared)


@functools.cache
def _adapter(cls: type, name: str) -> pydantic.TypeAdapter[Any]:
    """The same for one option, at a fifth of the price of a model."""
    declared = _hints(cls)[name]
    return pydantic.TypeAdapter(_checkable(declared), config=None if is_of(declared, Options) else _STRICT)


def _checkable(declared: Any) -> Any:
    """pydantic would rebuild a nested dataclass: a nested component is only asked what it is.
    It would also take `true` for a literal 1.
    """
    if is_of(declared, Options):
        return pydantic.InstanceOf[declared]  # type: ignore[misc]  # a class made while running is no type to mypy
    if get_origin(declared) is typing.Literal and bool not in map(type, get_args(declared)):
        return typing.Annotated[declared, pydantic.BeforeValidator(_no_truth)]
    return declared


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(value)
    return value


def _in_words(kind: Any, limits: tuple[Any, ...] = (), many: bool = False) -> str:
    origin = get_origin(kind)
    if origin is typing.Annotated:
        return _in_words(get_args(kind)[0], get_args(kind)[1:], many)
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(v) for v in get_args(kind))
    if origin is tuple:
        args = get_args(kind)
        inner = _in_words(args[0], many=True)
        return f"a list of {inner}" if args[-1] is Ellipsis else f"a list of {len(args)} {inner}"
    if origin is not None or not isinstance(kind, type):
        return " or ".join(_in_words(k, limits, many) for k in get_args(kind)) or str(kind)
    names = {int: ("an integer", "integers"), float: ("a number", "numbers"), bool: ("true or false", "true or false"),
             str: ("text", "texts"), type(None): ("null", "null")}
    noun = names[kind][many] if kind in names else f"a {_spaced(kind.__name__)}"
    return f"{noun}{_range(limits)}"


def _range(limits: tuple[Any, ...]) -> str:
    """' in [0, 1)', ' >= 1' or nothing."""
    bounds: dict[str, Any] = {}
    for limit in limits:
        for part in limit if isinstance(limit, annotated_types.GroupedMetadata) else (limit,):
            for name in ("ge", "gt", "le", "lt"):
                if getattr(part, name, None) is not None:
                    bounds[name] = getattr(part, name)
    low, high = (next(((k, bounds[k]) for k in ("ge", "gt") if k in bounds), None),
                 next(((k, bounds[k]) for k in ("le", "lt") if k in bounds), None))
    if low and high:
        return f" in {'[' if low[0] == 'ge' else '('}{low[1]}, {high[1]}{']' if high[0] == 'le' else ')'}"
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    one = low or high
    return f" {signs[one[0]]} {one[1]}" if one else ""


def _spaced(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", " ", name).lower()


def _shown(value: Any) -> str:
    return (f"{brief(value, 80)} (text)" if isinstance(value, str)
            else brief(list(value) if isinstance(value, tuple) else value, 80))


def _whole(value: Any) -> Any:
    """A number with nothing after its point, such as 1e3, as the integer that was meant; lists of them too.
    None where there is none.
    """
    if isinstance(value, tuple):
        items = [_whole(item) for item in value]
        return (tuple(item if whole is None else whole for item, whole in zip(value, items, strict=True))
                if any(w is not None for w in items) else None)
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**63 else None
