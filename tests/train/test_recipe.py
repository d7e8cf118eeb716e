"""Recipes: their rate, their JSON, and what they refuse."""

import json
import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convlite.errors import InputError
from convlite.train import RECIPES, Recipe, recipe
from convlite.train.recipe import SCHEDULES

recipes = st.builds(
    Recipe,
    epochs=st.integers(1, 300),
    rate=st.floats(1e-4, 10),
    warmup=st.floats(0, 1),
    schedule=st.sampled_from(SCHEDULES),
    flip=st.booleans(),
)


@given(recipes, st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_the_rate_rises_then_falls_and_stays_in_bounds(made, moments):
    rates = [(at, made.rate_at(at)) for at in sorted(moments)]
    assert all(0 <= rate <= made.rate * (1 + 1e-9) for _, rate in rates)
    for (a, rate_a), (b, rate_b) in pairwise(rates):
        if b < made.warmup:
            assert rate_a <= rate_b
        elif a >= made.warmup:
            assert rate_a >= rate_b


def test_where_the_rate_peaks_and_ends():
    for schedule, end in {"cosine": 0, "linear": 0, "constant": 0.4}.items():
        made = Recipe(rate=0.4, warmup=0.25, schedule=schedule)
        assert made.rate_at(0) == 0 and made.rate_at(0.25) == 0.4
        assert math.isclose(made.rate_at(1), end, abs_tol=1e-12)
    assert Recipe(rate=0.4, warmup=0).rate_at(0) == 0.4
    assert math.isclose(Recipe(rate=0.4, warmup=0.2).rate_at(0.6), 0.2)  # half of a cosine


@given(st.integers(1, 200), st.floats(0.1, 1))
def test_images_grow_to_their_whole_size(epochs, first):
    made = Recipe(epochs=epochs, first_size=first)
    sizes = [made.size_at(epoch) for epoch in range(1, epochs + 1)]
    assert math.isclose(sizes[0], first) and sizes == sorted(sizes)
    assert all(math.isclose(size, 1) for size in sizes[math.ceil(epochs * 2 / 3) :])


@given(recipes)
def test_json_and_back(made):
    assert Recipe.from_dict(json.loads(json.dumps(made.to_dict()))) == made


@given(recipes, st.integers(0, 4), st.floats(0, 1))
def test_harder_adds_changes_and_takes_none(made, operations, erased):
    given = replace(made, randaugment=operations, erase=erased)
    harder = given.harder()
    assert harder.randaugment == max(1, operations) and harder.erase >= max(erased, 0.25)
    assert replace(harder, randaugment=operations, erase=erased) == given and harder.harder() == harder


def test_named_recipes():
    assert recipe("digits") == Recipe() and not recipe("digits").flip
    assert recipe("cifar").flip and recipe("xception-paper").optimiser == "sgd"
    assert set(RECIPES) == {"digits", "cifar", "xception-paper", "inception-paper", "finetune", "modern", "segment"}
    with pytest.raises(InputError, match=r"no recipe 'cifer': did you mean cifar\?"):
        recipe("cifer")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"epochs": 0}, "epochs is 1 or more, not 0"),
        ({"batch_size": 0}, "batch_size is 1 or more"),
        ({"rate": 0.0}, "rate is above 0"),
        ({"rate": math.nan}, "rate is above 0, not nan"),
        ({"momentum": 1.0}, "momentum is from 0 to below 1"),
        ({"weight_decay": -1.0}, "weight_decay is 0 or more"),
        ({"label_smoothing": 1.0}, "label_smoothing is from 0"),
        ({"warmup": 1.5}, "warmup is from 0 to 1"),
        ({"first_size": 0.0}, "first_size is above 0"),
        ({"shift": -1}, "shift is 0 or more"),
        ({"crop": 0.0}, "crop is above 0, up to 1"),
        ({"colour": -0.1}, "colour is from 0 to 1"),
        ({"hue": 0.6}, "hue is from 0 to 0.5"),
        ({"randaugment": -1}, "randaugment is 0 or more"),
        ({"magnitude": 31.0}, "magnitude is from 0 to 30"),
        ({"erase": 1.5}, "erase is from 0 to 1"),
        ({"mixup": -1.0}, "mixup is 0 or more"),
        ({"cutmix": math.inf}, "cutmix is 0 or more"),
        ({"schedule": "cosin"}, r"no schedule 'cosin': did you mean cosine\?"),
        ({"optimiser": "adam"}, r"no optimiser 'adam': did you mean adamw\?"),
        ({"accumulate": 33}, "accumulate is from 1 to batch_size"),
        ({"fall": 0.0}, "fall is above 0"),
        ({"layer_decay": 1.1}, "layer_decay is above 0"),
        ({"dropout": 1.0}, "dropout is from 0 to below 1"),
        ({"epochs": 2.5}, r"epochs is of type int, not 2\.5"),
        ({"rate": "high"}, "rate is of type float, not 'high'"),
        ({"batch_size": True}, "batch_size is of type int, not True"),
        ({"flip": 1}, "flip is of type bool, not 1"),
        ({"epoch": 3}, r"no setting 'epoch': did you mean epochs"),
    ],
)
def test_what_is_refused(wrong, says):
    with pytest.raises(InputError, match=says):
        Recipe.from_dict(wrong)


@given(st.integers(1, 50), st.floats(0.5, 1), st.integers(1, 4))
def test_exponential_steps_are_those_of_the_papers(epochs, fall, every):
    made = Recipe(epochs=epochs, rate=0.045, schedule="exponential", fall=fall, fall_epochs=every, warmup=0.0)
    for epoch in range(epochs):
        for within in (0.0, 0.5, 0.99):
            expected = 0.045 * fall ** (epoch // every)
            assert math.isclose(made.rate_at((epoch + within) / epochs), expected)


def test_another_batch_with_or_without_the_rate():
    assert Recipe(batch_size=128, rate=0.4).with_batch(32).rate == 0.4
    scaled = Recipe(batch_size=128, rate=0.4).with_batch(32, scale=True)
    assert (scaled.batch_size, scaled.rate) == (32, 0.1)
    assert Recipe(accumulate=8).with_batch(4).accumulate == 4
