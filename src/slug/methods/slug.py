"""SLUG: one step on one layer along a variant of the forget gradient (Cai, Tan, Asif; ICML 2025; arXiv 2407.11867).

Its candidates are made by a search (slug.core.slug), so there is no generator here.
"""

from slug.core import variants
from slug.methods import ASSISTANT, CLIP, PIPELINE, Method, register

PAPER = "SLUG (Cai, Tan, Asif; ICML 2025; arXiv 2407.11867)"
ALONG = {
    "": "",
    "_o": " with a contrastive forget loss",
    "_w": " along the preconditioned gradient",
    "_ws": " along the preconditioned gradient that spares the other names",
}

for place, variant in enumerate(variants.SLUG):
    along = ALONG[variant.suffix]
    hosts = (CLIP,) if variant.contrastive else (CLIP, PIPELINE, ASSISTANT)
    cited = f"{PAPER}, one step on one layer{',' if along else ''}{along}"
    register(Method(variant.slug, f"SLUG{along}", cited, hosts, rank=2 * place, variant=variant))
    if PIPELINE in hosts:
        name, cited = f"{variant.slug}_rounds", f"{PAPER} in rounds, one step on each of several layers{along}"
        register(Method(name, f"SLUG in rounds{along}", cited, (PIPELINE,), 2 * place + 1, variant=variant, rounds=True))
