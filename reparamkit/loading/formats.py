"""What a file is, told by its first bytes: suffixes lie, and a message should name what was found."""

from __future__ import annotations

from enum import Enum, auto
from pathlib import Path

from reparamkit.errors import UnusableInput
from reparamkit.loading.door.files import opened, read_bytes
from reparamkit.loading.door.safetensors_file import INDEX_SUFFIX, is_safetensors
from reparamkit.loading.pickles import is_pickle, is_torch_save

_HEAD = 4096
_TEXT_PICKLE_LIMIT = 1 << 20
_FIRST_OF_TEXT_PICKLES = b"(c]}lIFSVLN"


class Format(Enum):
    """The kinds of file that hold a PyTorch model or its weights."""

    ARCHIVE = auto()
    """A zip archive: of torch.export, of TorchScript or of torch.save."""
    LEGACY = auto()
    """What torch.save wrote before torch 1.6."""
    PICKLE = auto()
    """A pickle that torch.save did not write."""
    SAFETENSORS = auto()
    """Weights alone, in one file of safetensors."""
    INDEX = auto()
    """The index of weights that lie in several such files."""


_OTHERS = (
    (0, b"\x89HDF\r\n", "an HDF5 file, as Keras writes it; give the PyTorch model"),
    (4, b"TFL3", "a TensorFlow Lite model; give the PyTorch model"),
    (0, b"\x1f\x8b", "a gzip file; unpack it first"),
    (0, b"\xfd7zXZ", "an xz file; unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file; unpack it first"),
    (0, b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (257, b"ustar", "a tar archive; unpack it first, and give the file of the model in it"),
    (0, b"\x93NUMPY", "a NumPy array; give the PyTorch model"),
    (0, b"GGUF", "a GGUF file of a language model; give the PyTorch model"),
    (0, b"version https://git-lfs", "a Git LFS pointer instead of the file; fetch it: git lfs pull"),
)


def recognise(path: Path) -> Format:
    """The format of the file at `path`, from its content.

    Raises `UnusableInput` where it cannot be read or holds no PyTorch model, naming what it seems to be.
    """
    if path.is_dir() and path.suffix == ".mlpackage":
        raise UnusableInput(
            f"{path} is a Core ML model, which is not read back into PyTorch; give the network that it was "
            f"made from"
        )
    with opened(path) as file:
        head = file.read(_HEAD)
    if not head:
        raise UnusableInput(f"{path} is empty (0 bytes); copy, download or export it again")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return Format.ARCHIVE
    if is_safetensors(head, path.stat().st_size):
        return Format.SAFETENSORS
    if head[0] == 0x80:
        return _pickled(path, head)
    if path.name.endswith(INDEX_SUFFIX) and head.lstrip().startswith(b"{"):
        return Format.INDEX
    raise UnusableInput(f"{path} is {_other(path, head)}")


def _pickled(path: Path, head: bytes) -> Format:
    if is_torch_save(head):
        return Format.LEGACY
    if len(head) < _HEAD and not is_pickle(head):
        raise UnusableInput(f"{path} begins like a pickle and is damaged or truncated; copy or save it again")
    return Format.PICKLE


def _other(path: Path, head: bytes) -> str:
    for offset, magic, words in _OTHERS:
        if head[offset:].startswith(magic):
            return words
    if _is_onnx(head):
        return "an ONNX model already; give the PyTorch model that it was made from"
    if not any(head):
        return "a file of zeros, as an interrupted download leaves it; copy or download it again"
    text = _text(head)
    if text is None:
        return (
            f"of no known format (its first bytes are {head[:8].hex(' ')}); give a .pt2 of torch.export, "
            f"a TorchScript file, or a file of torch.save"
        )
    if head[0] in _FIRST_OF_TEXT_PICKLES and path.stat().st_size <= _TEXT_PICKLE_LIMIT:
        whole = read_bytes(path, _TEXT_PICKLE_LIMIT)
        if whole.endswith(b".") and is_pickle(whole):
            return "a pickle in text form (protocol 0); save the model with torch.save"
    if text.lstrip().lower().startswith(("<!doctype html", "<html")):
        return "an HTML page, as a failed download leaves it; download the file itself"
    line = text.strip().splitlines()[0][:40] if text.strip() else ""
    return f"a text file, beginning {line!r}; give a .pt2, a TorchScript file, or a file of torch.save"


def _is_onnx(head: bytes) -> bool:
    # ModelProto: field 1 is the IR version, a small varint; then comes any field up to opset_import
    fields = {0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42, 0x72}
    return len(head) > 2 and head[0] == 0x08 and 0 < head[1] < 32 and head[2] in fields


def _text(head: bytes) -> str | None:
    try:
        # a character may be cut at the end of what was read
        text = head.decode("utf-8", errors="strict" if len(head) < _HEAD else "ignore")
    except UnicodeDecodeError:
        return None
    odd = sum(not (character.isprintable() or character.isspace()) for character in text)
    return text if odd == 0 and len(text.encode()) > len(head) // 2 else None
