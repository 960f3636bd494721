"""JSON Schema of matrix.yaml, made from the registry, plug-ins included. Used by editors, and by `diffbench schema`.

It is as strict as a schema can be: names, options, types, ranges, lists. What only the whole file shows (a rule that
leaves out nothing, an axis that stands twice, two options that do not go together) `diffbench plan` says. Names are in
lower case here; a matrix may shout.
"""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pydantic

from diffbench.contracts.component import Component
from diffbench.contracts.options import Options, accepts, comments, declared_type, hint, is_many, needs_no_brackets
from diffbench.errors import DiffbenchError
from diffbench.matrix.matrix import BLOCKS, SCHEMA, VARIABLE_BLOCKS, axis_kinds
from diffbench.registry.ref import Ref
from diffbench.registry.registry import Registry

Json = dict[str, Any]
TITLE = "diffbench matrix"
SEED: Json = {"type": "integer", "minimum": 0, "exclusiveMaximum": 2**31,
              "description": "of the training and of the noise; several give intervals"}


def matrix_schema(registry: Registry) -> Json:
    """A JSON Schema, draft 2020-12. Components that cannot be imported are listed by name, their options unchecked."""
    axes = axis_kinds(registry)
    blocks = {name: _block(cls) for name, cls in BLOCKS.items()}
    settings = {f"{block}.{option}": schema for block in VARIABLE_BLOCKS
                for option, schema in blocks[block]["properties"].items()}
    single = {**{kind: _spec(kind) for kind in axes}, "seed": SEED, **settings}
    rules = {**{kind: {"$ref": f"#/$defs/rule of {kind}"} for kind in axes}, "seed": {}, **dict.fromkeys(settings, {})}
    of_an_option = rf"^({'|'.join(axes)})\.[a-z][a-z0-9_]*$"
    properties = {
        "diffbench": {"const": SCHEMA, "description": "version of this file's format"},
        "name": {"type": "string", "pattern": "^[a-z][a-z0-9_-]{0,63}$", "description": "results go to runs/<name>/"},
        "dataset": _spec("dataset"),
        "axes": _object({name: _one_or_more(schema) for name, schema in single.items()},
                        "the cells are the product of these lists"),
        "together": _list(
            {**_object({name: _one_or_more(schema) for name, schema in single.items()}, "options of one length each"),
             "patternProperties": {of_an_option: {}}}, "options that change in step instead of multiplying"),
        "exclude": _list({**_object({**rules, "why": {"type": "string", "description": "the reason"}},
                                    "axes and the values that are left out"),
                          "patternProperties": {of_an_option: {}}}, "cells of the product that are left out"),
        "include": _list(_object(single, "one cell"), "single cells outside the product"),
        "extractor": _spec("extractor"),
        "metrics": {"anyOf": [_spec("metric"), {"type": "array", "items": _spec("metric")}],
                    "description": "what is measured"},
        **blocks,
    }
    definitions: Json = {}
    for kind in registry.kinds:
        definitions |= _definitions(registry, kind)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": TITLE,
            **_object(properties, "a matrix of cells"),
            "required": ["diffbench"], "$defs": definitions}


def as_text(registry: Registry) -> str:
    """The schema as the content of a file."""
    return json.dumps(matrix_schema(registry), indent=1) + "\n"


def is_schema(path: Path) -> bool:
    """Whether a file is a schema that this module wrote, which a new one may replace."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("title") == TITLE


def _definitions(registry: Registry, kind: str) -> Json:
    """The definitions of one kind: how a component is written, how a rule names one, the options of each."""
    options, by_name = {}, {}
    for ref in registry.refs(kind):
        key = f"{kind} {ref.full_name}"
        options[key] = _options(registry, ref)
        for name in (ref.full_name, ref.name, *ref.summary().aliases):
            if _find(registry, kind, name) == ref:       # a bare name that two packages offer means neither
                by_name[name] = {"$ref": f"#/$defs/{key}"}
    description = {"description": registry.kinds[kind].summary}
    open_options = {name: {"type": ["object", "null"]} for name in by_name}
    return {kind: {**description, "anyOf": [*_names(by_name), _one_of(by_name)]},
            f"rule of {kind}": _one_or_more({**description, "anyOf": [*_names(by_name), _one_of(open_options)]}),
            **options}


def _find(registry: Registry, kind: str, name: str) -> Ref | None:
    try:
        return registry.find(kind, name)
    except DiffbenchError:
        return None


def _names(by_name: Json) -> list[Json]:
    """Schemas of components that are given by name only; '-' and '_' are interchangeable."""
    variants = [_variants(name) for name in by_name if "_" in name or "-" in name]
    return [{"enum": sorted(by_name)}, *([{"type": "string", "pattern": f"^({'|'.join(variants)})$"}]
                                         if variants else [])]


def _one_of(by_name: Json) -> Json:
    """The schema of a component with options, 'name: {option: value}'."""
    return {**_object(by_name, "name: {option: value}"), "minProperties": 1, "maxProperties": 1,
            "patternProperties": {f"^{_variants(name)}$": schema for name, schema in by_name.items() if "_" in name
                                  or "-" in name}}


def _variants(name: str) -> str:
    return re.sub("[-_]", "[-_]", name.replace(".", r"\."))


def _options(registry: Registry, ref: Ref) -> Json:
    summary = ref.summary().text
    try:
        cls = registry.load(ref)
    except DiffbenchError as error:
        return {"type": ["object", "null"], "description": str(error)}
    properties = {name: _grid(cls, name, schema) for name, schema in _values(cls).items()}
    if cls.presets:
        properties["preset"] = _one_or_more({"enum": sorted(cls.presets),
                                             "description": "a published set of options; options beside it win"})
    needed = [f.name for f in fields(cls) if f.default is MISSING and not cls.presets]
    return {**_object(properties, f"{summary} ({ref.origin})"), "type": "object" if needed else ["object", "null"],
            "required": needed}


def _block(cls: type[Options]) -> Json:
    return _object(_values(cls), (cls.__doc__ or "").partition("\n")[0])


def _values(cls: type[Options]) -> Json:
    """The options of a class, each with the schema of one value."""
    meanings = comments(cls)
    return {f.name: {**_value(cls, f.name), "description": f"{meanings[f.name]} ({accepts(cls, f.name)})".strip(),
                     **({} if f.default is MISSING or isinstance(f.default, Component) else {"default": f.default})}
            for f in fields(cls)}


def _value(cls: type[Options], name: str) -> Json:
    type_hint = hint(cls, name)
    if isinstance(type_hint, type) and issubclass(type_hint, Component):
        return _spec(type_hint.kind)
    try:
        schema = pydantic.TypeAdapter(declared_type(cls, name)).json_schema()
    except pydantic.PydanticUserError:                    # a type that has no schema is checked by diffbench alone
        return {}
    schema = {key: value for key, value in schema.items() if key != "title"}
    return {"anyOf": [schema["items"], schema]} if needs_no_brackets(cls, name) and "items" in schema else schema


def _grid(cls: type[Options], name: str, schema: Json) -> Json:
    """The schema of one value or a grid of several; the grid of an option that holds a list is a list of lists."""
    if not is_many(cls, name):
        return _one_or_more(schema)
    plain = _without_annotations(schema)
    return {**_annotations(schema), "anyOf": [plain, {"type": "array", "contains": {"type": "array"}, "items": plain}]}


def _one_or_more(schema: Json) -> Json:
    plain = _without_annotations(schema)
    return {**_annotations(schema), "anyOf": [plain, {"type": "array", "minItems": 1, "items": plain}]}


def _annotations(schema: Json) -> Json:
    return {key: schema[key] for key in ("description", "default") if key in schema}


def _without_annotations(schema: Json) -> Json:
    return {key: value for key, value in schema.items() if key not in ("description", "default")}


def _object(properties: Json, description: str) -> Json:
    return {"type": "object", "description": description, "properties": properties, "additionalProperties": False}


def _list(items: Json, description: str) -> Json:
    return {"description": description, "anyOf": [items, {"type": ["array", "null"], "items": items}]}


def _spec(kind: str) -> Json:
    return {"$ref": f"#/$defs/{kind}"}
