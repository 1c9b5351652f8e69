"""Settings: defaults, a YAML file, flags; one line for what is wrong with them."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from reparamkit.errors import UnusableInput
from reparamkit.training.config import Config, DataSettings, PretrainConfig


def test_flags_override_the_file_and_the_file_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("epochs: 7\nlr: 1e-2\namp: no\nmodel: repvgg_toy\n")
    config = Config.resolve(file, epochs=9, batch_size=None)
    assert (config.epochs, config.lr, config.amp, config.model) == (9, 0.01, "no", "repvgg_toy")
    assert config.batch_size == Config().batch_size


@pytest.mark.parametrize("kind", [Config, PretrainConfig, DataSettings])
def test_what_is_written_is_read_back(tmp_path: Path, kind: type[DataSettings]) -> None:
    file = tmp_path / "config.yaml"
    settings = kind.resolve(epochs=3, clip_grad=1, corrupt="skip", stream=True)
    file.write_text(settings.as_yaml())
    assert kind.resolve(file) == settings


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch: 3", "there is no setting 'epoch'; did you mean epochs"),
        ("label-smoothing: 0.1", "there is no setting 'label-smoothing'; did you mean label_smoothing?"),
        ("quux: 3", "there is no setting 'quux'; there are data, seed"),
        ("epochs: many", "epochs is a whole number, not 'many'"),
        ("epochs: 2.5", "epochs is a whole number, not 2.5"),
        ("epochs: true", "epochs is a whole number, not True"),
        ("epochs: 0", "epochs is from 1 to 1e+06, not 0"),
        ("lr: fast", "lr is a number, not 'fast'"),
        ("lr: .nan", "lr is a finite number, not nan"),
        ("lr: 0", "lr is greater than 0, not 0.0"),
        ("flip: 1.5", "flip is from 0 to 1, not 1.5"),
        ("amp: fp8", "amp is one of no, fp16, bf16, not 'fp8'"),
        ("stream: maybe", "stream is true or false, not 'maybe'"),
        ("model: 3", "model is a text, not 3"),
        ("- epochs", "has to be a mapping of settings to values"),
        ("epochs: [", "is no YAML"),
        ("distillation: soft", "distillation soft needs a teacher: give --teacher MODEL"),
        ("teacher: x:y", "a teacher is given, and distillation is none"),
        ("mixup: 0.7\ncutmix: 0.7", "mixup 0.7 and cutmix 0.7 are shares of the batches, and more than all"),
        ("warmup_epochs: 10", "a warm-up of 10 epochs leaves nothing of 10"),
        ("accumulate: 3", "a batch of 64 cannot be cut into 3 equal micro-batches"),
    ],
)
def test_one_line_says_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(UnusableInput) as caught:
        Config.resolve(file)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(UnusableInput, match="cannot be read: No such file"):
        Config.resolve(Path("/nowhere/run.yaml"))


def test_every_setting_says_what_it_is() -> None:
    for kind in (Config, PretrainConfig):
        for field in dataclasses.fields(kind):
            text: str = field.metadata["help"]
            assert text.endswith("."), field.name
            assert text[0].isupper() or text[0] == "h", field.name


def test_the_flags_are_the_settings() -> None:
    from typer.main import get_command

    from reparamkit.cli import app as cli

    commands: Any = get_command(cli.app)
    for name, kind in (("train", Config), ("pretrain", PretrainConfig)):
        options = {parameter.name for parameter in commands.commands[name].params}
        assert {field.name for field in dataclasses.fields(kind)} <= options


def test_yaml_holds_plain_values_only() -> None:
    assert yaml.safe_load(Config().as_yaml()) == Config().as_dict()


def test_the_recipe_of_the_documentation_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    (recipe,) = re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S)
    (tmp_path / "recipe.yaml").write_text(recipe)
    assert Config.resolve(tmp_path / "recipe.yaml").weight_decay_end == 1e-5
