"""Assemble mini-SD: its VAE, UNet and scheduler (data/models/mini-sd), and mini-CLIP's text tower and tokenizer.

Example: python src/demo/convert_sd.py
Writes data/demo/models/mini-clip-hf, the CLIP, and data/demo/models/mini-sd, a folder that diffusers loads.
"""

import slug.torchvision_cpu  # noqa: F401  (before diffusers and transformers)

import diffusers
import torch
from transformers import CLIPTextModel, CLIPTokenizer

from demo import convert_clip
from slug import cli, files


def assemble(source, clip, out):
    """Write the pipeline folder `out` from the parts in `source` and the text tower of `clip`, a Hugging Face folder."""
    split = {"torch_dtype": torch.float16}
    pipe = diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL.from_pretrained(source / "vae", **split),
        text_encoder=CLIPTextModel.from_pretrained(clip, dtype=torch.float16),
        tokenizer=CLIPTokenizer.from_pretrained(clip),
        unet=diffusers.UNet2DConditionModel.from_pretrained(source / "unet", **split),
        scheduler=diffusers.DPMSolverMultistepScheduler.from_pretrained(source / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    with files.replacing_folder(out) as temporary:
        pipe.save_pretrained(temporary)


def main(argv=None):
    convert_clip.put_together(__doc__, "mini-sd", "src/demo/train_sd.py", assemble, argv)


if __name__ == "__main__":
    cli.exit_with(main)
