"""Small models and pairs, and how a test runs a stage: shared by several test files.

PYTHONPATH=src python tests/tiny.py trains tests/taught-clip.safetensors anew, in half a minute.
"""

import importlib.util
import io
import json
import math
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

import slug.torchvision_cpu  # noqa: F401  (before open_clip)

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from demo import build_standin, build_world, convert_clip, tokenizer
from slug import cli, models
from slug.data import evaluation_sets, preparation
from slug.data.pairs import Pairs

ROOT = Path(__file__).resolve().parents[1]
FAMILIES = ("open_clip", "hugging_face")
TAUGHT = ROOT / "tests" / "taught-clip.safetensors"
# A world of 4 identities, 4 wide objects and 4 other objects: build_world.build(out, limit=LIMIT, counts=COUNTS).
LIMIT = 4
COUNTS = build_world.Counts(
    retain=96,
    often=24,
    seldom=6,
    shard=80,
    identity_unseen=4,
    identity_seen=2,
    wide_unseen=4,
    wide_seen=2,
    object_unseen=3,
    object_seen=2,
    canvas_objects=3,
    canvas=2,
    canvas_reference=1,
    membership=40,
)


# ------------------------------------------------------------------------------------------------------------- models


def write_random_clip(folder, *, seed=0, dtype=torch.float32):
    """Write an untrained open_clip ViT of two layers to folder/open_clip and, converted, to folder/hugging_face."""
    out = folder / "open_clip"
    text = {"context_length": tokenizer.CONTEXT, "width": 32, "heads": 2, "layers": 2, "vocab_size": tokenizer.build(out)}
    vision = {"image_size": 64, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": text | {"hf_tokenizer_name": "mini-clip"}}
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    (out / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = open_clip.CLIP(embed_dim=24, vision_cfg=vision, text_cfg=text)
        # Every parameter away from its first value, so that no bias is zero and no norm is one.
        weights = {n: (p + 0.02 * torch.randn_like(p)).detach() for n, p in module.named_parameters()}
    write_weights(folder, weights, dtype)


def write_weights(folder, weights, dtype):
    """Put open_clip weights into folder/open_clip, whose settings are there, and convert it to folder/hugging_face."""
    weights = {n: w.to(dtype).contiguous() for n, w in weights.items()}
    save_file(weights, folder / "open_clip" / "open_clip_model.safetensors")
    convert_clip.convert(folder / "open_clip", folder / "hugging_face")


def teach(folder, world, *, steps=250):
    """Train the model in `folder` on the world's evaluation pictures and rewrite it, in fp16."""
    clip = load(folder)
    identities = evaluation_sets.load_celeba(world / "celeba", clip.transform)
    objects = evaluation_sets.load_imagenet(world / "ImageNet" / "val", clip.transform)
    names = identities.names + objects.names
    images = torch.cat([identities.images, objects.images])
    labels = torch.cat([identities.labels, objects.labels + len(identities.names)])
    tokens = [clip.tokenize([t.format(n) for n in names]) for t in ("{}.", "a photo of a {}.", "{}", "picture of {}")]
    weights = clip.parameters
    g = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW([p.requires_grad_(True) for p in weights.values()], lr=2e-3)
    for step in range(steps):
        rows = torch.randint(len(labels), (64,), generator=g)
        cosines = clip.encode_image(images[rows]) @ clip.encode_text(tokens[step % len(tokens)]).T
        optimiser.zero_grad()
        # Smoothed labels: a model that is surer of its twelve names forgets none of them by one step.
        torch.nn.functional.cross_entropy(10 * cosines, labels[rows], label_smoothing=0.2).backward()
        optimiser.step()
    write_weights(folder, {n: p.detach() for n, p in weights.items()}, torch.float16)


def write_taught_clip(folder):
    """As write_random_clip, with the weights of TAUGHT: a model trained anew differs from one processor to the next by so
    much that a test of what it forgets would be of another model on each."""
    write_random_clip(folder)
    write_weights(folder, load_file(TAUGHT), torch.float16)


def train_taught_clip():
    """Write TAUGHT, with one thread: the last bits depend on their number."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        world, folder = Path(scratch) / "world", Path(scratch) / "clip"
        build_world.build(world, limit=LIMIT, counts=COUNTS)
        write_random_clip(folder)
        teach(folder, world)
        save_file(load_file(folder / "open_clip" / "open_clip_model.safetensors"), TAUGHT)


def _vae_and_unet(width, **more):
    """(VAE, UNet) of an untrained pipeline of 16 px whose text encoders give hidden states of this width; `more` is of the
    UNet."""
    import diffusers

    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            layers_per_block=1,
            norm_num_groups=4,
            sample_size=16,
        )
        unet = diffusers.UNet2DConditionModel(
            sample_size=8,
            down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",),
            block_out_channels=(16,),
            layers_per_block=1,
            cross_attention_dim=width,
            attention_head_dim=8,
            norm_num_groups=4,
            **more,
        )
    return vae, unet


def write_pipeline(folder, clip):
    """Write an untrained StableDiffusionPipeline of 16 px whose text tower is that of a Hugging Face CLIP folder."""
    import diffusers
    from transformers import CLIPTextModel, CLIPTokenizer

    text = CLIPTextModel.from_pretrained(clip)
    vae, unet = _vae_and_unet(text.config.hidden_size)
    scheduler = diffusers.DPMSolverMultistepScheduler(prediction_type="v_prediction")
    diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=CLIPTokenizer.from_pretrained(clip),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def write_pipeline_xl(folder, clip, clip_2):
    """Write an untrained StableDiffusionXLPipeline of 16 px with the text encoders of two Hugging Face CLIP folders."""
    import diffusers
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    texts = [CLIPTextModel.from_pretrained(clip), CLIPTextModelWithProjection.from_pretrained(clip_2)]
    vae, unet = _vae_and_unet(
        sum(t.config.hidden_size for t in texts),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=texts[1].config.projection_dim + 6 * 8,
    )
    diffusers.StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=texts[0],
        text_encoder_2=texts[1],
        tokenizer=CLIPTokenizer.from_pretrained(clip),
        tokenizer_2=CLIPTokenizer.from_pretrained(clip_2),
        unet=unet,
        scheduler=diffusers.EulerDiscreteScheduler(),
        add_watermarker=False,
    ).save_pretrained(folder)


def load_pipeline(folder, pipeline="pipeline", **more):
    """The models.diffusion.Diffusion of folder/pipeline and folder/hugging_face."""
    from slug.models import diffusion

    clip = models.load(clip_model_id=str(folder / "hugging_face"))
    return diffusion.load(str(folder / pipeline), clip, **({"steps": 3, "guidance": 3.0, "batch_size": 4} | more))


def load_pipeline_xl(folder, pipeline="pipeline", **more):
    """The models.sdxl.DiffusionXL of folder/pipeline, folder/first and folder/second."""
    from slug.models import sdxl

    places = (str(folder / name) for name in (pipeline, "first", "second"))
    return sdxl.load(*places, **({"steps": 3, "guidance": 3.0, "batch_size": 4} | more))


def write_llava(folder, clip):
    """Write an untrained LLaVA, with its processor, whose vision tower is that of a Hugging Face CLIP folder."""
    from demo import emoji, train_vlm

    processor = train_vlm.make_processor(clip, emoji.concepts())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        train_vlm.make_model(clip, processor.tokenizer).save_pretrained(folder)
    processor.save_pretrained(folder)


def load_llava(folder):
    """The models.vlm.Vlm of folder/llava and folder/hugging_face."""
    from slug.models import vlm

    return vlm.load(str(folder / "llava"), str(folder / "hugging_face"), batch_size=8)


def strong_edit(host, name):
    """An edit of one parameter of a models.host.HostModel, as large as it is itself."""
    g = torch.Generator().manual_seed(0)
    p = host.tensors[name]
    return {name: torch.randn(p.shape, generator=g) * (p.norm() / math.sqrt(p.numel()) + 0.1)}


def write_classifiers(folder, labels, images=None):
    """Write untrained style and object classifiers of 16 px; of `images` (N, 3, 16, 16) they say now this, now that."""
    import timm

    options = {"channels": [8, 8, 8, 8], "stem_width": 8}
    settings = {"arch": "resnet10t", "options": options, "labels": labels, "mean": [0.5] * 3, "std": [0.5] * 3, "size": 16}
    folder.mkdir(parents=True)
    (folder / "classifiers.json").write_text(json.dumps(settings))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for kind, names in labels.items():
            network = timm.create_model("resnet10t", num_classes=len(names), **options).eval()
            if images is not None:
                with torch.no_grad():
                    network.fc.bias -= network((images / 255 - 0.5) / 0.5).median(0).values
            save_file(network.state_dict(), folder / f"{kind}.safetensors")


def load(folder, family="open_clip"):
    """The models.Clip of one family in a folder of `write_random_clip`."""
    return load_folder(folder / family)


def load_folder(folder):
    """The models.Clip of a model folder of either family."""
    if (folder / "open_clip_config.json").is_file():
        return models.load(f"{models.LOCAL}{folder}")
    return models.load(clip_model_id=str(folder))


def pairs(n, *, seed=0, names=("alien", "ant", "baby", "a bento box", "black nib on a table")):
    """data.Pairs of n random pictures with captions of unequal length."""
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (n, 3, 64, 64), dtype=torch.uint8, generator=g)
    return Pairs(images, [f"{names[i % len(names)]} {i}" for i in range(n)], [str(i) for i in range(n)], 0)


def features(clip, batch):
    """Unit features of a data.Pairs: (images, texts)."""
    with torch.no_grad():
        return clip.encode_image(batch.images), clip.encode_text(clip.tokenize(batch.captions))


def same_tensors(a, b):
    """Whether two {name: tensor} have the same names, dtypes and bits."""
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)


# --------------------------------------------------------------------------------------------------------------- data


def jpeg(colour, size=64, kind="JPEG"):
    """Bytes of a picture of one colour with some noise, so that it does not compress to nothing."""
    noise = np.random.default_rng(colour).integers(0, 40, (size, size, 3))
    out = io.BytesIO()
    Image.fromarray((noise + colour % 200).astype(np.uint8)).save(out, kind)
    return out.getvalue()


def write_file(path, content):
    """Write bytes to a file, in a folder that is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_tar(path, members):
    """Write {member name: bytes} as a tar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def write_shard(folder, number, captions, *, broken=(), failed=()):
    """Write a LAION-style shard; keys are {number}{row}."""
    rows, members = [], {}
    for i, caption in enumerate(captions):
        key = f"{number:05d}{i:04d}"
        rows.append({"key": key, "caption": caption, "status": "failed_to_download" if i in failed else "success"})
        if i not in failed:
            image = jpeg(i)
            members |= {f"{key}.jpg": image[: len(image) // 2] if i in broken else image, f"{key}.txt": caption.encode()}
    write_tar(folder / f"{number:05d}.tar", members)
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{number:05d}.parquet")


def write_pairs(path, captions, *, broken=()):
    """Write a tar of pairs."""
    members = {}
    for i, caption in enumerate(captions):
        members |= {f"{i}.jpg": jpeg(i)[: 300 if i in broken else None], f"{i}.txt": caption.encode()}
    write_tar(path, members)


PEOPLE = ["Ann_Bo"] * 5 + ["Cy_Do_(actor)"] * 6 + ["Ed Fox"] * 4 + ["Gil_Ho"] * 3 + ["Ivy_Jo"] * 4 + ["Kay_Lo"]


def write_celeba(root, people=PEOPLE, *, left_out=(), numbers=None):
    """A CelebA folder; picture n (from 1) shows people[n - 1]."""
    (root / "img_align_celeba").mkdir(parents=True)
    images = [f"{n:06d}.jpg" for n in range(1, len(people) + 1)]
    for n, image in enumerate(images, 1):
        if n not in left_out:
            (root / "img_align_celeba" / image).write_bytes(jpeg(n))
    lines = [str(len(people)), "image_id identity_name", *(f"{i} {p}" for i, p in zip(images, people, strict=True))]
    (root / "list_identity_celeba.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if numbers:
        lines = [f"{i} {n}\n" for i, n in zip(images, numbers, strict=True)]
        (root / "identity_CelebA.txt").write_text("".join(lines))


def write_named_world(out, world):
    """A copy of a world, two of whose objects are called as classes of ImageNet are."""
    shutil.copytree(world, out)
    table = out / "ImageNet" / "classes.csv"
    head, first, second, *rest = table.read_text().splitlines()
    first, second = (f"{line.split(',')[0]},{name},0" for line, name in ((first, "banana"), (second, "lemon")))
    table.write_text("\n".join([head, first, second, *rest]) + "\n")


def write_standin(out, world):
    """A repository with stand-ins of the downloads, unpacked as README's chapter says; returns its data folder."""
    build_standin.build(out, world)
    root = out / "data"
    imagenet = root / "ImageNet"
    archives = imagenet / "ILSVRC2012_img_val.tar", imagenet / "ILSVRC2012_devkit_t12.tar.gz"
    preparation.unpack_imagenet(*archives, imagenet / "val", checksum=False)
    shutil.unpack_archive(root / "celeba" / "img_align_celeba.zip", root / "celeba")
    preparation.write_identities(root / "celeba", preparation.choose_identities(root / "celeba").chosen)
    return root


# ------------------------------------------------------------------------------------------------------------- stages


def stage(name):
    """The module of a stage script, src/{clip,sd,vlm}/{name}.py."""
    path = ROOT / "src" / {"a": "clip", "b": "sd", "c": "vlm"}[name[0]] / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"stage_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def script(name):
    """The module of a Python script, scripts/{name}.py."""
    spec = importlib.util.spec_from_file_location(name.rpartition("/")[2], ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name, *arguments):
    """Run a stage in this process."""
    stage(name).main([str(a) for a in arguments])


def failure(monkeypatch, capfd, name, *arguments):
    """Run a stage that must fail as a user would see it; returns its one line of error."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    capfd.readouterr()
    try:
        cli.exit_with(stage(name).main)
    except SystemExit as end:
        assert end.code == 2
    else:
        raise AssertionError(f"{name} did not fail")
    lines = [line for line in capfd.readouterr().err.replace("\r", "\n").splitlines() if "error: " in line]
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


def left_over(folder):
    """What a run that was stopped would leave: temporary files and folders."""
    return [p for p in folder.rglob("*") if p.name.endswith((".part", ".old", ".writable"))]


if __name__ == "__main__":
    train_taught_clip()
