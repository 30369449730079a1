"""Texts of results say what their files say, and have baselines beside what was learned."""

import json
import re
from pathlib import Path

import pytest
import results

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
TEXTS = sorted(EXPERIMENTS.glob("*/RESULTS.md"))
SCORE = {"mean": 0.25, "sd": None, "seeds": 1}
TABLE = {
    "table": "paper:1", "title": "t", "protocol": "p", "metric": "m", "device": "d", "seconds": 1.0,
    "vmap_runs": 1, "extra_metrics": ["e"],
    "rows": [{"name": "r, s", "published": 0.5, "as_published": SCORE, "ours": SCORE | {"how": ""},
              "metrics": {"as_published": {}, "ours": {"e": 0.125}}}],
}  # fmt: skip


def each_text(test):
    """Run a test for every RESULTS.md."""
    ids = [path.parent.name for path in TEXTS]
    return pytest.mark.parametrize("text", TEXTS, ids=ids)(test)


@each_text
def test_every_text_agrees_with_its_files(text):
    assert results.renewed(text) == text.read_text()


@each_text
def test_every_table_that_is_kept_is_in_a_text(text):
    shown = {found[1] for found in results.BLOCK.findall(text.read_text()) if not found[2]}
    kept = {str(p.relative_to(text.parent)) for p in text.parent.glob("results/**/table.json")}
    assert kept == shown


# Not scores of retrieval, nats and seconds; and tables that hold their baselines themselves.
NO_BASELINE = (
    "torres2018:elbo",
    "jimenez2017:5.2",
    "jimenez2017:5.2-mnist",
    "jimenez2017:mlh",
    "jimenez2017:dnnh",
    "jimenez2017:5.4",
    "photos:caltech101",
    "photos:landmarks36",
    "hashing:unsupervised",  # ITQ of the same features is one of its rows
    "hashing:supervised",
    "hashing:descriptors",
    "jimenez2017:curves",  # ITQ and LSH are rows of it
    "hashing:lsh-tables",
    "hashing:mistakes",  # what is done right is a row of it
    "hashing:coarse",  # search by codes alone is a column of it
    "hashing:cifar100-curves",
    "hashing:cifar100",  # features that nothing trains further are rows of it
    "landmarks:models-caltech101",
    "landmarks:models-landmarks36",
    "sahu:cifar4",
    "sahu:classifier",
    "sahu:index",
)


@each_text
def test_every_table_of_learned_codes_has_a_baseline_beside_it(text):
    learned = None
    for _, file, rows, content, _ in results.BLOCK.findall(text.read_text()):
        if "baselines" in file:
            assert json.loads((text.parent / file).read_text())["table"].endswith("baselines")
            assert not rows or "not run" not in content
            learned = None
            continue
        assert learned is None, f"{learned} has no baseline"
        name = json.loads((text.parent / file).read_text())["table"]
        learned = None if name in NO_BASELINE else name
    assert learned is None, f"{learned} has no baseline"


@each_text
def test_links_lead_somewhere(text):
    content = text.read_text()
    titles = re.findall(r"^#+ (.*)$", content, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    links = re.findall(r"\]\(([^)\s]+)\)", content)
    assert any(link.startswith("#") for link in links)  # a table of contents
    for link in links:
        if link.startswith("#"):
            assert link[1:] in anchors, link
        else:
            assert (text.parent / link).exists(), link


@each_text
def test_texts_open_with_their_findings(text):
    first = re.search(r"^## (.*)$", text.read_text(), re.MULTILINE)
    assert first[1] == "Findings"
    findings = text.read_text()[first.end() :].split("\n## ")[0]
    assert 3 <= len(re.findall(r"^\d\. ", findings, re.MULTILINE)) <= 5


def test_a_number_that_differs_from_its_file_is_noticed_and_renewed(tmp_path):
    (tmp_path / "table.json").write_text(json.dumps(TABLE))
    text = tmp_path / "RESULTS.md"
    text.write_text(
        "before\n<!-- ./table.json -->\n| r, s | 0.5 | 0.9999 (1 seed) |\n<!-- end -->\n"
    )
    new = results.renewed(text)
    assert new != text.read_text()
    assert "| r, s | 0.5 | 0.2500 (1 seed) | 0.2500 (1 seed) |  | 0.125 |" in new
    text.write_text(new)
    assert results.renewed(text) == new


def test_a_block_that_names_rows_is_one_line_of_their_scores(tmp_path):
    (tmp_path / "table.json").write_text(json.dumps(TABLE))
    text = tmp_path / "RESULTS.md"
    text.write_text("<!-- ./table.json: r, s -->\n<!-- end -->\n")
    line = results.renewed(text).splitlines()[1]
    assert line.endswith("(paper:1; p; m): r, s 0.2500 (1 seed), e 0.125.")
    text.write_text("<!-- ./table.json: r, s; t -->\n<!-- end -->\n")
    with pytest.raises(ValueError, match="paper:1 has no row 't'"):
        results.renewed(text)
