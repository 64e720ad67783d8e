"""Assemble mini-LLaVA: its projector and language model (data/models/mini-llava), and mini-CLIP's vision tower.

Example: python src/demo/convert_vlm.py
Writes data/demo/models/mini-clip-hf, the CLIP, and data/demo/models/mini-llava, a folder that transformers loads.
"""

import slug.torchvision_cpu  # noqa: F401  (before transformers)

import torch
from safetensors.torch import load_file
from transformers import LlavaProcessor

from demo import convert_clip, train_vlm
from slug import cli, files


def assemble(source, clip, out):
    """Write the model folder `out` from the parts in `source` and the vision tower of `clip`, a Hugging Face folder."""
    processor = LlavaProcessor.from_pretrained(source)
    model = train_vlm.make_model(clip, processor.tokenizer)
    state = load_file(files.existing(source / "language.safetensors", "mini-LLaVA's weights", "train it again"))
    for name, module in train_vlm.trained(model).items():
        part = {k.removeprefix(f"{name}."): t.float() for k, t in state.items() if k.startswith(f"{name}.")}
        module.load_state_dict(part)
    model.to(torch.float16)
    with files.replacing_folder(out) as temporary:
        model.save_pretrained(temporary)
        processor.save_pretrained(temporary)


def main(argv=None):
    convert_clip.put_together(__doc__, "mini-llava", "src/demo/train_vlm.py", assemble, argv)


if __name__ == "__main__":
    cli.exit_with(main)
