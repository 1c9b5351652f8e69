"""A model from code: imported as if from the current folder, and called."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from reparamkit.errors import UnusableInput
from reparamkit.loading.addresses import Address, address_of, importable, package_of
from reparamkit.loading.registry import nearest


def is_address(text: str) -> bool:
    """Whether the text names a callable: see `reparamkit.loading.addresses`."""
    return address_of(text) is not None


def construct(
    address: str, arguments: Mapping[str, Any] | None = None
) -> nn.Module | torch.export.ExportedProgram:
    """The module that an address names, or what is there returns when it is called.

    Args:
        address: ``package.module:callable``, ``package/module.py:callable`` or ``package.module.callable``.
        arguments: for the call.

    Raises:
        UnusableInput: the module cannot be imported, has no such name, or the call raises or returns
            something else; the message carries the type and the text of what went wrong.
    """
    place = address_of(address)
    if place is None:
        raise UnusableInput(f"{address!r} is not of the form package.module:callable")
    folders = [Path.cwd()] if place.file is None else [package_of(place.file)[0], Path.cwd()]
    if place.file is not None and place.file.parent.resolve() not in folders:
        folders.append(place.file.parent.resolve())  # as `python file.py` sees what lies beside it
    with importable(*folders):
        module, attribute = _imported(place)
        target = _attribute(place, module, attribute)
        if isinstance(target, (nn.Module, torch.export.ExportedProgram)):
            if arguments:
                raise UnusableInput(f"{address!r} is a network already, and takes no --model-args")
            return target
        if isinstance(target, ModuleType):
            raise UnusableInput(
                f"{address!r} is a module; name what in it returns the network: {_shown(place, target)}"
            )
        if not callable(target):
            raise UnusableInput(
                f"{address!r} is {_article(target)}; it has to be a torch.nn.Module, or to return one when "
                f"called"
            )
        network = _called(place, target, arguments or {})
    if not isinstance(network, (nn.Module, torch.export.ExportedProgram)):
        raise UnusableInput(f"{address!r} returned {_article(network)}; it has to return a torch.nn.Module")
    return network


def current_folder_importable() -> AbstractContextManager[None]:
    """Modules of the current folder can be imported inside, as by ``python -m``."""
    return importable(Path.cwd())


def stem_of(address: str) -> str:
    """What files made of the network at an address are called."""
    return address.rpartition(":")[2].rpartition(".")[2]


def _imported(place: Address) -> tuple[ModuleType, str]:
    """The module, and what in it is meant."""
    if place.file is not None:
        return _from_file(place, place.file), place.attribute
    assert place.module is not None
    if ":" in place.text:
        return _module(place, place.module), place.attribute
    # with dots alone it shows only here where the module ends
    module, attribute = place.module, place.attribute
    while "." in module and not _is_module(module):
        module, _, name = module.rpartition(".")
        attribute = f"{name}.{attribute}"
    return _module(place, module), attribute


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (Exception, SystemExit):
        return False


def _module(place: Address, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise UnusableInput(f"{place.text!r}: importing {name} raised {_said(error)}") from error


def _from_file(place: Address, file: Path) -> ModuleType:
    if not file.is_file():
        raise UnusableInput(f"{place.text!r}: there is no file {file}")
    name = package_of(file)[1]
    for candidate in (name, file.stem):
        if _lies_at(candidate, file):
            return _module(place, candidate)
    own = f"reparamkit_given_{file.stem}"  # its name is taken by another module
    specification = importlib.util.spec_from_file_location(own, file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[own] = module
    try:
        specification.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[own]
        raise UnusableInput(f"{place.text!r}: running {file} raised {_said(error)}") from error
    return module


def _lies_at(name: str, file: Path) -> bool:
    """Whether importing a name gives the module of this very file."""
    if not all(part.isidentifier() for part in name.split(".")):
        return False
    loaded = sys.modules.get(name)
    origin = getattr(loaded, "__file__", None)
    if loaded is None:
        try:
            specification = importlib.util.find_spec(name)
        except (Exception, SystemExit):
            return False
        origin = specification.origin if specification is not None else None
    return isinstance(origin, str) and Path(origin).resolve() == file.resolve()


def _attribute(place: Address, module: ModuleType, attribute: str) -> Any:
    value: Any = module
    for name in attribute.split("."):
        try:
            value = getattr(value, name)
        except AttributeError as error:
            if isinstance(value, ModuleType) and _is_module(f"{value.__name__}.{name}"):
                value = _module(place, f"{value.__name__}.{name}")
                continue
            raise UnusableInput(
                f"{place.text!r}: the module {module.__name__} has no "
                f"{attribute!r}{_like(place, module, attribute)}"
            ) from error
    return value


def _called(place: Address, target: Any, arguments: Mapping[str, Any]) -> Any:
    try:
        return target(**arguments)
    except (Exception, SystemExit) as error:
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        how = f"with {given}" if given else "without arguments"
        takes = _takes(target)
        raise UnusableInput(
            f"{place.text!r} raised {_said(error)} when it was called {how}"
            + (f"; it takes ({takes}): give them as --model-args NAME=VALUE,…" if takes else "")
        ) from error


def _takes(target: Any) -> str:
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return ""
    return ", ".join(
        one.name if one.default is one.empty else f"{one.name}={one.default!r}"
        for one in parameters
        if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    )[:200]


def _said(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def _article(value: object) -> str:
    return "None" if value is None else f"a {type(value).__module__}.{type(value).__qualname__}"


def _like(place: Address, module: ModuleType, attribute: str) -> str:
    close = nearest(attribute, [name for name, value in vars(module).items() if callable(value)], 1)
    sign = ":" if ":" in place.text else "."
    return f"; did you mean {module.__name__}{sign}{close[0]}?" if close else _models_of(module)


def _models_of(module: ModuleType) -> str:
    classes = _classes(module)
    return f"; it defines {', '.join(classes)}" if classes else ""


def _shown(place: Address, module: ModuleType) -> str:
    return f"{module.__name__}:{next(iter(_classes(module)), 'CALLABLE')}"


def _classes(module: ModuleType) -> list[str]:
    members = vars(module).items()
    return sorted(name for name, member in members if _is_model_class(member, module.__name__))[:5]


def _is_model_class(member: object, module_name: str) -> bool:
    return isinstance(member, type) and issubclass(member, nn.Module) and member.__module__ == module_name
