"""Files of questions, which answers are right, and which question belongs to which part."""

import base64
import io
import json

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
