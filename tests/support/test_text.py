"""Words on an error."""

from __future__ import annotations

from reparamkit.support.text import first_line, first_line_alone, one_line


def test_the_first_line_of_an_error() -> None:
    error = ValueError("\n  sizes differ. :\nand more")
    assert first_line(error) == "ValueError: sizes differ. :"
    assert first_line_alone(error) == "sizes differ"
    assert one_line(error) == "sizes differ. : and more"


def test_an_error_without_a_text_is_called_by_its_type() -> None:
    for words in (first_line, first_line_alone, one_line):
        assert words(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_a_long_text_is_shortened() -> None:
    error = RuntimeError("x" * 1000)
    assert len(first_line_alone(error)) == len(one_line(error)) == 300
