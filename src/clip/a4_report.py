"""Fold the records of results/clip into table.csv and report.md, and print the table.

Example: python src/clip/a4_report.py --result-dir results            writes results/clip/report/
         python src/clip/a4_report.py --out results/demo --readme README.md    also copies plots and logs, fills README
"""

import shutil

from slug import cli, files, records, report
from slug.errors import SlugError


def parse_args(argv=None):
    parser = cli.parser(__doc__)
    parser.add_argument("--out", default="", help="folder to write; default {result-dir}/clip/report")
    parser.add_argument("--readme", default="", help="Markdown file whose results block is filled from the table")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    source = files.resolve(args.result_dir) / "clip"
    out = files.resolve(args.out) if args.out else source / "report"
    found = records.read_all(source)
    if not found:
        raise SlugError(f"no records in {source}; make them with: bash scripts/run_clip_slug.sh")
    frame = report.write(out, report.table(found))
    if args.out:  # a folder that is read without the run it came from: its pictures, logs and deltas go along
        for record in found:
            label, name = record["model"], record["name"]
            parts = [p.name for p in source.glob(records.file_name(label, name, ".png", part="*"))]
            for file in [
                *parts,
                *(records.file_name(label, name, e) for e in (".json", "-steps.csv", ".delta.safetensors")),
            ]:
                shutil.copyfile(source / file, out / file)
        for path in source.glob("*-important_layers.txt"):
            shutil.copyfile(path, out / path.name)
    if args.readme:
        readme = files.existing(args.readme, "README", "give --readme")
        block = "\n\n".join([report.pooled(frame), report.means_table(frame), report.names_table(frame)])
        text = report.update_block(readme.read_text(encoding="utf-8"), "results", block)
        by_known = sorted(found, key=lambda r: r["halves"]["report"]["original"]["forget_acc1"])
        shown = [{r["kind"]: r for r in by_known}[k] for k in ("identity", "object") if any(r["kind"] == k for r in found)]
        links = [
            f"![{r['name']} before and after](results/demo/{records.file_name(r['model'], r['name'], '.png', 'pictures')})"
            for r in shown
        ]
        files.write_text(readme, report.update_block(text, "pictures", "\n\n".join(links)))
    print(report.means_table(frame))
    print(report.names_table(frame))
    print(report.pooled(frame))
    print("winner layers: " + ", ".join(f"{r['name']} {r['layer']}" for r in found))
    print(f"table and report: {out}; pictures: {source}/*.png")


if __name__ == "__main__":
    cli.exit_with(main)
