"""Where images come from, and what becomes of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from reparamkit.errors import UnusableInput
from reparamkit.training import Config, train
from reparamkit.training.data import open_data, training_batches, validation_batches
from reparamkit.training.data.images import CorruptImage, central, decoded, random_crop
from reparamkit.training.data.loader import Place, updates_per_epoch

NAMES = ["bird", "cat", "dog"]


def rows(count: int, seed: int = 0) -> dict[str, list[Any]]:
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 255, (count, 12, 10, 3), dtype=np.uint8)
    return {"image": [Image.fromarray(one) for one in pixels], "label": [i % 3 for i in range(count)]}


def dataset(count: int, seed: int = 0) -> datasets.Dataset:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    return datasets.Dataset.from_dict(rows(count, seed), features=features)


def splits() -> datasets.DatasetDict:
    """As a user's own module:callable returns them."""
    return datasets.DatasetDict({"train": dataset(30), "test": dataset(9, 1)})


def streams() -> dict[str, Any]:
    return {"train": dataset(30).to_iterable_dataset(num_shards=3), "test": dataset(9, 1)}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def test_the_digits_are_all_there_and_split_alike_in_each_class() -> None:
    data = open_data(Config())
    assert isinstance(data.train, type(data.valid))
    assert len(data.train) + len(data.valid) == 1797
    counts = np.bincount([data.valid[i][1] for i in range(len(data.valid))])
    assert counts.min() >= 34
    assert counts.max() <= 37
    again = open_data(Config.resolve(seed=3))
    assert all(np.array_equal(data.valid[i][0], again.valid[i][0]) for i in (0, 100, 300))


@pytest.mark.parametrize("kind", ["saved", "saved whole", "parquet", "callable"])
def test_sources_of_datasets(tmp_path: Path, kind: str) -> None:
    source = "tests.training.test_data:splits"
    if kind == "saved":
        splits().save_to_disk(tmp_path / "saved")
    elif kind == "saved whole":
        dataset(30).save_to_disk(tmp_path / "saved")
    elif kind == "parquet":
        dataset(30).to_parquet(tmp_path / "saved.parquet")
    if kind != "callable":
        source = str(tmp_path / ("saved.parquet" if kind == "parquet" else "saved"))
    data = open_data(Config.resolve(data=source))
    assert data.classes == NAMES
    whole = kind in ("saved", "callable")
    assert (len(data.train), len(data.valid)) == ((30, 9) if whole else (24, 6))  # type: ignore[arg-type]
    batch = next(validation_batches(data.valid, data.columns, 8, 4))
    assert batch.images.shape == (4, 3, 8, 8)
    assert batch.images.dtype is torch.uint8


def test_labels_that_are_words_become_classes(tmp_path: Path) -> None:
    words = dataset(30).cast_column("label", datasets.Value("string"))
    words = words.map(
        lambda row: {"label": NAMES[int(row["label"])] if row["label"].isdigit() else row["label"]}
    )
    words.to_parquet(tmp_path / "words.parquet")
    assert open_data(Config.resolve(data=str(tmp_path / "words.parquet"))).classes == NAMES


def test_a_table_without_images(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"x": [1.0] * 9, "label": [0, 1, 2] * 3}).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(UnusableInput, match="has no column of images; its columns are x, label"):
        open_data(Config.resolve(data=str(tmp_path / "x.parquet")))
    (tmp_path / "x.xyz").write_text("")
    with pytest.raises(UnusableInput, match=r"images are read from \.parquet"):
        open_data(Config.resolve(data=str(tmp_path / "x.xyz")))


def stream_settings(**changes: Any) -> Config:
    settings: dict[str, Any] = {
        "data": "tests.training.test_data:streams",
        "stream": True,
        "batch_size": 6,
        "epoch_size": 30,
    }
    return Config.resolve(**(settings | changes))


def test_a_stream_is_shared_out_and_goes_on_where_it_was() -> None:
    settings = stream_settings()
    data = open_data(settings)
    assert data.is_stream

    def labels(epoch: int, first: int = 0, place: Place | None = None) -> list[list[int]]:
        updates = training_batches(data, settings, 8, epoch, first, place)
        return [[int(label) for batch in update for label in batch.labels] for update in updates]

    whole = labels(0)
    assert [len(update) for update in whole] == [6] * 5
    assert labels(0, 2) == whole[2:]
    shared = zip(labels(0, 0, Place(0, 2)), labels(0, 0, Place(1, 2)), strict=True)
    assert [first + second for first, second in shared] == whole
    assert labels(1) != whole


def test_a_stream_trains(tmp_path: Path) -> None:
    settings = stream_settings(epochs=1, input_size=16)
    trained = train("repnets_toy", out=tmp_path, config=settings)
    assert len(trained.history) == 1


def test_a_stream_has_to_say_how_long_it_is() -> None:
    settings = stream_settings(epoch_size=None)
    with pytest.raises(UnusableInput, match="does not say how long it is; give --epoch-size IMAGES"):
        updates_per_epoch(open_data(settings), settings)
    longer = stream_settings(epoch_size=600)
    with pytest.raises(UnusableInput, match="ended after fewer than 100 batches"):
        list(training_batches(open_data(longer), longer, 8, 0))


def test_the_central_square_is_what_validation_sees() -> None:
    pixels = np.zeros((40, 80, 3), dtype=np.uint8)
    pixels[10:30, 30:50] = 255
    image = Image.fromarray(pixels)
    assert (central(image, 20, 0.5) == 255).all()
    assert central(image, 40, 1.0).float().mean() == pytest.approx(255 / 4, rel=0.02)


def test_a_random_crop_depends_on_its_seed_alone() -> None:
    image = rows(1)["image"][0].resize((64, 48))
    state = torch.get_rng_state()
    first, again, other = (random_crop(image, 16, 0.1, seed) for seed in (1, 1, 2))
    assert first.equal(again)
    assert not first.equal(other)
    assert torch.get_rng_state().equal(state)


def test_crops_have_at_least_the_share_that_is_asked_for() -> None:
    ramp = np.tile(np.arange(100, dtype=np.uint8)[None, :, None], (100, 1, 3))
    spans = []
    for seed in range(40):
        crop = random_crop(Image.fromarray(ramp), 50, 0.25, seed).float()
        spans.append((crop.max() - crop.min()).item())
    assert min(spans) > 38  # the narrowest crop of a quarter of the area is 100·√(0.25 · 3/4) = 43 wide
    assert max(spans) > 80


@pytest.mark.parametrize(
    "value",
    [
        np.full((5, 4), 7, dtype=np.uint8),
        np.full((5, 4, 3), 7, dtype=np.uint8),
        torch.full((5, 4, 3), 7, dtype=torch.uint8),
        Image.new("L", (4, 5), 7),
    ],
)
def test_images_of_any_kind_become_rgb(value: Any) -> None:
    image = decoded(value, "x")
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (4, 5), (7, 7, 7))


def test_what_is_no_image() -> None:
    with pytest.raises(CorruptImage, match="the image x cannot be read: it is a str"):
        decoded("text", "x")
    with pytest.raises(CorruptImage, match=r"the image a\.png cannot be read"):
        decoded({"path": "a.png", "bytes": b"no"}, "x")


def test_workers_read_the_same_images() -> None:
    settings = Config.resolve(min_crop=0.4, batch_size=100, input_size=8)
    data = open_data(settings)
    alone = next(training_batches(data, settings, 8, 0))[0]
    helped = next(training_batches(data, Config.resolve(**(settings.as_dict() | {"workers": 2})), 8, 0))[0]
    assert alone.images.equal(helped.images)
    assert alone.labels.equal(helped.labels)
