"""Start a worker in any interpreter: run by its path, with one JSON argument.

The measured interpreter must see convmark's worker and the zoo and nothing else of the harness's
surroundings (its site-packages would shadow the interpreter's own NumPy). So both packages are
loaded from their folders by path, and `sys.path` is left as the interpreter made it. The folders of
the user's own code go before it once the framework is imported, as the working folder does in
`python -c`: a package there is taken before an installed one of the same name. `sys.argv` is that
of `python -c` without arguments, because the user's code may parse it.
"""

import importlib
import importlib.util
import json
import os
import sys


def load_package(name: str, folder: str) -> None:
    """Make the folder importable as the package `name` without putting its parent on the path."""
    spec = importlib.util.spec_from_file_location(
        name, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder} cannot be loaded as the package {name}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def main() -> None:
    """Load the packages and hand over to the module of the worker that the settings name."""
    settings = json.loads(sys.argv[1])
    sys.argv[:] = ["-c"]
    own_folder = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if entry and os.path.abspath(entry) != own_folder]
    load_package("convmark", settings["convmark"])
    load_package("convmark_zoo", settings["zoo"])
    module = importlib.import_module(settings["module"])  # there is a package only now
    module.serve(
        control_fd=settings["control"],
        backend=settings["backend"],
        fork=settings["fork"],
        import_roots=settings["import_roots"],
        moved=settings["moved"],
        bound=settings["bound"],
    )


if __name__ == "__main__":
    main()
