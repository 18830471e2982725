"""Dimensions from text and back, and whether a config can take them."""

from __future__ import annotations

import pytest
from toy_sweeps import DialConfig

from medray.errors import UserError
from tuning.fields import check_dimensions, flag, with_values
from tuning.space import Choice, Dimension, Uniform, combinations, parse_dimension, parse_setting


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("config.x=uniform(0, 1)", Dimension("x", Uniform(0.0, 1.0))),
        ("x=loguniform(1e-3,1e-1)", Dimension("x", Uniform(1e-3, 1e-1, log=True))),
        ("config.lambda-adv=quniform(0,1,0.25)", Dimension("lambda_adv", Uniform(0.0, 1.0, step=0.25))),
        ("n=int(2,9)", Dimension("n", Uniform(2.0, 9.0, whole=True))),
        ("n=logint(1,1000)", Dimension("n", Uniform(1.0, 1000.0, log=True, whole=True))),
        ("mode=choice(plain,'other')", Dimension("mode", Choice(("plain", "other")))),
        ("s=choice((20,10,7),(10,))", Dimension("s", Choice(((20, 10, 7), (10,))))),
        ("b=choice(True,False)", Dimension("b", Choice((True, False)))),
    ],
)
def test_what_is_read_is_told_in_words_that_read_the_same(text: str, dimension: Dimension) -> None:
    assert parse_dimension(text) == dimension
    assert parse_dimension(dimension.text) == dimension


def test_small_numbers_keep_all_their_digits() -> None:
    dimension = Dimension("x", Uniform(1.23456789e-7, 0.1 + 0.2))
    assert parse_dimension(dimension.text) == dimension


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x", "takes config.FIELD="),
        ("x=normal(0,1)", "normal is none of"),
        ("x=uniform(2,1)", "from a lower to a higher"),
        ("x=loguniform(0,1)", "starts above 0"),
        ("x=uniform(1)", "takes two numbers.*got 1"),
        ("x=int(1.5,2)", "whole number"),
        ("x=choice(1)", "two different values"),
        ("x=choice(1,1)", "two different values"),
        ("x=uniform(a,b)", "takes numbers, got 'a'"),
        ("x=uniform(0,inf)", "takes numbers"),
        ("x=quniform(0,1,2)", "step between 0 and 1"),
        ("x=uniform(0,1", "cannot read"),
        ("x=__import__('os').getcwd()", "expected one of"),
        ("x=choice(open('f'),1)", "numbers, words or tuples"),
    ],
)
def test_each_mistake_has_its_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        parse_dimension(text)


def test_a_study_keeps_tuples_by_their_text() -> None:
    choice = Choice(((20, 10, 7), (10,)))
    assert [choice.encode(value) for value in choice.values] == ["20 10 7", "10"]
    assert choice.decode("20 10 7") == (20, 10, 7)
    assert choice.distribution.choices == ("20 10 7", "10")  # type: ignore[attr-defined]


def test_combinations_are_counted_where_there_is_an_end_to_them() -> None:
    two, three = Dimension("a", Choice((1, 2))), Dimension("b", Choice((1, 2, 3)))
    assert combinations([two, three]) == 6
    assert combinations([two, Dimension("c", Uniform(0, 1))]) is None


def test_settings_keep_what_stands_after_the_first_equals_sign() -> None:
    assert parse_setting("config.lambda-adv=a=b") == ("lambda_adv", "a=b")
    with pytest.raises(UserError, match="FIELD=VALUE"):
        parse_setting("lambda_adv")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("config.y=uniform(0,1)", "no field config.y"),
        ("config.rouns=int(1,3)", r"did you mean config\.rounds"),
        ("config.x=uniform(-1,1)", r"-1\.0 is out of the field's bounds: x is between 0 and 1"),
        ("config.x=choice(0.1,7)", "7 is out of the field's bounds"),
        ("config.rounds=uniform(1,3)", "takes whole numbers"),
        ("config.mode=choice(plain,odd)", "takes one of plain, other, got 'odd'"),
        ("config.sizes=choice((1,2),(1,'a'))", "got \\(1, 'a'\\)"),
        ("config.network=choice(0,1)", "takes True or False, got 0"),
    ],
)
def test_a_config_that_cannot_take_a_value_is_told_before_the_sweep(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        check_dimensions(DialConfig(), [parse_dimension(text)])


def test_a_config_takes_what_fits() -> None:
    texts = ("x=uniform(0,1)", "rounds=int(1,5)", "mode=choice(plain,other)", "sizes=choice((1,),(2,3))")
    dimensions = [parse_dimension(text) for text in texts]
    check_dimensions(DialConfig(), dimensions)
    last = with_values(DialConfig(), {each.name: each.values.corners[-1] for each in dimensions})
    assert (last.x, last.rounds, last.mode, last.sizes) == (1.0, 5, "other", (2, 3))


def test_a_field_is_searched_once() -> None:
    dimensions = [parse_dimension("x=uniform(0,1)"), parse_dimension("x=choice(0.1,0.2)")]
    with pytest.raises(UserError, match="searched twice"):
        check_dimensions(DialConfig(), dimensions)


def test_values_that_do_not_go_together_name_the_fields() -> None:
    with pytest.raises(UserError, match=r"config.x=3.*between 0 and 1"):
        with_values(DialConfig(), {"x": 3})


def test_flags_keep_the_underscore_of_a_python_keyword() -> None:
    assert flag("lambda_adv") == "--config.lambda-adv"
    assert flag("lambda_") == "--config.lambda_"
