"""The notebook of the docs runs in a kernel, from its first cell to its last."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from faults import fast_python

from convmark.interpreter.inspection import zoo_names
from models.registry import unknown

NOTEBOOK = Path(__file__).resolve().parent.parent / "docs" / "howto" / "notebook.ipynb"


@pytest.mark.filterwarnings("ignore")  # the kernel's packages warn of themselves
def test_the_notebook_runs_on_stand_in_workers(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    import nbformat

    (tmp_path / "pyproject.toml").write_text(
        f"[tool.convmark]\npython = {str(fast_python(tmp_path))!r}\n"
    )
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (report,) = (cell for cell in notebook.cells if "table.title" in cell.source)
    stored = report.outputs[0].data["text/plain"]
    folder = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=60, resources=folder).execute()
    measured = next(cell for cell in notebook.cells if "convmark.measure" in cell.source)
    page = next(one.data["text/html"] for one in measured.outputs if "data" in one)
    assert "<table>" in page
    assert "<svg" in page
    assert len(list(tmp_path.glob("results/*/0001.csv"))) == 1
    assert report.outputs[0].data["text/plain"] == stored  # the page shows what one gets


def test_what_the_notebook_shows_of_an_unknown_model_is_what_one_gets() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    (output,) = next(cell["outputs"] for cell in cells if "resnet51" in "".join(cell["source"]))
    known = zoo_names()
    assert known
    assert "".join(output["text"]) == f"{unknown('resnet51', known)}\n"
