"""A few networks of the libraries that `tests.sweeps.peers` sweeps over; all of them if asked (`-m slow`).

Each library's networks run where it is installed. It is no requirement of the tests.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from tests.sweeps import peers_peft, peers_transformers, peers_ultralytics
from tests.sweeps.jobs import Limits, build, run_all
from tests.sweeps.measure import Row, last_line, measure
from tests.sweeps.networks import Job
from tests.sweeps.peers import SOURCES, complaints, standing
from tests.torchvision_import import import_torchvision

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own

FEW = {
    peers_peft.LIBRARY: ("LoRA on linear", "DoRA on linear", "LoKr on conv2d", "VeRA on BERT"),
    peers_transformers.LIBRARY: ("ResNet", "SwiftFormer", "BEiT", "Wav2Vec2", "Llama"),
    peers_ultralytics.LIBRARY: ("yolov8n", "yolov10n"),
}
EVERY = [job for jobs in SOURCES.values() for job in jobs()]


def _import(library: str) -> None:
    """The library; it imports torchvision where that is installed, which may lack its operators."""
    with suppress(ImportError):
        import_torchvision()
    pytest.importorskip(library, reason=f"{library} is not installed, and its networks are not folded here")


def _assert_no_worse(row: Row) -> None:
    assert row.status == "ok", (
        f"{row.name}, at {row.stage}: {last_line(row.error) or (row.e0, row.e1, row.e64)}"
    )
    assert standing(row) == "ok", complaints(row)
    assert row.worst_proof <= 1e-10


@pytest.mark.parametrize(("library", "name"), [(lib, name) for lib, names in FEW.items() for name in names])
def test_a_few_fold_to_the_same_function_and_no_worse_than_by_the_library(library: str, name: str) -> None:
    _import(library)
    job = Job(library, "", name)
    row = Row(library, "", name)
    measure(row, lambda: build(job, ""))
    _assert_no_worse(row)


@pytest.mark.slow
@pytest.mark.parametrize("job", EVERY, ids=[f"{job.library}: {job.name}" for job in EVERY])
def test_every_one_folds_to_the_same_function(job: Job, tmp_path: Path) -> None:
    _import(job.library)
    for row in run_all([job], tmp_path / "rows.jsonl", Limits(300, 8), 1, "", False):
        assert row.status == "ok", (
            f"{row.name}, at {row.stage}: {last_line(row.error) or (row.e0, row.e1, row.e64)}"
        )
