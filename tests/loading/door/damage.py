"""Ways to damage a file: its bytes, its entries, what it says of itself. Each is drawn from a `Random`."""

from __future__ import annotations

import io
import json
import re
import struct
import warnings
import zipfile
from random import Random
from typing import Any

EXTREMES = [
    0,
    1,
    -1,
    2,
    127,
    128,
    255,
    65_536,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**62,
    2**63 - 1,
    -(2**63),
]
TEXTS = [
    "",
    ".",
    "..",
    "/",
    "../../outside/secret.bin",
    "/dev/zero",
    "/etc/passwd",
    "a" * 5000,
    "\0",
    "é",
    "x y",
]


def bytes_of(content: bytes, rng: Random) -> bytes:
    """One to three damages of the bytes."""
    for _ in range(rng.choice([1, 1, 2, 3])):
        content = bytes(rng.choice(_OF_BYTES)(bytearray(content), rng))
    return content


def _truncated(content: bytearray, rng: Random) -> bytearray:
    return content[: rng.randrange(len(content) + 1)]


def _flipped(content: bytearray, rng: Random) -> bytearray:
    for _ in range(rng.randint(1, 8) if content else 0):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return content


def _run(content: bytearray, rng: Random) -> bytearray:
    start = rng.randrange(len(content) + 1)
    length = rng.choice([1, 4, 8, 64, 1000])
    content[start : start + length] = rng.choice([b"\0", b"\xff", b"[", bytes([rng.randrange(256)])]) * length
    return content


def _inserted(content: bytearray, rng: Random) -> bytearray:
    start = rng.randrange(len(content) + 1)
    content[start:start] = rng.randbytes(rng.choice([1, 4, 100]))
    return content


def _deleted(content: bytearray, rng: Random) -> bytearray:
    start = rng.randrange(len(content) + 1)
    del content[start : start + rng.choice([1, 4, 100, 1000])]
    return content


def _header(content: bytearray, rng: Random) -> bytearray:
    for _ in range(rng.randint(1, 4)):
        if content:
            content[rng.randrange(min(128, len(content)))] = rng.randrange(256)
    return content


def _number(content: bytearray, rng: Random) -> bytearray:
    """Four or eight bytes become an extreme number, as a size that is declared."""
    code = rng.choice(["<i", "<q", ">i"])
    width = struct.calcsize(code)
    if len(content) < width:
        return content
    value = rng.choice(EXTREMES)
    if width == 4:
        value = (value + 2**31) % 2**32 - 2**31
    start = rng.choice(
        [rng.randrange(len(content) - width + 1), rng.randrange(min(len(content) - width + 1, 256))]
    )
    struct.pack_into(code, content, start, value)
    return content


def _doubled(content: bytearray, rng: Random) -> bytearray:
    return content + content[rng.randrange(len(content) + 1) :]


_OF_BYTES = [_truncated, _flipped, _flipped, _run, _inserted, _deleted, _header, _number, _number, _doubled]


def json_of(content: bytes, rng: Random) -> bytes:
    """A few nodes of a JSON text become something else; or it nests 100,000 deep."""
    if rng.random() < 0.05:
        return rng.choice([b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000])
    try:
        parsed = json.loads(content)
    except ValueError:
        return bytes_of(content, rng)
    for _ in range(rng.randint(1, 3)):
        parsed = _json_node(parsed, rng)
    return json.dumps(parsed).encode()


def _json_node(value: Any, rng: Random) -> Any:
    places = list(_places(value, ()))
    if not places:
        return value
    *path, last = rng.choice(places)
    holder = value
    for key in path:
        holder = holder[key]
    old = holder[last]
    if rng.random() < 0.2:
        del holder[last]
    elif isinstance(old, str) and rng.random() < 0.3:
        holder[last] = bytes_of(old.encode(), rng).decode("utf-8", "replace")
    else:
        others = [None, True, [], {}, 1.5, float("inf"), float("nan"), [old], {"a": old}, *EXTREMES, *TEXTS]
        holder[last] = rng.choice(others)
    return value


def _places(value: Any, path: tuple[Any, ...]) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items)[:200]:
        yield (*path, key)
        yield from _places(inner, (*path, key))


def zip_of(content: bytes, rng: Random) -> bytes:
    """An entry is renamed, removed, repeated, swapped, packed, or damaged itself; the archive is whole."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    except Exception:  # it was damaged before, and zipfile raises what it likes
        return bytes_of(content, rng)
    method = zipfile.ZIP_STORED
    for _ in range(rng.choice([1, 1, 2])):
        place = rng.randrange(len(entries))
        name, inner = entries[place]
        how = rng.choice(["rename", "remove", "repeat", "swap", "pack", *["inside"] * 8])
        if how == "rename":
            entries[place] = (
                rng.choice(["../x", "/x", "x", name.upper(), f"{name}x", "a/b", entries[0][0]]),
                inner,
            )
        elif how == "remove" and len(entries) > 1:
            del entries[place]
        elif how == "repeat":
            entries.append((name, bytes_of(inner, rng)))
        elif how == "swap":
            other = rng.randrange(len(entries))
            entries[place], entries[other] = (name, entries[other][1]), (entries[other][0], inner)
        elif how == "pack":
            method = rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
            if rng.random() < 0.5:
                entries.append((f"{name}y", bytes(100_000_000)))
        else:
            entries[place] = (name, inside(name, inner, rng))
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", method) as archive:
        warnings.simplefilter("ignore")  # of a name that is given twice
        for name, inner in entries:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            archive.writestr(info, inner)
    packed = stream.getvalue()
    return _directory(packed, rng) if rng.random() < 0.15 else packed


def inside(name: str, content: bytes, rng: Random) -> bytes:
    """What one entry of an archive becomes, by what it is."""
    if name.endswith(".json") and rng.random() < 0.9:
        return json_of(content, rng)
    if name.endswith(".npy") and rng.random() < 0.7:
        return npy_of(content, rng)
    if name.endswith("pkl") and rng.random() < 0.5:
        return pickle_of(content, rng)
    if content[:2] == b"PK" and rng.random() < 0.7:
        return zip_of(content, rng)
    return bytes_of(content, rng)


def _directory(packed: bytes, rng: Random) -> bytes:
    """A number in the directory at the archive's end becomes another."""
    content = bytearray(packed)
    start = content.find(b"PK\x01\x02")
    if start < 0:
        return packed
    struct.pack_into(
        "<I", content, rng.randrange(start, len(content) - 4), rng.choice([0, 1, 2**31, 2**32 - 1])
    )
    return bytes(content)


def npy_of(content: bytes, rng: Random) -> bytes:
    """The header says another shape, type or order."""
    length = struct.unpack_from("<H", content, 8)[0]
    header = content[10 : 10 + length].decode("latin-1")
    shape = rng.choice(["()", "(1,)", "(-1,)", "(1<<45,)", f"({2**45},)", "(0,)", "(3,)*9", "(True,)", "("])
    descr = rng.choice(["<f8", "|O", "<U9", "<c16", "|V99999999", "<f4", ">i2", "<M8", "|S3", "e", ""])
    how = rng.randrange(4)
    if how == 0:
        header = re.sub(r"'shape': \([^)]*\)", f"'shape': {shape}", header)
    elif how == 1:
        header = re.sub(r"'descr': '[^']*'", f"'descr': '{descr}'", header)
    elif how == 2:
        header = header.replace("False", rng.choice(["True", "None", "[" * 200]))
    else:
        header = bytes_of(header.encode("latin-1"), rng).decode("latin-1")
    packed = header.encode("latin-1")
    return content[:8] + struct.pack("<H", len(packed) % 65_536) + packed + content[10 + length :]


def pickle_of(content: bytes, rng: Random) -> bytes:
    """A number in the stream becomes an extreme one, or values nest a million deep."""
    how = rng.randrange(5)
    if how == 0:
        return b"\x80\x02)" + b"\x85" * 1_000_000 + b"."
    if how == 1:
        return b"\x80\x02]r\xff\xff\xff\x0f." + content
    if how == 2:
        return b"\x80\x02}" + b")" + b"\x85" * 500_000 + b"K\x01s."
    numbers = [match.start() for match in re.finditer(rb"K[\x00-\x7f]", content)]
    if not numbers:
        return bytes_of(content, rng)
    place = rng.choice(numbers)
    return (
        content[:place]
        + b"J"
        + struct.pack("<i", rng.choice([-1, 0, 2**20, 2**31 - 1]))
        + content[place + 2 :]
    )


def message_of(message: Any, rng: Random) -> None:
    """Some fields of a message of protocol buffers become others; all of it stays a message."""
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        holders = list(_messages(message, 0))
        holder = rng.choice(holders)
        present = holder.ListFields()
        if present:
            descriptor, value = rng.choice(present)
            _field(holder, descriptor, value, rng)


def _messages(message: Any, depth: int) -> Any:
    yield message
    if depth > 12:
        return
    for descriptor, value in message.ListFields():
        if descriptor.type != descriptor.TYPE_MESSAGE:
            continue
        if descriptor.message_type.GetOptions().map_entry:
            values = [each for each in value.values() if hasattr(each, "ListFields")]
        else:
            values = value if hasattr(value, "__len__") else [value]
        for inner in values:
            yield from _messages(inner, depth + 1)


def _field(holder: Any, descriptor: Any, value: Any, rng: Random) -> None:
    if rng.random() < 0.25:
        holder.ClearField(descriptor.name)
        return
    if descriptor.type == descriptor.TYPE_MESSAGE:
        if hasattr(value, "add") or hasattr(value, "append"):
            how = rng.randrange(3)
            if how == 0 and len(value):
                del value[rng.randrange(len(value))]
            elif len(value):
                value.append(value[rng.randrange(len(value))])
        elif not hasattr(value, "keys"):
            value.Clear()
        return
    repeated = hasattr(value, "append")
    new = _other(descriptor, value[rng.randrange(len(value))] if repeated else value, rng)
    try:
        if repeated:
            value[rng.randrange(len(value))] = new
        else:
            setattr(holder, descriptor.name, new)
    except (ValueError, TypeError):
        holder.ClearField(descriptor.name)


def _other(descriptor: Any, value: Any, rng: Random) -> Any:
    if isinstance(value, str):
        return rng.choice([*TEXTS, value[::-1], value + "x"])
    if isinstance(value, bytes):
        return bytes_of(value, rng)
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return rng.choice([0.0, -1.0, 1e30, float("inf"), float("nan")])
    return rng.choice([*EXTREMES, value + 1, value - 1, value * 2])


def xml_of(content: bytes, rng: Random) -> bytes:
    """An attribute becomes another, an element is removed or repeated, or names are defined that expand."""
    text = content.decode()
    how = rng.randrange(6)
    if how == 0:
        entities = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 10}">' for i in range(12))
        return (
            f'<?xml version="1.0"?><!DOCTYPE net [<!ENTITY e0 "x">{entities}]>'.encode()
            + text.replace('<?xml version="1.0"?>', "").replace("<layers>", "<layers>&e12;", 1).encode()
        )
    if how == 1 and rng.random() < 0.5:
        return ("<net>" + "<a>" * 200_000).encode()
    found = list(re.finditer(r'(\w+)="([^"]*)"', text))
    for match in rng.sample(found, min(len(found), rng.choice([1, 1, 2, 3]))):
        value = rng.choice([*map(str, EXTREMES), "", "../x", "x", match[2] + "0", "1,2,3", "99999999999"])
        text = text.replace(match[0], f'{match[1]}="{value}"', 1)
    if how == 2:
        layers = list(re.finditer(r"<layer .*?</layer>", text, re.S))
        if layers:
            layer = rng.choice(layers)[0]
            text = text.replace(layer, rng.choice(["", layer * 2]), 1)
    return text.encode()
