"""Vision-language models on an untrained LLaVA: questions and their files, the judge, the stages, deltas."""

import base64
import io
import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from huggingface_hub import ModelCard
from PIL import Image
from transformers import CLIPModel, LlavaForConditionalGeneration

from demo import build_questions, canvases, emoji, train_vlm, training
from slug import files
from slug.artifacts import cards, deltas
from slug.core import preconditioning
from slug.core.edit import applied
from slug.data.pairs import load_pairs
from slug.errors import SlugError
from slug.evaluation import assistant, questions
from slug.models import vlm

NAMES = ["Frog", "Owl", "apple", "Red Panda"]


@pytest.fixture(scope="module")
def folder(tiny_clip, tmp_path_factory):
    """llava/ and its CLIP, hugging_face/, and questions.jsonl with pictures. Only for reading."""
    out = tmp_path_factory.mktemp("vlm")
    (out / "hugging_face").symlink_to(tiny_clip / "hugging_face")
    tiny.write_llava(out / "llava", out / "hugging_face")
    (out / "pictures").mkdir()
    asked = []
    for i, name in enumerate(NAMES * 4):
        path = out / f"pictures/{i}.png"
        path.write_bytes(tiny.jpeg(i, size=64))
        split = questions_half(i)
        asked.append(questions.Question(str(path), "what is this?", name.lower(), "who", name, f"{name}/{i}", split))
        asked.append(questions.Question(str(path), "which colour is behind it?", "red", "colour", "", "", split))
    questions.write(out / "questions.jsonl", asked)
    return out


def questions_half(i):
    return "validation" if i % 8 < 4 else "test"


@pytest.fixture(scope="module")
def model(folder):
    return tiny.load_llava(folder)


# ----------------------------------------------------------------------------------------------------------- questions


def test_questions_of_one_training_picture_know_nothing_of_one_another(model):
    """Packed into one row, each gives the logits that it gives alone, as the chat template would write it."""
    tokens, rng = model.module.config.image_seq_length, np.random.default_rng(0)
    concepts = emoji.concepts()
    world = concepts, emoji.pictures(concepts)
    rows = {"identity": [0, 1, 2], "object": [i for i, p in enumerate(world[1]) if concepts[p.concept].kind == "object"][:9]}
    asked = [canvases.conversation(rng, world, rows, 0.5) for _ in range(6)]
    assert {len(scenes) for scenes in asked} == {4} and len({len(scenes[0].icons) for scenes in asked}) > 1
    x = torch.randn(len(asked), 3, 64, 64)
    with torch.no_grad():
        packed = train_vlm.encode(model.processor, asked, tokens)
        together = model.module(pixel_values=x, **packed).logits
        for row, scenes in enumerate(asked):
            answers = together[row][(packed["labels"][row] != -100).nonzero()[:, 0] - 1]
            for s in scenes:
                content = [{"type": "image"}, {"type": "text", "text": s.question}]
                template = {"add_generation_prompt": True, "tokenize": False}
                text = model.processor.apply_chat_template([{"role": "user", "content": content}], **template)
                text = text.replace("<image>", "<image> " * tokens) + f" {s.answer} </s>"
                ids = model.processor.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
                n = len(model.processor.tokenizer(s.answer, add_special_tokens=False).input_ids) + 1
                alone = model.module(input_ids=ids, pixel_values=x[row : row + 1]).logits[0, -n - 1 : -1]
                assert torch.allclose(answers[:n], alone, atol=1e-5)
                answers = answers[n:]
            assert len(answers) == 0


def test_the_loss_is_the_models_own_and_knows_nothing_of_hidden_patches(model):
    tokens, rng = model.module.config.image_seq_length, np.random.default_rng(0)
    concepts = emoji.concepts()
    rows = {"identity": [0, 1, 2], "object": [0, 1, 2]}
    asked = [canvases.conversation(rng, (concepts, emoji.pictures(concepts)), rows, 0.5) for _ in range(4)]
    x = torch.randn(len(asked), 3, 64, 64)
    with torch.no_grad():
        packed = train_vlm.encode(model.processor, asked, tokens)
        loss = train_vlm.answers_loss(model.module, x, packed)
        assert loss == pytest.approx(model.module(pixel_values=x, **packed).loss.item(), rel=1e-5)
        hidden = torch.zeros(len(asked), tokens, dtype=torch.bool)
        hidden[0, 3] = True
        features = list(model.module.get_image_features(x).pooler_output)
        embeds = model.module.get_input_embeddings()(packed["input_ids"])
        embeds[packed["input_ids"] == model.processor.image_token_id] = torch.cat(features)
        for rest, same in ((packed, False), (train_vlm.encode(model.processor, asked, tokens, hidden), True)):
            rest = {k: v for k, v in rest.items() if k not in ("input_ids", "labels")}
            found = []
            for change in (0.0, 1.0):
                moved = embeds.clone()
                moved[0, packed["input_ids"][0].tolist().index(model.processor.image_token_id) + 3] += change
                states = model.module.model.language_model(inputs_embeds=moved, **rest).last_hidden_state
                found.append(states[packed["labels"] != -100])
            assert torch.equal(*found) == same


def test_a_checkpoint_of_another_recipe_is_not_gone_on_from(tmp_path):
    source = tmp_path / "script.py"
    source.write_text("a = 1")

    def part(decay=0.01):
        torch.manual_seed(0)
        return training.Part("x", {"x": torch.nn.Linear(2, 2)}, 1e-2, 3, tmp_path, (source,), decay=decay)

    first = part()
    first.run(lambda _: first.modules["x"](torch.ones(1, 2)).square().sum())
    assert part().step == 3
    with pytest.raises(SlugError, match="by another recipe"):
        part(decay=0.1)
    source.write_text("a = 2")
    with pytest.raises(SlugError, match="by another recipe"):
        part()


def test_answers_are_marked_by_whole_words():
    def asks(answer, task="who"):
        return questions.Question("x.png", "?", answer, task)

    names = [asks(n) for n in ("frog", "tree frog", "owl", "red panda", "panda")]
    marker = questions.Marker(names)
    assert marker.right(asks("frog"), "this is a Frog.") and not marker.right(asks("frog"), "frogs")
    assert marker.right(asks("tree frog"), "a tree frog") and not marker.right(asks("frog"), "a tree frog")
    assert marker.right(asks("red panda"), "A red panda!") and not marker.right(asks("panda"), "red panda")
    assert not marker.right(asks("owl"), "")
    assert marker.right(asks("yes", "present"), "Yes, there is") and not marker.right(asks("yes", "present"), "no yes")
    assert marker.right(asks("B", "mmbench"), "B. a dog") and marker.right(asks("dark blue", "colour"), "Dark blue")
    assert not marker.right(asks("fluent", "style"), "fluent flat") and marker.right(asks("no", "present"), "no.")
    assert marker.knows("an Owl, perhaps") and not marker.knows("owlish")


def test_parts_take_one_question_a_drawing_of_other_names():
    def asks(name, group, task="who", **more):
        return questions.Question("x.png", "?", name, task, name, group, **more)

    found = [
        asks("owl", "owl/1"),
        asks("owl", "owl/1"),
        asks("owl", "owl/2"),
        asks("frog", "frog/1"),
        asks("frog", "frog/1"),
    ]
    found += [asks("cup", "cup/1", kind="object"), asks("frog", "frog/1", "style"), asks("", "", "colour")]
    found += [asks("owl", "owl/3", seen=False), asks("frog", "frog/2", seen=False)]
    parts = questions.parts(found, "Frog")
    assert {p: rows for p, rows in parts.items() if rows} == {
        "forget": [3, 4],
        "forget_unseen": [9],
        "identities": [0, 2],
        "identities_unseen": [8],
        "objects": [5],
        "utility": [7],
    }


def test_public_sets_are_read_as_they_are_published(tmp_path):
    picture = tiny.jpeg(0, size=16)
    mme = tmp_path / "MME" / "color"
    mme.mkdir(parents=True)
    (mme / "1.jpg").write_bytes(picture)
    (mme / "1.txt").write_text("Is it red?\tYes\nIs it blue?\tNo\n")
    found = questions.read(tmp_path / "MME")
    assert [(q.text, q.answer, q.task) for q in found] == [("Is it red?", "Yes", "color"), ("Is it blue?", "No", "color")]
    assert found[0].picture().size == (16, 16)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "7.jpg").write_bytes(picture)
    row = {"question": "What is it?", "answer": "dog", "imageId": "7", "isBalanced": True}
    (tmp_path / "gqa.json").write_text(json.dumps({"1": row}))
    (question,) = questions.read(tmp_path / "gqa.json")
    assert question.text.startswith("What is it?\nAnswer the question using a single word")
    assert (question.answer, question.picture().size) == ("dog", (16, 16))
    table = {"index": [1], "image": [base64.b64encode(picture).decode()], "question": ["Which?"], "hint": [""]}
    table |= {"A": ["cat"], "B": ["dog"], "C": [""], "D": [""], "answer": ["B"], "category": ["logic"]}
    pd.DataFrame(table).to_csv(tmp_path / "mmbench.tsv", sep="\t", index=False)
    (question,) = questions.read(tmp_path / "mmbench.tsv")
    assert question.text.startswith("Which?\nA. cat\nB. dog\n") and question.picture().size == (16, 16)
    assert questions.Marker([question]).right(question, "B")


def test_files_of_questions_that_will_not_do(tmp_path):
    with pytest.raises(SlugError, match="questions not found"):
        questions.read(tmp_path / "nothing.jsonl")
    (tmp_path / "a.jsonl").write_text('{"image": "x.png"}\n')
    with pytest.raises(SlugError, match="line 1, is no question"):
        questions.read(tmp_path / "a.jsonl")
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(SlugError, match="no file of questions"):
        questions.read(tmp_path / "a.csv")
    (tmp_path / "a.json").write_text('{"1": {"question": "?"}}')
    with pytest.raises(SlugError, match="no file of GQA"):
        questions.read(tmp_path / "a.json")
    (tmp_path / "a.tsv").write_text("index\tquestion\n1\t?\n")
    with pytest.raises(SlugError, match="no table of MMBench"):
        questions.read(tmp_path / "a.tsv")
    broken = questions.Question(b"no picture", "?", "a", "who")
    with pytest.raises(SlugError, match="cannot decode"):
        broken.picture()


def test_the_worlds_questions_keep_drawings_apart_and_say_what_is_shown(tmp_path):
    build_questions.build(tmp_path / "vlm", limit=12, progress=lambda items, **_: items)
    found = questions.read(tmp_path / "vlm/questions.jsonl")
    by_name = [q for q in found if q.task == "who"]
    splits = {}
    for q in by_name:
        splits.setdefault(q.group, set()).add(q.split)
    assert all(len(h) == 1 for h in splits.values())
    assert all(q.split == "test" for q in by_name if not q.seen) and any(not q.seen for q in by_name)
    # What else is asked shows and names none that will be forgotten, and both halves ask for many objects.
    wanted = set(build_questions.forget_names())
    assert not any(name in q.text for q in found if q.task == "present" for name in wanted)
    assert not any(q.name in wanted for q in found if q.task == "style")
    for split in ("validation", "test"):
        kinds = {(q.name, q.kind) for q in by_name if q.split == split and q.name not in wanted}
        assert len([name for name, kind in kinds if kind == "object"]) >= 2, split
    forget = [q for q in by_name if q.name == "frog"]
    assert {q.text for q in forget} == set(canvases.WHO) and all(q.answer == "frog" for q in forget)
    yes_no = [q.answer for q in found if q.task == "present"]
    assert set(yes_no) == {"yes", "no"} and 0.35 < yes_no.count("yes") / len(yes_no) < 0.65
    for q in found:
        if q.task == "colour":
            rgb = np.asarray(q.picture(), float)[[0, 0, -1, -1], [0, -1, 0, -1]].mean(0) / 255
            near = min(canvases.COLOURS, key=lambda c: np.abs(np.array(canvases.COLOURS[c]) - rgb).sum())
            assert near == q.answer
            break
    before = (tmp_path / "vlm/questions.jsonl").stat().st_mtime_ns
    build_questions.build(tmp_path / "vlm", limit=12)
    assert (tmp_path / "vlm/questions.jsonl").stat().st_mtime_ns == before


# --------------------------------------------------------------------------------------------------------------- judge


class Scripted:
    """An assistant that says what a function of the question says."""

    def __init__(self, says):
        self.says, self.asked = says, 0

    def answer(self, found, desc=None):
        self.asked += len(found)
        return [self.says(q) for q in found]

    def ask(self, found, desc=None):
        said = self.answer(found)
        return said, torch.tensor([1.0 if s == q.answer else -1.0 for q, s in zip(found, said, strict=True)])


def judge(says, count=400):
    rows = [("Frog", "frog", "identity"), ("Owl", "owl", "identity"), ("apple", "apple", "object"), ("", "red", "")]
    found = [
        questions.Question("x", "?", answer, "who" if name else "colour", name, f"{name}{i}", "validation", kind=kind)
        for i in range(count)
        for name, answer, kind in rows
    ]
    return assistant.Judge(Scripted(says), found, "Frog")


def test_a_judge_asks_the_rest_only_where_the_name_is_forgotten_and_can_win():
    sound = judge(lambda q: q.answer)
    row = sound.step("l", 1.0, "l")
    assert row.forget_acc == 1 and math.isnan(row.retain) and sound.vlm.asked == 400
    gone = judge(lambda q: "owl" if q.name else q.answer)
    row = gone.step("l", 1.0, "l")
    assert (row.forget_acc, row.identities_acc, row.objects_acc, row.utility_acc) == (0, 1, 0, 1)
    assert row.retain == pytest.approx(2 / 3)
    best = row._replace(identities_acc=0.9, objects_acc=0.9, utility_acc=0.9)
    poor = judge(lambda q: "owl" if q.name else "blue")
    row = poor.step("l", 1.0, "l", best=best)
    assert math.isnan(row.retain) and poor.vlm.asked < 1600
    row = judge(lambda q: "owl" if q.name else "blue").step("l", 1.0, "l", log_all=True)
    assert row.retain == pytest.approx(1 / 3)


def test_what_the_unedited_model_answers_worst_is_asked_first():
    """A candidate that cannot win is then given up after one chunk of each part."""
    brittle = {f"apple{i}" for i in range(390, 400)}
    mute = judge(lambda q: "nothing" if q.group in brittle or q.name == "Frog" else q.answer)
    best = assistant.Step("b", 1.0, 0.0, identities_acc=1, objects_acc=1, utility_acc=1)
    row = mute.step("l", 1.0, "l", best=best)
    assert math.isnan(row.retain) and mute.vlm.asked == 400 + 1200  # the last few objects decide
    assert mute.original().retain == pytest.approx((1 + 390 / 400 + 1) / 3)
    mute.vlm.asked = 0
    row = mute.step("l", 1.0, "l", best=best)
    assert math.isnan(row.retain) and mute.vlm.asked == 400 + 3 * assistant.CHUNK
    assert {q.group for q in mute.asked["objects"][:10]} == brittle


def test_a_name_nobody_asks_for_is_refused():
    with pytest.raises(SlugError, match="none about Dragon"):
        assistant.Judge(Scripted(str), judge(str).asked["identities"], "Dragon")


# -------------------------------------------------------------------------------------------------------------- stages


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    """Both stages for one name."""
    work = tmp_path_factory.mktemp("run")
    tiny.write_pairs(work / "Frog.tar", ["a frog", "the frog", "frog!", "my frog"])
    tiny.write_pairs(work / "train.tar", ["a dog", "a cat", "owl", "tree", "a key", "a house", "a car", "a boat"])
    run(folder, work, "c1_unlearn_vlm", *arguments(work))
    (work / "MME" / "color").mkdir(parents=True)
    (work / "MME/color/1.jpg").write_bytes(tiny.jpeg(0, size=64))
    (work / "MME/color/1.txt").write_text("Is it red?\tYes\nIs it blue?\tNo\n")
    (work / "README.md").write_text("<!-- vlm -->\n<!-- /vlm -->\n")
    published = ["--out", work / "published" / "vlm", "--readme", work / "README.md"]
    run(folder, work, "c2_eval_vlm", "--utility", work / "MME", "--factors", 0.5, 8, *published)
    return work


def arguments(work):
    data = ["--tar-dir", work, "--train-data", work / "train.tar", "--batch-size", 4]
    return ["--celeb-name", "Frog", *data, "--evaluations", 2]


def flags(folder, work):
    model = [
        "--vlm",
        folder / "llava",
        "--clip-model-id",
        folder / "hugging_face",
        "--questions",
        folder / "questions.jsonl",
    ]
    return [*model, "--result-dir", work / "results", "--device", "cpu", "--workers", 0]


def run(folder, work, stage, *more):
    tiny.run(stage, *more, *flags(folder, work))


def test_the_kept_step_is_the_one_logged(done, folder):
    record = files.read_json(done / "results/vlm/llava-Frog.json")
    rows = pd.read_csv(done / "results/vlm/llava-Frog-steps.csv")
    row = rows[(rows["layer"] == record["layer"]) & np.isclose(rows["step"], record["step"])].iloc[0]
    model = tiny.load_llava(folder)
    assert record["layer"] in model.candidates()
    edit, _ = deltas.read(done / "results/vlm" / record["delta"])
    judge = assistant.Judge(model, questions.read(folder / "questions.jsonl"), "Frog")
    with applied(model, edit):
        again = judge.step("", 0, None, log_all=True)
    assert again.forget_acc == pytest.approx(row["forget_acc"])
    assert (done / "results/vlm/llava-Frog-pareto.png").is_file()


def test_tables_and_transcripts_say_what_the_model_says(done, folder):
    table = pd.read_csv(done / "results/vlm/table.csv")
    assert list(table["method"]) == ["original", "slug"] and set(table["name"]) == {"Frog"}
    lines = [json.loads(line) for line in (done / "results/vlm/llava-Frog.jsonl").read_text().splitlines()]
    asked = [q for q in questions.read(folder / "questions.jsonl") if q.split == "test"]
    asked += questions.read(done / "MME")
    model = tiny.load_llava(folder)
    with applied(model, deltas.read(done / "results/vlm/llava-Frog.delta.safetensors")[0]):
        said = dict(zip([(q.image.rsplit("/", 1)[-1], q.text) for q in asked], model.answer(asked), strict=True))
    for line in lines:
        assert line["after"] == said[line["image"], line["text"]]
    row = table.iloc[1]
    own = [line for line in lines if line["part"] == "forget"]
    assert row["n_forget"] == len(own) and row["forget_acc"] == pytest.approx(np.mean([o["right_after"] for o in own]))
    rest = [line for line in lines if line["part"] == "utility"]
    assert row["n_utility"] == len(rest) and {r["task"] for r in rest} == {"colour", "color"}
    assert row["utility_change"] == pytest.approx(np.mean([r["right_after"] - r["right_before"] for r in rest]), abs=1e-6)
    assert (done / "results/vlm/sheet-llava-Frog.png").is_file() and "kind of question" in (
        done / "results/vlm/report.md"
    ).read_text()


def test_the_curve_is_of_multiples_of_the_step(done, folder):
    curve, table = (pd.read_csv(done / "results/vlm" / f"{t}.csv") for t in ("curve", "table"))
    assert list(curve["factor"]) == [0, 0.5, 1, 8]
    for row, states in ((0, "original"), (2, "slug")):
        kept = table[table["method"] == states].iloc[0]
        for column in ("forget_acc", "identities_acc", "utility_acc", "n_utility"):
            assert curve.loc[row, column] == pytest.approx(kept[column], nan_ok=True)
    asked = [q for q in questions.read(folder / "questions.jsonl") if q.split == "test"]
    mine, model, marker = [q for q in asked if q.name == "Frog"], tiny.load_llava(folder), questions.Marker(asked)
    edit, _ = deltas.read(done / "results/vlm/llava-Frog.delta.safetensors")
    for row, factor in ((1, 0.5), (3, 8)):
        with applied(model, {n: factor * t for n, t in edit.items()}):
            right = [marker.right(q, s) for q, s in zip(mine, model.answer(mine), strict=True)]
        assert curve.loc[row, "forget_acc"] == pytest.approx(np.mean(right))
        assert curve.loc[row, "step"] == pytest.approx(factor * curve.loc[2, "step"], rel=1e-5)
    assert (curve.loc[0, [c for c in curve if "_change" in c]] == 0).all() and curve["factor"].max() == 8
    text = (done / "results/vlm/report.md").read_text()
    assert "](llava-curve.png)" in text and (done / "results/vlm/llava-curve.png").is_file()
    # README quotes the report, with links from where it stands.
    link = "published/vlm/llava-curve.png"
    quoted = (done / "README.md").read_text().split("<!-- vlm -->")[1].split("<!-- /vlm -->")[0]
    assert quoted.strip() == text.replace("](llava-curve.png)", f"]({link})").strip() and (done / link).is_file()


def test_a_whitened_step_is_along_the_whitened_gradient(done, folder, tmp_path):
    """c1 with calc_grad_w: the vision tower's inputs on the retain set, without the name's pairs, whiten the gradient."""
    for name in ("Frog.tar", "train.tar"):
        shutil.copy(done / name, tmp_path / name)
    run(folder, tmp_path, "c1_unlearn_vlm", *arguments(tmp_path), "--unlearn-method", "calc_grad_w")
    record = files.read_json(tmp_path / "results/vlm/llava-Frog.json")
    (where,) = (tmp_path / "results/grads").glob("Frog_*")
    plain, whitened = (torch.load(where / f"forget_grads{end}.pt", weights_only=True) for end in ("", "_w"))
    clip = tiny.load_llava(folder).clip
    pairs = load_pairs(tmp_path / "train.tar", clip.transform)
    again = preconditioning.whitened(plain, preconditioning.moments(clip, pairs, encoder="vision"))
    assert all((whitened[n] - t).norm() <= 1e-3 * t.norm() for n, t in again.items())
    edit, header = deltas.read(tmp_path / "results/vlm" / record["delta"])
    assert record["method"] == cards.method_of(header) == "slug_w" and edit
    for name, change in edit.items():
        assert (change - record["step"] * whitened[name]).norm() <= 1e-5 * change.norm()
        assert (change - record["step"] * plain[name]).norm() >= 1e-2 * change.norm()
    run(folder, tmp_path, "c2_eval_vlm")
    assert list(pd.read_csv(tmp_path / "results/vlm/table.csv")["method"]) == ["original", "slug_w"]


def test_a_delta_goes_into_the_assistant_and_into_its_clip_and_out_again(done, folder, tmp_path):
    delta = done / "results/vlm/llava-Frog.delta.safetensors"
    for kind in ("llava", "hugging_face"):
        source = folder / kind
        tiny.run("a2_unlearn_slug", "apply", "--delta", delta, "--model-dir", source, "--out", tmp_path / kind)
        found = ModelCard.load(tmp_path / kind / cards.FILE)
        assert (
            "without Frog" in found.text and f"| `{delta.name}` | Frog |" in found.text and "forget accuracy" in found.text
        )
        back = tmp_path / f"{kind}-back"
        tiny.run("a2_unlearn_slug", "revert", "--delta", delta.name, "--model-dir", tmp_path / kind, "--out", back)
        assert files.file_hash(back / "model.safetensors") == files.file_hash(source / "model.safetensors")
        assert not (back / cards.FILE).exists()
    asked = questions.read(folder / "questions.jsonl")[:3]
    model = tiny.load_llava(folder)
    pixels = model.processor.image_processor([q.picture() for q in asked], return_tensors="pt")["pixel_values"]
    layer = model.module.config.vision_feature_layer
    towers = [
        LlavaForConditionalGeneration.from_pretrained(tmp_path / "llava").model.vision_tower,
        CLIPModel.from_pretrained(tmp_path / "hugging_face").vision_model,
    ]
    with torch.no_grad():
        states = [t.eval()(pixels, output_hidden_states=True).hidden_states[layer] for t in towers]
        original = model.module.model.vision_tower(pixels, output_hidden_states=True).hidden_states[layer]
    assert torch.allclose(*states, atol=1e-6) and not torch.allclose(states[0], original, atol=1e-4)


def test_what_is_valid_is_kept(done, folder, monkeypatch):
    def no(*_, **__):
        raise AssertionError("asked again")

    monkeypatch.setattr(vlm.Vlm, "answer", no)
    run(folder, done, "c1_unlearn_vlm", *arguments(done))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--celeb-name", "Dragon"], "forget set not found"),
        (["--questions", "nowhere.jsonl"], "questions not found"),
        (["--vlm", "nowhere/at-all"], "cannot load the model"),
    ],
)
def test_what_is_missing_is_said_in_one_line(done, folder, tmp_path, monkeypatch, capfd, more, said):
    given = [*arguments(done), *flags(folder, tmp_path), *more]
    assert said in tiny.failure(monkeypatch, capfd, "c1_unlearn_vlm", *given)


def test_records_of_other_questions_are_refused(done, folder, tmp_path, monkeypatch, capfd):
    (tmp_path / "pictures").symlink_to(folder / "pictures")
    lines = (folder / "questions.jsonl").read_text().splitlines()
    (tmp_path / "questions.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    given = [*flags(folder, done), "--questions", tmp_path / "questions.jsonl"]
    assert "records of Frog are of other weights or questions" in tiny.failure(monkeypatch, capfd, "c2_eval_vlm", *given)


def test_records_must_be_of_this_model(folder, tmp_path, monkeypatch, capfd):
    assert "c1_unlearn_vlm.py" in tiny.failure(monkeypatch, capfd, "c2_eval_vlm", *flags(folder, tmp_path))


def test_a_picture_that_is_none_is_said_in_one_line():
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    with pytest.raises(SlugError, match="cannot decode"):
        questions.Question(buffer.getvalue()[:40], "?", "a", "who").picture()
