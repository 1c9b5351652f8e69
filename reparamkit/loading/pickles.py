"""What a pickle refers to, read off its stream without unpickling it.

A pickle is a program: it names functions of any importable module and calls them. Its tensors need a handful
of torch's functions and nothing else, so the names in it tell weights from everything more.
"""

from __future__ import annotations

import io
import pickletools
import warnings
from collections.abc import Iterable
from itertools import islice

_STRINGS = {
    "SHORT_BINUNICODE",
    "BINUNICODE",
    "BINUNICODE8",
    "UNICODE",
    "STRING",
    "BINSTRING",
    "SHORT_BINSTRING",
}
_MAGIC_OF_TORCH_SAVE = 0x1950A86A20F9469CFC6C
_MEMO_READS = {"GET", "BINGET", "LONG_BINGET"}
_MEMO_WRITES = {"PUT", "BINPUT", "LONG_BINPUT"}


class NotAPickle(ValueError):
    """The bytes are no well-formed pickle stream."""


def references(stream: bytes, *, literal: bool = False) -> list[str]:
    """All ``module.name`` that the pickle stream imports, in order and once each.

    Extension codes come as such, in angle brackets, so that no allow-list admits them. The names that
    protocol 4 leaves on the stack are followed as a pickler writes them, which is good for a message and can
    be fooled; with `literal` they too come in angle brackets. Several pickles one after the other are read
    as one.

    Raises `NotAPickle` where the stream does not end with a complete pickle.
    """
    references: dict[str, None] = {}
    reader = io.BytesIO(stream)
    while reader.tell() < len(stream):
        start = reader.tell()
        try:
            references.update(dict.fromkeys(_references_of_one(reader, literal)))
        except Exception as error:
            # legacy torch.save appends raw storages to its pickles
            if start > 0:
                break
            raise NotAPickle(str(error)) from error
    if not stream:
        raise NotAPickle("empty")
    return list(references)


def _references_of_one(reader: io.BytesIO, literal: bool) -> Iterable[str]:
    memo: dict[int, str | None] = {}
    recent: list[str | None] = []
    for opcode, argument, _ in pickletools.genops(reader):
        if opcode.name in _STRINGS:
            recent.append(str(argument))
        elif opcode.name in {"GLOBAL", "INST"}:
            yield str(argument).replace(" ", ".", 1)
            recent.append(None)
        elif opcode.name == "STACK_GLOBAL":
            module, name = recent[-2:] if len(recent) >= 2 else (None, None)
            known = module and name and not literal
            yield f"{module}.{name}" if known else "<a name built at run time>"
            recent.append(None)
        elif opcode.name in {"EXT1", "EXT2", "EXT4"}:
            yield f"<extension code {argument}>"
        elif opcode.name == "MEMOIZE":
            memo[len(memo)] = recent[-1] if recent else None
        elif opcode.name in _MEMO_WRITES:
            memo[int(str(argument))] = recent[-1] if recent else None
        elif opcode.name in _MEMO_READS:
            recent.append(memo.get(int(str(argument))))
        elif opcode.stack_after:
            recent.append(None)


def is_torch_save(stream: bytes) -> bool:
    """Whether the stream begins as ``torch.save`` did before torch 1.6 (and still does on request)."""
    try:
        beginning = list(islice(pickletools.genops(stream[:64]), 3))
    except Exception:  # pickletools raises whatever its own steps raise
        return False
    return any(argument == _MAGIC_OF_TORCH_SAVE for _, argument, _ in beginning)


def is_pickle(stream: bytes) -> bool:
    """Whether the bytes, whole, are a pickle of any protocol."""
    try:
        references(stream)
    except NotAPickle:
        return False
    return True


def plain_tensors(saved: bytes) -> bool:
    """Whether ``torch.load(weights_only=True)`` admits these bytes of ``torch.save``.

    That reader imports nothing which is not on its own short list, so asking it runs no code of theirs.
    """
    import torch  # what else is here tells bad files before torch is imported

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.load(io.BytesIO(saved), map_location="cpu", weights_only=True)
    except Exception:
        return False
    return True


def beyond(names: Iterable[str], modules: Iterable[str]) -> list[str]:
    """Those of `names` that lie in none of `modules` (a name equal to one of them counts as inside)."""
    allowed = tuple(modules)
    return [
        name
        for name in names
        if not any(name == module or name.startswith(f"{module}.") for module in allowed)
    ]
