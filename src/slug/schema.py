"""Column names and fixed words of the tables and records on disk: what writers and readers of results agree on."""

from typing import Any

from slug import files

ORIGINAL = "original"  # the unedited model in a table's `method` column
SPLITS = ("validation", "test")
WAYS = ("sum", "assigned", "joint")  # to put edits of a pipeline together: `method` of multi.csv, beside baselines
KINDS = ("identity", "object", "style", "group")
TASKS = ("identities", "objects")  # retained tasks of a CLIP
# Tasks of pictures that nobody labelled: the names that are forgotten, the unedited model's own answers, pairs' captions.
NAMES, AGREEMENT, PAIRS = "names", "agreement", "pairs"

LOOKS = "looks"  # folder of JSON files beside records, {model}-{name}.json: what a page shows of a name besides its record

FIGURES = ("forget_acc1", "identities_acc1", "objects_acc1", "n_forget")  # every state of a record has these
CHANGES = tuple(f"{task}_change{end}" for task in TASKS for end in ("", "_low", "_high"))

CLIP_COLUMNS = (  # results/clip/report/table.csv
    "method name kind model layer step forget_acc1 forget_acc5 identities_acc1 objects_acc1 n_forget n_identities n_objects "
    "mia_mean mia_std seconds peak_mem_mb params_touched delta_bytes n_drawings n_candidates split seed "
    "forget_upper forget_seen_acc1 forget_unseen_acc1 n_forget_unseen mia_others_mean mia_others_std "
    "identities_change identities_change_low identities_change_high objects_change objects_change_low "
    "objects_change_high forget_vision_acc1 forget_language_acc1 relative_step params_share gradient_s shared_s search_s "
    "inside_grid protocol"
).split()
CANVAS_COLUMNS = (  # results/uncanvas/table.csv
    "method kind name UA IRA CRA FID seconds peak_mem_mb storage_bytes n_images params_share layer step n_candidates seed "
    "inside_grid n_black protocol"
).split()
ASSISTANT_COLUMNS = (  # results/vlm/table.csv
    "method name layer step forget_acc forget_unseen_acc retain_acc identities_acc identities_unseen_acc objects_acc "
    "utility_acc n_forget n_forget_unseen n_retain n_identities n_identities_unseen n_objects n_utility n_drawings "
    "n_pictures forget_upper identities_change identities_change_low identities_change_high objects_change "
    "objects_change_low objects_change_high utility_change utility_change_low utility_change_high said_instead "
    "commonest_share known_share seconds peak_mem_mb storage_bytes params_share n_candidates seed protocol "
    "forget_published_acc retain_published_acc utility_published_acc forget_unseen_published_acc forget_all_published_acc "
    "forget_all_acc identities_all_acc n_forget_all n_identities_all n_drawings_unseen n_pictures_unseen "
    "forget_unseen_upper n_drawings_all n_pictures_all forget_all_upper identities_unseen_change "
    "identities_unseen_change_low identities_unseen_change_high identities_all_change identities_all_change_low "
    "identities_all_change_high"
).split()
DURABILITY_COLUMNS = (  # the table of verdicts
    "test method names value correct n low high original back back_low back_high identities objects verdict"
).split()

# Gradients of the first pairs, in a name's folder: cosines with those of all pairs, and Pareto fronts (samples 0: of all).
SAMPLES, SAMPLE_FRONTS = "samples.csv", "samples-fronts.csv"
SAMPLES_COLUMNS = ("name", "protocol", "side", "samples", "pairs", "layer", "cosine")
SAMPLE_FRONTS_COLUMNS = ("name", "protocol", "samples", "encoder", "layer", "importance", "alignment", "on_front")
ALL_LAYERS = "all"  # in place of a layer: all gradients as one vector

# Endings of a method's name in tables.
ADAPTER = "_lora"  # the edit as a LoRA adapter
REVERTED = "_without"  # one edit of a sum was reverted

# Tests of durability, in the order of tables.
EDIT, QUANTISED, RELEARNED = "edit", "quantisation", "relearning"
PROBE, SPELLING, STYLE, ARITHMETIC = "linear probe", "other spelling", "drawing style", "concept arithmetic"
MERGED = "merged back"
TESTS = (EDIT, QUANTISED, MERGED, RELEARNED, PROBE, SPELLING, STYLE, ARITHMETIC)
GOLD = "gold"  # in place of a method: a model that never saw the name
NOT_TOLD = "not told"  # the style of a picture whose group names none

# Variants of the study of the paper's claims, in the order of tables. Each differs from the standard in one choice.
STANDARD = "standard"
STUDY_VARIANTS = {
    STANDARD: "the best step of one layer, from both Pareto fronts",
    "front_together": "all layers of both Pareto fronts by one step",
    "all_together": "all layers by one step",
    "importance": "layers ranked by importance only",
    "alignment": "layers ranked by alignment only",
    "vision": "vision Pareto front only",
    "language": "language Pareto front only",
    "first_tenth": "first step x 0.1",
    "first_tenfold": "first step x 10",
    "bracket": "the published search of the step",
    "evaluations_5": "5 evaluations on each layer",
    "evaluations_20": "20 evaluations on each layer",
    "renderings_1": "forget set: 1 rendering of each drawing",
    "renderings_5": "forget set: 5 renderings of each drawing",
    "drawings_1": "forget set: all renderings of 1 drawing",
    "drawings_2": "forget set: all renderings of 2 drawings",
    "retain_10": "10% of the retain set",
    "retain_30": "30% of the retain set",
    "retain_30_again": "another 30% of the retain set",
    "deepest": "the deepest layer that forgets",
    "rounds_3": "three layers in turn, a third of the way each, with gradients taken anew",
}


def is_slug(method: str) -> bool:
    """Whether a method is SLUG or one of its variants, whose steps are searched; slug_null is a baseline."""
    first, *rest = method.split("_")
    return first == "slug" and rest[:1] != ["null"]


def layer_label(layer: str) -> str:
    """A layer's name, shortened: `visual.transformer.resblocks.9.attn.out_proj.weight` becomes `9.attn.out_proj`."""
    name = layer.removesuffix(".weight")
    for part in ("visual.", "transformer.", "resblocks.", "vision_model.", "text_model.", "encoder.", "layers."):
        name = name.replace(part, "")
    return name.replace("in_proj_weight", "in_proj").replace("self_attn", "attn") or layer


def note(record: dict[str, Any]) -> str:
    """A second line for the terminal where a record does not show that its name was forgotten; else nothing."""
    return f"\nnote: {record['name']}, {record['method']}: {record['caveat']}" if record.get("caveat") else ""


def file_name(label: str, name: str, end: str, part: str = "") -> str:
    """Name of a result file: `{model}-{name}{end}`, or `{model}-{part}-{name}{end}`."""
    middle = f"-{part}" if part else ""
    return f"{files.safe_name(label)}{middle}-{files.name_stem(name)}{end}"


def record_file(record: dict[str, Any]) -> str:
    """Name of a record's own file."""
    part = "" if is_slug(record["method"]) else record["method"]
    return file_name(record["model"], record["name"], ".json", part)


def steps_file(record: dict[str, Any]) -> str:
    """Name of the CSV of a record's candidates, the unedited model first."""
    return record_file(record).removesuffix(".json") + "-steps.csv"
