"""Hostile TorchScript: nothing of them runs.

Each test first proves that the attack works, by opening the file as torch itself does and finding the marker
file, where torch lets it work at all.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from tests.loading import files
from tests.loading.attacks import (
    assert_refused,
    from_file,
    run_script,
    script_with,
)
from tests.loading.files import Bomb


@pytest.mark.parametrize("record", ["data.pkl", "constants.pkl"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_torchscript_pickle(tmp_path: Path, marker: Path, record: str, protocol: int) -> None:
    path = files.write_scripted(tmp_path / "net.pt")
    files.tamper(path, record, lambda _: pickle.dumps(Bomb(marker), protocol=protocol))
    assert f"the pickle {record} refers to" in assert_refused(path, marker, None)


STATEMENTS = {
    "save": ('torch.save(x, "{marker}")', "calls the operator save"),
    "alias": ('(torch).save(x, "{marker}")', "calls the operator save"),
    "from_file": (
        'torch.add_(x, torch.sum(torch.from_file("{marker}", True, 4)))',
        "calls the operator from_file",
    ),
    "getattr": ('getattr(torch, "sa\\166e")(x, "{marker}")', "calls an operator which reaches beyond"),
}


@pytest.mark.parametrize("way", STATEMENTS)
def test_a_torchscript_operator_that_touches_files(tmp_path: Path, marker: Path, way: str) -> None:
    statement, complaint = STATEMENTS[way]
    statement = statement.replace("{marker}", str(marker))
    path = script_with(tmp_path, "    return", f"    _evil = {statement}\n    return")
    assert complaint in assert_refused(path, marker, run_script)


def test_a_torchscript_operator_is_found_again_in_the_compiled_graphs(
    tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = script_with(tmp_path, "    return", f'    torch.save(x, "{marker}")\n    return')
    monkeypatch.setattr("reparamkit.loading.scripted._refuse_code", lambda archive: None)
    assert "forward calls aten::save" in assert_refused(path, marker, run_script)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("  training : bool", "  training : bool\n  q : Final[Tensor] = {from_file}", "computes a constant"),
        ("mode: str=", "q: Tensor={from_file},\n    mode: str=", "computes a default value"),
    ],
    ids=["constant", "default"],
)
def test_torchscript_that_runs_as_it_is_opened(
    tmp_path: Path, marker: Path, old: str, new: str, complaint: str
) -> None:
    path = script_with(tmp_path, old, new.replace("{from_file}", from_file(marker)))
    naive = run_script if complaint == "computes a constant" else None
    assert complaint in assert_refused(path, marker, naive)


class Stateful(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = 2.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale

    @torch.jit.export
    def __getstate__(self) -> tuple[float, bool]:
        return (self.scale, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[float, bool]) -> None:
        self.scale = state[0]
        self.training = state[1]


def test_torchscript_with_a_setstate(tmp_path: Path, marker: Path) -> None:
    path = files.write_scripted(tmp_path / "net.pt", Stateful())
    record = f"code/__torch__/{__name__.replace('.', '/')}.py"
    evil = f'    _evil = torch.save(1, "{marker}")\n    self.scale ='
    files.tamper(path, record, lambda content: content.decode().replace("    self.scale =", evil, 1).encode())
    files.tamper(path, f"{record}.debug_pkl", lambda _: pickle.dumps((), protocol=2))
    assert "defines __setstate__, which runs when the file is opened" in assert_refused(
        path, marker, run_script
    )


def test_torchscript_that_names_a_class_implemented_elsewhere(tmp_path: Path, marker: Path) -> None:
    evil = "    _evil = __torch__.torch.classes.dist_c10d.FileStore\n    return"
    path = script_with(tmp_path, "    return", evil)
    assert "a class that is implemented outside TorchScript" in assert_refused(path, marker, None)
