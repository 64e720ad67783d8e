"""SLUG: targeted unlearning with a single layer unlearning gradient (Cai, Tan, Asif; ICML 2025; arXiv 2407.11867).

The functions of this package's face are in slug.face; they are imported when they are first used, so that importing the
package is fast.

    model = slug.load("ViT-B-32", pretrained="laion400m_e32")
    edit = slug.forget(model, "Taylor Swift", images="photos/", retain="retain.tar")
    print(edit)
    edit.save("taylor.safetensors")
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"
__all__ = ["Edit", "apply", "forget", "load", "load_edit", "load_pipeline", "load_vlm", "revert", "seal"]

if TYPE_CHECKING:
    from slug.edits import Edit
    from slug.face import apply, forget, load, load_edit, load_pipeline, load_vlm, revert, seal


def __getattr__(name: str) -> Any:
    if name in __all__:
        from slug import face

        return getattr(face, name)
    raise AttributeError(f"module 'slug' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
