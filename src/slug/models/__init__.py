"""Models of every family: a CLIP behind one interface, and host models that contain a tower of a CLIP."""

from slug.models.loading import LOCAL, from_settings, label_of, load

__all__ = ["LOCAL", "from_settings", "label_of", "load"]
