"""Does an optimised prompt token bring back what b2_unlearn_sd.py took out? (textual inversion; see slug.inversion)

Example: python src/sd/b4_optimised_tokens.py --style Van_Gogh --object Dogs --prompts data/UnlearnCanvas/prompts.csv
For the original pipeline and for every record of the concepts, the embedding of "*" is trained on pictures that the original
made of the concept; then the test split's prompts are drawn with "*" in the concept's place. The share that the classifier
takes for the concept stands beside the share for its name. Writes tokens.csv and tokens.md to results/uncanvas/, or --out.
"""

import pandas as pd
from tqdm import tqdm

from slug import cli, files
from slug.artifacts import canvas_records, deltas
from slug.core.edit import applied
from slug.data.names import plain_name
from slug.errors import SlugError
from slug.evaluation import canvas_classifiers, canvas_prompts, inversion, unlearncanvas
from slug.models import diffusion
from slug.reports import markdown, pipelines

FIRST_SEED, TIMES = 7000, 4  # of the pictures that a token is trained on, TIMES a cell; neither half has them
START = {"style": "style", "object": "thing"}  # words that a token starts from


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    diffusion.add_flags(parser)
    canvas_prompts.add_concept_flags(parser)
    parser.add_argument("--prompts", default="data/UnlearnCanvas/prompts.csv", help="CSV of the prompts and their seeds")
    parser.add_argument("--classifiers", default="data/UnlearnCanvas/classifiers", help="folder of both classifiers")
    parser.add_argument("--training-steps", type=int, default=200, help="of a token")
    parser.add_argument("--rate", type=float, default=0.01, help="learning rate of a token")
    parser.add_argument("--out", default="", help="folder to write; else results/uncanvas")
    parser.add_argument("--readme", default="", help="Markdown file whose tokens block is filled")
    return parser.parse_args(argv)


def shown(pipeline, classifiers, mine, kind, prompts):
    """How many of the pictures of `prompts` (in the seeds of the Requests `mine`) the classifier takes for the concept."""
    images = pipeline.generate(prompts, [r.seed for r in mine])
    return int(unlearncanvas.correct(mine, classifiers.logits(images), classifiers.labels)[kind].sum())


def main(argv=None):
    args = parse_args(argv)
    device = cli.settle(args)
    results = cli.check_result_dir(args)
    out = files.check_writable(args.out or results / "uncanvas")
    pipeline = diffusion.from_args(args, device)
    classifiers = canvas_classifiers.load_classifiers(args.classifiers, device)
    asked = canvas_prompts.read_requests(args.prompts)
    records = canvas_records.read_records(results / "sd", pipeline.tag, pipeline.hash(), args.prompts)
    edited = {(r["kind"], r["name"]) for r in records}
    every = [(k, n) for k, names in canvas_prompts.names_of(asked).items() for n in names]
    concepts = canvas_prompts.concepts(args) or [(k, n) for k, n in every if (k, plain_name(n)) in edited]
    lacks = [n for k, n in concepts if (k, plain_name(n)) not in edited]
    if lacks:
        raise SlugError(f"no record of {', '.join(lacks)} in {results / 'sd'}; run b2_unlearn_sd.py for them first")
    rows = []
    for kind, name in concepts:
        own = [r for r, mine in zip(asked, canvas_prompts.shows(kind, name, asked), strict=True) if mine]
        cells = list(dict.fromkeys(r._replace(split="validation", seed=0) for r in own))
        wanted = [r._replace(seed=FIRST_SEED + i) for i, r in enumerate(cells * TIMES)]
        latents = pipeline.latents([r.prompt for r in wanted], [r.seed for r in wanted])
        training = [inversion.prompt_with(r, kind) for r in wanted]
        test_split = [r for r in own if r.split == "test"]
        if not test_split:
            raise SlugError(f"the prompts' test split has none of the {kind} {name}; make other prompts")
        states = {"original": {}}
        for record in (r for r in records if (r["kind"], r["name"]) == (kind, plain_name(name))):
            states[record["method"]] = deltas.of_model(pipeline, results / "sd" / record["delta"])
        for method, edit in tqdm(states.items(), desc=f"{name}: tokens", unit="pipeline"):
            with applied(pipeline, edit):
                by_name = shown(pipeline, classifiers, test_split, kind, [r.prompt for r in test_split])
                how = {"steps": args.training_steps, "rate": args.rate, "seed": args.seed}
                vector = inversion.learn(pipeline, training, latents, start=START[kind], **how)
                with inversion.spoken(pipeline, vector):
                    prompts = [inversion.prompt_with(r, kind) for r in test_split]
                    by_token = shown(pipeline, classifiers, test_split, kind, prompts)
            row = {"method": method, "kind": kind, "name": plain_name(name), "n": len(test_split)}
            rows.append(row | {"by_name": by_name, "by_token": by_token, "seed": args.seed})
    frame = pd.DataFrame(rows)
    files.write_text(out / "tokens.csv", frame.to_csv(index=False, lineterminator="\n"))
    markdown.publish(out / "tokens.md", pipelines.tokens(frame), "tokens", args.readme)


if __name__ == "__main__":
    cli.exit_with(main)
