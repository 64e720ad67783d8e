"""Models of every family: a CLIP behind one interface, and host models that contain a tower of a CLIP.

The names below come from slug.models.loading when they are first used, so that importing this package loads no library.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slug.models.clip import Clip
    from slug.models.loading import LOCAL, folder_family, from_args, from_settings, label_of, load

__all__ = ["LOCAL", "Clip", "folder_family", "from_args", "from_settings", "label_of", "load"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "Clip":
        from slug.models.clip import Clip

        return Clip
    from slug.models import loading

    return getattr(loading, name)
