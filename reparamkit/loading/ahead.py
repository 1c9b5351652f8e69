"""What can be said of a source before torch is imported, which takes seconds."""

from __future__ import annotations

import re
from pathlib import Path

from reparamkit.errors import UnusableInput
from reparamkit.loading.addresses import (
    FILE_SUFFIXES,
    Address,
    address_of,
    defined_in,
    importable,
    names_bound_in,
)
from reparamkit.loading.door.files import exists, regular
from reparamkit.loading.door.run_folders import holds_checkpoint
from reparamkit.loading.door.safetensors_file import check_safetensors
from reparamkit.loading.folders import describe_folder
from reparamkit.loading.formats import Format, recognise
from reparamkit.loading.registry import (
    is_installed,
    is_plain,
    nearest,
    require_known,
    require_package,
    scheme_of,
    schemes,
    unknown_plain,
)

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.I)
_ON_THE_HUB = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(timm/[\w.-]+)/?$", re.I)
_OWN_RUNNERS = (".onnx", ".xml", ".pte", ".mlpackage", ".mlmodel")


def check_ahead(source: str, model: str | None = None) -> None:
    """Find out what keeps a source from being opened, as far as that shows without torch.

    Args:
        source, model: as `reparamkit.loading.source.load` takes them.

    Raises:
        UnusableInput: it cannot be opened; the message says what to do.
        MissingExtra: the library of its scheme is not installed.
    """
    _refuse_url(source)
    path = Path(source)
    if exists(path):
        _check_file(path, model)
        if model is not None:
            check_name(model, "--model ")
        return
    if model is not None:
        raise UnusableInput(
            f"--model ({model}) says what a file of weights belongs to, and there is no file {source!r}"
        )
    check_name(source)


def check_side(source: str, model: str | None = None) -> None:
    """As `check_ahead`, of one side of a comparison, where `model` may be meant for the other."""
    path = Path(source)
    if exists(path):
        if path.suffix not in _OWN_RUNNERS:
            _check_file(path, model)
        return
    if path.suffix in _OWN_RUNNERS and not _URL.match(source):
        raise UnusableInput(f"there is no file {path}")
    check_ahead(source)


def check_name(text: str, option: str = "") -> None:
    """Find out whether a name without a file can be one of a network.

    Raises:
        UnusableInput: it cannot, with the names that are most like it, or with what it seems to be.
        MissingExtra: the library of its scheme is not installed.
    """
    _refuse_url(text)
    scheme = scheme_of(text)
    if scheme:
        require_known(scheme, text)
        return
    if is_plain(text):
        return
    place = address_of(text)
    if place is not None:
        _check_code(text, place, option)
        return
    call = re.fullmatch(r"(.+)\((.*)\)", text)
    if call and address_of(call[1]) is not None:
        given = f" and --model-args '{call[2]}'" if call[2] else ""
        raise UnusableInput(f"{option}{text!r}: it is called for you; say {call[1]}{given}")
    if text.endswith(".py") and Path(text).is_file():
        raise UnusableInput(f"{option}{_python(Path(text))}")
    if option and exists(Path(text)):
        kind = "folder" if Path(text).is_dir() else "file"
        raise UnusableInput(
            f"{option}{text} is a {kind}; --model names the network that the weights belong to: a name, or "
            f"package.module:callable"
        )
    if _is_path(text):
        folder, _, last = text.rpartition("/")
        module = Path(f"{folder}.py")
        if folder and module.is_file() and last in (names_bound_in(module) or ()):
            raise UnusableInput(f"{option}{text!r}: a callable is named behind a colon; say {module}:{last}")
        if option:
            raise UnusableInput(
                f"{option}{text} is no network's name, and no such file; it is a name, or "
                f"package.module:callable"
            )
        raise UnusableInput(f"no such file {text!r}{_files_like(text)}")
    raise unknown_plain(text, option)


def _check_file(path: Path, model: str | None) -> None:
    if path.is_dir():
        if path.suffix == ".mlpackage":
            recognise(path)
        if holds_checkpoint(path):
            return
        library = describe_folder(path).library
        if library and model is None:
            require_package(library, str(path))
        return
    regular(path)
    if path.suffix == ".py":
        raise UnusableInput(_python(path))
    if recognise(path) is Format.SAFETENSORS:
        entries = check_safetensors(path)
        if model is None:
            raise weights_alone(path, len(entries))


def weights_alone(path: Path, count: int, hint: str = "") -> UnusableInput:
    """What to say of weights without a network; `hint` is the name that the file gives it, if any."""
    says = f" (it says --model {hint})" if hint else ""
    return UnusableInput(
        f"{path} holds weights alone ({count} tensors), not the network they belong to; pass --model with a "
        f"network's name, or MODULE:CALLABLE that returns the network{says}"
    )


def _check_code(text: str, place: Address, option: str) -> None:
    """Find out whether a callable can be there: its file, and a name that the file's source binds."""
    file = place.file
    if file is None:
        package = text.partition(":")[0].partition(".")[0]
        with importable(Path.cwd()):
            if is_installed(package):
                _check_bound(text, place, option)
                return
        scheme = nearest(package, schemes(), 1)
        meant = f"; did you mean {scheme[0]}:{text.partition(':')[2]}?" if scheme else ""
        raise UnusableInput(
            f"{option}{text!r}: No module named {package!r}, here or installed, and no library's name "
            f"either{meant}"
        )
    if not file.is_file():
        raise UnusableInput(f"{option}{text!r}: there is no file {file}{_files_like(str(file))}")
    _require_bound(text, place, file, str(file), option)


def _check_bound(text: str, place: Address, option: str) -> None:
    """As for a file, of a module beside you, whose file is found without importing anything."""
    file = Path(f"{place.module}.py")
    if place.module is not None and file.is_file():
        _require_bound(text, place, file, place.module, option)


def _require_bound(text: str, place: Address, file: Path, called: str, option: str) -> None:
    name = place.attribute.partition(".")[0]
    bound = names_bound_in(file)
    if bound is None or name in bound:
        return
    close = nearest(name, bound, 1)
    meant = f"; did you mean {called}:{close[0]}?" if close else _defines(file)
    raise UnusableInput(f"{option}{text!r}: {file} has no {name!r}{meant}")


def _python(path: Path) -> str:
    names = defined_in(path)
    return (
        f"{path} is Python source; name what in it returns the network: "
        f"{path}:{names[0] if len(names) == 1 else 'CALLABLE'}{_defines(path)}"
    )


def _defines(path: Path) -> str:
    names = defined_in(path)
    return f"; it defines {', '.join(names)}" if names else ""


def _refuse_url(text: str) -> None:
    if not _URL.match(text):
        return
    hub = _ON_THE_HUB.match(text)
    if hub:
        raise UnusableInput(f"{text} is an address; say hf-hub:{hub[1]}")
    name = text.rstrip("/").rpartition("/")[2].partition("?")[0] or "FILE"
    raise UnusableInput(
        f"{text} is an address, and nothing is downloaded; fetch it first, curl -L -o {name} '{text}', and "
        f"give {name}"
    )


def _is_path(text: str) -> bool:
    suffix = text.rpartition(".")[2].lower() if "." in text else ""
    return "/" in text or "\\" in text or suffix in FILE_SUFFIXES


def _files_like(text: str) -> str:
    folder = Path(text).parent
    try:
        if not folder.is_dir():
            return f"; there is no folder {str(folder)!r} either"
        close = nearest_files(Path(text).name, folder)
    except OSError:
        return ""
    return f"; did you mean {', '.join(str(folder / name) for name in close)}?" if close else ""


def nearest_files(name: str, folder: Path) -> list[str]:
    """Files of a folder whose names are most like one."""
    import difflib

    return difflib.get_close_matches(name, [entry.name for entry in folder.iterdir()], n=3, cutoff=0.7)
