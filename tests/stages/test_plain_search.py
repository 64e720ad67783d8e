"""a2_unlearn_slug.py --plain: the slow, published way of scoring comes to the same."""

import pytest
import tiny

from slug.evaluation import reference


@pytest.fixture(scope="module")
def searched(done):
    """[(step logs, record)] of a search that scores everything, by the fast way and by the plain way."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "WORKERS", 0)
        for flag in ("--log-all", "--plain"):
            run = done.another(f"by{flag}")
            tiny.run("a2_unlearn_slug", *run.a2(), "--celeb-name", "Alien", "--evaluations", "3", flag)
            logs = {p.name: p.read_text() for p in (run.results / "clip" / "steps").glob("*Alien*.txt")}
            found.append((logs, run.record("Alien")))
    return found


def test_every_line_of_every_step_log_is_the_same(searched):
    (fast, _), (plain, _) = searched
    assert fast == plain and len(fast) > 1


def test_the_winner_is_the_same(searched):
    (_, fast), (_, plain) = searched
    assert [fast[k] for k in ("layer", "step", "n_candidates")] == [plain[k] for k in ("layer", "step", "n_candidates")]


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("state", ["original", "slug"])
def test_the_reported_figures_are_the_same(searched, split, state):
    (_, fast), (_, plain) = searched
    assert fast["splits"][split][state] == pytest.approx(plain["splits"][split][state], nan_ok=True)
