"""EmojiCanvas, the embedded world: nine open icon sets in the layouts of LAION, CelebA, ImageNet and UnlearnCanvas.

These scripts run from a clone (python src/demo/build_world.py); they are not part of the installed package.
"""
