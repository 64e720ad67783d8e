"""A LLaVA behind a small interface: answers to questions about pictures, and the vision tower that SLUG edits."""

import copy
import functools
import re

import slug.torchvision_cpu  # noqa: F401  (before transformers)

import torch
from tqdm import tqdm

from slug import files, models, system
from slug.errors import SlugError, brief
from slug.models.canonical import VISION
from slug.models.host import Carrier

KEPT = 64  # batches whose inputs are kept: a search asks the same questions at every step


class Vlm(Carrier):
    """A LlavaForConditionalGeneration with the CLIP of its vision tower.

    Attributes:
        module, processor: of transformers.
    """

    encoder, prefix = "vision", VISION

    def __init__(self, module, processor, clip, *, label, batch_size=32, max_new_tokens=64):
        """Raises SlugError if the CLIP is not that of the model's tower."""
        super().__init__(clip)
        self.module, self.processor, self.label = module, processor, label
        self.batch_size, self.max_new_tokens = batch_size, max_new_tokens
        self.inputs = functools.lru_cache(KEPT)(self._inputs)
        found, last = self.tower(module.model.vision_tower, "model's vision tower"), self._last_block()
        self.tensors = {n: p for n, p in found.items() if self._reads(n, last)}

    def _last_block(self):
        """Number of the last block whose output is read: LLaVA takes the hidden states of layer -2, not the last one's."""
        layers = self.module.config.vision_feature_layer
        count = self.module.config.vision_config.num_hidden_layers
        # hidden_states[0] is what enters the first block.
        return max(i if i >= 0 else count + 1 + i for i in ([layers] if isinstance(layers, int) else layers)) - 1

    @staticmethod
    def _reads(name, last):
        block = re.search(r"encoder\.layers\.(\d+)\.", name)
        return int(block[1]) <= last if block else "post_layernorm" not in name

    @property
    def tag(self):
        """Name of the model for file names."""
        return files.safe_name(self.label)

    @property
    def modules(self):
        """See Carrier."""
        return {"llava": self.module}

    def prompt(self, text):
        """A question in the model's chat template."""
        said = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
        return self.processor.apply_chat_template(said, add_generation_prompt=True, tokenize=False)

    def _inputs(self, asked):
        """What the model is given for a tuple of questions.Question's: transformers' BatchFeature, on the CPU."""
        pictures, texts = [q.picture() for q in asked], [self.prompt(q.text) for q in asked]
        inputs = self.processor(images=pictures, text=texts, padding=True, return_tensors="pt")
        inputs.pop("token_type_ids", None)
        return inputs

    def answer(self, asked, desc=None):
        """The answers to questions.Question's, as text, by greedy decoding."""
        return self.ask(asked, desc)[0]

    @torch.inference_mode()
    def ask(self, asked, desc=None):
        """(answers, (N,) margins) to N questions.Question's: as `answer`, and by how much the logit of the right answer's
        token exceeds that of the best other one, the least over the answer's tokens up to the first that is not said: above
        0 where the answer begins with the right one."""
        out, margins = [], []
        tokenizer = self.processor.tokenizer
        starts = range(0, len(asked), self.batch_size)
        for start in tqdm(starts, desc=desc, unit="batch", leave=False, disable=desc is None):
            part = tuple(asked[start : start + self.batch_size])
            # A copy, for BatchFeature.to moves what it is called on.
            inputs = copy.copy(self.inputs(part)).to(self.module.device, self.module.dtype)
            how = {"do_sample": False, "max_new_tokens": self.max_new_tokens}
            made = self.module.generate(**inputs, **how, output_logits=True, return_dict_in_generate=True)
            ids = made.sequences[:, inputs["input_ids"].shape[1] :]
            out += tokenizer.batch_decode(ids, skip_special_tokens=True)
            right = [tokenizer(q.answer, add_special_tokens=False).input_ids or [tokenizer.unk_token_id] for q in part]
            margins.append(_margins(torch.stack(made.logits).float().cpu(), ids.cpu(), right))
        return [" ".join(text.split()) for text in out], torch.cat(margins) if margins else torch.zeros(0)


def _margins(logits, said, right):
    """(N,) margins as of Vlm.ask.

    Args:
        logits: (T, N, V), of what was said.
        said: (N, T) token ids.
        right: N lists of token ids.
    """
    found = []
    for i, tokens in enumerate(right):
        least = torch.inf
        for t, token in enumerate(tokens[: len(logits)]):
            others = logits[t, i].index_fill(0, torch.tensor([token]), -torch.inf)
            least = min(least, (logits[t, i, token] - others.max()).item())
            if said[i, t] != token:
                break
        found.append(least)
    return torch.tensor(found)


def add_flags(parser):
    """The flags that say which model is meant."""
    parser.add_argument("--vlm", default="llava-hf/llava-1.5-7b-hf", help="transformers id or folder of a LLaVA")
    parser.add_argument("--clip-model-id", default="openai/clip-vit-large-patch14-336", help="the CLIP of its vision tower")
    parser.add_argument("--four-bit", action="store_true", help="load the language model in 4 bits (CUDA, bitsandbytes)")
    parser.add_argument("--device-map", default="", help="transformers' device_map, e.g. auto; else all on --device")
    parser.add_argument("--answer-batch-size", type=int, default=32, help="questions answered at once")
    parser.add_argument("--max-new-tokens", type=int, default=64, help="of an answer, at most")


def from_args(args, device):
    """The Vlm of the flags of `add_flags`; see `load`."""
    how = {"dtype": system.PRECISIONS[args.precision] or torch.float32, "device_map": args.device_map}
    how |= {"four_bit": args.four_bit, "batch_size": args.answer_batch_size, "max_new_tokens": args.max_new_tokens}
    return load(args.vlm, args.clip_model_id, device=device, **how)


def load(vlm, clip, *, device="cpu", dtype=torch.float32, device_map="", four_bit=False, batch_size=32, max_new_tokens=64):
    """The Vlm of a LLaVA's id or folder and the CLIP of its vision tower, an id or folder.

    Args:
        device_map: transformers', e.g. "auto"; else all goes to `device`.
        four_bit: the language model in 4 bits (CUDA, bitsandbytes).
        batch_size: questions answered at once.
        max_new_tokens: of an answer, at most.
    Raises:
        SlugError: the model cannot be loaded, or the CLIP is not its own.
    """
    from transformers import AutoProcessor, BitsAndBytesConfig, LlavaForConditionalGeneration

    clip = models.load(clip_model_id=clip, device=device)
    local = files.resolve(vlm)
    source = str(local) if local.is_dir() else vlm
    how = {"dtype": dtype}
    if device_map:
        how["device_map"] = device_map
    if four_bit:
        # The tower stays as it is: its tensors are what is edited. The library matches whole names from their beginning.
        skip = [r"model\.vision_tower", r"model\.multi_modal_projector", "lm_head"]
        how["quantization_config"] = BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=skip)
    try:
        module = LlavaForConditionalGeneration.from_pretrained(source, **how)
        processor = AutoProcessor.from_pretrained(source)
    except Exception as err:  # transformers, safetensors and the hub raise many kinds; each is a bad or absent folder
        raise SlugError(f"cannot load the model {vlm}: {brief(err, 300)}") from err
    if not (device_map or four_bit):
        module.to(device)
    processor.tokenizer.padding_side = "left"
    module.eval().requires_grad_(False)
    how = {"batch_size": batch_size, "max_new_tokens": max_new_tokens}
    return Vlm(module, processor, clip, label=local.name if local.is_dir() else vlm, **how)
