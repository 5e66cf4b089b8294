"""The notebook runs from top to bottom, and shows what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_the_first_steps_run_from_top_to_bottom(tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(ROOT / "examples" / "first_steps.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "it is stored without outputs"
    nbclient.NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = [
        "".join(out.get("text", "") + out.get("data", {}).get("text/plain", "") for out in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]
    assert said[1].startswith("put carrot on plate (480, 640, 3)")
    up = [float(number) for number in said[3].split("[")[1].split("]")[0].split()]
    assert abs(up[2] - 0.05) < 0.01
    assert max(map(abs, up[:2])) < 0.01
    assert "4/4" in said[4] or "100" in said[4]
    assert any("image/png" in out.get("data", {}) for out in notebook.cells[4].outputs)
    assert said[6].strip()
