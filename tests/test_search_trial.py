"""Ways to one answer are tried in turn once that is worth it, and the faster one stays."""

import numpy as np
from reference import by_numpy, words

from jaxret import search
from jaxret.search import hamming, host, scan, trial
from jaxret.search.trial import LONG, PATIENCE, TIMES, Trial


def ways_of(seconds, searches):
    """The ways of a number of searches, each of which takes this long."""
    tried, ways = Trial(list(seconds)), []
    for _ in range(searches):
        ways.append(tried.way())
        tried.took(ways[-1], seconds[ways[-1]])
    return ways


def test_the_first_way_answers_until_it_has_taken_as_long_as_another_one_costs():
    ways = ways_of({"first": PATIENCE / 8, "other": 9.0}, 9)
    assert set(ways) == {"first"}  # and the first search of all, which may compile, does not count


def test_both_ways_answer_in_turn_and_then_the_faster_one():
    first, other = "first", "other"
    in_turn = [first, other] * (TIMES + 1)
    for seconds, best in ((PATIENCE / 16, other), (PATIENCE / 4, first)):
        ways = ways_of({first: PATIENCE / 8, other: seconds}, 200)
        assert ways == [first] * 9 + in_turn + [best] * (200 - 9 - len(in_turn))


def test_long_searches_and_those_with_one_way_are_never_tried():
    assert set(ways_of({"first": 1.1 * LONG, "other": 0.1}, 50)) == {"first"}
    assert Trial(["only"]).best == "only"


def test_what_a_search_finds_does_not_depend_on_the_way(monkeypatch):
    monkeypatch.setattr(host, "BUDGET", -1)
    monkeypatch.setattr(trial, "PATIENCE", 0.0)
    hamming._trial.cache_clear()
    calls, topk = [], scan.topk
    monkeypatch.setattr(scan, "topk", lambda *given: calls.append(1) or topk(*given))
    query, gallery = words(0, 3, 2, 9), words(1, 700, 2, 60)
    layout, truth = search.CodeLayout.make(gallery), by_numpy(query, gallery, 9, None)
    for _ in range(2 * TIMES + 4):
        found = search.hamming_topk(query, layout, 9)
        np.testing.assert_array_equal(found.distances, truth[0])
        np.testing.assert_array_equal(found.indices, truth[1])
    assert len(calls) >= TIMES + 1
    hamming._trial.cache_clear()
