"""What is known of an object is not known of another at its address."""

import importlib.util

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("keras") is None, reason="the module imports Keras"
)


class Model:
    pass


def test_another_object_at_the_address_of_one_that_is_gone_is_not_known() -> None:
    from convmark.worker.backends.keras_parts import ByIdentity  # it takes seconds

    known: ByIdentity[int] = ByIdentity()
    model = Model()
    known[model] = 5
    assert model in known
    assert known[model] == 5
    address = id(model)
    del model
    assert list(known.values()) == []
    others = []
    while not others or id(others[-1]) != address:
        others.append(Model())
    assert others[-1] not in known
    with pytest.raises(KeyError):
        known[others[-1]]
