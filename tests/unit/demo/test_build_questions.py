"""Questions about pictures of the embedded world."""

import numpy as np

from demo import build_questions, canvases
from slug.evaluation import questions


def test_the_worlds_questions_keep_drawings_apart_and_say_what_is_shown(tmp_path):
    build_questions.build(tmp_path / "vlm", limit=12, progress=lambda items, **_: items)
    found = questions.read(tmp_path / "vlm/questions.jsonl")
    by_name = [q for q in found if q.task == "who"]
    splits = {}
    for q in by_name:
        splits.setdefault(q.group, set()).add(q.split)
    assert all(len(h) == 1 for h in splits.values())
    # Of the names to forget both splits hold drawings that training never saw; of all others the test split alone.
    wanted = set(build_questions.forget_names())
    unseen = [q for q in by_name if not q.seen]
    assert {q.split for q in unseen if q.name not in wanted} == {"test"}
    drawings = {s: {q.group for q in unseen if q.name == "frog" and q.split == s} for s in ("validation", "test")}
    assert 1 <= len(drawings["validation"]) <= len(drawings["test"]) <= len(drawings["validation"]) + 1
    assert {q.split for q in by_name if q.name == "frog" and q.seen} == {"validation", "test"}
    # What else is asked shows and names none that will be forgotten, and both halves ask for many objects.
    assert not any(name in q.text for q in found if q.task == "present" for name in wanted)
    assert not any(q.name in wanted for q in found if q.task == "style")
    for split in ("validation", "test"):
        kinds = {(q.name, q.kind) for q in by_name if q.split == split and q.name not in wanted}
        assert len([name for name, kind in kinds if kind == "object"]) >= 2, split
    forget = [q for q in by_name if q.name == "frog"]
    assert {q.text for q in forget} == set(canvases.WHO) and all(q.answer == "frog" for q in forget)
    yes_no = [q.answer for q in found if q.task == "present"]
    assert set(yes_no) == {"yes", "no"} and 0.35 < yes_no.count("yes") / len(yes_no) < 0.65
    # Probes: of the test split alone; every name is asked for where it stands alone and among others; all answers are right.
    probes = [q for q in found if q.task in questions.PROBES]
    frog = {task for task, whom in questions.probes(found, "frog") if whom == "name"}
    assert frog == set(questions.PROBES) and {q.split for q in probes} == {"test"}
    assert {task for task, whom in questions.probes(found, "frog") if whom == "beside"} >= {"probe_yes_no", "probe_group"}
    by_picture = {}
    for q in probes:
        if q.task == "probe_group":
            by_picture.setdefault(q.image, []).append(q.asks)
    assert {len(names) for names in by_picture.values()} == {2, 3, 4}
    for names in by_picture.values():
        assert len(set(names)) == len(names) and len(wanted & set(names)) == 1  # no neighbour is forgotten, too
    assert all((q.answer == "no") == (q.asks != q.name) for q in probes if q.task == "probe_yes_no")
    for q in found:
        if q.task == "colour":
            rgb = np.asarray(q.picture(), float)[[0, 0, -1, -1], [0, -1, 0, -1]].mean(0) / 255
            near = min(canvases.COLOURS, key=lambda c: np.abs(np.array(canvases.COLOURS[c]) - rgb).sum())
            assert near == q.answer
            break
    before = (tmp_path / "vlm/questions.jsonl").stat().st_mtime_ns
    build_questions.build(tmp_path / "vlm", limit=12)
    assert (tmp_path / "vlm/questions.jsonl").stat().st_mtime_ns == before
