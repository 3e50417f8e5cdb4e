"""Whether two steps of JAX are one, by a hash: what tells them apart, and what cannot be told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from forks import Forks, printed

SCRIPT = """
import json, time
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_num_cpu_devices", 2)
from jax.experimental import io_callback
from jax.experimental.xla_metadata import set_xla_metadata
from convmark.worker.backends.jaxpr import lowered, step_digest

HALVES = jax.NamedSharding(jax.make_mesh((2,), ("half",)), jax.P("half"))
X = jnp.linspace(0.0, 1.0, 64, dtype=jnp.float32).reshape(8, 8)

def digest(work, *given, **how):
    return step_digest(lowered(jax.jit(work, **how), *given))

def alike(one, other, *given):
    return [digest(one, *(given or (X,))), digest(other, *(given or (X,)))]

def named_one(x):
    @jax.jit
    def inner(y): return jnp.tanh(y) * 2
    with jax.named_scope("one"):
        return inner(inner(x)) + 1

def named_other(pictures):
    @jax.jit
    def hidden_layer(values): return jnp.tanh(values) * 2
    with jax.named_scope("other"):
        return hidden_layer(hidden_layer(pictures)) + 1

def constant(place):
    values = np.arange(5000, dtype=np.float32)
    values[place] = 0.1
    return lambda x: x.sum() + jnp.asarray(values)

def two_functions(swapped):
    @jax.jit
    def one(y): return jnp.tanh(y)
    @jax.jit
    def other(y): return jnp.sinh(y)
    return lambda x: (other(one(x)) if swapped else one(other(x)))

def loops(count):
    return lambda x: jax.lax.fori_loop(0, count, lambda _, y: y @ y, x)

def under(precision):
    def work(x):
        with jax.default_matmul_precision(precision):
            return x @ x
    return work

def beside(**metadata):
    def work(x):
        with set_xla_metadata(**metadata):
            return x + 1
    return work

@jax.tree_util.register_pytree_node_class
class Slow(list):
    def tree_flatten(self): return list(self), None
    @classmethod
    def tree_unflatten(cls, _, parts): return cls(parts)

def plain(x): return jnp.tanh(x) @ x

def printing(x):
    jax.debug.print("{}", x.sum())
    return plain(x)

found = {
    "names": alike(named_one, named_other),
    "erf": alike(*[lambda x: jax.nn.gelu(x, approximate=False)] * 2),
    "random": alike(*[lambda x, key: jax.random.bernoulli(key, 0.5, x.shape) * x] * 2,
                    X, jax.random.PRNGKey(0)),
    "constants": alike(constant(2000), constant(2001)),
    "functions": alike(two_functions(False), two_functions(True)),
    "trips": alike(loops(3), loops(4)),
    "precision": alike(under("highest"), under("bfloat16")),
    "metadata": alike(beside(kind="a@b"), beside(kind="a@c")),
    "barrier": alike(plain, lambda x: plain(jax.lax.optimization_barrier(x))),
    "order": alike(lambda x: x * x - (x + x), lambda x: -((x + x) - x * x)),
    "keys": alike(lambda x: {"loss": x + 1}, lambda x: {"mean": x + 1}),
    "values": [digest(plain, X), digest(plain, X.at[3, 3].add(1e-6))],
    "second device's values": [digest(jnp.tanh, jax.device_put(one, HALVES))
                               for one in (X, X.at[7, 7].add(1e-6))],
    "unused": [digest(lambda x, y: x, X, X), digest(lambda x, y: x, X, X + 1)],
    "donated": [digest(plain, X, donate_argnums=0), digest(plain, X)],
    "committed": [digest(plain, X), digest(plain, jax.device_put(X, jax.devices()[0]))],
    "callback": [digest(lambda x: jax.pure_callback(lambda y: y, x, x), X)],
    "input and output": [digest(lambda x: io_callback(lambda y: y, x, x), X)],
    "print": [digest(printing, X)],
    "library": [digest(lambda x: jnp.linalg.cholesky(x), X)],
    "result's class": [digest(lambda x: Slow([x + 1]), X)],
    "argument's class": [digest(lambda x: x[0] + 1, Slow([X]))],
    "typed key": [digest(lambda k: jax.random.uniform(k), jax.random.key(0))],
    "number": [digest(lambda x, n: x * n, X, 2.0)],
}
with jax.disable_jit():
    found["eager"] = [digest(plain, X)]

# what is asked leaves the step as it is: traced once, its buffers taken over
count = 0
def train(x):
    global count
    count += 1
    return x * 0.5 + 1
step, state = jax.jit(train, donate_argnums=0), jnp.zeros((256, 256))
hashed = step_digest(lowered(step, state))
place = state.unsafe_buffer_pointer()
after = step(state)
found["as it is"] = [hashed is not None, count, state.is_deleted(),
                     after.unsafe_buffer_pointer() == place]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(forks_of: Callable[[str], Forks]) -> Any:
    return printed(forks_of("jax").run(SCRIPT))


@pytest.mark.parametrize("what", ["names", "erf", "random"])
def test_what_xla_compiles_alike_has_one_hash(found: Any, what: str) -> None:
    one, other = found[what]
    assert one == other is not None


@pytest.mark.parametrize(
    "what",
    [
        *("constants", "functions", "trips", "precision", "metadata", "barrier", "order", "keys"),
        *("values", "second device's values", "unused", "donated", "committed"),
    ],
)
def test_what_may_take_another_time_has_another_hash(found: Any, what: str) -> None:
    one, other = found[what]
    assert None not in (one, other)
    assert one != other


@pytest.mark.parametrize(
    "what",
    [
        *("callback", "input and output", "print", "library", "result's class"),
        *("argument's class", "typed key", "number", "eager"),
    ],
)
def test_what_its_text_does_not_tell_has_none(found: Any, what: str) -> None:
    assert found[what] == [None]


def test_the_hash_leaves_the_step_as_it_is(found: Any) -> None:
    assert found["as it is"] == [True, 1, True, True]
