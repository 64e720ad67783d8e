# The embedded world, EmojiCanvas, with mini-CLIP: 2 CPU cores, no network. All other variables: scripts/profiles/base.sh.
# Any can be set from the environment, e.g. NAMES='Santa_Claus' bash scripts/run_demo.sh
# Expected on 2 cores: set-up 1 minute, the demo about 4, with baselines 15. Committed results: results/demo/README.md.
: "${OWN_PROTOCOL:=ours}" # the protocol whose results have no folder of their own
: "${PROTOCOL:=ours}" # whose rules are followed: ours, or paper for those of the published code (docs/reproduce.md)
: "${DATA_DIR:=$ROOT/data/demo}"
: "${WORKERS:=2}"

: "${MODEL:=local-dir:$ROOT/data/models/mini-clip}"
: "${NAMES:=$(sed 's/#.*//' "$ROOT/data/emoji/forget_names.txt")}" # names to forget; underscores stand for spaces
: "${KNOWN_NAMES:=$DATA_DIR/names.txt}"

: "${COMPARE_NAMES=Lion tanabata_tree}"
# The settings in the table, and as few epochs, were chosen by our rules.
: "${SETTINGS_FROM=$([ "$PROTOCOL" = paper ] || echo "$ROOT/results/demo/table.csv")}"
: "${EPOCHS:=$([ "$PROTOCOL" = paper ] && echo 10 || echo 3)}"
: "${LR:=3.2e-5 1e-4 3.2e-4}"
: "${SELECTION:=3.2 10 32}"

: "${MULTI_PART=${MULTI_METHOD:-ws}}"
: "${MULTI_METHOD:=slug_ws}"
: "${MULTI_FRONTS:=2}"
: "${MULTI_NAMES:=Elephant Frog Lion Owl Police_Officer Dove}" # two names or more, forgotten together
: "${MULTI_OBJECTS=person_swimming ribbon tanabata_tree}" # objects, likewise; empty: none
: "${MULTI_MIXTURE=Lion ribbon Owl tanabata_tree}" # both kinds, likewise; empty: none

: "${STUDY_NAMES:=$(sed 's/#.*//' "$ROOT/data/emoji/study_names.txt")}"
: "${STUDY_JOBS:=2}"
: "${LASTING_JOBS:=2}"
: "${GOLD=$(cd "$ROOT" && ls -d data/models/gold-* 2>/dev/null || true)}" # those that were trained (docs/maintain.md)
: "${ALIASES:=data/emoji/concepts.csv data/emoji/synonyms.csv}"
: "${RELEARN_LR:=1e-4}" # a tenth of mini-CLIP's in training

: "${PIPELINE:=$DATA_DIR/models/mini-sd}" # made from data/models/ by src/demo/convert_sd.py
: "${SD_CLIP:=$DATA_DIR/models/mini-clip-hf}" # the CLIP of its text tower
: "${CLASSIFIERS:=$ROOT/data/models/uncanvas}"
: "${NEVER_LEARNED:=$ROOT/data/models/mini-sd/training.json}" # style and object pairs that mini-SD never saw
: "${CANVAS_STYLES:=Noto Blob Twemoji Fluent OpenMoji EmojiOne}" # prompts are every style with every object
: "${CANVAS_OBJECTS:=airplane banana bell bicycle cactus crown guitar key rocket skull}"
: "${SD_CONCEPTS:=mushroom}" # the pipeline makes their forget sets itself
: "${SD_OTHERS:=airplane banana crown skull}" # concepts to retain while SD_CONCEPTS are forgotten
: "${DENOISING_STEPS:=20}"
: "${GUIDANCE:=1}" # up to 1: no guidance, at half the time; mini-SD needs none
: "${GENERATE_BATCH:=32}" # pictures made at once
: "${SD_METHODS:=slug_w slug_w_rounds uce esd}"
: "${SD_JOBS:=2}"
: "${MULTI_STYLES:=Noto EmojiOne Blob}" # forgotten together by run_uncanvas_multi.sh
: "${MULTI_SD_OBJECTS:=bell rocket skull}"
: "${TOKEN_STYLES:=Noto EmojiOne}"
: "${TOKEN_OBJECTS:=bell rocket skull}"
: "${TOKEN_RETAIN_LR:=1e-4}"
: "${TOKEN_WORDS:=data/emoji/other_words.csv}"

: "${VLM:=$DATA_DIR/models/mini-llava}" # made from data/models/ by src/demo/convert_vlm.py
: "${VLM_CLIP:=$DATA_DIR/models/mini-clip-hf}" # the CLIP of its vision tower
: "${VLM_NAMES:=Elephant Frog Lion Owl Police_Officer}"
: "${VLM_METHOD:=slug_w}"
: "${VLM_JOBS:=2}"
: "${ANSWER_BATCH:=64}"
: "${ANSWER_TOKENS:=16}"
