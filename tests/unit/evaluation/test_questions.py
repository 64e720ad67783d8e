"""Files of questions, which answers are right, and which question belongs to which part."""

import base64
import io
import json
import re

import pandas as pd
import pytest
import tiny
from PIL import Image

from slug.errors import SlugError
from slug.evaluation import questions
from slug.evaluation.questions import Question


def asks(answer, task="who"):
    return Question("x.png", "?", answer, task)


# --------------------------------------------------------------------------------------------------------------- marks


@pytest.mark.parametrize(
    ("answer", "said", "right"),
    [
        ("frog", "this is a Frog.", True),
        ("frog", "frogs", False),
        ("tree frog", "a tree frog", True),
        ("frog", "a tree frog", False),
        ("red panda", "A red panda!", True),
        ("panda", "red panda", False),
        ("owl", "", False),
    ],
)
def test_a_name_must_occur_in_whole_words_and_the_longest_counts(answer, said, right):
    marker = questions.Marker([asks(n) for n in ("frog", "tree frog", "owl", "red panda", "panda")])
    assert marker.right(asks(answer), said) is right


@pytest.mark.parametrize(
    ("answer", "said", "right"),
    [
        ("yes", "Yes, there is", True),
        ("yes", "no yes", False),
        ("no", "no.", True),
        ("B", "B. a dog", True),
        ("dark blue", "Dark blue", True),
        ("fluent", "fluent flat", False),
    ],
)
def test_other_answers_are_the_whole_text_or_a_first_word(answer, said, right):
    assert questions.Marker([]).right(asks(answer, "other"), said) is right


def test_known_names_are_recognised_in_whole_words():
    marker = questions.Marker([asks("owl")])
    assert marker.knows("an Owl, perhaps")
    assert not marker.knows("owlish")


# --------------------------------------------------------------------------------------------------------------- parts


def test_parts_take_one_question_for_each_source_image_of_other_names():
    def about(name, group, task="who", **more):
        return Question("x.png", "?", name, task, name, group, **more)

    found = [
        about("owl", "owl/1"),
        about("owl", "owl/1"),
        about("owl", "owl/2"),
        about("frog", "frog/1"),
        about("frog", "frog/1"),
        about("cup", "cup/1", kind="object"),
        about("frog", "frog/1", "style"),
        about("", "", "colour"),
        about("owl", "owl/3", seen=False),
        about("frog", "frog/2", seen=False),
    ]
    parts = questions.parts(found, "Frog")
    assert {p: rows for p, rows in parts.items() if rows} == {
        "forget": [3, 4],
        "forget_unseen": [9],
        "identities": [0, 2],
        "identities_unseen": [8],
        "objects": [5],
        "utility": [7],
    }


# --------------------------------------------------------------------------------------------------------------- files


def test_our_own_format_is_read_as_it_was_written(tmp_path):
    (tmp_path / "a").mkdir()
    found = [Question(str(tmp_path / "a" / "1.png"), "?", "owl", "who", "Owl", "Owl/1", "validation", False, "object")]
    questions.write(tmp_path / "q.jsonl", found)
    assert questions.read(tmp_path / "q.jsonl") == found


def test_mme_is_a_folder_of_images_and_texts(tmp_path):
    (tmp_path / "MME" / "color").mkdir(parents=True)
    (tmp_path / "MME/color/1.jpg").write_bytes(tiny.jpeg(0, size=16))
    (tmp_path / "MME/color/1.txt").write_text("Is it red?\tYes\nIs it blue?\tNo\n")
    found = questions.read(tmp_path / "MME")
    assert [(q.text, q.answer, q.task) for q in found] == [("Is it red?", "Yes", "color"), ("Is it blue?", "No", "color")]
    assert found[0].picture().size == (16, 16)


def test_mme_may_keep_images_and_texts_in_two_folders(tmp_path):
    for part in ("images", "questions_answers_YN"):
        (tmp_path / "MME" / "celebrity" / part).mkdir(parents=True)
    (tmp_path / "MME/celebrity/images/1.b.png").write_bytes(tiny.jpeg(0, size=16, kind="PNG"))
    (tmp_path / "MME/celebrity/questions_answers_YN/1.b.txt").write_text("Is it he?\tYes\n")
    (question,) = questions.read(tmp_path / "MME")
    assert question.task == "celebrity"
    assert question.picture().size == (16, 16)


def test_gqa_is_a_json_file_beside_its_images(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "7.jpg").write_bytes(tiny.jpeg(0, size=16))
    row = {"question": "What is it?", "answer": "dog", "imageId": "7", "isBalanced": True}
    (tmp_path / "gqa.json").write_text(json.dumps({"1": row}))
    (question,) = questions.read(tmp_path / "gqa.json")
    assert question.text.startswith("What is it?\nAnswer the question using a single word")
    assert (question.answer, question.picture().size) == ("dog", (16, 16))


def test_mmbench_is_a_table_with_options_and_images(tmp_path):
    image = base64.b64encode(tiny.jpeg(0, size=16)).decode()
    table = {"index": [1], "image": [image], "question": ["Which?"], "hint": [""]}
    table |= {"A": ["cat"], "B": ["dog"], "C": [""], "D": [""], "answer": ["B"], "category": ["logic"]}
    pd.DataFrame(table).to_csv(tmp_path / "mmbench.tsv", sep="\t", index=False)
    (question,) = questions.read(tmp_path / "mmbench.tsv")
    assert question.text.startswith("Which?\nA. cat\nB. dog\n")
    assert (question.answer, question.task, question.picture().size) == ("B", "logic", (16, 16))


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("a.jsonl", '{"image": "x.png"}\n', "line 1, is not a question"),
        ("a.jsonl", "\n", "line 1, is not a question"),
        ("a.jsonl", "", "holds no question"),
        ("a.csv", "", "not a file of questions"),
        ("a.json", '{"1": {"question": "?"}}', "not a file of GQA"),
        ("a.tsv", "index\tquestion\n1\t?\n", "not a table of MMBench"),
    ],
)
def test_a_file_that_holds_no_questions_is_refused(tmp_path, file, content, said):
    (tmp_path / file).write_text(content)
    with pytest.raises(SlugError, match=said):
        questions.read(tmp_path / file)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(SlugError, match="questions not found"):
        questions.read(tmp_path / "nothing.jsonl")


def half_an_image():
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    return buffer.getvalue()[:40]


@pytest.mark.parametrize("content", [b"no image", half_an_image()])
def test_a_broken_image_is_refused(content):
    with pytest.raises(SlugError, match="cannot decode"):
        Question(content, "?", "a", "who").picture()


def test_the_digest_depends_on_the_texts(tmp_path):
    (tmp_path / "a.jsonl").write_text("1")
    before = questions.digest(tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").write_text("2")
    assert questions.digest(tmp_path / "a.jsonl") != before


@pytest.fixture
def some_lost(tmp_path):
    """Questions about 5 pictures, two questions each: one picture is missing, one is no picture."""
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for i, path in enumerate(paths[1:], 1):
        path.write_bytes(tiny.jpeg(i, size=16) if i > 1 else b"no picture")
    return [Question(str(path), text, "frog", "who") for path in paths for text in "ab"]


def test_questions_without_a_usable_picture_are_counted_and_told(some_lost, capsys):
    found, left_out = questions.usable(some_lost, "q.jsonl", 0.4)
    assert found == some_lost[4:] and left_out == {"missing": 1, "damaged": 1}
    assert "q.jsonl: 2 of 5 pictures of the evaluation cannot be used (1 damaged, 1 missing)" in "".join(capsys.readouterr())
    assert questions.usable(found, "q.jsonl", 0.0) == (found, {"missing": 0, "damaged": 0})


def test_too_many_unusable_pictures_are_an_error_with_the_way_out(some_lost):
    with pytest.raises(SlugError, match=r"accept figures without them by --allow-missing 0\.4"):
        questions.usable(some_lost, "q.jsonl", 0.01)
    with pytest.raises(SlugError, match="none of its pictures can be used"):
        questions.usable(some_lost[:4], "q.jsonl", 1.0)


def test_a_picture_that_mme_lacks_is_missing(tmp_path):
    (tmp_path / "MME" / "color").mkdir(parents=True)
    (tmp_path / "MME/color/1.txt").write_text("Is it red?\tYes\n")
    (tmp_path / "MME/color/2.jpg").write_bytes(tiny.jpeg(0, size=16))
    (tmp_path / "MME/color/2.txt").write_text("Is it blue?\tNo\n")
    found, left_out = questions.usable(questions.read(tmp_path / "MME"), tmp_path / "MME", 0.5)
    assert [q.text for q in found] == ["Is it blue?"] and left_out == {"missing": 1, "damaged": 0}


def test_a_picture_within_a_table_may_be_damaged_too():
    asked = [Question(content, "?", "a", "x") for content in (b"no picture", tiny.jpeg(0, size=16))]
    assert questions.usable(asked, "q.tsv", 0.5) == (asked[1:], {"missing": 0, "damaged": 1})


# ------------------------------------------------------------------------------------------------ rows of a user's own


def write_rows(folder, text, file="asked.csv", images=("1.jpg",)):
    (folder / file).write_text(text)
    for name in images:
        (folder / name).write_bytes(b"x")
    return folder


@pytest.mark.parametrize("column", ["image", "picture"])
def test_rows_of_a_csv_are_questions_on_images_beside_it(tmp_path, column):
    write_rows(tmp_path, f"{column},question,answer,more\n1.jpg,Who is this?,elon musk,x\n1.jpg,What is it?,a car,y\n")
    named, other = questions.read_rows(tmp_path, ["Elon_Musk"])
    assert named == questions.Question(str(tmp_path / "1.jpg"), "Who is this?", "elon musk", "who", "elon musk", "1.jpg")
    assert (other.task, other.name, other.answer) == ("rows", "", "a car")


def test_rows_of_a_jsonl_are_questions_and_files_add_up(tmp_path):
    write_rows(tmp_path, '{"image": "1.jpg", "question": "How many?", "answer": 2}\n', "b.jsonl")
    write_rows(tmp_path, "image,question,answer\n1.jpg,q,a\n", "a.csv")
    assert [(q.text, q.answer) for q in questions.read_rows(tmp_path, [])] == [("q", "a"), ("How many?", "2")]


@pytest.mark.parametrize(
    ("text", "file", "said"),
    [
        ("image,question,answer\n1.jpg,q,\n", "a.csv", "row 1, lacks its image, question or answer"),
        ("image,question\n1.jpg,q\n", "a.csv", "row 1, lacks"),
        ("image,question,answer\n", "a.csv", "it has no row"),
        ("image,question,answer\n2.jpg,q,a\n1.jpg,q,a\n", "a.csv", "1 of 2 images are missing, e.g. 2.jpg"),
        ("image,question,answer\n../1.jpg,q,a\n", "a.csv", "no file name"),
        ("[1]\n", "a.jsonl", "line 1, is no object"),
        ("{\n", "a.jsonl", "line 1, is no JSON"),
        ("", "a.txt", "it has no row"),
    ],
)
def test_bad_rows_are_refused(tmp_path, text, file, said):
    with pytest.raises(SlugError, match=said):
        questions.read_rows(write_rows(tmp_path, text, file), [])


def test_a_file_in_place_of_a_folder_is_refused(tmp_path):
    write_rows(tmp_path, "image,question,answer\n1.jpg,q,a\n", "a.csv")
    with pytest.raises(SlugError, match="is no folder"):
        questions.read_rows(tmp_path / "a.csv", [])


@pytest.mark.parametrize(
    ("answer", "said", "right"),
    [
        ("Elon Musk", "This is elon  musk, I think", True),
        ("cat", "A concatenation", True),  # contained, not as a word: that is the published scoring
        ("Elon Musk", "Musk", False),
        ("yes", "no", False),
    ],
)
def test_published_scoring_asks_whether_the_answer_is_contained(answer, said, right):
    said = " ".join(said.split())
    assert questions.contained(questions.Question("x", "q", answer, "who"), said) == right


PROBE = {"image": "a.png", "text": "is this a frog?", "answer": "yes", "task": "probe_yes_no", "name": "frog"}
TEXT = {"image": "", "text": "who croaks?", "answer": "frog", "task": "probe_text_only", "asks": "frog"}


def test_probes_are_read_from_a_users_own_file_and_written_again(tmp_path):
    (tmp_path / "q.jsonl").write_text("\n".join(json.dumps(row) for row in (PROBE, TEXT)))
    found = questions.read(tmp_path / "q.jsonl")
    assert [q.shown for q in found] == [True, False] and found[1].image == ""
    questions.write(tmp_path / "again.jsonl", found)
    assert questions.read(tmp_path / "again.jsonl") == found


def test_a_question_without_a_picture_lacks_none(tmp_path):
    asked = [questions.Question(**TEXT)]
    assert questions.usable(asked, tmp_path, 0.0) == (asked, {"missing": 0, "damaged": 0})


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (PROBE | {"task": "probe_yesno"}, "no probe 'probe_yesno'; choose from probe_yes_no,"),
        (PROBE | {"image": ""}, "has no image if its task is 'probe_text_only', and needs one otherwise"),
        (TEXT | {"image": "a.png"}, "has no image if its task is 'probe_text_only'"),
        (TEXT | {"asks": ""}, "needs `asks`"),
        ({"image": "", "text": "?", "answer": "frog", "task": "who", "name": "frog"}, "needs one otherwise"),
    ],
)
def test_what_is_no_probe_is_refused(tmp_path, row, said):
    (tmp_path / "q.jsonl").write_text(json.dumps(row))
    with pytest.raises(SlugError, match=re.escape(said)):
        questions.read(tmp_path / "q.jsonl")


def test_probes_are_no_part_and_are_sorted_by_what_is_right():
    yes, text = questions.Question(**PROBE), questions.Question(**TEXT)
    other = yes._replace(asks="owl")
    asked = [yes, yes._replace(answer="no"), other, other._replace(name="owl"), text, other._replace(task="colour", name="")]
    assert questions.probes(asked, "Frog") == {
        ("probe_yes_no", "name"): [0],
        ("probe_yes_no", "beside"): [1, 2],
        ("probe_yes_no", "others"): [3],
        ("probe_text_only", "name"): [4],
    }
    assert [rows for rows in questions.parts(asked, "Frog").values() if rows] == [[5]]


@pytest.mark.parametrize(
    ("said", "right"), [("a frog.", True), ("tree frog", False), ("frog and owl", True), ("owl", False)]
)
def test_a_probe_for_a_name_is_marked_as_a_naming_question(said, right):
    probe = questions.Question(**PROBE | {"task": "probe_group", "answer": "frog"})
    marker = questions.Marker([probe, probe._replace(answer="tree frog"), probe._replace(answer="owl")])
    assert marker.right(probe, said) is right
