"""Texts of results say what their files say."""

import json
from pathlib import Path

import pytest
import results

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
TABLE = {
    "table": "paper:1", "title": "t", "protocol": "p", "metric": "m", "device": "d", "seconds": 1.0,
    "together": 1, "rows": [{"name": "r", "published": 0.5, "ours": None,
                             "as_published": {"mean": 0.25, "sd": None, "seeds": 1}}],
}  # fmt: skip


@pytest.mark.parametrize(
    "text", sorted(EXPERIMENTS.glob("*/RESULTS.md")), ids=lambda path: path.parent.name
)
def test_every_text_agrees_with_its_files(text):
    assert results.renewed(text) == text.read_text()


def test_a_number_that_differs_from_its_file_is_noticed_and_renewed(tmp_path):
    (tmp_path / "table.json").write_text(json.dumps(TABLE))
    text = tmp_path / "RESULTS.md"
    text.write_text("before\n<!-- ./table.json -->\n| r | 0.5 | 0.9999 (1 seed) |\n<!-- end -->\n")
    new = results.renewed(text)
    assert new != text.read_text()
    assert "| r | 0.5 | 0.2500 (1 seed) |  |  |" in new
    text.write_text(new)
    assert results.renewed(text) == new
