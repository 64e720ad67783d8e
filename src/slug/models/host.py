"""What pipelines and assistants have in common: they hold one tower of a CLIP, and an edit is carried over to it by name."""

import torch

from slug import files
from slug.artifacts import deltas
from slug.core.edit import applied
from slug.errors import SlugError


class Carrier:
    """A model with the CLIP whose tower it uses. SLUG's gradients, fronts and steps are that CLIP's (paper, section 3).

    Attributes:
        clip: models.Clip, a Hugging Face CLIP with the same weights.
        tensors: {name in an edit: parameter of the model}: the CLIP's names of what the model reads of its tower, and
            whatever else may be edited.
    """

    encoder = ""  # which tower: vision or language
    prefix = ""  # before the CLIP's names of that tower's parameters; a lone tower may leave it out

    def __init__(self, clip):
        self.clip, self.tensors = clip, {}

    def tower(self, module, what):
        """{the CLIP's name: parameter of `module`} of the tower. SlugError if the CLIP's weights are not the tower's.

        Args:
            what: what `module` is part of, for the message.
        """
        short = {n.removeprefix(self.prefix): p for n, p in module.named_parameters()}
        names = [n for n in self.clip.parameters if n.startswith(self.prefix) and n.removeprefix(self.prefix) in short]
        found = {n: short[n.removeprefix(self.prefix)] for n in names}
        for n, p in found.items():
            own = self.clip.parameters[n]
            if p.shape != own.shape or not torch.allclose(p.float().cpu(), own.float().cpu(), atol=2e-3):
                raise SlugError(f"{self.clip.label} is not the CLIP of this {what}: {n} differs; give its own")
        if not found:
            raise SlugError(f"{self.clip.label} is not the CLIP of this {what}: no parameter has a name in common")
        return found

    @property
    def tag(self):
        """Name of the model for file names."""
        raise NotImplementedError

    @property
    def modules(self):
        """The modules that make up the model."""
        raise NotImplementedError

    @property
    def parameters(self):
        """`tensors`: what a delta of this model may edit."""
        return self.tensors

    def canonical_views(self, tensors):
        """As Clip.canonical_views: the names are canonical."""
        return tensors

    @property
    def parameter_count(self):
        """Parameters of the whole model."""
        return sum(p.numel() for m in self.modules.values() for p in m.parameters())

    def weights_hash(self):
        """Hash of all weights."""
        return files.tensor_hash({f"{k}.{n}": p for k, m in self.modules.items() for n, p in m.named_parameters()})

    def candidates(self):
        """Names of the CLIP's layers that SLUG may edit and that this model reads whole, in the model's order."""
        groups = {n: self.clip.group(n) for n, encoder in self.clip.candidates().items() if encoder == self.encoder}
        return [n for n, group in groups.items() if all(m in self.tensors for m in group)]

    def edit(self, path):
        """The edit of a delta file, on the model's device. SlugError if it is damaged, or was made for other weights."""
        found, header = deltas.read(path)
        deltas.check_base(header, {n: self.tensors[n] for n in found}, self.tag)
        return {n: change.to(self.tensors[n].device) for n, change in found.items()}

    def applied(self, edit):
        """Context within which the model carries an edit, {name of `tensors`: tensor to add}. May be nested."""
        return applied(self, edit)
