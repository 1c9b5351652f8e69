"""Names that Core ML takes."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable


def identifiers(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Names that Core ML takes: letters, digits and "_", not starting with a digit, all different.

    A name that is a word of Swift, Objective-C or MIL gets a "_" behind it: Xcode makes properties of them.
    """
    used = set(taken)
    unique = []
    for name in names:
        plain = re.sub(r"\W", "_", name, flags=re.ASCII) or "value"
        if plain[0].isdigit():
            plain = f"value_{plain}"
        if plain in _RESERVED or keyword.iskeyword(plain):
            plain += "_"
        chosen, number = plain, 2
        while chosen in used:
            chosen, number = f"{plain}_{number}", number + 1
        used.add(chosen)
        unique.append(chosen)
    return unique


_RESERVED = frozenset(
    re.findall(
        r"\w+",
        """
        as associatedtype bool catch class const default deinit description dict do double else enum extension
        extern fallthrough false fileprivate float for func function guard hash id if import in init inout int
        internal is let list main nil null open operator private program protocol public repeat rethrows
        return self Self state static string struct subscript super switch tensor throw throws true try tuple
        typealias var void where while block
        """,
    )
)
