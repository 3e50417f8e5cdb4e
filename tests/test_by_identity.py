"""What is known of an object is known of no other at its address, but of what it wraps."""

import importlib.util
from types import SimpleNamespace

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


def test_a_variable_that_wraps_another_is_that_one() -> None:
    from convmark.worker.backends.keras_parts import untracked

    handle = object()
    inner, outer = (SimpleNamespace(shape=(3, 4), dtype="float32", handle=handle) for _ in range(2))
    hidden = SimpleNamespace(shape=(5,), dtype="float32")
    model = SimpleNamespace(_flatten_layers=list, variables=[outer], weights=[outer])
    assert untracked(model, [inner, hidden]) == 5
