"""Options of a command, one for each field of a class: what is a field is an option, and nowhere else."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any

import typer

from reparamkit.training.config import Settings


def with_settings(
    kind: type[Settings], *, without: tuple[str, ...] = (), only: tuple[str, ...] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command a flag for every field of `kind`; it gets them as keyword arguments, None if not given.

    Args:
        kind: the settings.
        without: fields that the command takes in another way.
        only: the fields to take; by default all.
    """

    def extend(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
        flags = [
            parameter
            for name, parameter in _flags(kind).items()
            if name not in without and (only is None or name in only)
        ]
        command.__signature__ = signature.replace(parameters=[*own, *flags])  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in (*own, *flags)} | {"return": None}
        return command

    return extend


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take options in groups: a parameter that is a dataclass stands for its fields."""
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {
        name: one.annotation
        for name, one in signature.parameters.items()
        if dataclasses.is_dataclass(one.annotation)
    }
    parameters: list[inspect.Parameter] = []
    for name, one in signature.parameters.items():
        if name not in groups:
            parameters.append(one.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        hints = typing.get_type_hints(one.annotation, include_extras=True)
        for field in dataclasses.fields(one.annotation):
            default, kind = field.default, inspect.Parameter.KEYWORD_ONLY
            parameters.append(
                inspect.Parameter(field.name, kind, default=default, annotation=hints[field.name])
            )

    def call(**given: Any) -> None:
        for name, group in groups.items():
            options = {each.name: given.pop(each.name) for each in dataclasses.fields(group)}
            given[name] = group(**options)
        command(**given)

    functools.update_wrapper(call, command)
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": None}
    return call


def _flags(kind: type[Settings]) -> dict[str, inspect.Parameter]:
    hints = typing.get_type_hints(kind)
    return {field.name: _flag(field, hints[field.name]) for field in dataclasses.fields(kind)}


def _flag(field: dataclasses.Field[Any], hint: Any) -> inspect.Parameter:
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    kind = next(option for option in options if option is not type(None))
    flag = f"--{field.name.replace('_', '-')}"
    choices = field.metadata["choices"]
    words = {int: "N", float: "X", str: "TEXT"}
    option = typer.Option(
        f"{flag}/--no-{flag[2:]}" if kind is bool else flag,
        metavar="|".join(choices) if choices else words.get(kind),
        help=_help(field),
        show_default=False,
    )
    annotation = Annotated[kind | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _help(field: dataclasses.Field[Any]) -> str:
    text: str = field.metadata["help"]
    if field.default is None or "Default:" in text:
        return text
    on_or_off = isinstance(field.default, bool)
    return f"{text} Default: {('on' if field.default else 'off') if on_or_off else field.default}."
