"""LLaVA vision-language models: answers to questions about images. SLUG edits the vision tower (see slug.models.host)."""

import copy
import functools
import re
from collections.abc import Sequence
from typing import Any, Protocol

import slug.torchvision_cpu  # noqa: F401  (before transformers)

import torch
from PIL import Image
from torch import Tensor

from slug import progress, settings, system
from slug.errors import SlugError, brief
from slug.models import folders, loading
from slug.models.canonical import VISION
from slug.models.clip import Clip
from slug.models.host import HostModel

PUBLISHED_TOKENS = 16  # of an answer, after which the published scoring cuts it
KEPT = 64  # batches whose inputs are kept: a search asks the same questions at every step


class Asked(Protocol):
    """A question about an image, and its right answer."""

    @property
    def text(self) -> str: ...

    @property
    def answer(self) -> str: ...

    @property
    def shown(self) -> bool: ...  # whether it is about an image

    def picture(self) -> Image.Image:
        """The image."""


class Vlm(HostModel):
    """A LlavaForConditionalGeneration of transformers, its processor, and the CLIP of its vision tower."""

    encoder, prefix = "vision", VISION

    def __init__(
        self, module: Any, processor: Any, clip: Clip, *, label: str, batch_size: int = 32, max_new_tokens: int = 64
    ):
        """`batch_size` is the number of questions answered at once. SlugError if the CLIP is not of the vision tower."""
        super().__init__(clip)
        self.module, self.processor, self.label = module, processor, label
        self.batch_size, self.max_new_tokens = batch_size, max_new_tokens
        self.inputs = functools.lru_cache(KEPT)(self._inputs)
        last = self._last_block()
        for name, parameter in self.tower_tensors(module.model.vision_tower, "model's vision tower").items():
            block = re.search(r"encoder\.layers\.(\d+)\.", name)
            read = int(block[1]) <= last if block else "post_layernorm" not in name
            self.tensors |= {name: parameter} if read else {}

    def _last_block(self) -> int:
        """Number of the last block that the model reads; LLaVA takes the hidden states of layer -2, not of the last one."""
        layers = self.module.config.vision_feature_layer
        count = self.module.config.vision_config.num_hidden_layers
        # hidden_states[0] is the input of the first block.
        return max(i if i >= 0 else count + 1 + i for i in ([layers] if isinstance(layers, int) else layers)) - 1

    @property
    def modules(self) -> dict[str, torch.nn.Module]:
        return {"llava": self.module}

    def prompt(self, text: str, *, shown: bool = True) -> str:
        """A question in the model's chat template, about an image or without one."""
        content = [*([{"type": "image"}] if shown else []), {"type": "text", "text": text}]
        said = [{"role": "user", "content": content}]
        return self.processor.apply_chat_template(said, add_generation_prompt=True, tokenize=False)

    def _inputs(self, asked: tuple[Asked, ...]) -> Any:
        """The model's inputs for some questions, all with images or all without: a BatchFeature of transformers, on the
        CPU."""
        texts = [self.prompt(q.text, shown=q.shown) for q in asked]
        images = {"images": [q.picture() for q in asked]} if asked[0].shown else {}
        inputs = self.processor(**images, text=texts, padding=True, return_tensors="pt")
        inputs.pop("token_type_ids", None)
        return inputs

    def answer(self, asked: Sequence[Asked], desc: str | None = None) -> list[str]:
        """The answers to some questions, by greedy decoding."""
        return self.ask(asked, desc)[0]

    def answers(self, asked: Sequence[Asked], desc: str | None = None) -> tuple[list[str], list[str]]:
        """(answers, the same cut after PUBLISHED_TOKENS tokens) of some questions, by greedy decoding.

        LLaVA-1.5's chat template is the published prompt, `USER: <image>\\n{question} ASSISTANT:`.
        """
        said, short, _ = self._ask(asked, desc)
        return said, short

    def ask(self, asked: Sequence[Asked], desc: str | None = None) -> tuple[list[str], Tensor]:
        """(answers, margins (N,)) of N questions.

        The margin of a token of the right answer is its logit minus the largest other logit. The margin of an answer is the
        least of its tokens' margins up to the first token that the model does not say; so it is above 0 if and only if
        the answer begins with the right one.
        """
        said, _, margins = self._ask(asked, desc)
        return said, margins

    @torch.inference_mode()
    def _ask(self, asked: Sequence[Asked], desc: str | None) -> tuple[list[str], list[str], Tensor]:
        """(answers, short answers, margins) as of `answers` and `ask`."""
        out, short, margins = [], [], []
        tokenizer = self.processor.tokenizer
        batches = self._batches(asked)
        for rows in progress.bar(batches, desc=desc, unit="batch", leave=False, shown=desc is not None):
            part = tuple(asked[i] for i in rows)
            # A copy, because BatchFeature.to moves the object itself.
            inputs = copy.copy(self.inputs(part)).to(self.module.device, self.module.dtype)
            how = {"do_sample": False, "max_new_tokens": self.max_new_tokens}
            made = self.module.generate(**inputs, **how, output_logits=True, return_dict_in_generate=True)
            ids = made.sequences[:, inputs["input_ids"].shape[1] :]
            out += tokenizer.batch_decode(ids, skip_special_tokens=True)
            short += tokenizer.batch_decode(ids[:, :PUBLISHED_TOKENS], skip_special_tokens=True)
            right = [tokenizer(q.answer, add_special_tokens=False).input_ids or [tokenizer.unk_token_id] for q in part]
            margins.append(_margins(torch.stack(made.logits).float().cpu(), ids.cpu(), right))
        back = torch.tensor([i for rows in batches for i in rows], dtype=torch.long).argsort()
        said = [[" ".join(texts[i].split()) for i in back.tolist()] for texts in (out, short)]
        return said[0], said[1], torch.cat(margins)[back] if margins else torch.zeros(0)

    def _batches(self, asked: Sequence[Asked]) -> list[list[int]]:
        """Indices of questions, batch by batch: those about images, then those without one."""
        parts = [[i for i, q in enumerate(asked) if q.shown == shown] for shown in (True, False)]
        return [rows[i : i + self.batch_size] for rows in parts for i in range(0, len(rows), self.batch_size)]


def _margins(logits: Tensor, said: Tensor, right: list[list[int]]) -> Tensor:
    """Margins (N,) as of Vlm.ask, by the logits (T, N, V) of the token ids said (N, T) and the ids of N right answers."""
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


def load(
    vlm: str,
    clip: str,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    device_map: str = "",  # as in transformers, e.g. "auto"; without it all is on `device`
    four_bit: bool = False,  # load the language model in 4 bits (CUDA, bitsandbytes)
    **how: Any,  # further arguments of Vlm
) -> Vlm:
    """The Vlm of a LLaVA and the CLIP of its vision tower, ids or folders. SlugError if one cannot be loaded or used."""
    from transformers import AutoProcessor, BitsAndBytesConfig, LlavaConfig, LlavaForConditionalGeneration

    loaded, local = loading.load(clip_model_id=clip, device=device), loading.local_folder(vlm)
    source, revision = loading.source_of(vlm, "the model")
    options: dict[str, Any] = {"dtype": dtype} | ({"device_map": device_map} if device_map else {})
    if four_bit:
        # The vision tower keeps its precision: its tensors are edited. The library matches whole names from their beginning.
        skip = [r"model\.vision_tower", r"model\.multi_modal_projector", "lm_head"]
        options["quantization_config"] = BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=skip)
    try:
        kind = LlavaConfig.get_config_dict(source, **revision)[0].get("model_type")
        if kind != "llava":
            raise SlugError(f"its model_type is {kind!r}; only 'llava' is supported")
        options |= {"trust_remote_code": False, **revision, "variant": folders.variant(local)}
        found: Any = LlavaForConditionalGeneration.from_pretrained(source, output_loading_info=True, **options)
        processor = AutoProcessor.from_pretrained(source, trust_remote_code=False, **revision)
    except Exception as err:  # transformers, safetensors and the hub raise many kinds; each is a bad or absent folder
        raise SlugError(f"cannot load the model {vlm}: {brief(err, 300)}") from err
    module, info = found
    folders.check_loaded(info, f"the model {vlm}")
    folders.check_finite({"": module}, f"the model {vlm}")
    if not (device_map or four_bit):
        module.to(device)
    processor.tokenizer.padding_side = "left"
    module.eval().requires_grad_(False)
    found = Vlm(module, processor, loaded, label=local.name if local else vlm, **how)
    found.origin = str(local or "")
    return found


def from_settings(which: settings.Assistant, precision: str, device: str | torch.device) -> Vlm:
    """The Vlm that the settings name; see `load`. `precision` is the dtype of its weights."""
    how: dict[str, Any] = {"device_map": which.device_map, "four_bit": which.four_bit}
    how |= {"batch_size": which.answer_batch_size, "max_new_tokens": which.max_new_tokens}
    how |= {"dtype": system.PRECISIONS[precision] or torch.float32}
    return load(which.vlm, which.clip_model_id, device=device, **how)
