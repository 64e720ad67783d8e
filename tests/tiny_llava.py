"""An untrained LLaVA with questions, shared by the tests of assistants."""

import tiny

from slug import files
from slug.evaluation import questions

NAMES = ["Frog", "Owl", "apple", "Red Panda"]


def write(folder, clip):
    """Write llava/, whose CLIP is `clip`, a folder that is linked as hugging_face/, and questions.jsonl with images."""
    (folder / "hugging_face").symlink_to(clip)
    tiny.write_llava(folder / "llava", folder / "hugging_face")
    (folder / "pictures").mkdir()
    asked = []
    for i, name in enumerate(NAMES * 4):
        path = folder / f"pictures/{i}.png"
        path.write_bytes(tiny.jpeg(i, size=64))
        split = "validation" if i % 8 < 4 else "test"
        asked.append(questions.Question(str(path), "what is this?", name.lower(), "who", name, f"{name}/{i}", split))
        asked.append(questions.Question(str(path), "which colour is behind it?", "red", "colour", "", "", split))
    questions.write(folder / "questions.jsonl", asked)


def write_data(work):
    """Write the forget set of Frog, the retain set, and a public set of questions, MME/."""
    tiny.write_pairs(work / "Frog.tar", ["a frog", "the frog", "frog!", "my frog"])
    tiny.write_pairs(work / "train.tar", ["a dog", "a cat", "owl", "tree", "a key", "a house", "a car", "a boat"])
    (work / "MME" / "color").mkdir(parents=True)
    (work / "MME/color/1.jpg").write_bytes(tiny.jpeg(0, size=64))
    (work / "MME/color/1.txt").write_text("Is it red?\tYes\nIs it blue?\tNo\n")


def model_flags(folder, work):
    """Flags of both stages."""
    model = [
        "--vlm",
        folder / "llava",
        "--clip-model-id",
        folder / "hugging_face",
        "--questions",
        folder / "questions.jsonl",
    ]
    return [*model, "--result-dir", work / "results", "--device", "cpu", "--workers", 0]


def forget_flags(work):
    """Flags of c1_unlearn_vlm for Frog, with the data of `write_data`."""
    data = ["--tar-dir", work, "--train-data", work / "train.tar", "--batch-size", 4]
    return ["--celeb-name", "Frog", *data, "--evaluations", 2]


def forget(folder, work, *more):
    """Run c1_unlearn_vlm."""
    tiny.run("c1_unlearn_vlm", *forget_flags(work), *more, *model_flags(folder, work))


def evaluate(folder, work, *more):
    """Run c2_eval_vlm."""
    tiny.run("c2_eval_vlm", *more, *model_flags(folder, work))


def record(work):
    """The record of Frog."""
    return files.read_json(work / "results/vlm/llava-Frog.json")
