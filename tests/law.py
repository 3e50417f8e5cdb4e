"""The law for workers, laid down by a `sitecustomize`; not a test itself.

What the harness is built with cannot be imported at all, and what convmark's own code may import is
a short list.
"""

from __future__ import annotations

from pathlib import Path

LAW = """\
import builtins
import sys
from importlib.machinery import ModuleSpec

BANISHED = {"pandas", "pytest", "_pytest", "pytest_benchmark", "psutil", "tabulate", "pynvml"}
NEEDED = {"tensorflow", "jax", "torch", "keras", "h5py", "numpy", "convmark", "convmark_zoo"}
OF_CONVMARK = {"convmark.core", "convmark.worker", "convmark.core.case", "convmark.core.errors"}
SMALL_OF_CORE = ("backends", "installed", "model_name", "processes", "runtimes", "tasks")
OF_CONVMARK |= {f"convmark.core.{name}" for name in SMALL_OF_CORE}


class Banished:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in BANISHED:
            return ModuleSpec(name, Banished)  # looking whether it is there is no import

    @staticmethod
    def create_module(spec):
        raise ModuleNotFoundError(f"{spec.name} is banished", name=spec.name)

    @staticmethod
    def exec_module(module):
        pass


def guarded(name, globals=None, locals=None, fromlist=(), level=0):
    importer = str((globals or {}).get("__name__")).partition(".")[0]
    if importer in ("convmark", "convmark_zoo") and level == 0:
        root = name.partition(".")[0]
        if root not in NEEDED and root not in sys.stdlib_module_names:
            raise ImportError(f"{importer} may not import {name}")
        packages = ("convmark", "convmark.core")
        names = [f"{name}.{word}" for word in fromlist or ()] if name in packages else [name]
        for whole in names:
            depth = 3 if whole.startswith("convmark.core.") else 2
            if root == "convmark" and ".".join(whole.split(".")[:depth]) not in OF_CONVMARK:
                raise ImportError(f"a worker may not import {whole}")
    return importing(name, globals, locals, fromlist, level)


importing = builtins.__import__
builtins.__import__ = guarded
sys.meta_path.insert(0, Banished)
"""


def lay_down(folder: Path) -> str:
    """Return a new folder below this one, for the PYTHONPATH of whom the law holds."""
    place = folder / "law"
    place.mkdir()
    (place / "sitecustomize.py").write_text(LAW)
    return str(place)
