"""Backend: the properties of a framework, one object each; the only list of frameworks.

The code is the class of the same module name in `convmark.worker.backends`. The worker loads this
module too, so it needs the standard library alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One framework that Keras runs on."""

    name: str
    """As Keras calls it; the name of its package, of its column of versions if a row has one (else
    its version stands in the column `packages`), and of its module in `worker/backends`."""
    label: str
    """Its name as its makers write it."""
    class_name: str
    """In its module."""
    distributions: tuple[str, ...]
    """On the package index, all that may hold it."""
    packages: tuple[str, ...]
    """What it is imported as."""
    gpu_install: str
    """The command that installs it for NVIDIA's GPUs."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """What Keras reads when it is imported, besides KERAS_BACKEND."""
    replicas: bool = False
    """Whether it runs several replicas."""
    untimed_tasks: bool = False
    """Whether it runs the tasks whose steps are not timed one by one."""
    optional_compiler: bool = True
    """Whether the option `--jit` changes anything: without, every step is compiled."""

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that a process needs for it."""
        return {"KERAS_BACKEND": self.name, **self.environ}


BACKENDS: Mapping[str, Backend] = {
    one.name: one
    for one in (
        Backend(
            name="tensorflow",
            label="TensorFlow",
            class_name="TensorFlow",
            distributions=(
                *("tensorflow", "tensorflow-cpu", "tensorflow-rocm", "tensorflow-metal"),
                "intel-tensorflow",
            ),
            packages=("tensorflow",),
            gpu_install="pip install 'tensorflow[and-cuda]'",
            replicas=True,
            untimed_tasks=True,
        ),
        Backend(
            name="jax",
            label="JAX",
            class_name="Jax",
            distributions=("jax",),
            packages=("jax", "jaxlib"),
            gpu_install="pip install 'jax[cuda12]'",
            optional_compiler=False,
        ),
        Backend(
            name="torch",
            label="PyTorch",
            class_name="Torch",
            distributions=("torch",),
            packages=("torch",),
            gpu_install="pip install torch",
            # without a device named here Keras looks for a GPU when it is imported, and a
            # process that has looked for one cannot fork; the worker chooses its device later
            environ={"KERAS_TORCH_DEVICE": "cpu"},
        ),
    )
}
"""By name; the default first."""

DEFAULT_BACKEND = next(iter(BACKENDS))


def packages_shared() -> tuple[str, ...]:
    """Return the packages that a process holds whatever model it runs: frameworks and their own."""
    return ("keras", "numpy", *(name for one in BACKENDS.values() for name in one.packages))


def with_property(name: str) -> str:
    """Return in words the backends of which a property is true."""
    return " and ".join(one.name for one in BACKENDS.values() if getattr(one, name))
