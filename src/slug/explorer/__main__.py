"""Open the explorer: a page on this machine on which edits are tried out.

Example: python -m slug.explorer --model-dir data/models/mini-clip --results results/demo --pictures data/demo/celeba
For a pipeline: --model-dir data/demo/models/mini-sd --clip data/demo/models/mini-clip-hf --results results/sd
Ends with Ctrl-C.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from slug import cli, files
from slug.cli import Amount, Count, Whole, flag
from slug.errors import SlugError


@dataclass(frozen=True)
class Settings:
    """Settings of the explorer."""

    model_dir: str = flag("data/models/mini-clip", "folder of a CLIP or a pipeline")
    results: str = flag("results/demo", "folder with delta files, or one of them")
    pictures: tuple[str, ...] = flag(
        (), "labelled evaluation pictures: CelebA, ImageNet, or a folder for each name", nargs="*"
    )
    clip: str = flag("data/demo/models/mini-clip-hf", "of a pipeline: the CLIP of its text tower, a folder or an id")
    denoising_steps: Count = flag(50, "of a pipeline: denoising steps")
    guidance: Amount = flag(7.5, "of a pipeline: classifier-free guidance scale; no guidance up to 1")
    port: Whole = flag(0, "port of the page; 0 takes the first free one from 7860 on")


def main(argv: Sequence[str] | None = None) -> None:
    """Open the page and serve it until interrupted."""
    settings = cli.parse(__doc__, Settings, argv)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before Gradio is imported
    try:
        from slug.explorer import page, samples
    except ModuleNotFoundError as err:
        if err.name != "gradio":
            raise
        raise SlugError("Gradio is not installed here; bash scripts/run_explorer.sh installs it and opens the page") from err
    from slug.explorer.bench import Bench

    def bench(folder: str, results: str) -> Bench:
        if not folder.strip() or not results.strip():
            raise SlugError("give a model folder and a folder of edits")
        how = {"steps": settings.denoising_steps, "guidance": settings.guidance}
        return Bench(
            str(files.resolve(folder)), [str(files.resolve(results))], clip=str(files.resolve(settings.clip)), **how
        )

    found = [picture for place in settings.pictures for picture in samples.pictures(files.resolve(place))]
    shown = page.build(page.Session(bench, found), settings.model_dir, settings.results)
    page.serve(shown, settings.port or None)


if __name__ == "__main__":
    cli.exit_with(main)
