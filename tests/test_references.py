"""Every citation has its row in jaxret/REFERENCES.md, and every row is cited."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
REFERENCES = ROOT / "jaxret/REFERENCES.md"
FOLDERS = ("jaxret", "experiments", "benchmarks")
SUFFIXES = (".py", ".flags", ".md")
# A capitalised word and a year: "Kingma 2014", "Vinh 2010a", "Sahu n.d.".
CITATION = re.compile(r"\b([^\W\d_a-z][\w'-]+) ((?:19|20)\d\d[a-z]?\b|n\.d\.)")
# Words before a year that name nobody.
OTHERS = {
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December", "NIPS", "NeurIPS", "ICML", "ICLR", "CVPR", "ICCV", "IJCAI",
    "AAAI", "EMNLP", "ECIR", "STOC", "Copyright",
}  # fmt: skip


def rows(text):
    """(key, authors, title, venue, link) of each reference."""
    lines = [line for line in text.splitlines() if re.match(r"\| .* \|$", line)]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[1:]]


def names(row):
    """What a citation may call a work: its key, and the last of the first author's names."""
    year = row[0].split(" ")[-1]
    first_author = row[1].split(",")[0].removesuffix(" and others")
    return {row[0], f"{first_author.split(' ')[-1]} {year}"}


def cited(text):
    """Each citation in a text."""
    return {" ".join(found) for found in CITATION.findall(text) if found[0] not in OTHERS}


def unresolved(text, known):
    """The citations in a text that no reference is called by."""
    callable_by = {name for row in known for name in names(row)}
    return cited(text) - callable_by


ROWS = rows(REFERENCES.read_text())
FILES = sorted(
    path
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*")
    if path.suffix in SUFFIXES and path != REFERENCES
)


def test_every_citation_has_a_reference():
    missing = {
        path.relative_to(ROOT).as_posix(): sorted(found)
        for path in [*FILES, ROOT / "README.md"]
        if (found := unresolved(path.read_text(), ROWS))
    }
    assert not missing


def test_every_reference_is_cited():
    everything = {citation for path in FILES for citation in cited(path.read_text())}
    unused = [row[0] for row in ROWS if not names(row) & everything]
    assert not unused


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("as proposed (Nobody 2031).", {"Nobody 2031"}),
        ("Torres 2018 and Torres 2019, eq. 3", {"Torres 2019"}),
        ("(McSherry and Najork 2008)", {"Najork 2008"}),
        ("Jiménez Lepe 2017, Jimenez 2017, Kingma 2014; Sahu n.d., model C", set()),
        ("Gamal 2020; since March 2024", {"Gamal 2020"}),
        ("Müller 1999a", {"Müller 1999a"}),
    ],
)
def test_a_made_up_citation_is_found(text, found):
    assert unresolved(text, ROWS) == found


def test_the_rows_are_whole_unambiguous_and_in_order():
    keys = [row[0] for row in ROWS]
    assert len(keys) > 40
    assert keys == sorted(set(keys), key=str.lower)
    for row in ROWS:
        assert len(row) == 5, row
        assert all(row), row
        assert row[4].startswith(("<http", "ISBN ")) or row[4] == "none known"
    called = [name for row in ROWS for name in names(row)]
    assert len(called) == len(set(called))
