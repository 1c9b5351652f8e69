"""What to say of a command line that is none: one line, with what was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from reparamkit.errors import UnusableInput

_ALSO_CALLED = {
    **dict.fromkeys(("--shape", "--shapes", "--size", "--input-shape", "--input-size", "--imgsz"), "--input"),
    **dict.fromkeys(("--out", "--out-file", "--outfile", "--output-file", "--to"), "--output"),
    **dict.fromkeys(("--ckpt", "--checkpoint", "--weights", "--pretrained"), "SOURCE and --model"),
    **dict.fromkeys(("--trust-remote-code", "--unsafe", "--allow-pickle"), "--trust-pickle"),
    **dict.fromkeys(("--lora", "--peft"), "--adapter"),
}
_COMMANDS = {
    **dict.fromkeys(("convert", "export", "fuse", "merge", "reparam", "reparameterize", "deploy"), "fold"),
    **dict.fromkeys(("compare", "diff", "verify", "test"), "check"),
    **dict.fromkeys(("list", "zoo"), "models"),
    **dict.fromkeys(("show", "info", "analyze", "analyse"), "inspect"),
    **dict.fromkeys(("eval", "evaluate", "val"), "validate"),
}


_UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # click's own, or that of typer's copy of it


class Command(TyperCommand):
    """A command that says in one line what of its arguments is wrong."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except _UsageError as error:
            raise UnusableInput(self._said(ctx, error)) from error

    def _said(self, ctx: Any, error: Any) -> str:
        kind = type(error).__name__
        if kind == "NoSuchOption":
            options = [name for each in self.params for name in (*each.opts, *each.secondary_opts)]
            return f"{self.name} has no option {error.option_name}{_meant(error.option_name, options)}"
        if kind == "MissingParameter" and error.param is not None:
            named = getattr(error.param, "metavar", None) or str(error.param.name).upper()
            return f"{self.name} needs {named}; `{ctx.command_path} --help` says more"
        text = error.format_message().strip().rstrip(".")
        return f"{text}; `{ctx.command_path} --help` says more"


class Commands(TyperGroup):
    """The commands, of which an unknown one is told with the one that was meant."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except _UsageError as error:
            name, known = args[0], self.list_commands(ctx)
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            meant = _COMMANDS.get(name.lower()) or (close[0] if close else "")
            if not meant and ("." in name or ":" in name or "/" in name):
                raise UnusableInput(
                    f"what is to be done with {name}? Say fold {name}, or inspect {name}"
                ) from error
            hint = f"did you mean {meant}?" if meant else f"there are {', '.join(known)}"
            raise UnusableInput(f"there is no command {name!r}; {hint}") from error


def _meant(name: str, options: Iterable[str]) -> str:
    if name in _ALSO_CALLED:
        return f"; it is {_ALSO_CALLED[name]} here"
    close = difflib.get_close_matches(name, list(options), n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else "; --help lists those that there are"
