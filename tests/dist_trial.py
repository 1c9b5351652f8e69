"""Try what `make dist` built, in an environment that holds the wheel and what it asks for, and nothing else.

python -P tests/dist_trial.py FOLDER_OF_SDIST_AND_WHEEL FOLDER_OF_WHEEL_FROM_THE_TREE
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

WANTED = (
    "reparamkit/api.py",
    "reparamkit/py.typed",
    "reparamkit/report/page/base.html",
    "reparamkit/report/schemas/check-1.schema.json",
)
UNWANTED = ("tests/", "fixtures/", "docs/", "examples/", "build/")
WITH_SOURCE = ("tests/dist_trial.py", "docs/cli.md", "fixtures/catalogue.py", "constraints.txt", "Makefile")


def contents(wheel: Path) -> dict[str, int]:
    """File -> checksum."""
    with zipfile.ZipFile(wheel) as archive:
        return {entry.filename: entry.CRC for entry in archive.infolist()}


def only(folder: Path, pattern: str) -> Path:
    """The one file of this kind."""
    (file,) = folder.glob(pattern)
    return file


def assert_archives_agree(built: Path, from_tree: Path) -> str:
    """Hold the archives against each other; the version that they are called by."""
    wheel, sdist = only(built, "*.whl"), only(built, "*.tar.gz")
    files = contents(wheel)
    assert files == contents(only(from_tree, "*.whl")), "the sdist builds another wheel than the tree"
    assert set(WANTED) <= set(files), set(WANTED) - set(files)
    assert not [name for name in files if name.startswith(UNWANTED)]
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {*WANTED, *WITH_SOURCE} <= inside, {*WANTED, *WITH_SOURCE} - inside
    assert not [name for name in inside if "__pycache__" in name or name.startswith("build/")]
    return wheel.name.split("-")[1]


def assert_it_works(version: str) -> None:
    """Fold with what was installed, and compare."""
    import reparamkit

    assert Path(reparamkit.__file__).is_relative_to(sys.prefix), reparamkit.__file__
    assert reparamkit.__version__ == metadata.version("reparamkit") == version
    command = str(Path(sys.executable).with_name("reparamkit"))

    def run(*arguments: str) -> str:
        finished = subprocess.run([command, *arguments], capture_output=True, text=True, check=False)
        assert finished.returncode == 0, (arguments, finished.stdout, finished.stderr)
        return finished.stdout

    assert run("--version") == f"reparamkit {version}\n"
    with tempfile.TemporaryDirectory() as folder:
        written = str(Path(folder) / "net.pt2")
        run("fold", "repnets_toy", "-o", written)
        run("check", "repnets_toy", written)


if __name__ == "__main__":
    version = assert_archives_agree(Path(sys.argv[1]), Path(sys.argv[2]))
    assert_it_works(version)
    sys.stdout.write(f"reparamkit {version}: built, installed and tried\n")
